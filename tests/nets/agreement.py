"""One network beside the numbers recorded from the original implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nets.originals import original_keys
from tests.nets.rule import arrays, fill, recorded, stream
from tests.nets.rule import image as rule_image

Wrap = Callable[[Any], Any]
"""Our output -> the nesting of tensors that the original returns."""


def check_sizes(name: str, build: Callable[[], nn.Module], wrap: Wrap = lambda x: x) -> None:
    """State-dict keys and shapes, number of parameters, shapes of the output."""
    expected = recorded("networks")[name]
    with torch.device("meta"):
        network = build()
        inputs = [torch.zeros(shape) for shape in expected["input"]]
    keys = original_keys(network)
    ours = {keys[own]: list(value.shape) for own, value in network.state_dict().items()}
    assert ours == expected["state"]
    assert sum(value.numel() for value in network.parameters()) == expected["params"]
    assert shapes(wrap(network(*inputs))) == expected["output"]


def check_forward(name: str, network: nn.Module, wrap: Wrap = lambda x: x) -> None:
    """Outputs, running statistics, and the gradients at the input and at the parameters."""
    expected, stored = recorded("forward")[name], stored_arrays(name)
    keys = fill(network, f"net/{name}")
    image = rule_image(f"input/{name}", expected["input"])
    image = torch.from_numpy(stored["input"]) if "input" in stored else image
    image.requires_grad_()
    inst = [torch.from_numpy(stored["inst"])] if "inst" in stored else []
    outputs = flatten(wrap(network(image, *inst)))
    assert {key: list(value.shape) for key, value in outputs.items()} == expected["outputs"]
    for key, value in outputs.items():
        ours = value.detach().numpy()
        if key in expected["saved_strided_4"]:
            ours = ours[..., ::4, ::4]
        assert np.abs(ours - stored[key]).max() <= 1e-5
    check_buffers(network, keys, stored)
    probes = {key: rule_image(f"probe/{name}/{key}", v.shape) for key, v in outputs.items()}
    sum((outputs[key] * probes[key]).mean() for key in outputs).backward()
    check_gradients(name, network, keys, expected["param_grads"])
    ours = image.grad.numpy()
    ours = ours[..., ::4, ::4] if "grad_input" in expected["saved_strided_4"] else ours
    assert np.abs(ours - stored["grad_input"]).max() <= 1e-5 * np.abs(stored["grad_input"]).max()


def check_buffers(network: nn.Module, keys: dict[str, str], stored: dict[str, np.ndarray]) -> None:
    """Running statistics after one forward pass in training mode."""
    for own, value in network.named_buffers():
        if own.endswith("num_batches_tracked"):
            assert value == 1
        else:
            assert np.abs(value.numpy() - stored[f"post:{keys[own]}"]).max() <= 1e-5


def check_gradients(
    name: str, network: nn.Module, keys: dict[str, str], expected: dict[str, dict[str, float]]
) -> None:
    """Norm of each gradient, and its projection on a direction drawn from its name."""
    largest = max(gradient["l2"] for gradient in expected.values())
    for own, parameter in network.named_parameters():
        gradient, key = parameter.grad.double().flatten(), keys[own]
        direction = stream(f"gradprobe/{name}/{key}").standard_normal(len(gradient))
        projection = float(gradient @ torch.from_numpy(direction))
        assert abs(float(gradient.norm()) - expected[key]["l2"]) <= 1e-5 * largest
        assert abs(projection - expected[key]["proj"]) <= 1e-5 * largest


def stored_arrays(name: str) -> dict[str, np.ndarray]:
    prefix = f"{name}/"
    both = arrays("forward").items()
    return {key.removeprefix(prefix): value for key, value in both if key.startswith(prefix)}


def shapes(output: Tensor | list) -> list:
    if isinstance(output, Tensor):
        return list(output.shape)
    return [shapes(part) for part in output]


def flatten(output: Tensor | list, name: str = "output") -> dict[str, Tensor]:
    if isinstance(output, Tensor):
        return {name: output}
    parts = (flatten(part, f"{name}_{index}") for index, part in enumerate(output))
    return {key: value for part in parts for key, value in part.items()}
