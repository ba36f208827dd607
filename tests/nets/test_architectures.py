"""pix2pixHD's networks against the original: sizes, shapes, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from nets.discriminators.patch import MultiscaleDiscriminator
from nets.generators.encoders import Encoder
from nets.generators.pix2pixhd import LocalEnhancer, ResnetGenerator
from tests.nets.agreement import check_forward, check_sizes

PAPER_SIZE: dict[str, Callable[[], nn.Module]] = {
    "hd_global_in36": lambda: ResnetGenerator(36, num_downsamples=4),
    "hd_global_in39": lambda: ResnetGenerator(39, num_downsamples=4),
    "hd_global_in3": lambda: ResnetGenerator(3, num_downsamples=4),
    "hd_local_in36": lambda: LocalEnhancer(36),
    "hd_local_in39": lambda: LocalEnhancer(39),
    "hd_local_in36_2enh": lambda: LocalEnhancer(36, ngf=16, num_enhancers=2),
    "hd_encoder": lambda: Encoder(),
    "hd_D_num1_feat": lambda: MultiscaleDiscriminator(39, num_scales=1),
    "hd_D_num2_feat": lambda: MultiscaleDiscriminator(39, num_scales=2),
    "hd_D_num3_feat": lambda: MultiscaleDiscriminator(39, num_scales=3),
    "hd_D_num2_feat_in6": lambda: MultiscaleDiscriminator(6, num_scales=2),
}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "hd_global": lambda: ResnetGenerator(36, 3, 4, num_downsamples=3, num_blocks=3),
    "hd_global_feat39": lambda: ResnetGenerator(39, 3, 8, num_downsamples=2, num_blocks=1),
    "hd_local": lambda: LocalEnhancer(
        36, 3, 2, num_downsamples=3, num_blocks=3, num_enhancers=1, num_local_blocks=2
    ),
    "hd_D_num2_feat": lambda: MultiscaleDiscriminator(39, ndf=4, num_scales=2),
    "hd_D_num3_feat": lambda: MultiscaleDiscriminator(39, ndf=4, num_scales=3),
    "hd_encoder": lambda: Encoder(3, 3, 8, num_downsamples=2),
}


@pytest.mark.parametrize("name", PAPER_SIZE)
def test_parameters_and_shapes_at_the_papers_size(name: str) -> None:
    check_sizes(name, PAPER_SIZE[name])


@pytest.mark.parametrize("name", SMALL)
def test_forward_and_gradients_agree(name: str) -> None:
    check_forward(name, SMALL[name]())


@pytest.mark.parametrize(
    ("ndf", "num_layers", "widths"),
    [
        (64, 3, [64, 128, 256, 512, 1]),
        (64, 5, [64, 128, 256, 512, 512, 512, 1]),
        (96, 3, [96, 192, 384, 512, 1]),
        (32, 5, [32, 64, 128, 256, 512, 512, 1]),
    ],
)
def test_discriminators_grow_to_512_channels(ndf: int, num_layers: int, widths: list[int]) -> None:
    """Whatever ndf is: the cap of pix2pix and CycleGAN, 8 * ndf, is another one."""
    with torch.device("meta"):
        network = MultiscaleDiscriminator(3, ndf, num_layers, num_scales=1)
        features = network(torch.empty(1, 3, 128, 128))[0]
    assert [layer.shape[1] for layer in features] == widths


def test_discriminators_can_be_run_scale_by_scale() -> None:
    network = MultiscaleDiscriminator(5, ndf=4, num_scales=3)
    x = torch.randn(1, 5, 32, 48)
    together = network(x)
    assert torch.equal(network.at(0)(x)[-1], together[0][-1])
    assert network.at(0) is network.scales[2]


def test_a_discriminator_needs_no_copy_of_the_condition() -> None:
    """All gradients are those of condition and image in one tensor."""
    network = MultiscaleDiscriminator(7, ndf=4, num_scales=1).double().at(0)
    condition, *images = (torch.randn(2, n, 32, 48).double().requires_grad_() for n in (4, 3, 3))
    lead = network.lead(condition)
    apart = [network(image, lead) for image in images]
    whole = [network(torch.cat([condition, image], 1)) for image in images]
    for ours, theirs in zip(apart, whole, strict=True):
        assert close(ours, theirs)
    inputs = [condition, *images, *network.parameters()]
    ours, theirs = (
        torch.autograd.grad(sum(f.square().mean() for found in way for f in found), inputs)
        for way in (apart, whole)
    )
    assert close(ours, theirs)


def close(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("num_enhancers", [1, 2, 3])
def test_every_enhancer_doubles_the_size(num_enhancers: int) -> None:
    network = LocalEnhancer(4, 3, 2, 1, 1, num_enhancers, 1)
    assert network.stride == 2 ** (1 + num_enhancers)
    condition = torch.randn(2, 4, 4 * network.stride, 3 * network.stride)
    image = network(condition)
    assert image.shape == (2, 3, 4 * network.stride, 3 * network.stride)
    image.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_batch_is_its_samples_side_by_side() -> None:
    network = LocalEnhancer(4, 3, 2, 2, 1, 1, 1).double()
    batch = torch.randn(3, 4, 32, 48, dtype=torch.float64)
    alone = torch.cat([network(sample[None]) for sample in batch])
    assert torch.allclose(network(batch), alone, rtol=0, atol=1e-12)


def test_too_small_an_image_is_met_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="16x32 images are too small for this generator"):
        ResnetGenerator(4, 3, 2, num_downsamples=4, num_blocks=1)(torch.zeros(1, 4, 32, 16))
