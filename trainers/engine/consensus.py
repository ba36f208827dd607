"""Whether all ranks go on: what stops one of them stops all, after the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainers.backends.base import Backend
from trainers.checkpoints.checkpoint import Progress
from trainers.errors import TrainingError


class Vote:
    """What this rank has against going on, and what came of asking all."""

    def __init__(self, backend: Backend, stop: Callable[[], int]):
        """stop(): 0, or a number below 256 that says why this process was asked to leave."""
        self.backend = backend
        self.stop = stop
        self.stopped_by = 0
        """The number for which the run was stopped: the greatest of all ranks."""
        self.failure: Exception | None = None
        """What is to be raised once all ranks have stopped and saved."""

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """What goes wrong on one rank is kept for the next vote."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    def go_on(self, watched: dict[str, Tensor], progress: Progress) -> bool:
        """One all-reduced vector a step. Raises on all ranks when something `watched` has ceased
        to be finite on any. On a GPU the host waits here for the step: the price of stopping at
        the very step, by when the next batch is on its way already."""
        device = self.backend.device
        asked = torch.tensor([float(self.stop()), float(self.failure is not None)], device=device)
        values = [value.float() for value in watched.values()]
        bad = [(~torch.stack(values).isfinite()).float()] if values else []
        stop, failed, *bad_flags = self.backend.maximum(torch.cat([asked, *bad])).tolist()
        self.stopped_by = int(stop)
        if any(bad_flags):
            worst = [name for name, flag in zip(watched, bad_flags, strict=True) if flag]
            raise TrainingError(
                f"Not finite at step {progress.step}: {', '.join(worst)}. The checkpoint "
                "before is kept; resume it with a lower optim.lr, with optim.clip, or with "
                "precision bf16 or fp32."
            )
        if failed and self.failure is None:
            self.failure = TrainingError(
                f"Another rank could not go on after {progress.images} images: its log says "
                "why. What was done is saved; the same command resumes."
            )
        return not (stop or failed)
