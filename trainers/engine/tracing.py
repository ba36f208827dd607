"""What a training step on a GPU would hold and compute, found without one.

Fake tensors have shapes, dtypes and lifetimes but no data. They lie on the CPU here, since torch
without CUDA cannot index fake CUDA tensors. Two things differ on CUDA and are set right: autocast
leaves reflection padding in low precision there (`fake_gpu`), and Adam is one fused kernel
(`TracedBackend`). What is counted is then what a GPU would allocate and move, apart from the
workspaces of convolutions and the allocator's rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from trainers.backends.base import Backend, Place, Seat
from trainers.parts.pretrained import shapes_alone

OVERWRITING = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_"}
"""Operators in place that do not read what they write to."""


@dataclass(frozen=True)
class Part:
    """What one phase does in one stage of a training step."""

    phase: str
    stage: str
    """"forward" (a narrow waist's backwards included), "backward" or "step"."""
    kernels: tuple[tuple[int, int], ...]
    """(FLOPs, bytes read and written) of every kernel, in order."""
    gradients: tuple[tuple[int, int], ...] = ()
    """(kernels before it, parameters) of every gradient of the last micro-batch, as it is ready."""


class LiveMemory(TorchDispatchMode):
    """Bytes of all storages that were created while it is active and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, nbytes: int) -> None:
        self._seen.discard(key)
        self.live -= nbytes


class Kernels(TorchDispatchMode):
    """FLOPs and traffic of every operator that runs while it is active, by phase and stage."""

    def __init__(self) -> None:
        super().__init__()
        self.now = ("", "")
        """Phase and stage that the next kernels belong to."""
        self.found: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self.gradients: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        num_bytes = traffic(func, args, kwargs, result)
        if num_bytes:
            count = flop_registry.get(func._overloadpacket)
            num_flops = count(*args, **kwargs, out_val=result) if count else 0
            self.found.setdefault(self.now, []).append((num_flops, num_bytes))
        return result

    def gradient(self, parameter: Tensor) -> None:
        """This parameter's gradient is ready, as far as this micro-batch goes."""
        before = len(self.found.get(self.now, ()))
        self.gradients.setdefault(self.now, []).append((before, parameter.numel()))

    def parts(self) -> tuple[Part, ...]:
        return tuple(
            Part(*where, tuple(kernels), tuple(self.gradients.get(where, ())))
            for where, kernels in self.found.items()
        )


def traffic(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Bytes that an operator reads and writes, each storage as far as it is accessed.

    Views and bare allocations move nothing."""
    name = func._overloadpacket.__name__
    given = tensors_in((args, kwargs))
    known = {tensor.untyped_storage()._cdata for tensor in given}
    made = [t for t in tensors_in(result) if t.untyped_storage()._cdata not in known]
    changed = written_arguments(func, args, kwargs)
    if not (made or changed) or "empty" in name:
        return 0
    if name in OVERWRITING:
        given = [tensor for tensor in given if all(tensor is not other for other in changed)]
    return accessed(given) + accessed(made) + accessed(changed)


def written_arguments(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Those tensors among the arguments that the operator changes in place."""
    written = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            written += tensors_in(value)
    return written


def accessed(tensors: list[Tensor]) -> int:
    """Bytes of these tensors; what lies twice in one storage, or is expanded, counts once."""
    by_storage: dict[int, tuple[int, int]] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        before, _ = by_storage.get(storage._cdata, (0, 0))
        size = before + tensor.numel() * tensor.element_size()
        by_storage[storage._cdata] = size, storage.nbytes()
    return sum(min(size, whole) for size, whole in by_storage.values())


def tensors_in(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class TracedBackend(Backend):
    """One process whose networks are fake; tells `kernels` which part of a step runs."""

    def __init__(self, kernels: Kernels):
        super().__init__(torch.device("cpu"))
        self.kernels = kernels

    def seat(self, place: Place) -> Seat:
        # Numbers that do not exist cannot be looked at for overflows.
        idle = torch.amp.GradScaler(self.device.type, enabled=False)
        seat = super().seat(replace(place, scaler=idle))
        for group in seat.optimizer.param_groups:
            group["fused"] = True
        for parameter in seat.parameters.values():
            parameter.register_post_accumulate_grad_hook(self.kernels.gradient)
        return seat

    def accumulate(self, seat: Seat, last: bool) -> AbstractContextManager:
        self.kernels.now = (seat.phase.name, "forward")
        return super().accumulate(seat, last)

    def backward(self, seat: Seat, loss: Tensor) -> None:
        self.kernels.now = (seat.phase.name, "backward")
        self.kernels.gradients.pop(self.kernels.now, None)  # of an earlier micro-batch
        super().backward(seat, loss)

    def step(self, seat: Seat, clip: float | None) -> Tensor:
        self.kernels.now = (seat.phase.name, "step")
        return super().step(seat, clip)


@contextmanager
def padding_as_on_cuda() -> Iterator[None]:
    """Inside, padding keeps its dtype: under autocast the CPU would pad in float32.

    A torch function mode would not do: it is off while backward recomputes activations."""
    original = F.pad

    def pad(*args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return original(*args, **kwargs)

    F.pad = pad
    try:
        yield
    finally:
        F.pad = original


@contextmanager
def fake_gpu() -> Iterator[LiveMemory]:
    """Tensors made inside are fake: nothing is computed or read, and memory is counted."""
    with FakeTensorMode(), padding_as_on_cuda(), shapes_alone(), LiveMemory() as memory:
        yield memory
