"""What the loop takes its batches from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from trainers.gan import Batch


class Stream(Protocol):
    """position -> micro-batches of this rank from so many images of the run on, without end.

    size: images of a step over all ranks; None: as many as the recipe says."""

    def __call__(self, position: int, size: int | None = None) -> Iterator[Batch]: ...
