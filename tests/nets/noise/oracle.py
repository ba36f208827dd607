"""Numbers recorded from the original GANs that make images from noise, and the rule behind them.

Weights and inputs are drawn from their names, as in tests.nets.rule. Numbers of small functions lie
here; those of whole networks beside the repository, where there are any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.nets.rule import stream

NETWORKS = Path(__file__).parents[4] / "shared" / "oracles" / "noise"
needs_networks = pytest.mark.skipif(
    not NETWORKS.is_dir(), reason="recorded numbers of whole networks are not beside the repository"
)
FUNCTIONS: dict[str, Any] = json.loads((Path(__file__).parent / "functions.json").read_text())
NOT_OURS = re.compile(r"(num_batches_tracked|\.sv0|weight_v)$")
"""Parts of states without counterpart: counters, sigmas, and vectors that follow from others."""

Keys = dict[str, str]
"""Own key of a parameter or buffer -> the original's."""


def weight(name: str, shape: Iterable[int], rule: str = "fan", stats: str = "init") -> Tensor:
    """The rule's value of the tensor `name` (tag/key), without an attention's gamma."""
    shape, last = tuple(shape), name.rsplit(".", 1)[-1].rsplit("/", 1)[-1]
    size, draws = prod(shape), stream(name)
    if last in ("running_mean", "stored_mean"):
        values = 0.1 * draws.standard_normal(size) if stats == "eval" else np.zeros(size)
    elif last in ("running_var", "stored_var"):
        values = 0.5 + draws.uniform(0.0, 1.0, size) if stats == "eval" else np.ones(size)
    else:
        values = draws.standard_normal(size)
        if last in ("weight_u", "weight_v"):
            values /= np.sqrt((values * values).sum())
        elif re.fullmatch(r"u\d+", last):
            pass
        elif "prelu" in name and last == "weight":
            values = 0.25 + 0.1 * values
        elif len(shape) > 1:
            values *= {"fan": 1 / sqrt(prod(shape[1:])), "unit": 1.0, "n02": 0.02}[rule]
        else:
            values = 0.1 * values + (last in ("weight", "gain"))
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def drawn(spec: dict[str, Any], dtype: torch.dtype = torch.float64) -> Tensor:
    """An input by its description in a recorded file."""
    draws, shape = stream(spec["name"]), spec["shape"]
    if spec["kind"] == "labels":
        return torch.from_numpy(draws.randint(0, spec["n"], size=shape).astype(np.int64))
    if spec["kind"] == "noise":
        values = draws.standard_normal(shape)
    else:
        usual = (0.0, 1.0) if spec["kind"] == "alpha" else (-1.0, 1.0)
        values = draws.uniform(*spec.get("range", usual), size=shape)
    return torch.from_numpy(values.astype(np.float32)).to(dtype)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers, in the order in which they were registered."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {key: value for key, value in named if not NOT_OURS.search(key)}


def by_position(module: nn.Module, state: Iterable[str]) -> Keys:
    wanted = [key for key in state if not NOT_OURS.search(key)]
    return dict(zip(tensors(module), wanted, strict=True))


def fill(module: nn.Module, keys: Keys, recorded: dict[str, Any], stats: str = "init") -> None:
    """Gives `module` the rule's weights: `recorded` holds tag, rule, gamma, layout and state."""
    assert keys.keys() == tensors(module).keys()
    with torch.no_grad():
        for own, value in tensors(module).items():
            shape = recorded["state"][keys[own]]
            if keys[own].endswith("gamma"):
                value.fill_(float(np.float32(recorded["gamma"])))
                continue
            given = weight(f"{recorded['tag']}/{keys[own]}", shape, recorded["rule"], stats)
            value.copy_(turned(given, recorded["layout"]).view(value.shape))


