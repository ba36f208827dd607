"""Options of the networks that make images from noise, which no recorded number covers."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.discriminators.biggan import BigganDiscriminator
from nets.discriminators.cgan import ConditionalDcganDiscriminator, ConditionalMlpDiscriminator
from nets.discriminators.cogan import CoganDiscriminator, StridedCoganDiscriminator
from nets.discriminators.dcgan import DcganDiscriminator
from nets.discriminators.infogan import (
    InfoganHead,
    InfoganRecogniser,
    InfoganTrunk,
    StridedTrunk,
    ThreeHeadedDiscriminator,
)
from nets.discriminators.progan import ProganDiscriminator, SimpleProganDiscriminator
from nets.discriminators.sagan import SaganDiscriminator
from nets.generators.biggan import BigganGenerator
from nets.generators.cogan import EnlargingCoganGenerator
from nets.generators.dcgan import DcganGenerator
from nets.generators.infogan import EnlargingGenerator, InfoganGenerator
from nets.generators.mlp import MlpGenerator
from nets.generators.progan import ProganGenerator, SimpleProganGenerator
from nets.generators.sagan import SaganGenerator
from nets.layers.attention import PooledSelfAttention, SelfAttention
from nets.layers.growing import enlarge, fade


@pytest.mark.parametrize("side", [8, 28, 32, 48, 64, 128])
def test_dcgans_sides(side: int) -> None:
    with torch.device("meta"):
        image = DcganGenerator(5, 2, 1, side)(torch.empty(3, 5))
        assert image.shape == (3, 2, side, side)
        assert DcganDiscriminator(2, 1, side)(image).shape == (3,)


def test_a_side_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="50x50 do not fit.*nearest that fit: 48 and 56"):
        DcganGenerator(side=50)
    with pytest.raises(ValueError, match="4x4 do not fit.*fit: 8"):
        DcganDiscriminator(side=4)


def test_noise_is_taken_as_a_row_and_as_a_pixel() -> None:
    noise = torch.randn(3, 5)
    for net in (DcganGenerator(5, 1, 1, 8), MlpGenerator(5, (1, 4, 4))):
        assert torch.equal(net(noise), net(noise[:, :, None, None]))


def test_a_perceptron_normalises_behind_its_first_layer() -> None:
    """PyTorch-GAN's; beside torch's own layers."""
    ours = MlpGenerator(5, (1, 2, 3), (4, 6), slope=0.2, norm="batch", eps=0.8).double()
    theirs = nn.Sequential(
        nn.Linear(5, 4),
        nn.LeakyReLU(0.2),
        nn.Linear(4, 6),
        nn.BatchNorm1d(6, 0.8),
        nn.LeakyReLU(0.2),
        nn.Linear(6, 6),
        nn.Tanh(),
    ).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    noise = torch.randn(7, 5, dtype=torch.float64)
    for mode in (True, False):
        expected = theirs.train(mode)(noise).view(7, 1, 2, 3)
        assert torch.allclose(ours.train(mode)(noise), expected, atol=1e-14)


def test_conditional_judges_see_the_image_first() -> None:
    perceptron = ConditionalMlpDiscriminator(3, (1, 2, 2), (5, 5), dropout=0.5).eval()
    image, label = torch.randn(2, 1, 8, 8), torch.tensor([2, 0])
    small = image[..., :2, :2]
    beside = torch.cat([small.flatten(1), perceptron.embedding.weight[label]], 1)
    assert torch.equal(perceptron(small, label), perceptron.mlp(beside))
    again = perceptron.train()(small, label)
    assert not torch.equal(again, perceptron(small, label))  # dropout
    critic = ConditionalDcganDiscriminator(3, 1, 2, 8)
    plane = critic.embedding.weight[label].view(2, 1, 8, 8)
    assert torch.equal(critic(image, label), critic.dcgan(torch.cat([image, plane], 1)))


def give(theirs: nn.Module, ours: nn.Module) -> None:
    """Our state to torch's own layers, in order."""
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))


def test_infogan_of_32_pixels_normalises_the_first_two_layers() -> None:
    ours = InfoganGenerator(7, 3, 32, (6, 5, 4, 3)).double()
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate([(7, 6), (6, 5), (5, 4), (4, 3), (3, 3)]):
        how = (4, 2, 1) if number else (2, 1, 0)
        layers.append(nn.ConvTranspose2d(before, after, *how, bias=False))
        layers += [nn.BatchNorm2d(after)] if number < 2 else []
        layers.append(nn.Tanh() if number == 4 else nn.ReLU())
    theirs = nn.Sequential(*layers).double()
    give(theirs, ours)
    noise = torch.randn(3, 7, 1, 1, dtype=torch.float64)
    assert torch.allclose(ours(noise), theirs(noise), atol=1e-14)
    assert ours(noise).shape == (3, 3, 32, 32)


