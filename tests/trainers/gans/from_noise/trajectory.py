"""Steps of a GAN beside those that a reference made with the same weights and inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nets.layers import conditioning
from tests.nets.noise.oracle import (
    NETWORKS,
    by_position,
    check_summary,
    distance,
    drawn,
    fill,
    stream,
    strided,
    tensors,
    turned,
)
from trainers.backends.optimizers import build_optimizer
from trainers.ema import Ema
from trainers.gan import GAN, Batch, Phase
from trainers.player import Player, only
from trainers.recipe import OptimizerRecipe

Case = dict[str, Any]
Names = dict[str, dict[str, float]]
"""Recorded name -> our terms, each with a factor, whose sum it is."""
Make = Callable[[Batch], Tensor]
Inputs = list[dict[str, Tensor]]
"""By update of a step: role -> tensor."""


def read(name: str) -> Case:
    """A recorded trajectory."""
    return json.loads((NETWORKS / "trajectories" / f"{name}.json").read_text())


def follow(
    case: Case,
    gan: GAN,
    optimizers: dict[str, OptimizerRecipe],
    batch: Callable[[Inputs], Batch],
    names: Names,
    ema: Callable[[GAN], Ema] | None = None,
    keys: dict[str, dict[str, str]] | None = None,
    make: str = "generate",
) -> None:
    """All recorded updates: losses, gradient norms, the first gradients, the last weights, and what
    the generator then makes. batch: what the stream would give for the inputs of a step's updates.
    """
    gan.double()
    keys = keys or {n: by_position(net, case["networks"][n]["state"]) for n, net in named(gan)}
    for name, net in named(gan):
        rule = case["rule"] if isinstance(case["rule"], str) else case["rule"][name]
        about = case["networks"][name] | {k: case[k] for k in ("gamma", "layout")}
        fill(net, keys[name], about | {"rule": rule})
    average, images, averaged = ema(gan) if ema else None, 0, 0
    players = {phase.name: Player(gan, phase) for phase in gan.phases(0)}
    steppers = {
        name: build_optimizer(optimizers[name], list(player.parameters()), torch.device("cpu"))
        for name, player in players.items()
    }
    firsts: set[str] = set()
    for updates, phases in steps_of(case, gan):
        gan.train()
        raw, carry = batch([inputs_of(update) for update in updates]), {}
        images += len(next(iter(raw.values())))
        for update, phase in zip(updates, phases, strict=True):
            player, optimizer = players[phase.name], steppers[phase.name]
            with only(gan, phase):
                optimizer.zero_grad()
                total, terms, out = player(raw, carry)
                total.backward()
            found = {f"loss_{phase.name}": total.item()}
            found |= {name: term.item() for name, term in terms.items()}
            check_losses(update, found, names)
            check_norm(update, player)
            if phase.name not in firsts:
                check_first(case, gan, phase, keys)
                firsts.add(phase.name)
            for before in (True, False):
                if average is not None and phase.name == "G" and gan.averaged_before == before:
                    average.update(gan, images - averaged, images)
                    averaged = images
                if before:
                    optimizer.step()
                    with torch.no_grad():
                        gan.constrain(phase.name)
            carry |= out
    check_weights(case, gan, keys, average)
    check_probe(case, gan, average, getattr(gan, make))


def named(gan: GAN) -> list[tuple[str, Any]]:
    return list(gan.nets.items())


def steps_of(case: Case, gan: GAN) -> Iterator[tuple[list[Case], list[Phase]]]:
    """The recorded updates of each step, and their phases."""
    updates, step = list(case["updates"]), 0
    while updates:
        due = [phase for phase in gan.phases(0) if phase.due(step) for _ in range(phase.repeats)]
        now, updates = updates[: len(due)], updates[len(due) :]
        assert [update["phase"] for update in now] == [phase.name for phase in due]
        yield now, due
        step += 1


def inputs_of(update: Case) -> dict[str, Tensor]:
    return {spec["role"]: drawn(spec) for spec in update["inputs"]}


def check_losses(update: Case, found: dict[str, float], names: Names) -> None:
    where = f"{update['iteration']} {update['phase']}"
    for theirs, value in update["losses"].items():
        ours = names.get(theirs, {theirs: 1.0})
        if set(ours) <= set(found):
            mine = sum(factor * found[name] for name, factor in ours.items())
            gap = abs(mine - value) / max(abs(value), 1e-3)
            assert gap < 1e-9, f"{where}: {theirs} is {mine}, not {value}"
        else:
            assert not theirs.startswith("loss_"), f"{where}: {theirs} has no counterpart"


def check_norm(update: Case, player: Player) -> None:
    gradients = [p.grad for p in player.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    assert norm == pytest.approx(update["grad_norm"], rel=1e-9, abs=1e-12)


def check_first(case: Case, gan: GAN, phase: Phase, keys: dict[str, dict[str, str]]) -> None:
    recorded = case["gradients_of_first_update"][phase.name]
    largest = max(gradient["l2"] for gradient in recorded.values())
    for net in {path.split(".")[0] for path in phase.nets}:
        for own, parameter in gan.nets[net].named_parameters():
            key = f"{net}:{keys[net][own]}"
            if key in recorded and parameter.grad is not None:
                found = turned(parameter.grad, case["layout"], back=True)
                direction = stream(f"gradprobe/{case['case']}/{net}/{keys[net][own]}")
                check_summary(found, recorded[key], direction, 1e-8 * largest)


def check_weights(
    case: Case, gan: GAN, keys: dict[str, dict[str, str]], average: Ema | None
) -> None:
    nets = {name: tensors(net) for name, net in named(gan)}
    if average is not None:
        shadow = {n.removeprefix("G."): tensor for n, tensor in average.shadow.items()}
        nets["G_ema"] = {own: shadow[own] for own in keys["G"]}
    assert case["final"].keys() <= nets.keys()
    for net, recorded in case["final"].items():
        for own, value in nets[net].items():
            key = keys[net.removesuffix("_ema")][own]
            value = turned(value, case["layout"], back=True)
            direction = stream(f"weightprobe/{case['case']}/{net}/{key}")
            expected = recorded[key]
            check_summary(value, expected, direction, 1e-8 * max(expected["l2"], 1e-6))


def check_probe(case: Case, gan: GAN, average: Ema | None, make: Make) -> None:
    """What the generator makes in eval mode, which changes nothing, then in train mode; then the
    same of its average."""
    given = probed({role: drawn(spec) for role, spec in case["probe_inputs"].items()})
    with np.load(NETWORKS / "trajectories" / f"{case['case']}.probe.npz") as stored:
        for mode in ("eval", "train"):
            made = made_in(gan, mode, given, make)
            parts = {f"G_{mode}": made} if made.ndim == 4 else {}
            parts |= {f"G_{mode}_{n}": part for n, part in enumerate(made) if made.ndim == 5}
            for name in parts.keys() & set(stored.files):
                recorded = torch.from_numpy(stored[name])
                assert distance(strided(parts[name]).reshape(recorded.shape), recorded) < 1e-9
            if f"G_ema_{mode}" in stored.files:
                assert average is not None
                with average.swapped(gan):
                    image = made_in(gan, mode, given, make)
                recorded = torch.from_numpy(stored[f"G_ema_{mode}"])
                assert distance(strided(image), recorded) < 1e-9, f"average, {mode}"


def made_in(gan: GAN, mode: str, given: Batch, make: Make) -> Tensor:
    gan.train(mode == "train")
    with torch.no_grad():
        return make(given)


def probed(given: dict[str, Tensor]) -> Batch:
    """The recorded roles as `generate` takes them."""
    names = {"label": "class", "category_0": "category"}
    made = {
        names.get(role, role): value.flatten(1) if value.ndim > 2 else value
        for role, value in given.items()
    }
    if "category" in made:
        made["category"] = made["category"].view(len(made["category"]), -1)
    return made


@pytest.fixture(autouse=True)
def plain_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded images are floats in [-1, 1] already."""
    monkeypatch.setattr(conditioning, "normalise", lambda image, dtype: image.to(dtype))
