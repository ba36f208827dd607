"""Rematerialisation: activations recomputed in backward instead of kept (checkpointing)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
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

    `function` is a module or a method of one. Its dropout draws the same numbers again, its batch
    norms do not count the batch twice, and its spectral norms start from the vectors that they had,
    and leave those that there are now alone. Non-reentrant only: the reentrant kind is silently
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
        context_fn=lambda: _contexts(module),
    )


Buffers = dict[tuple[nn.Module, str], Tensor]


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For the forward pass, and for its recomputations."""
    return nullcontext(), _Scratch(module)


class _Scratch(AbstractContextManager[None]):
    """Inside, batch norms in training mode write their running statistics where nobody reads them,
    and what a pass starts from and moves (`moving_buffers`) is as it was when this was made.

    Not `untracked`: checkpointing wants the recomputation to save as many tensors as before. It may
    be entered again: a penalty on gradients recomputes twice."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.moving: Buffers = {
            (layer, name): getattr(layer, name).clone()
            for layer in module.modules()
            for name in getattr(layer, "moving_buffers", ())
        }
        self.before: Buffers = {}

    def __enter__(self) -> None:
        scratch = {place: buffer.clone() for place, buffer in self.moving.items()}
        for layer in self.module.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.training:
                named = layer.named_buffers()
                scratch |= {(layer, name): torch.empty_like(buffer) for name, buffer in named}
        self.before = {(layer, name): getattr(layer, name) for layer, name in scratch}
        _put(scratch)

    def __exit__(self, *error: object) -> None:
        _put(self.before)


def _put(buffers: Buffers) -> None:
    for (layer, name), buffer in buffers.items():
        setattr(layer, name, buffer)