def test_infogan_of_32_pixels_is_read_by_heads_of_4x4() -> None:
    features = InfoganTrunk(3, 32, (2, 3, 4))(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 4, 4, 4)
    assert InfoganHead(4, 4)(features).shape == (2,)
    recogniser = InfoganRecogniser(20, 0, 4, 4, 5)
    logits, mean, variance = recogniser(features)
    assert logits.shape == (2, 20) and mean.shape == variance.shape == (2, 0)
    assert not any("mean" in key for key, _ in recogniser.named_parameters())


def enlarging(inputs: int, channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """PyTorch-GAN's layers before and behind the last enlargement, in torch's own words."""
    shared = [
        nn.Linear(inputs, 6 * 4),
        nn.Unflatten(1, (6, 2, 2)),
        nn.BatchNorm2d(6),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6, 0.8),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
    ]
    tail = [
        nn.Conv2d(6, 4, 3, padding=1),
        nn.BatchNorm2d(4, 0.8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, channels, 3, padding=1),
        nn.Tanh(),
    ]
    return nn.Sequential(*shared).double(), nn.Sequential(*tail).double()


def test_enlarging_generators_are_pytorch_gans() -> None:
    noise = torch.randn(3, 5, dtype=torch.float64)
    one = EnlargingGenerator(5, 2, 8, (6, 4)).double()
    pair = EnlargingCoganGenerator(5, 2, 8, (6, 4)).double()
    shared, tail = enlarging(5, 2)
    give(shared, one.trunk)
    give(tail, one.tail)
    assert torch.allclose(one(noise), tail(shared(noise)), atol=1e-14)
    give(shared, pair.shared)
    for domain, image in zip("ab", pair(noise), strict=True):
        give(tail, getattr(pair, domain))
        assert torch.allclose(image, tail(shared(noise)), atol=1e-14)
    with pytest.raises(ValueError, match="30x30 do not fit: the side must be a multiple of 4"):
        EnlargingGenerator(5, side=30)


