"""The backend that a run asks for."""

from __future__ import annotations

import torch

from trainers.backends.base import Backend
from trainers.backends.deepspeed_zero import DeepSpeed
from trainers.backends.distributed import Replicated


def open_backend(
    expected: int,
    timeout: float,
    zero: int | None = None,
    travels_as: torch.dtype | None = None,
    overlap: bool = False,
) -> Backend:
    """The backend for `expected` processes, which the launcher started.

    zero: stage of DeepSpeed's ZeRO; None for DDP. travels_as: dtype of gradients between ranks;
    None for their own. overlap: under DDP, let them travel while later phases compute. A single
    process needs none of it."""
    if expected == 1:
        return Backend()
    if zero is None:
        return Replicated(expected, timeout, travels_as, overlap)
    assert not overlap, "DeepSpeed's engines reduce by themselves"
    return DeepSpeed(expected, timeout, zero, travels_as)
