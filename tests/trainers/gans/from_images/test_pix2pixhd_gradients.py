"""pix2pixHD's gradients: those of one plain backward, whatever the memory preset."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from nets.layers.blocks import downsample
from nets.losses.losses import feature_matching, generator_loss
from nets.losses.perceptual import perceptual_loss
from nets.memory.remat import Memory
from nets.memory.waist import Terms, loss_scale
from tests.trainers.hd import FULL, generator_gradients, generator_step, raw_batch
from trainers.gan import Batch
from trainers.gans.from_images.pix2pixhd import Config, Pix2PixHD
from trainers.player import Player, only


def plain_order(gan: Pix2PixHD, raw: Batch, scale: float = 1.0) -> Tensor:
    """Phase G as the original has it: one graph of everything, one backward."""
    gan.zero_grad()
    discriminator, batch = gan.nets["D"], gan.prepare(raw)
    condition, real = batch["condition"], batch["image"]
    image = gan._generate(batch)
    fake = image.clone()  # the scales' gradients are added up before the others'
    scales = gan.config.num_scales
    wanted, found = [], []
    for level in range(scales):
        judge = discriminator.at(level)
        lead = judge.lead(condition)
        wanted.append(judge(real, lead))
        found.append(judge(fake, lead))
        condition, real, fake = (downsample(x) for x in (condition, real, fake))
    adversarial = sum(generator_loss(features[-1], "lsgan") for features in found)
    matching = sum(feature_matching(f, r) / scales for f, r in zip(found, wanted, strict=True))
    total = adversarial + 10 * matching + 10 * perceptual_loss(gan.vgg, image, batch["image"])
    (total * scale).backward()
    return total.detach()


def gan_for(memory: Memory, vgg_file: Path, dtype: torch.dtype, **options: Any) -> Pix2PixHD:
    torch.manual_seed(0)
    config = FULL | dict(lambda_vgg=10, vgg_weights=vgg_file, memory=memory) | options
    return Pix2PixHD(Config(**config)).to(dtype)


@pytest.mark.parametrize(("dtype", "encoder"), [(torch.float32, True), (torch.float64, False)])
def test_presets_have_the_gradients_of_the_plain_order(
    dtype: torch.dtype, encoder: bool, vgg_file: Path
) -> None:
    raw = raw_batch()
    plain = gan_for("none", vgg_file, dtype, encoder=encoder, num_encoder_downsamples=2)
    with only(plain, plain.phases(10**9)[0]):
        total = plain_order(plain, raw)
    wanted = generator_gradients(plain)
    for memory in get_args(Memory)[:-1]:
        gan = gan_for(memory, vgg_file, dtype, encoder=encoder, num_encoder_downsamples=2)
        value, _, _ = generator_step(gan, raw)
        assert value.item() == pytest.approx(total.item(), rel=1e-6)
        found = generator_gradients(gan)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), memory


def test_strips_have_the_gradients_of_the_plain_order(vgg_file: Path) -> None:
    """Sums over strips are taken in another order, so equal up to float64's rounding."""
    raw = raw_batch(288, 16)
    plain, gan = (gan_for(m, vgg_file, torch.float64) for m in ("none", "whole+strips"))
    with only(plain, plain.phases(10**9)[0]):
        total = plain_order(plain, raw)
    value, _, _ = generator_step(gan, raw)
    assert value.item() == pytest.approx(total.item(), rel=1e-12)
    wanted, found = generator_gradients(plain), generator_gradients(gan)
    norm = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    for name in wanted:
        assert (found[name] - wanted[name]).norm() < 1e-12 * norm, name


@pytest.mark.parametrize(("autocast", "scale"), [(torch.bfloat16, 1.0), (torch.float16, 512.0)])
def test_low_precision_gradients_of_the_plain_order(
    autocast: torch.dtype, scale: float, vgg_file: Path
) -> None:
    raw = raw_batch()
    plain, gan = (gan_for("none", vgg_file, torch.float32) for _ in range(2))
    with only(plain, plain.phases(10**9)[0]), torch.autocast("cpu", autocast):
        plain_order(plain, raw, scale)
    with loss_scale(scale):
        generator_step(gan, raw, scale, autocast)
    wanted, found = generator_gradients(plain), generator_gradients(gan)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("autocast", "memory"),
    [
        *((torch.bfloat16, memory) for memory in get_args(Memory)),
        (torch.float16, "none"),
        (torch.float16, "halves+slices"),
    ],
)
def test_low_precision(autocast: torch.dtype, memory: Memory, vgg_file: Path) -> None:
    gan, raw = gan_for(memory, vgg_file, torch.float32), raw_batch()
    precise = generator_step(gan, raw)[1]
    with loss_scale(256.0):
        total, terms, out = generator_step(gan, raw, scale=256.0, autocast=autocast)
    assert out["fake"].dtype == autocast and total.dtype == torch.float32
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(precise[name].item(), rel=0.05)
    gradients = generator_gradients(gan)
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())


def both_phases(gan: Pix2PixHD, autocast: torch.dtype | None, handed_over: set[str]) -> Terms:
    """Gradients of both phases, left on the parameters; D is given only some of what G hands it."""
    terms: Terms = {}
    carry: Batch = {}
    for phase in gan.phases(10**9):
        with only(gan, phase), loss_scale(4.0 if autocast is torch.float16 else 1.0):
            total, found, out = Player(gan, phase, autocast)(raw_batch(count=2), carry)
            total.backward()
        terms |= found | {phase.name: total.detach()}
        carry = {name: value for name, value in out.items() if name in handed_over}
    return terms


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"gan_loss": "hinge"}, {"lambda_feat": 0}])
def test_the_discriminator_learns_the_same_while_it_judges_for_the_generator(
    options: dict[str, Any], autocast: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    once = Pix2PixHD(Config(**FULL | options))
    twice = deepcopy(once)
    terms = both_phases(once, autocast, {"fake", "ahead"})
    wanted = both_phases(twice, autocast, {"fake"})
    assert terms.keys() == wanted.keys()
    for name in terms:  # the scales are added up in another order
        assert terms[name].item() == pytest.approx(wanted[name].item(), rel=1e-6)
    pairs = zip(once.nets.named_parameters(), twice.nets.parameters(), strict=True)
    for (name, found), plain in pairs:
        assert torch.equal(found.grad, plain.grad), name
    assert not any(parameter.requires_grad is False for parameter in once.nets.parameters())


def test_phases_with_loss_scales_of_their_own_share_nothing() -> None:
    """What is too large for float16 at the generator's scale must not reach the discriminator."""
    gan = Pix2PixHD(Config(**FULL))
    for autocast, shared in ((torch.float16, False), (torch.bfloat16, True)):
        assert ("ahead" in generator_step(gan, raw_batch(), autocast=autocast)[2]) == shared