@pytest.mark.parametrize("norm_first", [False, True])
def test_strided_judges_are_pytorch_gans(norm_first: bool) -> None:
    ours = StridedTrunk(2, 16, (3, 4), dropout=0.0, norm_first=norm_first).double()
    norm, leaky = nn.BatchNorm2d(4, 0.8), nn.LeakyReLU(0.2)
    last = [norm, leaky] if norm_first else [leaky, norm]
    convs = nn.Conv2d(2, 3, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
    theirs = nn.Sequential(convs[0], nn.LeakyReLU(0.2), convs[1], *last, nn.Flatten()).double()
    give(theirs, ours)
    image = torch.randn(3, 2, 16, 16, dtype=torch.float64)
    assert torch.allclose(ours(image), theirs(image), atol=1e-14)
    assert ours(image).shape == (3, ours.num_features)
    with pytest.raises(ValueError, match="28x28 do not fit.*multiple of 16"):
        StridedTrunk(side=28)


def test_heads_of_pytorch_gans_judges() -> None:
    image = torch.randn(3, 1, 32, 32)
    scores, probabilities, codes = ThreeHeadedDiscriminator(10, 2, widths=(2, 2, 2, 2))(image)
    assert scores.shape == (3,) and codes.shape == (3, 2)
    assert torch.allclose(probabilities.sum(1), torch.ones(3))
    coupled = StridedCoganDiscriminator(1, widths=(2, 2, 2, 2)).eval()
    of_a, of_b = coupled(image, image)
    assert of_a.shape == (3,) and not torch.allclose(of_a, of_b)
    nn.Module.load_state_dict(coupled.b, coupled.a.state_dict())
    assert torch.equal(*coupled(image, image))


def test_coupled_judges_hand_out_features_and_classes() -> None:
    judge = CoganDiscriminator(1, (2, 3, 4), num_classes=5)
    a, b = torch.rand(2, 3, 1, 28, 28)
    logits, of_a, of_b = judge(a, b)
    assert logits.shape == (6, 2) and of_a.shape == (3, 4, 1, 1)
    assert torch.equal(of_b, judge.features(b, "b"))
    assert torch.equal(judge.classify(a, "a"), judge.classes(of_a).flatten(1))


@pytest.mark.parametrize("side", [32, 64, 128])
def test_sagans_sides(side: int) -> None:
    with torch.device("meta"):
        generator, judge = SaganGenerator(5, 3, 8, side), SaganDiscriminator(3, 8, side)
        image = generator(torch.empty(2, 5))
        assert image.shape == (2, 3, side, side) and judge(image).shape == (2,)
    for net in (generator, judge):
        assert sum(isinstance(layer, SelfAttention) for layer in net.modules()) == 2
    with pytest.raises(ValueError, match="an eighth of the channels, and 4 are too few"):
        SaganGenerator(5, 3, 4, side)
    none = SaganGenerator(5, 3, 4, 32, attention=())
    assert not any(isinstance(layer, SelfAttention) for layer in none.modules())


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_biggans_sides(side: Literal[32, 64, 128, 256]) -> None:
    with torch.device("meta"):
        generator = BigganGenerator(20, 3, 3, 8, side, num_shared=6, attention=(16, 32))
        label = torch.empty(2, dtype=torch.long)
        image = generator(torch.empty(2, 20), label)
        judge = BigganDiscriminator(3, 3, 8, side, attention=(16,))
        assert image.shape == (2, 3, side, side) and judge(image, label).shape == (2,)
    behind = [isinstance(block.attention, PooledSelfAttention) for block in generator.blocks]
    assert behind == [False, True, True, *[False] * (len(behind) - 3)]
    behind = [isinstance(block.attention, PooledSelfAttention) for block in judge.blocks]
    assert sum(behind) == (4 if side == 32 else 1)


def small_biggan(**options: bool) -> BigganGenerator:
    torch.manual_seed(0)
    return BigganGenerator(11, 3, 2, 1, 32, num_shared=0, attention=(), **options).double()


def test_a_hierarchy_gives_each_block_its_part_of_the_noise() -> None:
    generator = small_biggan().eval()
    noise, label = torch.randn(2, 11, dtype=torch.float64), torch.tensor([0, 2])
    assert generator.embedding.weight.shape == (3, 11)
    assert generator.blocks[0].first_norm.gain.in_features == 11 + 2
    image = generator(noise, label)
    leftover = torch.cat([noise[:, :8], noise[:, 8:] + 1], dim=1)  # 4 parts of 2
    assert torch.equal(generator(leftover, label), image)
    for part in range(4):
        changed = noise.clone()
        changed[:, 2 * part] += 1
        assert not torch.allclose(generator(changed, label), image)
    with pytest.raises(ValueError, match="need the shared embedding"):
        small_biggan(shared=False)


@pytest.mark.parametrize("shared", [True, False])
def test_classes_are_taken_as_ids_and_as_shares(shared: bool) -> None:
    generator = small_biggan(shared=shared, hierarchical=shared).eval()
    judge = BigganDiscriminator(3, 2, 1, 32).double().eval()
    noise, label = torch.randn(2, 11, dtype=torch.float64), torch.tensor([0, 2])
    shares = F.one_hot(label, 3).double()
    image = generator(noise, label)
    assert torch.allclose(generator(noise, shares), image, atol=1e-12)
    assert torch.equal(generator.generate(noise, generator.embed(label)), image)
    assert torch.allclose(judge(image, shares), judge(image, label), atol=1e-12)
    assert not torch.allclose(judge(image, label.flip(0)), judge(image, label))


def test_recomputed_blocks_of_biggan_leave_the_same_state_and_gradients() -> None:
    found = []
    for preset in ("none", "blocks"):
        generator = small_biggan(rematerialise=preset)
        options = dict(attention=(16,), classifier=True, turns=True, rematerialise=preset)
        judge = BigganDiscriminator(3, 2, 2, 32, **options).double()
        for block in judge.blocks:
            nn.init.ones_(block.attention.gamma)
        torch.manual_seed(1)
        noise, label = torch.randn(4, 11, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
        image = generator(noise, label)
        features = judge.features(image)
        heads = judge.classifier(features).square().sum() + judge.turns(features).square().sum()
        (judge(image, label).sum() + heads + judge(image.detach() + 1, label).sum()).backward()
        nets = nn.ModuleList([generator, judge])
        gradients = {name: value.grad for name, value in nets.named_parameters()}
        found.append((gradients, dict(nets.named_buffers())))
    for plain, frugal in zip(*found, strict=True):
        assert all(torch.equal(frugal[name], value) for name, value in plain.items())
    assert all(value.abs().max() > 0 for value in found[0][0].values() if value.ndim > 1)


def test_a_simple_growing_pair_fades_in_its_new_level() -> None:
    generator, judge = SimpleProganGenerator(3, (4, 4, 2)), SimpleProganDiscriminator((4, 4, 2))
    noise = torch.randn(2, 3)
    images = [generator(noise, level) for level in range(3)]
    assert [image.shape[-1] for image in images] == [4, 8, 16]
    assert all(judge(image, level).shape == (2,) for level, image in enumerate(images))
    old = generator(noise, 1, 0.0)
    new = images[1]
    between = generator(noise, 1, 0.25)
    assert torch.allclose(between.atanh(), fade(old.atanh(), new.atanh(), 0.25), atol=1e-5)
    judge(images[1], 1, 0.5).sum().backward()
    unused = {name for name, value in judge.named_parameters() if value.grad is None}
    assert unused == {
        key for key in judge.state_dict() if key.startswith(("from_rgb.2", "blocks.1"))
    }


def growing() -> tuple[ProganGenerator, ProganDiscriminator, Tensor]:
    torch.manual_seed(0)
    pair = ProganGenerator(3, 1, 16, 16, 4), ProganDiscriminator(1, 16, 16, 4)
    return *pair, torch.randn(4, 3)


def test_whole_levels_of_detail_are_one_size_and_nothing_else() -> None:
    generator, judge, noise = growing()
    for lod in (0, 1, 2):
        image, own = generator(noise, lod), generator(noise, lod, full_size=False)
        assert image.shape[-1] == 16 and own.shape[-1] == 16 >> lod
        assert torch.equal(image, enlarge(own, 1 << lod))
        assert torch.allclose(judge(image, lod), judge(own, lod), atol=1e-6)
    generator(noise, 2.0).sum().backward()
    used = {name for name, value in generator.named_parameters() if value.grad is not None}
    assert {name.split(".")[0] for name in used} == {"first", "to_rgb"}
    assert "to_rgb.1.weight" not in used


def test_a_level_of_detail_fades_without_jumps() -> None:
    generator, judge, noise = growing()
    for lod in (1, 2):
        before, at = generator(noise, lod - 1e-4), generator(noise, lod)
        assert torch.allclose(before, at, atol=1e-3)
        assert torch.allclose(judge(at, lod - 1e-4), judge(at, lod), atol=1e-3)
    assert not torch.allclose(generator(noise, 0.5), generator(noise, 1.0), atol=1e-2)


def test_details_that_are_not_there() -> None:
    generator, judge, noise = growing()
    with pytest.raises(ValueError, match="level of detail of 2.5 is not between 0 and 2"):
        generator(noise, 2.5)
    with pytest.raises(ValueError, match="images of 8 pixels do not fit a level of 16x16"):
        judge(torch.zeros(4, 1, 8, 8), 0)
    with pytest.raises(ValueError, match="images of 24x24 do not fit"):
        ProganGenerator(side=24)


def for_autocast() -> dict[str, tuple[nn.Module, tuple, int]]:
    """Networks, their inputs, and the number of convolutions that take these as they come."""
    torch.manual_seed(0)
    noise, label = torch.randn(4, 8), torch.tensor([0, 2, 1, 1])
    image = torch.rand(4, 3, 32, 32) * 2 - 1
    options = dict(width=2, side=32, attention=(16,))
    plain = dict(hierarchical=False, shared=False)
    return {
        "biggan G": (BigganGenerator(8, 3, num_shared=4, **options), (noise, label), 0),
        "sagan-cond G": (BigganGenerator(8, 3, **options, **plain), (noise, label), 0),
        "biggan D": (BigganDiscriminator(3, **options), (image, label), 2),
        "sagan G": (SaganGenerator(8, 3, 8, 32), (noise,), 1),
        "sagan D": (SaganDiscriminator(3, 8, 32), (image,), 1),
        "progan G": (ProganGenerator(8, 3, 32, 64, 8), (noise, 0.5), 0),
        "progan D": (ProganDiscriminator(3, 32, 64, 8), (image, 0.5), 2),
        "simple progan G": (SimpleProganGenerator(8, (4, 4, 4, 4)), (noise, 3, 0.5), 1),
        "simple progan D": (SimpleProganDiscriminator((4, 4, 4, 4)), (image, 3, 0.5), 2),
    }


@pytest.mark.parametrize("name", for_autocast())
def test_features_stay_low_under_autocast(name: str) -> None:
    """What a layer of higher precision hands on would make all that follows wider and slower."""
    net, inputs, num_first = for_autocast()[name]
    kinds: list[torch.dtype] = []
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_pre_hook(lambda m, given: kinds.append(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(*inputs)
    out.float().sum().backward()
    assert out.isfinite().all() and kinds.count(torch.bfloat16) == len(kinds) - num_first
