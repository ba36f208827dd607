"""DeepSpeed: one engine per player, optimizer states (and gradients) sharded over the ranks.

ZeRO 1 shards Adam's moments, ZeRO 2 the averaged gradients as well; 0 shards nothing. Parameters
and collectives stay fp32 and autocast is the player's, so that the numbers are those of DDP.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainers.backends.base import Moments, Place, Seat, take_over
from trainers.backends.distributed import Distributed
from trainers.backends.optimizers import counts_steps, moment_names
from trainers.errors import TrainingError

BUCKET = 2**25
"""Parameters whose gradients are reduced at a time: a buffer of 128 MiB, as long as a backward.
DeepSpeed's own choice would be 2 GB."""


def engine_of(seat: Seat) -> Any:
    """A seat's player, DeepSpeed's engine, which comes without types."""
    return seat.player


@dataclass
class EngineSeat(Seat):
    """A seat whose player is a DeepSpeed engine."""

    def leave(self) -> None:
        engine_of(self).destroy()


@dataclass
class ShardedSeat(EngineSeat):
    """Of each group's parameters, laid end to end, this rank's optimizer steps one slice."""

    optimizer: Any
    """DeepSpeed's own, which has no types either."""

    def moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        from deepspeed.utils import safe_get_full_optimizer_state as gather

        base = self.optimizer.optimizer
        for names, part in self._slices():
            step = self.optimizer.state[part].get("step")
            for name in names if step is None or step else ():
                whole = {kind: gather(self.parameters[name], kind) for kind in moment_names(base)}
                # A file holds no tensor twice.
                yield name, whole if step is None else {"step": step.clone()} | whole

    def begin(self, moments: Moments) -> None:
        """Go on with `moments`, or from zero: DeepSpeed itself links only what the first group's
        first step has made."""
        from deepspeed.utils import safe_set_full_optimizer_state as scatter

        base = self.optimizer.optimizer
        kinds = moment_names(base)
        for names, part in self._slices():
            state = {kind: torch.zeros_like(part) for kind in kinds}
            if counts_steps(base):
                step = moments[names[0]]["step"] if names[0] in moments else torch.tensor(0.0)
                state["step"] = step.to(part.device, copy=True)
            self.optimizer.state[part] = state
        self.optimizer._lazy_init_hp_params_optimizer_state()
        for name in self.parameters.keys() & moments.keys():
            for kind in kinds:
                scatter(self.parameters[name], moments[name][kind], kind)

    def weights_changed(self) -> None:
        self.optimizer.refresh_fp32_params()  # it steps a copy of each rank's slice

    def _slices(self) -> Iterator[tuple[list[str], Tensor]]:
        """(names of a group's parameters, this rank's slice of them)."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        zero = self.optimizer
        parts = zero.single_partition_of_fp32_groups
        for parameters, part in zip(zero.bit16_groups, parts, strict=True):
            yield [names[id(parameter)] for parameter in parameters], part


class DeepSpeed(Distributed):
    """An engine around each player, on the process group that accelerate has opened."""

    def __init__(
        self,
        expected: int,
        timeout: float,
        stage: int,
        travels_as: torch.dtype | None = None,
    ):
        """stage: 0, 1 or 2; the rest as for the others."""
        on_cpu = not torch.cuda.is_available()
        prepare_import(on_cpu)
        super().__init__(expected, timeout)
        self.stage = stage
        self.travels_as = travels_as
        from deepspeed.utils import groups

        # Else it would open a group of its own, with another timeout and communicator.
        groups._WORLD_GROUP = dist.group.WORLD

    def seat(self, place: Place) -> Seat:
        assert not place.scaler.is_enabled(), "sharded gradients are out of a GradScaler's sight"
        import deepspeed

        optimizer = place.make_optimizer(groups_by_step(place.parameters, place.moments))
        if self.stage == 0:
            take_over(optimizer, place.parameters, place.moments)
        config = engine_config(self.stage, self.travels_as)
        engine, *_ = deepspeed.initialize(model=place.player, optimizer=optimizer, config=config)
        if self.stage == 0:
            return EngineSeat(place.phase, engine, place.parameters, optimizer, place.scaler)
        seat = ShardedSeat(place.phase, engine, place.parameters, engine.optimizer, place.scaler)
        seat.begin(place.moments)
        return seat

    @contextmanager
    def accumulate(self, seat: Seat, last: bool) -> Iterator[None]:
        engine_of(seat).set_gradient_accumulation_boundary(last)
        with super().accumulate(seat, last):
            yield

    def backward(self, seat: Seat, loss: Tensor) -> None:
        engine_of(seat).backward(loss)

    def step(self, seat: Seat, clip: float | None) -> Tensor:
        if self.stage == 0:
            return super().step(seat, clip)
        engine_of(seat).optimizer.clip_grad = clip or 0.0
        engine_of(seat).step()
        # Infinite where the gradients were not finite: then it has left out the step.
        return torch.as_tensor(engine_of(seat).get_global_grad_norm(), device=self.device)


def prepare_import(on_cpu: bool) -> None:
    """Import DeepSpeed, told beforehand where it runs, and keep it quiet."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu" if on_cpu else "cuda")
    try:
        import deepspeed
    except ImportError as error:
        raise TrainingError(
            f"backend.kind=deepspeed needs DeepSpeed, which cannot be imported ({error}): "
            "pip install organza[deepspeed]."
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Its calls of torch, about which a user can do nothing.
    warnings.filterwarnings("ignore", ".*all_gather_into_tensor. is deprecated", FutureWarning)
    # An optional kernel for CPUs, which it would compile for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def groups_by_step(parameters: dict[str, nn.Parameter], moments: Moments) -> list[dict[str, Any]]:
    """One group per number of steps that were done: a slice has one count for all of it."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        step = moments[name]["step"].item() if "step" in moments.get(name, {}) else 0.0
        groups.setdefault(step, []).append(parameter)
    return [{"params": group} for group in groups.values()]


def engine_config(stage: int, travels_as: torch.dtype | None = None) -> dict[str, Any]:
    """What `deepspeed.initialize` is told. All defaults that change numbers are explicit."""
    return {
        "communication_data_type": "bf16" if travels_as is torch.bfloat16 else "fp32",
        "train_micro_batch_size_per_gpu": 1,  # not used: batches are the stream's business
        "gradient_accumulation_steps": 1,  # not used: the loop says which micro-batch is the last
        "gradient_clipping": 0.0,  # the default is 1.0; `step` sets what is asked for
        "zero_allow_untested_optimizer": True,  # torch's
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
        },
        "timers": {"throughput": {"enabled": False}},  # they would wait for the GPU at each step
    }
