"""Rematerialisation: activations recomputed in backward instead of kept (checkpointing)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

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


PRESETS: dict[Memory, Preset] = {
    "none": Preset("none"),
    "blocks": Preset("blocks"),
    "halves": Preset("halves"),
    "halves+slices": Preset("halves", slices=True),
    "whole+strips": Preset("whole", strips=True),
}
assert set(PRESETS) == set(get_args(Memory))


def remat(function: Callable[..., Any], *args: Any, when: bool = True) -> Any:
    """function(*args); where `when` holds, its activations are dropped and recomputed in backward.

    Non-reentrant only: the reentrant kind is silently wrong for a network used twice under DDP.
    The random state is not kept, since nothing that is recomputed here draws random numbers.
    """
    if not when:
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
