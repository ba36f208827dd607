"""Rematerialisation: the same gradients bit for bit, and really recomputed."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nets.generators.pix2pixhd import LocalEnhancer, ResnetGenerator
from nets.losses.perceptual import Vgg, perceptual_loss
from nets.memory.remat import PRESETS, Memory, Remat

BUILDERS: dict[str, Callable[[Remat], nn.Module]] = {
    "global": lambda remat: ResnetGenerator(5, 3, 4, 2, 3, rematerialise=remat),
    "local": lambda remat: LocalEnhancer(5, 3, 2, 2, 2, 1, 2, rematerialise=remat),
    "dropout": lambda remat: ResnetGenerator(5, 3, 4, 2, 3, dropout=0.5, rematerialise=remat),
    "batch norm": lambda remat: ResnetGenerator(5, 3, 4, 2, 3, "batch", rematerialise=remat),
    "two enhancers": lambda remat: LocalEnhancer(5, 3, 2, 1, 2, 2, 1, rematerialise=remat),
}


def gradients(network: nn.Module, condition: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    torch.manual_seed(3)
    network(condition).square().sum().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("remat", ["blocks", "halves", "whole"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_gradients_are_the_same_bit_for_bit(kind: str, remat: Remat, dtype: torch.dtype) -> None:
    plain, frugal = BUILDERS[kind]("none").to(dtype), BUILDERS[kind](remat).to(dtype)
    frugal.load_state_dict(plain.state_dict())
    condition = torch.randn(2, 5, 32, 40, dtype=dtype)
    wanted, found = gradients(plain, condition), gradients(frugal, condition)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("kind", BUILDERS)
def test_what_a_preset_names_is_computed_again(kind: str) -> None:
    condition = torch.randn(1, 5, 32, 40)
    cost = {
        remat: flops(lambda: gradients(BUILDERS[kind](remat), condition))
        for remat in get_args(Remat)
    }
    network = BUILDERS[kind]("none")
    forward = flops(lambda: network(condition))
    blocks = sum(flops(lambda m=m: m(x)) for m, x in block_inputs(network, condition))
    assert cost["blocks"] == cost["none"] + blocks
    assert cost["halves"] == cost["whole"] == cost["none"] + forward


@pytest.mark.parametrize("remat", ["blocks", "halves", "whole"])
def test_batch_norms_count_a_batch_once(remat: Remat) -> None:
    plain, frugal = BUILDERS["batch norm"]("none"), BUILDERS["batch norm"](remat)
    frugal.load_state_dict(plain.state_dict())
    condition = torch.randn(2, 5, 32, 40)
    for network in (plain, frugal):
        gradients(network, condition)
    statistics = dict(frugal.named_buffers())
    assert all(torch.equal(statistics[name], value) for name, value in plain.named_buffers())


def block_inputs(network: nn.Module, condition: Tensor) -> list[tuple[nn.Module, Tensor]]:
    from nets.layers.blocks import ResidualBlock

    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda m, inputs: seen.append((m, inputs[0])))
        for module in network.modules()
        if isinstance(module, ResidualBlock)
    ]
    network(condition)
    for hook in hooks:
        hook.remove()
    return seen


def test_recomputed_slices_of_the_perceptual_network() -> None:
    vgg, real = Vgg("vgg16"), torch.rand(1, 3, 32, 32) * 2 - 1
    results = {}
    for slices in (False, True):
        fake = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32).requires_grad_()
        cost = flops(lambda: perceptual_loss(vgg, fake, real, slices=slices).backward())
        results[slices] = fake.grad, cost
    assert torch.equal(results[True][0], results[False][0])
    assert results[True][1] == results[False][1] + flops(lambda: vgg(real))


def test_the_presets_are_ordered_by_what_they_recompute() -> None:
    assert list(PRESETS) == list(get_args(Memory))
    assert [preset.generator for preset in PRESETS.values()] == [
        "none",
        "blocks",
        "halves",
        "halves",
        "whole",
    ]
