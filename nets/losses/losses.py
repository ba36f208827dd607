"""Losses as pure functions: tensors in, unweighted scalar out.

Means are taken in float32 at least, also under autocast; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nets.layers.precise import at_least_float32, without_autocast

GanLoss = Literal["lsgan", "bce", "hinge"]
CriticLoss = Literal["lsgan", "bce", "hinge", "wgangp"]
"""wgangp belongs beside a `gradient_penalty`, or the scores grow without end."""


def generator_loss(scores: Tensor, kind: CriticLoss) -> Tensor:
    """How far D's `scores` (logits) of generated images are from those of real ones."""
    if kind in ("hinge", "wgangp"):
        return -at_least_float32(scores).mean()
    return discriminator_loss(scores, real=True, kind=kind)


def discriminator_loss(scores: Tensor, real: bool, kind: CriticLoss) -> Tensor:
    """Loss of D on `scores` (logits) of real or of generated images.

    lsgan: squared distance to 1 or 0; bce: cross-entropy with logits; hinge: max(0, 1 -+ score);
    wgangp: -+ score.
    """
    scores = at_least_float32(scores)
    if kind == "lsgan":
        return (scores - float(real)).square().mean()
    if kind == "bce":
        return F.softplus(-scores if real else scores).mean()
    if kind == "wgangp":
        return -scores.mean() if real else scores.mean()
    return F.relu(1 - scores if real else 1 + scores).mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    share: Tensor,
    share_of: Literal["real", "fake"] = "real",
    target: float = 1.0,
) -> Tensor:
    """Mean over the samples of (|gradient of the critic at x| / target - 1)^2, x between real and
    fake: Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017 (arXiv:1704.00028),
    equation 3, in the form of the authors' pix2pix (cal_gradient_penalty, type mixed).

    critic: images [N, C, H, W] -> scores [N, ...], whose sum over a sample is differentiated;
    real, fake: [N, C, H, W], constants; share: [N, 1, 1, 1] in 0..1, how much of the image that
    `share_of` names is in x (in the original ProGAN the fake one). target: the norm that costs
    nothing. An image that stands for one `k` times as large, each pixel repeated, has a gradient
    `k` times as long: with target k the penalty is that of the large one at 1.

    Differentiable in the critic's parameters, for which it must be twice differentiable. In float32
    at least, also under autocast: the norm squares what low precision rounds away.
    """
    with without_autocast(real.device):
        real, fake, share = (at_least_float32(each.detach()) for each in (real, fake, share))
        share = share if share_of == "real" else 1 - share
        between = (share * real + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        norm = (slope.flatten(1) + 1e-16).norm(dim=1)  # 1e-16 as there
        return (norm / target - 1).square().mean()


def drift(scores: Tensor) -> Tensor:
    """Mean of the squared scores of real images, which keeps them near 0: Karras et al., ICLR 2018
    (arXiv:1710.10196), appendix A.1."""
    return at_least_float32(scores).square().mean()


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (a - b)^2."""
    return (at_least_float32(a) - at_least_float32(b)).square().mean()


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
