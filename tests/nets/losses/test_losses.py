"""Losses and initialisation against the original implementation."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.discriminators.patch import MultiscaleDiscriminator, PatchDiscriminator
from nets.generators.pix2pixhd import ResnetGenerator
from nets.layers.init import init_normal
from nets.layers.norms import InstanceNorm, Norm, build_norm
from nets.losses import losses
from tests.nets.rule import image, recorded


def features(kind: str) -> list[list[Tensor]]:
    """Made-up outputs of two discriminators, "real" or "fake"."""
    scales = recorded("functions")["gan_loss_hd"]["shapes"]
    return [
        [image(f"fn/{kind}/{i}/{j}", shape).double() for j, shape in enumerate(layers)]
        for i, layers in enumerate(scales)
    ]


def test_lsgan() -> None:
    expected = recorded("functions")["gan_loss_hd"]
    fake, real = ([layers[-1] for layers in features(kind)] for kind in ("fake", "real"))
    as_generator = sum(losses.generator_loss(scores, "lsgan") for scores in fake)
    on_fake = sum(losses.discriminator_loss(scores, False, "lsgan") for scores in fake)
    on_real = sum(losses.discriminator_loss(scores, True, "lsgan") for scores in real)
    assert as_generator.item() == pytest.approx(expected["lsgan_fake_vs_real_target"], rel=1e-12)
    assert on_fake.item() == pytest.approx(expected["lsgan_fake_vs_fake_target"], rel=1e-12)
    assert on_real.item() == pytest.approx(expected["lsgan_real_vs_real_target"], rel=1e-12)


def test_bce_takes_logits() -> None:
    expected = recorded("functions")["gan_loss_hd_bce_on_probabilities"]
    scores = [layers[-1] for layers in features("fake")]
    as_real = sum(losses.discriminator_loss(score, True, "bce") for score in scores)
    as_fake = sum(losses.discriminator_loss(score, False, "bce") for score in scores)
    assert as_real.item() == pytest.approx(expected["true"], rel=1e-7)
    assert as_fake.item() == pytest.approx(expected["false"], rel=1e-7)
    assert sum(losses.generator_loss(score, "bce") for score in scores) == as_real


def test_the_losses_of_cyclegan() -> None:
    scores = image("fn/fake/0/4", (1, 1, 5, 6)).double()
    expected = recorded("functions")["gan_loss_cg"]
    for kind, original in (("lsgan", "lsgan"), ("bce", "vanilla")):
        for real, name in ((True, "true"), (False, "false")):
            loss = losses.discriminator_loss(scores, real, kind).item()
            assert loss == pytest.approx(expected[original][name], rel=1e-7)
        assert losses.generator_loss(scores, kind).item() == pytest.approx(
            expected[original]["true"], rel=1e-7
        )


@pytest.mark.parametrize("num_layers", [1, 2, 3, 5])
def test_feature_matching_weighs_by_the_depth(num_layers: int) -> None:
    """The original multiplies each layer's mean distance by 4 / (n_layers_D + 1)."""
    network = MultiscaleDiscriminator(3, ndf=2, num_layers=num_layers, num_scales=1).double()
    real, fake = (network(image(f"fm/{i}", (1, 3, 64, 96)).double())[0] for i in range(2))
    assert len(real) == num_layers + 2
    distances = [(f - r).abs().mean().item() for f, r in zip(fake[:-1], real[:-1], strict=True)]
    expected = sum(distances) * 4 / (num_layers + 1)
    assert losses.feature_matching(fake, real).item() == pytest.approx(expected, rel=1e-12)


def test_hinge() -> None:
    scores = torch.tensor([-2.0, 0.5, 3.0])
    assert losses.discriminator_loss(scores, True, "hinge").item() == pytest.approx(3.5 / 3)
    assert losses.discriminator_loss(scores, False, "hinge").item() == pytest.approx(5.5 / 3)
    assert losses.generator_loss(scores, "hinge").item() == pytest.approx(-0.5)


def test_wgangp_is_the_score_itself() -> None:
    scores = image("fn/fake/0/4", (2, 1, 5, 6)).double()
    for real, sign in ((True, -1), (False, 1)):
        assert losses.discriminator_loss(scores, real, "wgangp") == sign * scores.mean()
    assert losses.generator_loss(scores, "wgangp") == -scores.mean()


