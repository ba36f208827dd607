"""Training steps of an original implementation, as recorded, walked by ours in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.nets.rule import fill
from trainers.gan import GAN, Batch
from trainers.player import Player, only

Names = dict[str, dict[str, float]]
"""Recorded name -> our terms, each with a factor, whose sum it is."""
Keys = dict[str, dict[str, str]]
"""Network -> own name of a tensor -> its name in the original."""


def filled(gan: GAN, tag: str, **numbering: Any) -> Keys:
    """Give all networks the weights of the rule."""
    return {name: fill(net, f"{tag}.{name}", **numbering) for name, net in gan.nets.items()}


def walk(gan: GAN, keys: Keys, expected: dict, batch: Callable[[int], Batch], names: Names) -> None:
    """All recorded steps: losses, gradient norms, gradients of the first step, final weights."""
    gan.double()
    phases = gan.phases(0)
    players = [Player(gan, phase) for phase in phases]
    optimizers = [torch.optim.Adam(p.parameters(), 2e-4, (0.5, 0.999)) for p in players]
    for step, wanted in enumerate(expected["steps"]):
        raw, carry, found = batch(step), {}, {}
        for phase, player, optimizer in zip(phases, players, optimizers, strict=True):
            with only(gan, phase):
                optimizer.zero_grad()
                total, terms, out = player(raw, carry)
                total.backward()
                gradients = [parameter.grad for parameter in player.parameters()]
                found[f"gradnorm_{phase.name}"] = torch.nn.utils.get_total_norm(gradients)
                if step == 0:
                    for net in phase.nets:
                        check_gradients(gan, net, keys, expected)
                optimizer.step()
                found |= terms | {f"loss_{phase.name}": total}
                carry |= out
        for theirs, ours in names.items():
            value = sum(factor * found[name].item() for name, factor in ours.items())
            assert value == pytest.approx(wanted[theirs], rel=1e-9), f"step {step}: {theirs}"
    check_weights(gan, keys, expected)


def check_gradients(gan: GAN, net: str, keys: Keys, expected: dict) -> None:
    wanted = expected[f"grads_{net}_step1"]
    largest = max(gradient["l2"] for gradient in wanted.values())
    for name, parameter in gan.nets[net].named_parameters():
        norm = parameter.grad.norm().item()
        assert abs(norm - wanted[keys[net][name]]["l2"]) < 1e-9 * largest, f"{net}.{name}"


def check_weights(gan: GAN, keys: Keys, expected: dict) -> None:
    """Running statistics too. Biases in front of instance norm have no gradient but noise, which
    Adam blows up."""
    for net, recorded in expected["final"].items():
        for name, value in gan.nets[net].state_dict().items():
            key = keys[net].get(name)
            if key in recorded and f"{net}.{key}" not in expected["noise_driven_tensors"]:
                for ours, theirs in ((value.mean(), "mean"), (value.norm(), "l2")):
                    gap = abs(ours.item() - recorded[key][theirs])
                    assert gap < 1e-9 * max(recorded[key]["l2"], 1e-3), f"{net}.{name} {theirs}"
