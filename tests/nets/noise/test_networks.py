"""Networks that make images from noise, and their judges, beside the originals' numbers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nets.discriminators.cgan import ConditionalDcganDiscriminator, ConditionalMlpDiscriminator
from nets.discriminators.dcgan import DcganDiscriminator
from nets.discriminators.mlp import MlpDiscriminator
from nets.generators.cgan import ConditionalDcganGenerator, ConditionalMlpGenerator
from nets.generators.dcgan import DcganGenerator
from nets.generators.mlp import MlpGenerator
from tests.nets.noise.oracle import NETWORKS, check_forward, needs_networks, tensors, trainable

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
GREY = (1, 28, 28)
STANDARD: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "gan_mlp_G": (218_128, lambda: MlpGenerator(64, GREY)),
    "gan_mlp_D": (100_609, lambda: MlpDiscriminator(784)),
    "dcgan_G": (12_654_336, lambda: DcganGenerator(100, 1)),
    "dcgan_D": (2_763_521, lambda: DcganDiscriminator(1)),
    "wgan_G": (13_113_089, lambda: DcganGenerator(128, 1, biased=True)),
    "wgan_D": (2_763_585, lambda: DcganDiscriminator(1, norm="instance", biased=True)),
    "wgan_gp_G": (1_099_201, lambda: DcganGenerator(100, 1, 16, biased=True)),
    "wgan_gp_D": (174_801, lambda: DcganDiscriminator(1, 16, norm="instance", biased=True)),
    "cgan_wgangp_G": (1_509_801, lambda: ConditionalDcganGenerator(out_channels=1)),
    "cgan_wgangp_D": (216_017, lambda: ConditionalDcganDiscriminator(in_channels=1)),
    "cgan_mlp_G": (1_757_412, lambda: ConditionalMlpGenerator(100, 10, (1, 32, 32))),
    "cgan_mlp_D": (1_055_845, lambda: ConditionalMlpDiscriminator(10, (1, 32, 32))),
}


@pytest.mark.parametrize("name", STANDARD)
def test_standard_sizes_have_the_originals_parameters(name: str) -> None:
    count, build = STANDARD[name]
    with torch.device("meta"):
        network = build()
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    if not NETWORKS.is_dir():
        return
    state = json.loads((NETWORKS / "networks.json").read_text())[name]["state"]
    assert trainable(state) == count
    ours = sorted(sorted(value.squeeze().shape) for value in tensors(network).values())
    theirs = [state[key] for key in state if not unlike(key)]
    assert ours == sorted(sorted(size for size in shape if size > 1) for shape in theirs)


def unlike(key: str) -> bool:
    return key.endswith(("num_batches_tracked", ".sv0", "weight_v"))


@needs_networks
@DTYPES
def test_perceptrons(dtype: torch.dtype) -> None:
    generator = MlpGenerator(8, (1, 6, 6))
    check_forward("gan_mlp_G", generator, lambda given: generator(given["noise"]), dtype)
    told = ConditionalMlpGenerator(8, 5, (1, 5, 5), (8, 12, 16, 20))
    check_forward("cgan_mlp_G_train", told, lambda given: told(**given), dtype)


@needs_networks
@DTYPES
def test_convolutions(dtype: torch.dtype) -> None:
    generator = DcganGenerator(10, 1, 2)
    check_forward("dcgan_G_train", generator, lambda given: generator(**given), dtype)
    judge = DcganDiscriminator(1, 2)
    check_forward("dcgan_D_eval", judge, lambda given: judge(**given).sigmoid(), dtype)
    critic = DcganDiscriminator(1, 3, norm="instance", biased=True)
    check_forward("wgan_critic", critic, lambda given: critic(**given), dtype)
    told = ConditionalDcganGenerator(8, 5, 6, 1, 2)
    check_forward("cgan_wgangp_G_train", told, lambda given: told(**given), dtype)
