"""`model.memory=auto`: what is estimated, which preset is chosen, and where the word survives."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import yaml

from launcher.estimate.gpus import GIB
from launcher.estimate.memory import (
    FACTOR,
    FIXED,
    Work,
    fastest,
    held_by_backend,
    needed,
    report,
    resolve,
)
from launcher.estimate.step_costs import step_costs
from launcher.recipe import memory_presets
from launcher.recipe.building import build, recipe_of
from launcher.recipe.config import Config, ConfigError, load
from launcher.run import training
from launcher.run.sources import sources_of
from tests.launcher.sample import make_shards, write_recipe
from tests.processes import gang
from trainers.backends.deepspeed_zero import BUCKET
from trainers.checkpoints.checkpoint import find
from trainers.errors import TrainingError


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with `memory: auto` on four packed samples of 64x32."""
    folder = tmp_path_factory.mktemp("auto")
    make_shards(folder, count=4)
    path = write_recipe(folder, folder / "shards", schedule={"constant": 4, "decay": 0})
    tree = yaml.safe_load(path.read_text())
    tree["model"] |= {"memory": "auto", "num_blocks": 2, "num_layers": 1, "num_scales": 1}
    path.write_text(yaml.safe_dump(tree))
    return path


def estimates(config: Config, world: int) -> tuple[float, float]:
    """GiB that the two fastest presets need."""
    work = Work(2 // world, (32, 64), world=world)
    chosen = (memory_presets.with_preset(config, name) for name in ("none", "blocks"))
    fastest, next_one = (needed(preset, work) / GIB for preset in chosen)
    assert fastest > next_one
    return fastest, next_one


def test_the_fastest_that_fits_is_chosen_and_shown() -> None:
    config, work = load("pix2pixhd-full", {}), Work(1, (1024, 2048), world=8)
    names = memory_presets.presets(config.model)
    assert names == ("none", "blocks", "halves", "halves+slices", "whole+strips")
    found = {name: gib * GIB for name, gib in zip(names, (10, 9, 7, 7, 6), strict=True)}
    chosen = [fastest(config, work, found, gib * GIB) for gib in (24, 10, 9, 8, 6)]
    assert [names[i] for i in chosen] == ["none", "none", "blocks", "halves", "whole+strips"]
    with pytest.raises(ConfigError) as caught:
        fastest(config, work, found, 5 * GIB)
    assert str(caught.value) == (
        "model.memory=auto: no preset fits, even whole+strips needs about 6.00 GiB and a process "
        "has 5.00 GiB: choose smaller images (data.preprocess.crop_size, load_size) or a larger "
        "card."
    )
    table = report(config, work, found, 8 * GIB)
    assert "8.00 GiB for a process, micro-batches of 1 x 2048x1024, bf16, 8 processes" in table
    assert [line.split()[-1] for line in table.splitlines()[2:]] == [
        "no",
        "no",
        "chosen",
        "yes",
        "yes",
    ]


def test_what_the_networks_cannot_run_is_not_offered() -> None:
    unet = load("cyclegan", {"model.generator.kind": "unet"})
    assert memory_presets.presets(unet.model) == ("none", "directions")
    assert memory_presets.presets(load("pix2pix", {}).model) == ()
    settled = memory_presets.settled(load("cyclegan", {}).model)
    assert settled.memory == "none" and type(settled) is type(unet.model)


def test_the_advice_names_what_is_left_to_try() -> None:
    slow = load("cyclegan", {"model.memory": "directions", "batch.total": "2"})
    assert memory_presets.advice(slow, 2) == (
        "choose model.memory=directions+blocks, a smaller batch.micro, precision=bf16, smaller "
        "images (data.preprocess.crop_size, load_size) or a larger card."
    )
    assert "model.memory" not in memory_presets.advice(load("pix2pix", {}), 1)


def test_what_the_backends_hold() -> None:
    ddp = load("pix2pixhd-full", {})
    zero = load("pix2pixhd-full", {"backend.kind": "deepspeed", "backend.zero": "2"})
    assert held_by_backend(ddp, 10**9, world=1) == 0
    assert held_by_backend(ddp, 10**9, world=8) == 4 * 10**9
    moments, masters = 8 * 10**9, 4 * 10**9
    sharded = (moments + masters) // 4 - moments + 4 * BUCKET
    assert held_by_backend(zero, 10**9, world=4) == sharded


@pytest.mark.parametrize("num_micro", [1, 5])
def test_micro_batches_and_buckets_need_memory(recipe: Path, num_micro: int) -> None:
    """Of five, two and three are traced."""
    config = memory_presets.with_preset(load(str(recipe)), "none")
    costs = step_costs(config, 1, (32, 64), num_micro)
    peak = costs.peak_bytes + 4 * sum(costs.num_trained.values())
    found = needed(config, Work(1, (32, 64), num_micro, world=8))
    assert found - FIXED == pytest.approx(FACTOR * peak, rel=1e-3)


def chosen_by(recipe: Path, budgets: list[list[float]]) -> list[str]:
    """What is chosen on this rank with its budget of each row, or the error."""
    from trainers.backends.opening import open_backend

    backend, words = open_backend(2, 60), []
    for row in budgets:
        config = load(str(recipe), {"backend.memory_gib": str(row[backend.rank])})
        numbers, sources = recipe_of(config, 2), sources_of(config)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                settled = resolve(config, numbers, sources, backend, local_size=2)
                words.append(settled.model.memory)
            except (ConfigError, TrainingError) as error:
                words.append(f"{type(error).__name__}: {error}")
        assert bool(printed.getvalue()) == (backend.rank == 0)
    return words


def test_the_least_memory_of_all_ranks_counts(recipe: Path) -> None:
    enough, less = estimates(load(str(recipe)), world=2)
    between = (enough + less) / 2
    first, second = gang.run(2, chosen_by, recipe, [[9.0, between], [9.0, 0.5]])
    assert first[0] == second[0] == "blocks"
    assert first[1].startswith("ConfigError: model.memory=auto: no preset fits")
    assert second[1].startswith("TrainingError: Another rank failed")


def test_what_fits_nowhere_stops_before_anything_is_written(recipe: Path) -> None:
    (words,) = gang.run(1, refused, recipe)
    assert "no preset fits" in words and words.endswith("or a larger card.")
    assert not (recipe.parent / "none").exists()


def refused(recipe: Path) -> str:
    options = {"backend.memory_gib": "0.5", "run_dir": str(recipe.parent / "none")}
    with pytest.raises(ConfigError) as caught:
        training.train(load(str(recipe), options))
    return str(caught.value)


def test_a_run_chooses_anew_whenever_it_starts(recipe: Path) -> None:
    run = recipe.parent / "run-coarse"
    enough, less = estimates(load(str(recipe)), world=1)
    for length, gib, chosen in ((4, enough, "none"), (6, (enough + less) / 2, "blocks")):
        (printed,) = gang.run(1, trained, recipe, length, gib)
        assert chosen_in(printed) == chosen
    for config in (yaml.safe_load((run / "config.yaml").read_text()), find(run).config):
        assert config["model"]["memory"] == "auto" and config["schedule"]["constant"] == 6
    translated = build(load(str(run / "config.yaml")), training=False)
    assert translated.config.memory == "none"


def trained(recipe: Path, length: int, gib: float) -> str:
    """What is printed by a start of the run with so much memory, which goes on to `length`."""
    options = {"schedule.constant": str(length), "backend.memory_gib": str(gib + 1e-6)}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert training.train(load(str(recipe), options)) == 0
    return printed.getvalue()


def chosen_in(output: str) -> str:
    """The preset that the printed table tells."""
    (line,) = [line for line in output.splitlines() if line.endswith("  chosen")]
    return line.split()[0]


def test_a_step_traced_beside_other_ranks_is_one_of_its_own() -> None:
    """Norms over all processes are plain ones there: rank 0 alone goes through the step."""
    alone = cost_with_synced_norms()
    assert gang.run(2, traced_beside_another) == [alone, alone]


def traced_beside_another() -> tuple[int, int]:
    from trainers.backends.opening import open_backend

    open_backend(2, 20)
    return cost_with_synced_norms()


def cost_with_synced_norms() -> tuple[int, int]:
    """Peak and number of kernels."""
    names = {"norm": "sync-batch", "num_blocks": "1", "ngf": "4"}
    config = load("cyclegan", {f"model.generator.{name}": value for name, value in names.items()})
    costs = step_costs(config, 1, (32, 32))
    return costs.peak_bytes, sum(len(part.kernels) for part in costs.parts)
