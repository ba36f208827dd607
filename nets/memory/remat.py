"""Rematerialisation: activations recomputed in backward instead of kept (checkpointing)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Remat = Literal["none", "blocks", "halves", "whole"]
"""What of a generator is recomputed: nothing, each residual block, its two halves (global part
and enhancers, or way down and way up), or all of it, piece by piece."""

Memory = Literal["none", "blocks", "halves", "halves+slices", "whole+strips"]
"""Names of the presets, from the fastest to the smallest."""


@dataclass(frozen=True)
class Preset:
    """How one training step trades computation for memory; the gradients stay the same."""

    generator: Remat
    slices: bool = False
    """Recompute each slice of the perceptual network."""
    strips: bool = False
    """Run the perceptual network over horizontal strips of the image, one after the other."""


PRESETS: dict[str, Preset] = {
    "none": Preset("none"),
    "blocks": Preset("blocks"),
    "halves": Preset("halves"),
    "halves+slices": Preset("halves", slices=True),
    "whole+strips": Preset("whole", strips=True),
}
assert set(PRESETS) == set(get_args(Memory))


def remat(function: Callable[..., Any], *args: Any, when: bool = True) -> Any:
    """function(*args); where `when` holds, its activations are dropped and recomputed in backward.

    `function` is a module or a method of one. Its dropout draws the same numbers again, and its
    batch norms do not count the batch twice. Non-reentrant only: the reentrant kind is silently
    wrong for a network used twice under DDP.
    """
    if not when:
        return function(*args)
    method: Any = function
    module = function if isinstance(function, nn.Module) else method.__self__
    return checkpoint(
        function,
        *args,
        use_reentrant=False,
        preserve_rng_state=any(isinstance(layer, nn.Dropout) for layer in module.modules()),
        context_fn=lambda: (nullcontext(), _scratch_statistics(module)),
    )


@contextmanager
def _scratch_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms in training mode write their running statistics where nobody reads them.

    Not `untracked`: checkpointing wants the recomputation to save as many tensors as before."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    before = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, before, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, torch.empty_like(buffer))
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
