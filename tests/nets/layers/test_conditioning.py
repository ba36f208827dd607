"""Conditions made on the device, against the original implementation."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from nets.generators.encoders import pool_instances
from nets.layers import conditioning
from nets.layers.blocks import downsample
from tests.nets.rule import arrays, recorded


@pytest.mark.parametrize("case", ["small", "blocks", "const", "random"])
def test_instance_edges(case: str) -> None:
    stored = arrays("functions")
    edges = conditioning.instance_edges(torch.from_numpy(stored[f"edges_{case}_in"]))
    assert np.array_equal(edges.numpy(), stored[f"edges_{case}_out"].astype(bool))


def test_one_hot_with_edges() -> None:
    stored = arrays("pix2pixhd")
    for expected in recorded("functions")["encode_input"]:
        row = list(stored["ids"]).index(expected["sample"])
        label, inst = (torch.from_numpy(stored[key][row : row + 1]) for key in ("label", "inst"))
        planes = conditioning.one_hot(label, 35, torch.bfloat16, conditioning.instance_edges(inst))
        assert planes.dtype == torch.bfloat16 and list(planes.shape) == expected["shape"]
        sums = planes.float().sum((0, 2, 3)).int().tolist()
        assert sums == expected["per_channel_sum"]
        digest = hashlib.sha256(planes.to(torch.uint8).numpy().tobytes()).hexdigest()
        assert digest.startswith(expected["sha_u8"])


def test_a_label_beyond_the_last_never_becomes_an_edge() -> None:
    label = torch.full((1, 1, 4, 4), 3, dtype=torch.uint8)
    with pytest.raises(RuntimeError):
        conditioning.one_hot(label, 3, torch.float32, conditioning.instance_edges(label))


@pytest.mark.parametrize("case", ["5x7", "8x8", "33x65", "1x1", "2x3"])
def test_downsampling(case: str) -> None:
    stored = arrays("functions")
    smaller = downsample(torch.from_numpy(stored[f"avgpool_{case}_in"]))
    assert np.abs(smaller.numpy() - stored[f"avgpool_{case}_out"]).max() <= 1e-6


def test_every_uint8_survives_normalisation() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for dtype in (torch.float32, torch.float64):
        floats = conditioning.normalise(image, dtype)
        assert floats.dtype == dtype and floats.min() == -1 and floats.max() == 1
        assert torch.equal(conditioning.denormalise(floats), image)


def test_padding_repeats_the_border_and_is_nothing_where_it_fits() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = conditioning.pad_to_multiple(image, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert torch.equal(padded[0, 0, :, 3], torch.tensor([2.0, 5.0, 5.0, 5.0]))
    assert conditioning.pad_to_multiple(padded, 4) is padded


def test_the_colour_map() -> None:
    ids = torch.arange(256).view(1, 1, 16, 16)
    colours = conditioning.label_colours(ids, 256).flatten(2)[0].T
    assert np.array_equal(colours[:10].numpy(), arrays("functions")["labelcolormap_10"])
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


def test_compute_dtype_follows_autocast() -> None:
    parameter = torch.zeros(1, dtype=torch.float64)
    assert conditioning.compute_dtype(parameter) == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert conditioning.compute_dtype(parameter) == torch.bfloat16


def test_instance_pooling_is_the_mean_of_each_instance_of_each_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 9, 7, generator=generator, dtype=torch.float64)
    inst = torch.randint(-2, 5, (3, 1, 9, 7), generator=generator, dtype=torch.int32) * 8000
    pooled = pool_instances(features, inst)
    for sample in range(3):
        for number in inst[sample].unique():
            inside = inst[sample, 0] == number
            mean = features[sample][:, inside].mean(1, keepdim=True)
            assert torch.allclose(pooled[sample][:, inside], mean, rtol=0, atol=1e-12)


def test_instance_pooling_is_precise_over_a_whole_picture() -> None:
    features = torch.randn(1, 1, 1024, 2048, generator=torch.Generator().manual_seed(0)) + 10
    inst = torch.zeros(1, 1, 1024, 2048, dtype=torch.int32)
    pooled = pool_instances(features, inst)
    assert (pooled.double() - features.double().mean()).abs().max() < 1e-6


def test_instance_pooling_passes_gradients() -> None:
    features = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    inst = torch.randint(0, 3, (2, 1, 3, 4))
    assert torch.autograd.gradcheck(lambda x: pool_instances(x, inst), features)


def test_pictures_of_other_channels_in_colours() -> None:
    grey = torch.tensor([0, 7, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert torch.equal(conditioning.in_colours(grey), grey.repeat(1, 3, 1, 1))
    rgb = torch.randint(0, 256, (1, 3, 2, 2), dtype=torch.uint8)
    assert torch.equal(conditioning.in_colours(rgb), rgb)
    sprite = torch.tensor([[200, 100, 0, alpha] for alpha in (255, 0, 51)], dtype=torch.uint8)
    shown = conditioning.in_colours(sprite.view(3, 4, 1, 1)).view(3, 3)
    assert shown.tolist() == [[200, 100, 0], [255, 255, 255], [244, 224, 204]]
