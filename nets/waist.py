"""The narrow waist: gradients of many critics of one image, one critic in memory at a time.

Every loss of a generator is a function of the image that it makes, which is small beside the
activations of the networks that judge it. So each critic is run on a detached copy of the image,
its gradient there is taken at once and its graph freed; the generator's backward then starts from
the sum of those gradients. To the caller the result is an ordinary scalar with a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

Terms = dict[str, Tensor]
Critic = Callable[[Tensor], tuple[Tensor, Terms]]
"""image -> (weighted total, unweighted terms). The critic's own parameters must be frozen."""

_scale: ContextVar[Tensor | float] = ContextVar("loss_scale", default=1.0)


@contextmanager
def loss_scale(scale: Tensor | float) -> Iterator[None]:
    """Tells the waists inside what backward will multiply the loss by (a GradScaler's scale).

    The gradients at the image are taken before that happens, and unscaled ones would vanish in
    float16. With the scale they are what one backward would give, overflows included, which the
    scaler then finds as ever.
    """
    token = _scale.set(scale)
    try:
        yield
    finally:
        _scale.reset(token)


def narrow_waist(image: Tensor, critics: Sequence[Critic]) -> tuple[Tensor, Terms]:
    """(sum of the critics' totals, their terms): itself a critic, so that waists can be nested.

    The total is differentiable with respect to `image` alone; the terms are detached, and equal
    names are added up. The gradient is that of one backward through all critics together, bit for
    bit where the total is multiplied by a power of two.
    """
    differentiable = torch.is_grad_enabled() and image.requires_grad
    terms: Terms = {}
    return _Waist.apply(image, critics, terms, differentiable), terms


class _Waist(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, critics: Sequence[Critic], terms: Terms, differentiable: bool
    ) -> Tensor:
        scale = _scale.get()
        totals, gradient = [], None
        # Autograd would meet the last critic first; sums of floats depend on the order.
        for critic in reversed(critics):
            total, found, own = _consult(critic, image, differentiable, scale)
            gradient = own if gradient is None else gradient + own
            totals.append(total)
            for name, term in found.items():
                terms[name] = term + terms[name] if name in terms else term
        ctx.save_for_backward(gradient)
        ctx.scale = scale
        return torch.stack(totals).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * (grad / ctx.scale), None, None, None


def _consult(
    critic: Critic, image: Tensor, differentiable: bool, scale: Tensor | float
) -> tuple[Tensor, Terms, Tensor | None]:
    """Total, terms and scaled gradient at the image; the critic's graph ends with this call."""
    leaf = image.detach().requires_grad_(differentiable)
    with torch.set_grad_enabled(differentiable):
        total, found = critic(leaf)
    own = None
    if differentiable:
        (own,) = torch.autograd.grad(total, leaf, torch.ones_like(total) * scale)
    return total.detach(), {name: term.detach() for name, term in found.items()}, own
