"""`model.memory=auto`: what is estimated, which preset is chosen, and where the word survives."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import yaml

from launcher import presets, wiring
from launcher.cards import GIB
from launcher.config import Config, ConfigError, load
from launcher.costs import step_costs
from launcher.memory import Work, fastest, held_by_backend, needed, report
from tests import gang
from tests.launcher.sample import make_source, organza, write_recipe
from trainers.errors import TrainingError
from trainers.zero import BUCKET

FULL = (1024, 2048)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with `memory: auto` on four packed samples of 64x32."""
    folder = tmp_path_factory.mktemp("auto")
    make_source(folder / "source", count=4)
    assert organza("pack", folder / "source", folder / "shards")[0] == 0
    path = write_recipe(folder, folder / "shards", schedule={"constant": 4, "decay": 0})
    tree = yaml.safe_load(path.read_text())
    tree["model"] |= {"memory": "auto", "num_blocks": 6}
    path.write_text(yaml.safe_dump(tree))
    return path


def estimates(config: Config, world: int) -> dict[str, float]:
    """GiB by preset."""
    work = Work(2 // world, (32, 64), world=world)
    chosen = {name: presets.with_preset(config, name) for name in presets.presets(config.model)}
    return {name: needed(preset, work) / GIB for name, preset in chosen.items()}


def test_the_presets_of_the_full_recipe_fall_in_their_order() -> None:
    config, work = load("pix2pixhd-full", {}), Work(1, FULL, world=8)
    names = presets.presets(config.model)
    assert names == ("none", "blocks", "halves", "halves+slices", "whole+strips")
    found = {name: needed(presets.with_preset(config, name), work) for name in names}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    chosen = [fastest(config, work, found, gib * GIB) for gib in (24, 10, 8, 7)]
    assert [names[i] for i in chosen] == ["none", "blocks", "halves", "whole+strips"]
    with pytest.raises(ConfigError, match=r"even whole\+strips needs about 6\.\d\d GiB") as caught:
        fastest(config, work, found, 6 * GIB)
    assert "model.memory=none" not in str(caught.value) and "larger card" in str(caught.value)
    table = report(config, work, found, 8 * GIB)
    assert "8.00 GiB for a process, micro-batches of 1 x 2048x1024, bf16, 8 processes" in table
    rows = [line.split()[-1] for line in table.splitlines()[2:]]
    assert rows == ["no", "no", "chosen", "yes", "yes"]


def test_what_the_networks_cannot_run_is_not_offered() -> None:
    unet = load("cyclegan", {"model.generator.kind": "unet"})
    assert presets.presets(unet.model) == ("none", "directions")
    assert presets.presets(load("pix2pix", {}).model) == ()
    settled = presets.settled(load("cyclegan", {}).model)
    assert settled.memory == "none" and type(settled) is type(unet.model)


def test_the_advice_names_what_is_left_to_try() -> None:
    slow = load("cyclegan", {"model.memory": "directions", "batch.total": "2"})
    assert presets.advice(slow, 2) == (
        "choose model.memory=directions+blocks, a smaller batch.micro, precision=bf16, smaller "
        "images (data.preprocess.crop_size, load_size) or a larger card."
    )
    assert "model.memory" not in presets.advice(load("pix2pix", {}), 1)


def test_what_the_backends_hold() -> None:
    ddp = load("pix2pixhd-full", {})
    zero = load("pix2pixhd-full", {"backend.kind": "deepspeed", "backend.zero": "2"})
    assert held_by_backend(ddp, 10**9, world=1) == 0
    assert held_by_backend(ddp, 10**9, world=8) == 4 * 10**9
    moments, masters = 8 * 10**9, 4 * 10**9
    sharded = (moments + masters) // 4 - moments + 4 * BUCKET
    assert held_by_backend(zero, 10**9, world=4) == sharded


def chosen_by(recipe: Path, budgets: list[list[float]], options: dict[str, str]) -> list[str]:
    """What each start chooses on this rank, whose budget is one of the row."""
    from trainers.backends import open_backend

    words = []
    backend = None
    for row in budgets:
        world = wiring.topology.world()
        config = load(
            str(recipe), {"backend.memory_gib": str(row[world.rank % len(row)])} | options
        )
        backend = backend or open_backend(world.size, 60)
        sources = wiring.sources_of(config)
        numbers = wiring.recipe_of(config, world.size)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                settled = presets.resolve(config, numbers, sources, backend)
            except (ConfigError, TrainingError) as error:
                words.append(f"{type(error).__name__}: {error}")
                continue
        assert bool(printed.getvalue()) == (world.rank == 0)
        words.append(settled.model.memory)
    return words


def test_the_least_memory_of_all_ranks_counts(recipe: Path) -> None:
    found = estimates(load(str(recipe)), world=2)
    first, second = list(found)[:2]
    enough, less = found[first], (found[first] + found[second]) / 2
    assert found[second] < less < enough
    budgets = [[enough + 1e-6, enough + 1e-6], [9.0, less], [less, 9.0], [9.0, 0.5]]
    first_rank, second_rank = gang.run(2, chosen_by, recipe, budgets, {})
    assert first_rank[:3] == second_rank[:3] == [first, second, second]
    assert first_rank[3].startswith("ConfigError: model.memory=auto: no preset fits")
    assert second_rank[3].startswith("TrainingError: Another rank failed")


def test_a_run_chooses_anew_whenever_it_starts(recipe: Path) -> None:
    folder = recipe.parent
    found = estimates(load(str(recipe)), world=1)
    status, output = organza("train", recipe, "--backend.memory_gib=0.5")
    assert status == 2 and "no preset fits" in output and "larger card" in output, output
    assert "Traceback" not in output and not (folder / "run-coarse").exists()
    status, output = organza("train", recipe)
    assert status == 0 and chosen_in(output) == "none", output
    assert yaml.safe_load((folder / "run-coarse/config.yaml").read_text())["model"]["memory"] == "auto"
    less = (found["none"] + found["blocks"]) / 2
    status, output = organza(
        "train", folder / "run-coarse/config.yaml", f"--backend.memory_gib={less}",
        "--schedule.constant=6",
    )
    assert status == 0 and chosen_in(output) == "blocks" and "Finished" in output, output
    status, output = organza("translate", folder / "run-coarse", folder / "source", folder / "out")
    assert status == 0 and len(list((folder / "out").glob("*.png"))) == 4, output


def chosen_in(output: str) -> str:
    """The preset that the printed table tells."""
    (line,) = [line for line in output.splitlines() if line.endswith("  chosen")]
    return line.split()[0]


def test_tracing_on_one_rank_waits_for_no_other(tmp_path: Path) -> None:
    """Norms over all processes must be plain ones in a step that rank 0 alone goes through."""
    assert gang.run(2, traced_alone) == [True, True]


def traced_alone() -> bool:
    from trainers.backends import open_backend

    config = load("cyclegan", {
        "model.generator.norm": "sync-batch", "model.generator.num_blocks": "1",
    })
    backend = open_backend(2, 20)
    return backend.rank == 1 or step_costs(config, 1, (32, 32)).peak_bytes > 0
