"""Statistics cheap enough to gather in every step: sums on the device, one all-reduce a tick."""

from __future__ import annotations

import resource
import time

import torch
from torch import Tensor

from trainers.backends.base import Backend


class Means:
    """Running means of named scalars, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Detached scalars by name; what has been seen before takes one kernel for all."""
        known = [name for name in values if name in self.sums]
        if known:
            sums = [self.sums[name] for name in known]
            torch._foreach_add_(sums, [values[name] for name in known])
        for name, value in values.items():
            if name not in self.sums:
                self.sums[name] = value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def collect(self, backend: Backend) -> dict[str, float]:
        """Means over steps and ranks since the last call; every rank must call it."""
        if not self.sums:
            return {}
        names = sorted(self.sums)
        stacked = torch.stack([self.sums[n].double() / self.counts[n] for n in names])
        means = backend.mean(stacked).tolist()
        self.sums.clear()
        self.counts.clear()
        return dict(zip(names, means, strict=True))


class Clock:
    """Wall time of a tick, and the share of it in which the loop waited for data.

    On a GPU it may wait while the step is still being computed: an upper bound of what is lost."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, images: int) -> None:
        self.started = time.perf_counter()
        self.images = images
        self.waited = 0.0

    def read(self, images: int, backend: Backend) -> dict[str, float]:
        """Speed since the last restart, and the share of the rank that waited longest: the others
        wait for it. Starts the next tick; every rank must call it."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        share = torch.tensor(self.waited / elapsed, device=backend.device)
        speed = {
            "speed/images_per_s": (images - self.images) / elapsed,
            "speed/data_wait_share": backend.maximum(share).item(),
        }
        self.restart(images)
        return speed


def peak_memory_gib(device: torch.device) -> float:
    """Allocator peak on a GPU, resident peak of the process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
