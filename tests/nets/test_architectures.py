"""Networks against the original implementation: sizes, shapes, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets.discriminators import MultiscaleDiscriminator
from nets.encoders import Encoder
from nets.generators import GlobalGenerator, LocalEnhancer
from nets.originals import original_keys
from tests.nets.rule import arrays, fill, recorded, stream
from tests.nets.rule import image as rule_image

PAPER_SIZE: dict[str, Callable[[], nn.Module]] = {
    "hd_global_in36": lambda: GlobalGenerator(36),
    "hd_global_in39": lambda: GlobalGenerator(39),
    "hd_global_in3": lambda: GlobalGenerator(3),
    "hd_local_in36": lambda: LocalEnhancer(36),
    "hd_local_in39": lambda: LocalEnhancer(39),
    "hd_local_in36_2enh": lambda: LocalEnhancer(36, ngf=16, num_enhancers=2),
    "hd_encoder": lambda: Encoder(),
    "hd_D_num1_feat": lambda: MultiscaleDiscriminator(39, num_scales=1),
    "hd_D_num2_feat": lambda: MultiscaleDiscriminator(39, num_scales=2),
    "hd_D_num3_feat": lambda: MultiscaleDiscriminator(39, num_scales=3),
    "hd_D_num2_feat_in6": lambda: MultiscaleDiscriminator(6, num_scales=2),
}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "hd_global": lambda: GlobalGenerator(36, 3, 4, num_downsamples=3, num_blocks=3),
    "hd_global_feat39": lambda: GlobalGenerator(39, 3, 8, num_downsamples=2, num_blocks=1),
    "hd_local": lambda: LocalEnhancer(
        36, 3, 2, num_downsamples=3, num_blocks=3, num_enhancers=1, num_local_blocks=2
    ),
    "hd_D_num2_feat": lambda: MultiscaleDiscriminator(39, ndf=4, num_scales=2),
    "hd_D_num3_feat": lambda: MultiscaleDiscriminator(39, ndf=4, num_scales=3),
    "hd_encoder": lambda: Encoder(3, 3, 8, num_downsamples=2),
}


@pytest.mark.parametrize("name", PAPER_SIZE)
def test_parameters_and_shapes_at_the_papers_size(name: str) -> None:
    expected = recorded("networks")[name]
    with torch.device("meta"):
        network = PAPER_SIZE[name]()
        inputs = [torch.zeros(shape) for shape in expected["input"]]
    keys = original_keys(network)
    ours = {keys[own]: list(value.shape) for own, value in network.state_dict().items()}
    assert ours == expected["state"]
    assert sum(value.numel() for value in network.parameters()) == expected["params"]
    assert shapes(network(*inputs)) == expected["output"]


@pytest.mark.parametrize("name", SMALL)
def test_forward_and_gradients_agree(name: str) -> None:
    expected, stored = recorded("forward")[name], stored_arrays(name)
    network = SMALL[name]()
    keys = fill(network, f"net/{name}")
    image = torch.from_numpy(stored["input"]).requires_grad_()
    inst = [torch.from_numpy(stored["inst"])] if "inst" in stored else []
    outputs = flatten(network(image, *inst))
    assert {key: list(value.shape) for key, value in outputs.items()} == expected["outputs"]
    for key, value in outputs.items():
        ours = value.detach().numpy()
        if key in expected["saved_strided_4"]:
            ours = ours[..., ::4, ::4]
        assert np.abs(ours - stored[key]).max() <= 1e-5
    probes = {key: rule_image(f"probe/{name}/{key}", v.shape) for key, v in outputs.items()}
    sum((outputs[key] * probes[key]).mean() for key in outputs).backward()
    check_gradients(name, network, keys, expected["param_grads"])
    ours = image.grad.numpy()
    ours = ours[..., ::4, ::4] if "grad_input" in expected["saved_strided_4"] else ours
    assert np.abs(ours - stored["grad_input"]).max() <= 1e-5 * np.abs(stored["grad_input"]).max()


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


def test_discriminators_can_be_run_scale_by_scale() -> None:
    network = MultiscaleDiscriminator(5, ndf=4, num_scales=3)
    x = torch.randn(1, 5, 32, 48)
    together = network(x)
    assert torch.equal(network.at(0)(x)[-1], together[0][-1])
    assert network.at(0) is network.scales[2]


@pytest.mark.parametrize("num_enhancers", [1, 2, 3])
def test_every_enhancer_doubles_the_size(num_enhancers: int) -> None:
    network = LocalEnhancer(4, 3, 2, 1, 1, num_enhancers, 1)
    assert network.stride == 2 ** (1 + num_enhancers)
    condition = torch.randn(2, 4, 4 * network.stride, 3 * network.stride)
    image = network(condition)
    assert image.shape == (2, 3, 4 * network.stride, 3 * network.stride)
    image.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_batch_is_its_samples_side_by_side() -> None:
    network = LocalEnhancer(4, 3, 2, 2, 1, 1, 1).double()
    batch = torch.randn(3, 4, 32, 48, dtype=torch.float64)
    alone = torch.cat([network(sample[None]) for sample in batch])
    assert torch.allclose(network(batch), alone, rtol=0, atol=1e-12)


def test_too_small_an_image_is_met_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="16x32 images are too small for this generator"):
        GlobalGenerator(4, num_blocks=1, ngf=2)(torch.zeros(1, 4, 32, 16))


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
