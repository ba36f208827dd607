"""Networks of CycleGAN and pix2pix against the original: sizes, shapes, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets.discriminators.patch import PatchDiscriminator, PixelDiscriminator
from nets.generators.pix2pixhd import ResnetGenerator
from nets.generators.unet import UnetGenerator
from nets.layers.blocks import Upsampling
from nets.layers.norms import Norm
from nets.originals import original_keys
from tests.nets.agreement import check_forward, check_sizes

scores = itemgetter(-1)
NORMS: list[Norm] = ["instance", "batch"]
DROPOUT = {"nodrop": 0.0, "drop": 0.5}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "cg_resnet9": lambda: ResnetGenerator(3, ngf=4),
    "cg_resnet6_batch_train": lambda: ResnetGenerator(3, ngf=6, num_blocks=6, norm="batch"),
    "cg_unet128_instance": lambda: UnetGenerator(3, 3, 2, 7, norm="instance"),
    "cg_unet256_batch_train": lambda: UnetGenerator(3, 3, 1, 8, norm="batch"),
}


@pytest.mark.parametrize("drop", DROPOUT)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("blocks", [6, 9])
def test_resnets_at_the_papers_size(blocks: int, norm: Norm, drop: str) -> None:
    name = f"cg_resnet_{blocks}blocks_{norm}_{drop}"
    build = partial(ResnetGenerator, 3, num_blocks=blocks, norm=norm, dropout=DROPOUT[drop])
    check_sizes(name, build)


@pytest.mark.parametrize("drop", DROPOUT)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("side", [128, 256])
def test_unets_at_the_papers_size(side: int, norm: Norm, drop: str) -> None:
    levels = side.bit_length() - 1
    build = partial(UnetGenerator, 3, num_downsamples=levels, norm=norm, dropout=DROPOUT[drop])
    check_sizes(f"cg_unet_{side}_{norm}_{drop}", build)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [3, 6])
def test_discriminators_at_the_papers_size(channels: int, norm: Norm) -> None:
    for kind, discriminator in (("basic", PatchDiscriminator), ("pixel", PixelDiscriminator)):
        build = partial(discriminator, channels, norm=norm)
        check_sizes(f"cg_D_{kind}_{norm}_in{channels}", build, scores)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layers", [1, 2, 4, 5])
def test_discriminators_of_other_depths(layers: int, norm: Norm) -> None:
    build = partial(PatchDiscriminator, 3, num_layers=layers, norm=norm)
    check_sizes(f"cg_D_nlayers{layers}_{norm}_in3", build, scores)


@pytest.mark.parametrize("name", SMALL)
def test_forward_and_gradients_of_generators_agree(name: str) -> None:
    check_forward(name, SMALL[name]())


def test_forward_and_gradients_of_discriminators_agree() -> None:
    check_forward("cg_D_basic_instance", PatchDiscriminator(3, 8), scores)
    check_forward("cg_D_pixel", PixelDiscriminator(3, 8), scores)


def test_the_image_gan_of_six_layers() -> None:
    features = PatchDiscriminator(3, 2, num_layers=6)(torch.zeros(1, 3, 256, 256))
    assert [feature.shape[1] for feature in features] == [2, 4, 8, 16, 16, 16, 16, 1]
    assert features[-1].shape == (1, 1, 2, 2)


@pytest.mark.parametrize("levels", [1, 2, 5, 6])
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_unets_of_any_depth(levels: int, skips: bool, upsampling: Upsampling) -> None:
    network = UnetGenerator(4, 2, 2, levels, "none", 0.5, skips, upsampling)
    condition = torch.randn(2, 4, 3 * network.stride, 2 * network.stride)
    image = network(condition)
    assert image.shape == (2, 2, 3 * network.stride, 2 * network.stride)
    image.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_without_skips_all_goes_through_the_narrowest() -> None:
    """A change that the innermost level does not pass on reaches the output by skips alone."""
    for skips in (True, False):
        network = UnetGenerator(3, ngf=4, num_downsamples=3, norm="none", skips=skips)
        nn.init.zeros_(network.downs[-1].conv.weight)
        first, second = (network(torch.randn(1, 3, 16, 16)) for _ in range(2))
        assert torch.equal(first, second) != skips


@pytest.mark.parametrize("levels", [5, 6, 8])
def test_dropout_lies_where_the_original_has_it(levels: int) -> None:
    network = UnetGenerator(3, ngf=1, num_downsamples=levels, dropout=0.5)
    drops = [isinstance(up.dropout, nn.Dropout) for up in network.ups]
    assert drops == [False] + [True] * (levels - 5) + [False] * 4


def test_dropout_draws_in_training_alone() -> None:
    networks = [ResnetGenerator(3, 3, 2, num_blocks=1, dropout=0.5)]
    networks.append(UnetGenerator(3, ngf=2, num_downsamples=6, norm="instance", dropout=0.5))
    for network in networks:
        image = torch.randn(1, 3, 64, 64)
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))


def test_a_unet_names_the_sizes_that_fit() -> None:
    network = UnetGenerator(3, ngf=1, num_downsamples=5)
    with pytest.raises(ValueError, match="80x64 .* halves their sides 5 .*: 64x64 and 96x64$"):
        network(torch.zeros(1, 3, 64, 80))
    with pytest.raises(ValueError, match="20x30 images .* fit: 32x32$"):
        network(torch.zeros(1, 3, 30, 20))


def test_resizing_leaves_no_checkerboard() -> None:
    """A constant image stays constant away from the border; transposed convolutions mark it."""
    flat = torch.ones(1, 3, 128, 128)
    spread = {}
    for upsampling in ("transposed", "resize"):
        torch.manual_seed(0)
        network = ResnetGenerator(3, ngf=4, num_blocks=1, norm="none", upsampling=upsampling)
        centre = F.pad(network(flat).detach(), (-60,) * 4)
        spread[upsampling] = float((centre.amax((2, 3)) - centre.amin((2, 3))).max())
    assert spread["resize"] < 1e-6 < 1e-3 < spread["transposed"]


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_a_batch_is_its_samples_side_by_side(norm: Norm) -> None:
    networks = [
        ResnetGenerator(3, ngf=2, num_blocks=1, norm=norm),
        UnetGenerator(3, ngf=2, num_downsamples=3, norm=norm),
        UnetGenerator(3, ngf=2, num_downsamples=3, norm=norm, skips=False),
        PatchDiscriminator(3, 2, norm=norm),
        PixelDiscriminator(3, 2, norm=norm),
    ]
    batch = torch.randn(3, 3, 32, 48, dtype=torch.float64)
    for network in networks:
        network.double()
        together, alone = network(batch), [network(sample[None]) for sample in batch]
        if isinstance(together, list):
            together, alone = scores(together), [scores(features) for features in alone]
        assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-12)


def test_resize_convolutions_have_no_counterpart_in_the_originals() -> None:
    with pytest.raises(ValueError, match="resize"):
        original_keys(ResnetGenerator(3, ngf=2, num_blocks=1, upsampling="resize"))
