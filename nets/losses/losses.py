"""Losses as pure functions: tensors in, unweighted scalar out.

Means are taken in float32 at least, also under autocast; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GanLoss = Literal["lsgan", "bce", "hinge"]


def generator_loss(scores: Tensor, kind: GanLoss) -> Tensor:
    """How far D's `scores` (logits) of generated images are from those of real ones."""
    if kind == "hinge":
        return -_precise(scores).mean()
    return discriminator_loss(scores, real=True, kind=kind)


def discriminator_loss(scores: Tensor, real: bool, kind: GanLoss) -> Tensor:
    """Loss of D on `scores` (logits) of real or of generated images.

    lsgan: squared distance to 1 or 0; bce: cross-entropy with logits; hinge: max(0, 1 -+ score).
    """
    scores = _precise(scores)
    if kind == "lsgan":
        return (scores - float(real)).square().mean()
    if kind == "bce":
        return F.softplus(-scores if real else scores).mean()
    return F.relu(1 - scores if real else 1 + scores).mean()


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 between the features of one discriminator, its scores (the last entry) left out.

    Four times the mean over the layers: the original's factor for equation 4 of pix2pixHD, 1 at
    its depth of four. Averaging over scales is the caller's part.
    """
    distances = [l1(f, r) for f, r in zip(fake[:-1], real[:-1], strict=True)]
    return 4 / len(distances) * torch.stack(distances).sum()


def l1(a: Tensor, b: Tensor, count: int | None = None) -> Tensor:
    """Mean of |a - b|, differentiable in `a` only; `b` is constant.

    With `count` the sum is divided by it instead of by the number of elements: the share of a part
    in the mean over a whole.
    """
    return _L1.apply(a, b.detach(), count or a.numel())


class _L1(torch.autograd.Function):
    """Keeps the sign of a - b for backward, one byte an element, in place of float copies.

    The difference of low-precision inputs is rounded once, below the error that they carry; its
    sign, and with it the gradient, is exact.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, count: int) -> Tensor:
        precise = torch.promote_types(a.dtype, torch.float32)
        total = (a - b).abs_().sum(dtype=precise)
        if ctx.needs_input_grad[0]:
            sign = (a > b).view(torch.int8)
            ctx.save_for_backward(sign.sub_((a < b).view(torch.int8)))
            ctx.count, ctx.dtype = count, a.dtype
        return total / count

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (sign,) = ctx.saved_tensors
        return sign * (grad / ctx.count).to(ctx.dtype), None, None


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
