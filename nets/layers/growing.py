"""What growing networks need besides layers, as pure functions: fading, sizes, deviations.

Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, ICLR 2018
(arXiv:1710.10196), sections 2 to 4. Sums that low precision would spoil are taken in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nets.layers.precise import at_least_float32


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """[N, C, ...] -> x / sqrt(mean of x^2 over the channels + eps), section 4.2."""
    values = at_least_float32(x)
    return (values * (values.square().mean(1, keepdim=True) + eps).rsqrt()).to(x.dtype)


def stage_widths(side: int, base: int, most: int) -> list[int]:
    """Channels of the original's stages: min(base / 2 ** stage, most), those of 4x4 pixels at
    stage 1, of 8x8 at 2, and so on up to `side`, a power of 2 from 4 on, else ValueError."""
    if side < 4 or side & (side - 1):
        raise ValueError(f"images of {side}x{side} do not fit: the side must be 4, 8, 16, 32, ...")
    return [min(base >> stage, most) for stage in range(side.bit_length() - 1)]


def level_of_detail(lod: float, top: int) -> tuple[int, float]:
    """(level, from 0 for 4x4 pixels to `top`, how much of the level below is still there).

    Raises ValueError where `lod`, 0 for all of the detail, is not in 0 .. top."""
    if not 0 <= lod <= top:
        raise ValueError(f"a level of detail of {lod} is not between 0 and {top}")
    return top - int(lod), lod - int(lod)


def fade(old: Tensor, new: Tensor, share: float) -> Tensor:
    """old + (new - old) * share: 0 is all old, 1 all new; `share` of the new level, section 2."""
    return torch.lerp(old, new, share)


def enlarge(x: Tensor, times: int = 2) -> Tensor:
    """[N, C, H, W] -> [N, C, times H, times W], each pixel repeated."""
    return x if times == 1 else F.interpolate(x, scale_factor=float(times), mode="nearest")


def shrink(x: Tensor, times: int = 2) -> Tensor:
    """[N, C, H, W] -> [N, C, H / times, W / times], means of times x times pixels."""
    return x if times == 1 else F.avg_pool2d(x, times)


def fade_image(image: Tensor, old_share: float) -> Tensor:
    """A real image between itself and its next lower resolution, as the generated ones then are.

    [N, C, H, W] -> the same; old_share: how much of the lower one, lod - floor(lod)."""
    return torch.lerp(image, enlarge(shrink(image)), old_share) if old_share else image


def with_batch_deviation(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C + 1, H, W]: how much the samples of the whole batch differ.

    The mean over features and pixels of the unbiased standard deviation over the batch, which must
    hold two samples at least."""
    deviation = at_least_float32(x).std(0).mean().to(x.dtype)
    return torch.cat([x, deviation.expand_as(x[:, :1])], dim=1)


def with_group_deviation(x: Tensor, group_size: int = 4, eps: float = 1e-8) -> Tensor:
    """[N, C, H, W] -> [N, C + 1, H, W]: how much the samples of a group differ, section 3.

    Of M = N / group_size groups the m-th holds samples m, m + M, m + 2M, ...; a batch that is
    smaller than a group is one. The mean over features and pixels of sqrt(biased variance + eps).
    Raises ValueError where groups do not divide the batch.
    """
    size = min(group_size, len(x))
    if len(x) % size:
        raise ValueError(f"a batch of {len(x)} cannot be divided into groups of {size}")
    groups = at_least_float32(x).unflatten(0, (size, -1))
    deviation = (groups.var(0, correction=0) + eps).sqrt().mean((1, 2, 3)).to(x.dtype)
    return torch.cat([x, deviation.repeat(size)[:, None, None, None].expand_as(x[:, :1])], dim=1)
