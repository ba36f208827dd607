"""Live peak of the tensor memory of a training step on a GPU, measured without one.

Fake tensors have shapes, dtypes and lifetimes but no data. They lie on the CPU here, since torch
without CUDA cannot index fake CUDA tensors. Autocast's CPU policy differs from the CUDA policy in
one operator that our networks use: reflection padding goes to float32 on the CPU, and stays in low
precision on CUDA; `fake_gpu` undoes that. What is counted is then what a GPU would allocate,
apart from convolution workspaces and the allocator's rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

GIB = 2**30


class LiveMemory(TorchDispatchMode):
    """Bytes of all storages that were created while it is active and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
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


class Flops(TorchDispatchMode):
    """FLOPs of the convolutions that run while it is active.

    `FlopCounterMode` also follows modules, and fails where a gradient is taken at a leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            formula = flop_registry[func._overloadpacket]
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _pad_as_on_cuda(*args: Any, pad: Any = F.pad, **kwargs: Any) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return pad(*args, **kwargs)


@contextmanager
def fake_gpu() -> Iterator[LiveMemory]:
    """Tensors made inside are fake: nothing is computed, and memory is counted."""
    with (
        patch.object(F, "pad", _pad_as_on_cuda),
        FakeTensorMode(),
        LiveMemory() as memory,
    ):
        yield memory
