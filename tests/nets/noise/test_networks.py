"""Networks that make images from noise, and their judges, beside the originals' numbers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nets.discriminators.biggan import BigganDiscriminator
from nets.discriminators.cgan import ConditionalDcganDiscriminator, ConditionalMlpDiscriminator
from nets.discriminators.cogan import CoganDiscriminator
from nets.discriminators.dcgan import DcganDiscriminator
from nets.discriminators.infogan import InfoganHead, InfoganRecogniser, InfoganTrunk
from nets.discriminators.mlp import MlpDiscriminator
from nets.discriminators.progan import ProganDiscriminator, SimpleProganDiscriminator
from nets.discriminators.sagan import SaganDiscriminator
from nets.generators.biggan import BigganGenerator
from nets.generators.cgan import ConditionalDcganGenerator, ConditionalMlpGenerator
from nets.generators.cogan import CoganGenerator
from nets.generators.dcgan import DcganGenerator
from nets.generators.infogan import InfoganGenerator
from nets.generators.mlp import MlpGenerator
from nets.generators.progan import ProganGenerator, SimpleProganGenerator
from nets.generators.sagan import SaganGenerator
from nets.layers.attention import SelfAttention
from tests.nets.noise.oracle import (
    NETWORKS,
    check_forward,
    needs_networks,
    tensors,
    trainable,
)
from tests.nets.noise.reference_names import as_in_collection, as_in_progan, as_in_sagan

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
GREY = (1, 28, 28)
SIMPLE = (256, 256, 256, 256, 128, 64, 32, 16, 8)
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
    "infogan_mnist_G": (6_632_832, lambda: InfoganGenerator(74)),
    "infogan_mnist_trunk": (6_556_992, InfoganTrunk),
    "infogan_mnist_head": (1_025, InfoganHead),
    "infogan_mnist_Q": (133_134, InfoganRecogniser),
    "cogan_mnistedge_G": (7_842_694, CoganGenerator),
    "cogan_mnistedge_D": (427_593, CoganDiscriminator),
    "sagan_G": (3_832_885, SaganGenerator),
    "sagan_D": (3_175_299, SaganDiscriminator),
    "biggan_128_G": (70_433_988, BigganGenerator),
    "biggan_128_D": (87_982_370, BigganDiscriminator),
    "biggan_c10_G": (
        4_304_387,
        lambda: BigganGenerator(128, 10, width=64, side=32, hierarchical=False, shared=False),
    ),
    "biggan_c10_D": (4_207_361, lambda: BigganDiscriminator(10, width=64, side=32)),
    "sagan_cond_128_G": (
        42_017_412,
        lambda: BigganGenerator(128, width=64, hierarchical=False, shared=False),
    ),
    "sagan_cond_128_D": (39_448_258, lambda: BigganDiscriminator(width=64)),
    "progan_G": (5_772_979, lambda: SimpleProganGenerator(256, SIMPLE)),
    "progan_D": (6_366_529, lambda: SimpleProganDiscriminator(SIMPLE)),
    "progan_karras_1024_G": (23_079_115, ProganGenerator),
    "progan_karras_1024_D": (23_087_249, ProganDiscriminator),
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


@needs_networks
@DTYPES
def test_infogans(dtype: torch.dtype) -> None:
    generator = InfoganGenerator(18, widths=(16, 8, 4))
    check_forward("infogan_mnist_G_train", generator, lambda given: generator(**given), dtype)
    parts = dict(
        trunk=InfoganTrunk(widths=(4, 8, 16)),
        head=InfoganHead(16),
        Q=InfoganRecogniser(width=16, hidden=8),
    )
    judge = nn.ModuleDict(parts)

    def call(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        features = judge["trunk"](given["image"])
        return judge["head"](features).sigmoid(), *judge["Q"](features)

    check_forward("infogan_mnist_DQ_eval", judge, call, dtype)


@needs_networks
@DTYPES
def test_coupled_networks(dtype: torch.dtype) -> None:
    generator = CoganGenerator(8, widths=(16, 12, 10, 8))
    check_forward("cogan_G_train", generator, lambda given: generator(**given), dtype)
    judge = CoganDiscriminator(widths=(4, 6, 12))
    pair = ("image_a", "image_b")
    check_forward("cogan_D", judge, lambda given: judge(*(given[x] for x in pair))[0], dtype)


def maps(net: nn.Module, x: Tensor, steps: tuple[int, int]) -> tuple[Tensor, ...]:
    """The output, and every step-th row and column of the attention maps."""
    seen: list[Tensor] = []
    for layer in net.layers:
        if isinstance(layer, SelfAttention):
            layer.register_forward_pre_hook(lambda m, given: seen.append(m.weights(given[0])))
    out = net(x)
    return out, *(map_[:, ::n, ::n] for map_, n in zip(seen, steps, strict=True))


@needs_networks
@DTYPES
def test_sagans(dtype: torch.dtype) -> None:
    generator, judge = SaganGenerator(9, width=8), SaganDiscriminator(width=2)
    keys = as_in_sagan(generator), as_in_sagan(judge)
    make = lambda given: maps(generator, given["noise"], (16, 32))  # noqa: E731
    check_forward("sagan_G_train", generator, make, dtype, keys[0])
    see = lambda given: maps(judge, given["image"], (8, 2))  # noqa: E731
    check_forward("sagan_D", judge, see, dtype, keys[1])


@needs_networks
@DTYPES
def test_biggans(dtype: torch.dtype) -> None:
    generator = BigganGenerator(8, 5, width=4, side=32, num_shared=6, attention=(16,))
    check_forward("biggan_G_train", generator, lambda given: generator(**given), dtype)
    judge = BigganDiscriminator(5, width=4, side=32, attention=())
    check_forward("biggan_D_train", judge, lambda given: judge(**given), dtype)


@needs_networks
@DTYPES
def test_growing_networks(dtype: torch.dtype) -> None:
    generator, judge = ProganGenerator(6, 3, 16, 32, 8), ProganDiscriminator(3, 16, 32, 8)
    keys = as_in_progan(generator, 2), as_in_progan(judge, 2)
    make = lambda given: generator(given["noise"], 1.7)  # noqa: E731
    check_forward("progan_karras_lod17_G", generator, make, dtype, keys[0])
    see = lambda given: judge(given["image"], 1.7)  # noqa: E731
    check_forward("progan_karras_lod17_D", judge, see, dtype, keys[1])


@needs_networks
@DTYPES
def test_simple_growing_networks(dtype: torch.dtype) -> None:
    generator, judge = SimpleProganGenerator(6, (8, 8, 4)), SimpleProganDiscriminator((8, 8, 4))
    keys = as_in_collection(generator, 2), as_in_collection(judge, 2)
    make = lambda given: generator(given["noise"], 1, 0.3)  # noqa: E731
    check_forward("progan_G_l1", generator, make, dtype, keys[0])
    see = lambda given: judge(given["image"], 1, 0.3)  # noqa: E731
    check_forward("progan_D_l1", judge, see, dtype, keys[1])
