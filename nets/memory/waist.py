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
from torch import Tensor, nn

Terms = dict[str, Tensor]
Critic = Callable[[Tensor], tuple[Tensor, Terms]]
"""image -> (weighted total, unweighted terms). Its own parameters get no gradient here."""
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
    total, terms, gradients = _differentiated(parts, [leaf])
    return _Known.apply(total, gradients, _scale.get(), image), terms


def in_turn(parts: Sequence[Part], parameters: Sequence[Tensor]) -> tuple[Tensor, Terms]:
    """(sum of the parts' totals, their terms), run in order, one part's graph in memory at a time.

    The total is differentiable with respect to those of `parameters` that require gradients, which
    are leaves that the parts use, and to nothing else. Terms are detached, and equal names are
    added up. The gradients are held from here to backward: as much again as the parameters.
    """
    leaves = [parameter for parameter in parameters if parameter.requires_grad]
    leaves = leaves if torch.is_grad_enabled() else []
    total, terms, gradients = _differentiated(parts, leaves)
    return _Known.apply(total, gradients, _scale.get(), *leaves), terms


class Ahead:
    """Losses that train a module in a later phase, differentiated before, on a graph that is there
    anyway: a discriminator's, while it judges the same images for the generator."""

    def __init__(self) -> None:
        self.terms: Terms = {}
        """Unweighted, equal names added up."""
        self._totals: list[Tensor] = []
        self._gradients: dict[Tensor, Tensor] = {}

    def take(self, terms: Terms, total: Callable[[Terms], Tensor], module: nn.Module) -> None:
        """Differentiate total(terms) at the parameters of `module`, of which all take part in it.

        The graph is kept: it is there for others."""
        weighted, parameters = total(terms), list(module.parameters())
        found = torch.autograd.grad(weighted, parameters, retain_graph=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            before = self._gradients.get(parameter)
            self._gradients[parameter] = gradient if before is None else before + gradient
        self._totals.append(weighted.detach())
        _add_terms(self.terms, terms)

    def total(self) -> Tensor:
        """Sum of the weighted terms, an ordinary scalar with a graph down to the parameters."""
        gradients = list(self._gradients.values())
        return _Known.apply(torch.stack(self._totals).sum(), gradients, 1.0, *self._gradients)


@contextmanager
def unfrozen(module: nn.Module) -> Iterator[None]:
    """Inside, all parameters of `module` ask for gradients."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


class _Known(torch.autograd.Function):
    """`total`, of which the gradients at `inputs`, times `scale`, are known already."""

    @staticmethod
    def forward(
        ctx: Any, total: Tensor, gradients: Gradients, scale: Tensor | float, *inputs: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*gradients)
        ctx.scale = scale
        return total.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factor = grad / ctx.scale
        scaled = (None if saved is None else saved * factor for saved in ctx.saved_tensors)
        return None, None, None, *scaled


def _differentiated(
    parts: Sequence[Part], leaves: Sequence[Tensor]
) -> tuple[Tensor, Terms, Gradients]:
    """Total, terms and scaled gradients at the leaves of all parts, run one after the other."""
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    totals: list[Tensor] = []
    terms: Terms = {}
    gradients: Gradients = [None] * len(leaves)
    for part in parts:
        total, found, own = _differentiate(part, leaves, _scale.get())
        gradients = [_add(before, new) for before, new in zip(gradients, own, strict=True)]
        totals.append(total)
        _add_terms(terms, found)
    return torch.stack(totals).sum(), terms, gradients


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
    return total.detach(), found, gradients


def _add_terms(sums: Terms, terms: Terms) -> None:
    for name, term in terms.items():
        sums[name] = term.detach() + sums[name] if name in sums else term.detach()


def _add(before: Tensor | None, new: Tensor | None) -> Tensor | None:
    if before is None or new is None:
        return new if before is None else before
    return before + new
