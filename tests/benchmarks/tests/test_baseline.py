"""The plain step is a fair opponent: the originals' work, and the losses and gradients of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from launcher.estimate.gpus import GIB
from launcher.recipe import config as configuration
from tests.benchmarks import baseline
from tests.benchmarks.race import configured, parsed
from tests.benchmarks.step import Recording, made_up, step_of
from trainers.engine.tracing import Kernels, fake_gpu
from trainers.gan import GAN

CPU = torch.device("cpu")
TINY = ["--size=64x64", "--model.ngf=4", "--model.ndf=4", "--model.num_blocks=1"]
TINY_CYCLE = ["--size=32x32", "--model.generator.ngf=4", "--model.discriminator.ndf=4"]


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_plain_order(gan: GAN) -> tuple[list[nn.Module], list[nn.Module]]:
    """Our generators and discriminators as the plain ones are listed: the finest D comes first."""
    nets = gan.nets
    if "D" in nets:
        return [nets["G"]], [nets["D"].at(level) for level in range(len(nets["D"].scales))]
    return [nets["G_A"], nets["G_B"]], [nets["D_A"], nets["D_B"]]


def parameters(nets: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for net in nets for parameter in net.parameters()]


def copy(theirs: list[nn.Parameter], ours: list[nn.Parameter]) -> None:
    for their, our in zip(theirs, ours, strict=True):
        assert their.shape == our.shape
        their.data.copy_(our)


@pytest.mark.parametrize(
    "arguments",
    [
        ["pix2pixhd-full", *TINY, "--model.fix_global=0", "--precision=fp32"],
        ["earth-coarse", *TINY, "--model.lambda_vgg=10"],
        ["cyclegan", *TINY_CYCLE, "--model.generator.num_blocks=1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_losses_and_gradients_of_both_at_equal_weights(arguments: list[str], double: None) -> None:
    options = parsed(arguments)
    recording = Recording()
    with configured(options) as config:
        step, trainer = step_of(config, options.size, recording, dtype=torch.float64)
    plain = baseline.PLAIN[config.gan](config.model, recording.device, None)
    ours = in_plain_order(trainer.gan)
    sides = {"G": (plain.generators, ours[0]), "D": (plain.discriminators, ours[1])}
    for theirs, own in sides.values():
        copy(parameters(theirs), parameters(own))
    if plain.perceptual is not None:
        copy(list(plain.perceptual.parameters()), list(trainer.gan.vgg.parameters()))
    names = {id(p): name for name, p in trainer.gan.nets.named_parameters()}
    step()
    totals = plain.update(made_up(config, 1, options.size))
    weights, terms = trainer.gan.weights, trainer.means.sums
    for total, (phase, (theirs, own)) in zip(totals, sides.items(), strict=True):
        weighted = sum(weights[name] * terms[name] for name in weights if name[0] == phase)
        assert total.item() == pytest.approx(weighted.item(), rel=1e-12)
        found = [recording.gradients[phase][names[id(p)]] for p in parameters(own)]
        check_close(found, [p.grad for p in parameters(theirs)])


def check_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    largest = max(gradient.abs().max() for gradient in theirs)
    assert largest > 0
    for our, their in zip(ours, theirs, strict=True):
        assert (our - their).abs().max() < 1e-11 * largest


def test_the_plain_step_takes_the_originals_work_and_memory() -> None:
    """At the paper's full size: 11.57e12 FLOPs as measured on the authors' code."""
    flags = {"batch.total": "1", "model.vgg_weights": str(Path("given/by/shape"))}
    config = configuration.load("pix2pixhd-full", flags)
    with fake_gpu() as live:
        plain = baseline.PLAIN[config.gan](config.model, CPU, None)
        batch = {
            "label": torch.zeros(1, 1, 1024, 2048, dtype=torch.uint8),
            "inst": torch.zeros(1, 1, 1024, 2048, dtype=torch.int32),
            "image": torch.zeros(1, 3, 1024, 2048, dtype=torch.uint8),
        }
        plain.update(batch)
        live.peak = live.live
        kernels = Kernels()
        with kernels:
            plain.update(batch)
    num_flops = sum(flops for part in kernels.parts() for flops, _ in part.kernels)
    assert num_flops / 1e12 == pytest.approx(11.57, rel=1e-3)
    assert live.peak / GIB == pytest.approx(17.1, abs=0.05)