def turned(value: Tensor, layout: str, back: bool = False) -> Tensor:
    """TensorFlow's kernels [height, width, in, out] and [in, out] as torch has them, or back."""
    if layout != "tensorflow" or value.ndim < 2:
        return value
    order = ((2, 3, 1, 0) if back else (3, 2, 0, 1)) if value.ndim == 4 else (1, 0)
    return value.permute(order)


def check_forward(
    name: str,
    module: nn.Module,
    call: Callable[[dict[str, Tensor]], Tensor | tuple[Tensor, ...]],
    dtype: torch.dtype,
    keys: Keys | None = None,
) -> None:
    """Outputs, gradients at inputs and parameters, and buffers after one pass."""
    expected = json.loads((NETWORKS / "forward.json").read_text())[name]
    assert sum(p.numel() for p in module.parameters()) == trainable(expected["state"])
    keys = keys or by_position(module, expected["state"])
    module.to(dtype).train(expected["mode"] == "train")
    fill(module, keys, expected, "eval" if expected["mode"] == "eval" else "init")
    inputs = {role: drawn(spec, dtype) for role, spec in expected["inputs"].items()}
    for value in inputs.values():
        value.requires_grad_(value.is_floating_point())
    outputs = call(inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    with np.load(NETWORKS / "forward" / f"{name}.npz") as stored:
        total: Tensor | float = 0.0
        for index, output in enumerate(outputs):
            output = output.reshape(expected["outputs"][f"output_{index}"]["shape"])
            recorded = torch.from_numpy(stored[f"output_{index}"])
            assert distance(strided(output), recorded) <= tolerance
            probe = stream(f"probe/{name}/output_{index}").uniform(-1.0, 1.0, output.shape)
            total = total + (output * torch.from_numpy(probe.astype(np.float32)).to(dtype)).mean()
        total.backward()
        for role, value in inputs.items():
            if f"grad_{role}" in stored:
                recorded = torch.from_numpy(stored[f"grad_{role}"])
                assert distance(strided(value.grad), recorded) <= tolerance * recorded.abs().max()
    check_gradients(name, module, keys, expected, tolerance)
    for key, own in {keys[own]: own for own in keys}.items():
        if key in expected["buffers_after"]:
            summary = expected["buffers_after"][key]
            direction = stream(f"bufferprobe/{name}/{key}")
            check_summary(tensors(module)[own], summary, direction, tolerance * summary["l2"])


def check_gradients(
    name: str, module: nn.Module, keys: Keys, expected: dict[str, Any], tolerance: float
) -> None:
    gradients = expected["param_grads"]
    largest = max(gradient["l2"] for gradient in gradients.values())
    for own, parameter in module.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found = turned(found, expected["layout"], back=True)
        if keys[own] in gradients:
            direction = stream(f"gradprobe/{name}/{keys[own]}")
            check_summary(found, gradients[keys[own]], direction, tolerance * largest)
        else:
            assert not found.any(), own


def check_summary(
    found: Tensor, expected: dict[str, float], direction: np.random.RandomState, tolerance: float
) -> None:
    """Its norm, and its projection on a direction."""
    values = found.detach().double().flatten()
    projection = values @ torch.from_numpy(direction.standard_normal(len(values)))
    assert abs(float(values.norm()) - expected["l2"]) <= tolerance
    # A projection on a normal direction grows with the root of the size.
    assert abs(float(projection) - expected["proj"]) <= tolerance * max(1, sqrt(len(values)) / 4)


def trainable(state: dict[str, list[int]]) -> int:
    """Parameters of the original by its shapes: without buffers, and vectors of power iteration."""
    buffer = re.compile(
        r"(running_mean|running_var|num_batches_tracked|stored_mean|stored_var|weight_u|weight_v)$"
        r"|\.(u|sv)0$"
    )
    return sum(prod(shape) for key, shape in state.items() if not buffer.search(key))


def strided(image: Tensor) -> Tensor:
    """Large images are recorded at every fourth pixel."""
    return image[..., ::4, ::4] if image.ndim >= 4 and image.shape[-1] >= 32 else image


def distance(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.detach().double() - expected.double()).abs().max())
