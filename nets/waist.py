"""Gradients of a sum of losses, with the activations of one summand in memory at a time.

The narrow waist: every loss of a generator is a function of the image that it makes, which is
small beside the activations of the networks that judge it. So each critic is run on a detached
copy of the image, its gradient there is taken at once and its graph freed; the generator's backward
then starts from the sum of those gradients. The same is done in turn for losses that share nothing
but their parameters, such as the two directions of CycleGAN. To the caller the result is an
ordinary scalar with a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor

Terms = dict[str, Tensor]
Critic = Callable[[Tensor], tuple[Tensor, Terms]]
"""image -> (weighted total, unweighted terms). The critic's own parameters must be frozen."""
Part = Callable[[], tuple[Tensor, Terms]]
"""() -> (weighted total, unweighted terms)."""
Gradients = list[Tensor | None]

_scale: ContextVar[Tensor | float] = ContextVar("loss_scale", default=1.0)


@contextmanager
def loss_scale(scale: Tensor | float) -> Iterator[None]:
    """Tells the waists inside what backward will multiply the loss by (a GradScaler's scale).

    The gradients at the waist are taken before that happens, and unscaled ones would vanish in
    float16. With the scale they are about what one backward would give; overflows included, which
    the scaler then finds as ever.
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
    leaf = image.detach().requires_grad_(torch.is_grad_enabled() and image.requires_grad)
    # Autograd would meet the last critic first; sums of floats depend on the order.
    parts = [partial(critic, leaf) for critic in reversed(critics)]
    terms: Terms = {}
    return _Waist.apply(parts, terms, [leaf], image), terms


def in_turn(parts: Sequence[Part], parameters: Sequence[Tensor]) -> tuple[Tensor, Terms]:
    """(sum of the parts' totals, their terms), run in order, one part's graph in memory at a time.

    The total is differentiable with respect to those of `parameters` that require gradients, which
    are leaves that the parts use, and to nothing else. Terms are detached, and equal names are
    added up. The gradients are held from here to backward: as much again as the parameters.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    terms: Terms = {}
    return _Waist.apply(parts, terms, wanted if torch.is_grad_enabled() else [], *wanted), terms


class _Waist(torch.autograd.Function):
    """Sum of the parts. `leaves` are what they are differentiated at, and stand for `inputs`."""

    @staticmethod
    def forward(
        ctx: Any, parts: Sequence[Part], terms: Terms, leaves: list[Tensor], *inputs: Tensor
    ) -> Tensor:
        scale = _scale.get()
        leaves = [leaf for leaf in leaves if leaf.requires_grad]
        totals = []
        gradients: Gradients = [None] * len(leaves)
        for part in parts:
            total, found, own = _differentiate(part, leaves, scale)
            gradients = [_add(before, new) for before, new in zip(gradients, own)]
            totals.append(total)
            for name, term in found.items():
                terms[name] = term + terms[name] if name in terms else term
        ctx.save_for_backward(*gradients)
        ctx.scale = scale
        return torch.stack(totals).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factor = grad / ctx.scale
        scaled = (None if saved is None else saved * factor for saved in ctx.saved_tensors)
        return None, None, None, *scaled


def _differentiate(
    part: Part, leaves: list[Tensor], scale: Tensor | float
) -> tuple[Tensor, Terms, Gradients]:
    """Total, terms and scaled gradients at the leaves; the part's graph ends with this call."""
    with torch.set_grad_enabled(bool(leaves)):
        total, found = part()
    gradients: Gradients = [None] * len(leaves)
    if leaves and total.requires_grad:
        weight = torch.ones_like(total) * scale
        gradients = list(torch.autograd.grad(total, leaves, weight, allow_unused=True))
    return total.detach(), {name: term.detach() for name, term in found.items()}, gradients


def _add(before: Tensor | None, new: Tensor | None) -> Tensor | None:
    if before is None or new is None:
        return new if before is None else before
    return before + new
