"""Building blocks of the networks, by themselves."""

from __future__ import annotations

import pytest
import torch

from nets.layers.blocks import pad_pixels, reflection_pad


@pytest.mark.parametrize("border", [1, 3])
@pytest.mark.parametrize("samples", [1, 2])
def test_pixels_are_padded_as_planes_are(border: int, samples: int) -> None:
    """Values and gradients, in the layout that came."""
    x = torch.randn(samples, 5, 7, 9, dtype=torch.float64).to(memory_format=torch.channels_last)
    probe = torch.randn(samples, 5, 7 + 2 * border, 9 + 2 * border, dtype=torch.float64)
    found = []
    for pad in (pad_pixels, reflection_pad):
        given = x.clone().requires_grad_()
        padded = pad(given, border)
        assert padded.is_contiguous(memory_format=torch.channels_last)
        (padded * probe).sum().backward()
        found.append((padded.detach(), given.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-15)
