"""VGG slices: values, files of weights, and strips that are exact."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from nets.losses.perceptual import Strip, Vgg, perceptual_loss, strips, vgg_from
from tests.nets.rule import arrays, recorded, vgg_weights


@pytest.fixture(scope="module")
def vgg() -> Vgg:
    network = Vgg("vgg19")
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(vgg_weights(shapes))
    return network


def trajectory_image(row: int) -> torch.Tensor:
    return torch.from_numpy(arrays("pix2pixhd")["image"][row : row + 1])


def test_slices_and_loss_agree_with_the_original(vgg: Vgg) -> None:
    expected, stored = recorded("functions")["vgg"], arrays("functions")
    assert sum(p.numel() for p in vgg.parameters()) == 12944960
    features = vgg(trajectory_image(0))
    assert [list(f.shape) for f in features] == expected["slice_shapes"]
    for ours, checksum in zip(features, expected["slice_checksums_sample0"], strict=True):
        assert ours.mean().item() == pytest.approx(checksum["mean"], rel=1e-4)
        assert ours.double().norm().item() == pytest.approx(checksum["l2"], rel=1e-5)
    assert np.abs(features[-1].numpy() - stored["vgg_relu5_1_sample0"]).max() < 1e-4
    loss = perceptual_loss(vgg, trajectory_image(0), trajectory_image(1))
    assert loss.item() == pytest.approx(expected["loss_unweighted_by_lambda"], rel=1e-5)


def test_vgg16_ends_its_slices_at_the_same_layers() -> None:
    with torch.device("meta"):
        names = [part.layers for part in Vgg("vgg16").slices]
    assert names == [
        ["0"],
        ["2", "pool", "5"],
        ["7", "pool", "10"],
        ["12", "14", "pool", "17"],
        ["19", "21", "pool", "24"],
    ]


def test_imagenet_normalisation_is_an_option(vgg: Vgg) -> None:
    normalised = Vgg("vgg19", normalise=True)
    normalised.load_state_dict(vgg.state_dict())
    image = trajectory_image(0)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert torch.allclose(normalised(image)[0], vgg((image * 0.5 + 0.5 - mean) / std)[0], atol=1e-5)
    assert not torch.allclose(normalised(image)[0], vgg(image)[0], atol=1e-2)


def test_it_is_frozen_and_cast_once(vgg: Vgg) -> None:
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        low = vgg(trajectory_image(0).bfloat16())
        assert low[0].dtype == torch.bfloat16
        weights = vgg._weights(low[0])
        assert vgg._weights(low[1]) is weights
    assert vgg(trajectory_image(0))[0].dtype == torch.float32


def test_weights_are_taken_from_a_state_dict(vgg: Vgg) -> None:
    given = {key: value.half() for key, value in vgg.state_dict().items()}
    given["classifier.6.bias"] = torch.zeros(1000)
    loaded = vgg_from("vgg19", given).state_dict()
    assert all(
        torch.equal(loaded[key], value.half().float()) for key, value in vgg.state_dict().items()
    )


def test_weights_that_do_not_fit(vgg: Vgg) -> None:
    with pytest.raises(ValueError, match=r"features.0.weight has shape \(64, 3, 5, 5\)"):
        vgg_from("vgg16", {"features.0.weight": torch.zeros(64, 3, 5, 5)})
    with pytest.raises(ValueError, match="is not a vgg16 .* it has no features.0.weight"):
        vgg_from("vgg16", {"conv.weight": torch.zeros(1)})


def test_strips_cover_the_image_once() -> None:
    for height in (64, 256, 300, 1024):
        cuts = list(strips(height))
        assert [cut.start for cut in cuts] == list(range(0, height, 256))
        assert all(a.stop == b.start for a, b in pairwise(cuts))
        assert cuts[-1].stop == cuts[-1].bottom == height and cuts[0].top == 0


@pytest.mark.parametrize("height", [544, 523])
def test_strips_are_exact(vgg: Vgg, height: int) -> None:
    generator = torch.Generator().manual_seed(0)
    precise = Vgg("vgg19").double()
    precise.load_state_dict(vgg.state_dict())
    whole = torch.rand(1, 3, height, 16, generator=generator, dtype=torch.float64) * 2 - 1
    real = torch.rand(1, 3, height, 16, generator=generator, dtype=torch.float64) * 2 - 1
    parts = whole.clone().requires_grad_()
    whole.requires_grad_()
    together = perceptual_loss(precise, whole, real)
    together.backward()
    shares = [perceptual_loss(precise, parts, real, strip) for strip in strips(height)]
    assert len(shares) == 3
    sum(shares).backward()
    assert sum(shares).item() == pytest.approx(together.item(), rel=1e-12)
    error = (parts.grad - whole.grad).norm() / whole.grad.norm()
    assert error < 1e-12


def test_a_narrower_halo_would_not_be_exact(vgg: Vgg) -> None:
    """The test above can fail: with 48 rows the features at the seam differ."""
    generator = torch.Generator().manual_seed(0)
    fake, real = (torch.rand(1, 3, 288, 16, generator=generator) * 2 - 1 for _ in range(2))
    cuts = [Strip(0, 128, 0, 176), Strip(128, 288, 80, 288)]
    parts = sum(perceptual_loss(vgg, fake, real, cut) for cut in cuts)
    assert abs(parts / perceptual_loss(vgg, fake, real) - 1) > 1e-6
