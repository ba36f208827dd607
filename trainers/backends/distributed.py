"""Many processes: accelerate's group of them, and DDP around each player."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.backends.base import Backend, Place, Seat
from trainers.backends.overlap import Reduction
from trainers.errors import TrainingError
from trainers.player import Player


class Distributed(Backend):
    """Accelerate's launch environment, device and process group; the wrappers are our own."""

    def __init__(self, expected: int, timeout: float):
        """expected: world size the launcher promised; timeout: seconds for any collective."""
        from accelerate import PartialState

        on_cpu = not torch.cuda.is_available()
        state = PartialState(cpu=on_cpu, timeout=timedelta(seconds=timeout))
        if state.num_processes != expected:
            raise TrainingError(
                f"{expected} processes were expected but {state.num_processes} found each other: "
                "start with `accelerate launch --multi_gpu --num_processes "
                f"{expected} -m launcher train ...` (one --num_processes for all machines)."
            )
        if not on_cpu and state.local_process_index >= torch.cuda.device_count():
            raise TrainingError(
                f"This machine has {torch.cuda.device_count()} GPUs, but more processes were "
                "started on it: start one process per GPU."
            )
        super().__init__(state.device)
        self.rank = state.process_index
        self.world = state.num_processes

    def mean(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor / self.world

    def maximum(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        dist.broadcast(tensor, src=0)
        return tensor

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


class Replicated(Distributed):
    """DDP around each player: every rank holds, and steps, everything."""

    def __init__(
        self,
        expected: int,
        timeout: float,
        travels_as: torch.dtype | None = None,
        overlap: bool = False,
    ):
        """travels_as: dtype of the gradients between ranks, None for their own."""
        super().__init__(expected, timeout)
        self.travels_as = travels_as
        self.overlap = overlap

    def seat(self, place: Place) -> Seat:
        seat = super().seat(place)
        if self.overlap or self.travels_as is not None:
            seat.reduction = Reduction(ddp(seat), self.travels_as)
        return seat

    def wrap(self, player: Player) -> nn.Module:
        # Buffers are `average_buffers`' business: networks also run unwrapped.
        buffers = [name for name, _ in player.named_buffers()]
        # A gradient penalty leaves gradients of layers with one channel whose strides differ from a
        # bucket's along that channel alone, where there is nothing to step over.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(player, buffers)
        # The bucket view saves one copy of all gradients (0.73 GB for pix2pixHD's generator).
        return DistributedDataParallel(player, gradient_as_bucket_view=True)

    @contextmanager
    def accumulate(self, seat: Seat, last: bool) -> Iterator[None]:
        synchronised = nullcontext() if last else ddp(seat).no_sync()
        with super().accumulate(seat, last), synchronised:
            yield

    def step(self, seat: Seat, clip: float | None) -> Tensor:
        if seat.reduction is not None:
            seat.reduction.wait()
        return super().step(seat, clip)


def ddp(seat: Seat) -> DistributedDataParallel:
    """The player as wrap() made it."""
    assert isinstance(seat.player, DistributedDataParallel)
    return seat.player
