"""What generated images are made of: a seed and the image's number say all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from shards.read.noise import Noise
from trainers.gan import Batch
from trainers.settings import Draw, Needs

MOST_ROWS = 10
"""Classes that the board shows."""
BOARD_WIDTH = 1024
"""Pixels that the board's images take side by side, about."""


def drawn(
    needs: Needs, seed: int, numbers: Sequence[int], truncation: float | None = None
) -> Batch:
    """The random numbers of the images with these numbers, on the CPU. truncation: the largest
    normal number, see `truncated`."""
    batch = {}
    for draw in needs.samples:
        values = torch.from_numpy(np.stack([noise_of(draw).at(seed, n) for n in numbers]))
        if truncation is not None and draw.distribution == "normal":
            values = truncated(values, truncation)
        batch[draw.name] = values
    return batch


def noise_of(draw: Draw) -> Noise:
    """Under a name of its own: training shall not see these."""
    return Noise(f"sample {draw.name}", draw.shape, draw.distribution)


def truncated(values: Tensor, limit: float) -> Tensor:
    """Normal numbers -> numbers of the normal distribution cut at +-limit: what is left when larger
    ones are drawn again (Brock et al., arXiv:1809.11096, section 3.1). By the distributions'
    inverse, so that an image changes little with the limit."""
    below = torch.special.ndtr(torch.tensor(-limit, dtype=torch.float64))
    share = torch.special.ndtr(values.double())
    return torch.special.ndtri(below + share * (1 - 2 * below)).to(values.dtype)


def between(ends: Batch, needs: Needs, share: float) -> Batch:
    """What an image on the way from the first of two to the second is made of, `share` of the way:
    noise on the great circle, uniform numbers on the line."""
    return {draw.name: mixed(ends[draw.name], share, draw) for draw in needs.samples}


def mixed(ends: Tensor, share: float, draw: Draw) -> Tensor:
    a, b = ends
    if draw.distribution == "uniform":
        return torch.lerp(a, b, share)
    cosine = torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if angle < 1e-4:
        return torch.lerp(a, b, share)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


def shown(needs: Needs, seed: int) -> tuple[Batch, int] | None:
    """What the board shows of a GAN that makes images from noise, over the whole run, and how many
    stand in a row: rows of a class each, which share their noise; None for other GANs."""
    if not needs.samples:
        return None
    assert needs.side is not None, "images from noise have one size"
    columns = max(4, min(8, BOARD_WIDTH // needs.side))
    if not needs.sample_classes:
        return drawn(needs, seed, range(columns * columns)), columns
    rows = min(needs.sample_classes, MOST_ROWS)
    classes = [row * needs.sample_classes // rows for row in range(rows)]
    draws = drawn(needs, seed, [*range(columns)] * rows)
    return draws | {"class": torch.tensor(classes).repeat_interleave(columns)}, columns