def penalty_of_the_original(net: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """cal_gradient_penalty(type="mixed", constant=1), before lambda_gp."""
    alpha = alpha.expand(len(real), real.nelement() // len(real)).contiguous().view(*real.shape)
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    scores = net(mixed)[-1]
    (slopes,) = torch.autograd.grad(
        scores, mixed, torch.ones(scores.size()).double(), create_graph=True, retain_graph=True
    )
    slopes = slopes.reshape(len(real), -1)
    return (((slopes + 1e-16).norm(2, dim=1) - 1.0) ** 2).mean()


def in_torchs_own_words(net: PatchDiscriminator) -> PatchDiscriminator:
    """A copy with the plain norms of torch."""
    plain = copy.deepcopy(net)
    for layer in plain.layers:
        if isinstance(layer.norm, InstanceNorm):
            norm = nn.InstanceNorm2d(layer.conv.out_channels)
            layer.activation = nn.Sequential(norm, nn.LeakyReLU(0.2))
            layer.norm = nn.Identity()
        elif isinstance(layer.norm, nn.BatchNorm2d):
            layer.norm = nn.BatchNorm2d(layer.norm.num_features).double()
    return plain


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("norm", ["instance", "none", "batch"])
def test_the_gradient_penalty_is_the_originals(norm: Norm, channels_last: bool) -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(3, 4, 2, norm).double()
    plain = in_torchs_own_words(net)
    real, fake = torch.rand(2, 2, 3, 24, 20, dtype=torch.float64)
    share = torch.rand(2, 1, 1, 1)
    if channels_last:
        real, fake = (x.to(memory_format=torch.channels_last) for x in (real, fake))
    ours = losses.gradient_penalty(lambda x: net(x)[-1], real, fake, share)
    theirs = penalty_of_the_original(plain, real, fake, share.double().view(2, 1))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    ours.backward(), theirs.backward()
    pairs = zip(net.named_parameters(), plain.parameters(), strict=True)
    for (name, parameter), other in pairs:
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, other.grad, rtol=1e-9, atol=1e-12), name
    assert all(layer.conv.weight.grad.abs().max() > 1e-6 for layer in net.layers)


def test_the_gradient_penalty_is_taken_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(3, 4, 2, "instance")
    real, fake = torch.rand(2, 2, 3, 24, 20).to(torch.bfloat16)
    share = torch.rand(2, 1, 1, 1)
    found = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            penalty = losses.gradient_penalty(lambda x: net(x)[-1], real, fake, share)
        penalty.backward()
        found.append([penalty, *(p.grad for p in net.parameters() if p.grad is not None)])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_feature_matching() -> None:
    expected = recorded("functions")["feature_matching_hd"]
    pairs = list(zip(features("fake"), features("real"), strict=True))
    value = sum(losses.feature_matching(fake, real) for fake, real in pairs) / len(pairs)
    assert value.item() * expected["lambda_feat"] == pytest.approx(expected["value"], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_l1_is_the_plain_formula_bit_for_bit(dtype: torch.dtype) -> None:
    a = torch.randn(3, 5, 7, dtype=dtype)
    b = torch.randn(3, 5, 7, dtype=dtype)
    b[0] = a[0]
    ours, plain = a.clone().requires_grad_(), a.clone().requires_grad_()
    mine, reference = losses.l1(ours, b), F.l1_loss(plain, b)
    assert mine.item() == pytest.approx(reference.item(), rel=1e-6)
    (10 * mine).backward()
    (10 * reference).backward()
    assert torch.equal(ours.grad, plain.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_low_precision_are_taken_in_float32(dtype: torch.dtype) -> None:
    a, b = torch.randn(2, 1, 64, 64).to(dtype), torch.randn(2, 1, 64, 64).to(dtype)
    exact = (a.double() - b.double()).abs().mean().item()
    assert losses.l1(a, b).item() == pytest.approx(exact, rel=1e-3)
    for kind in ("lsgan", "bce", "hinge"):
        low = losses.discriminator_loss(a, True, kind)
        assert low.dtype == torch.float32
        precise = losses.discriminator_loss(a.double(), True, kind).item()
        assert low.item() == pytest.approx(precise, rel=1e-6)


def test_l1_keeps_one_byte_an_element() -> None:
    a = torch.randn(1000, requires_grad=True)
    loss = losses.l1(a, torch.randn(1000))
    assert [saved.element_size() for saved in loss.grad_fn.saved_tensors] == [1]


def test_initialisation() -> None:
    torch.manual_seed(0)
    expected = recorded("functions")["init_statistics_seed0"]
    nets = {
        "hd_global": ResnetGenerator(36, ngf=16, num_downsamples=3, num_blocks=3),
        "hd_D": MultiscaleDiscriminator(39, ndf=32, num_scales=2),
    }
    for name, network in nets.items():
        init_normal(network)
        weights = torch.cat([p.flatten() for p in network.parameters() if p.ndim == 4])
        biases = torch.cat([p for p in network.parameters() if p.ndim == 1])
        assert abs(weights.mean()) < 1e-4 and abs(weights.std() - 0.02) < 1e-4
        assert biases.std().item() == pytest.approx(expected[name]["conv bias"]["std"], rel=0.3)
    zeroed = nets["hd_global"]
    init_normal(zeroed, zero_bias=True)
    assert not any(p.any() for p in zeroed.parameters() if p.ndim == 1)


@pytest.mark.parametrize("kind", ["batch", "sync-batch"])
def test_initialisation_of_batch_norms(kind: Norm) -> None:
    norm = build_norm(kind, 4000)
    nn.init.ones_(norm.bias)
    init_normal(norm)
    assert abs(norm.weight.mean() - 1) < 2e-3 and abs(norm.weight.std() - 0.02) < 2e-3
    assert not norm.bias.any()
