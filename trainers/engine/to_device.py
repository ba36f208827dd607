"""Batches on their way from the data workers to the device."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.gan import Batch


class Transfer:
    """Copies batches to `device`; on a GPU beside the step whose kernels are still running.

    Only copies from pinned memory leave the host free, which the stream's loader provides."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        if self.stream is None:
            return to_device(batch, self.device)
        with torch.cuda.stream(self.stream):
            moved = to_device(batch, self.device)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for value in moved.values():
            if isinstance(value, Tensor):
                value.record_stream(computing)  # its memory is the copying stream's
        return moved


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
