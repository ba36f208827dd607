"""Files of pretrained weights, read without running any code that they may hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

_shapes_alone: ContextVar[bool] = ContextVar("shapes_alone", default=False)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Inside, no file of weights is asked for: networks are built for their shapes alone."""
    token = _shapes_alone.set(True)
    try:
        yield
    finally:
        _shapes_alone.reset(token)


def weights_matter() -> bool:
    """Whether pretrained weights must be read."""
    return not _shapes_alone.get()


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a file that torch saved (.pth).

    Raises ValueError, without the file's name, when it cannot be read as one."""
    if not path.is_file():
        raise ValueError("does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        given = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"is neither safetensors nor a state dict of torch: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"holds a {type(given).__name__}, not a state dict")
    for name, weight in given.items():
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            raise ValueError(f"holds {name!r}, which is no tensor with a name: not a state dict")
    return given
