"""What growing networks need, beside the originals' numbers."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from nets.layers.equalised import EqualisedConv2d, EqualisedLinear
from nets.layers.growing import (
    fade,
    fade_image,
    pixel_norm,
    with_batch_deviation,
    with_group_deviation,
)
from tests.nets.noise.oracle import FUNCTIONS, distance, drawn


def precise(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_pixel_norm() -> None:
    expected = FUNCTIONS["pixel_norm"]
    out = pixel_norm(precise(expected["input"]))
    assert distance(out, precise(expected["output"])) <= 1e-12
    large = torch.full((1, 2, 1, 1), 1e4, dtype=torch.float16)
    assert pixel_norm(large).flatten().tolist() == [1, 1]


def test_the_deviation_of_a_batch_is_one_more_channel() -> None:
    expected = FUNCTIONS["minibatch_std_collection"]
    x = precise(expected["input"])
    out = with_batch_deviation(x)
    assert torch.equal(out[:, :-1], x)
    assert torch.allclose(out[:, -1:], precise(expected["value"]).expand(4, 1, 2, 2), rtol=1e-12)


def test_the_deviation_of_strided_groups() -> None:
    expected = FUNCTIONS["minibatch_std_karras"]
    x = drawn(expected["input"])
    out = with_group_deviation(x, expected["group_size"])
    assert out[:, -1, 1, 0].tolist() == pytest.approx(expected["value_of_sample"], rel=1e-12)
    assert torch.equal(out[:, :-1], x)
    few = with_group_deviation(x[:2])[:, -1]
    assert few.unique().numel() == 1
    with pytest.raises(ValueError, match="a batch of 6 cannot be divided into groups of 4"):
        with_group_deviation(x[:6])


def test_real_images_fade_as_generated_ones() -> None:
    expected = FUNCTIONS["fade_of_real_images"]
    out = fade_image(drawn(expected["input"]), expected["fraction_of_lod"])
    assert distance(out, precise(expected["output"])) <= 1e-12


def test_the_share_of_a_fade_is_that_of_the_new() -> None:
    old, new = torch.zeros(2), torch.ones(2)
    assert fade(old, new, 0.25).tolist() == [0.25, 0.25]
    assert torch.equal(fade(old, new, 1.0), new) and torch.equal(fade(old, new, 0.0), old)


def test_weights_are_scaled_when_used_and_biases_are_not() -> None:
    layers = (EqualisedConv2d(3, 2, 3), EqualisedLinear(27, 2), EqualisedLinear(27, 2, gain=1.0))
    x = torch.randn(4, 3, 3, 3)
    for layer, gain in zip(layers, (sqrt(2), sqrt(2), 1.0), strict=True):
        assert not layer.bias.any() and 0.3 < layer.weight.std() < 3
        torch.nn.init.constant_(layer.bias, 2.0)
        out = layer(x if isinstance(layer, EqualisedConv2d) else x.flatten(1)).flatten(1)
        plain = x.flatten(1) @ layer.weight.flatten(1).t() * gain / sqrt(27) + 2
        assert torch.allclose(out, plain, atol=1e-5)
