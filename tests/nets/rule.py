"""Deterministic weights and images from their names, as used by the recorded oracles.

Every tensor is drawn from a MT19937 stream seeded with the CRC32 of its name, in float64, and
rounded once to float32. Names are those of the original implementation's state dicts.
"""

from __future__ import annotations

import json
import zlib
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nets.originals import original_keys

ORACLES = Path(__file__).parent / "oracles"


def recorded(name: str) -> Any:
    return json.loads((ORACLES / f"{name}.json").read_text())


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(ORACLES / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def weight(name: str, shape: tuple[int, ...], gain: float = 1.0) -> Tensor:
    """Weights N(0, gain / sqrt(fan_in)), those of norms N(1, 0.1), biases N(0, 0.1).

    Batch norms start with the running statistics of torch."""
    if name.endswith(("running_mean", "num_batches_tracked")):
        return torch.zeros(shape)
    if name.endswith("running_var"):
        return torch.ones(shape)
    values = stream(name).standard_normal(prod(shape)).reshape(shape)
    if len(shape) > 1:
        values = values * (gain / sqrt(prod(shape[1:])))
    else:
        values = 0.1 * values + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(values.astype(np.float32))


def image(name: str, shape: tuple[int, ...]) -> Tensor:
    """Uniform in [-1, 1]."""
    return torch.from_numpy(stream(name).uniform(-1.0, 1.0, shape).astype(np.float32))


def fill(network: nn.Module, tag: str) -> dict[str, str]:
    """Gives `network` the rule's weights; returns the map from its keys to the originals'."""
    keys = original_keys(network)
    own = network.state_dict()
    network.load_state_dict({name: weight(f"{tag}/{keys[name]}", own[name].shape) for name in own})
    return keys


def vgg_weights(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Names are torchvision's: features.0.weight, ..."""
    return {name: weight(f"vgg19/{name}", tuple(shapes[name]), sqrt(2)) for name in shapes}
