"""A run folder keeps its history: nothing is begun anew, replaced or forgotten without a word."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.recipe.config import ConfigError, load
from launcher.run import run_folder
from launcher.status.monitoring import status
from tests.launcher.sample import ROOT, environment, make_shards, organza, write_recipe
from trainers.checkpoints.checkpoint import find


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """coarse.yaml, and its run of 24 images on two processes, which saved at 8, 16 and 24."""
    folder = tmp_path_factory.mktemp("runs")
    make_shards(folder, count=3)
    done, output = organza("train", write_recipe(folder, folder / "shards"), launch=2)
    assert done == 0, output
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be harmed."""
    return Path(shutil.copytree(folder / "run-coarse", tmp_path / "run"))


def examined(folder: Path, run: Path, **overrides: str) -> None:
    config = load(str(folder / "coarse.yaml"), {"run_dir": str(run)} | overrides)
    run_folder.examine(config, find(folder / "run-coarse").state["data"])


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_a_run_without_its_pointer_goes_on(folder: Path, run: Path) -> None:
    (run / "checkpoints" / "latest").unlink()
    options = (f"--run_dir={run}", "--schedule.decay=16")
    done, output = organza("train", folder / "coarse.yaml", *options)
    assert done == 0 and "resuming at 24 of 28" in output, output
    assert f"{run}/checkpoints/latest is lost: the newest whole checkpoint is used." in output
    assert "Changed since the last start: " in output and "schedule.decay: 12 -> 16" in output
    before, after = sorted((run / "configs").iterdir())
    assert (before.name, after.name) == ("000000000-0.yaml", "000000024-0.yaml")
    assert yaml.safe_load(before.read_text())["schedule"]["decay"] == 12
    assert after.read_text() == (run / "config.yaml").read_text()


def test_checkpoints_alone_are_a_run_to_go_on_with(folder: Path, run: Path) -> None:
    for path in run.iterdir():
        if path.name != "checkpoints":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    examined(folder, run)
    assert find(run).progress.images == 24


def test_history_without_a_checkpoint_is_not_buried(folder: Path, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    before = contents(run)
    done, output = organza("train", folder / "coarse.yaml", f"--run_dir={run}")
    assert done == 2 and "tells of a run of 24 images, but holds no checkpoint" in output, output
    assert contents(run) == before
    (run / "outcome.json").unlink()
    with pytest.raises(ConfigError, match="restore its folder checkpoints, choose another"):
        examined(folder, run)


def test_a_run_that_was_killed_before_its_first_save_begins_anew(folder: Path, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "outcome.json").unlink()
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(rows[:2]))  # 8 images: it was saving
    examined(folder, run)


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/000000024"])
def test_a_checkpoint_is_no_run_folder(folder: Path, run: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=f"choose run_dir={run} to go on with that run"):
        examined(folder, run / place)


def test_a_recipe_of_the_user_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "config.yaml"
    recipe.write_text("# mine\n" + (folder / "coarse.yaml").read_text())
    with pytest.raises(ConfigError, match="was not written by a run, which would replace it"):
        examined(folder, tmp_path)


def test_a_refusal_changes_nothing_and_is_told_once(folder: Path, run: Path) -> None:
    before = contents(run)
    options = (f"--run_dir={run}", "--model.ngf=8")
    done, output = organza("train", folder / "coarse.yaml", *options, launch=2)
    assert done != 0 and output.count("model.ngf was 4 in") == 1, output
    assert contents(run) == before


def test_status_counts_the_starts_of_a_run_without_slurm(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for starts in (1, 2):
        status(folder / "run-coarse")
        told = capsys.readouterr().out
        assert f"starts      {starts}\n" in told and "finished" in told, told
        if starts == 1:
            assert organza("train", folder / "coarse.yaml")[0] == 0


@pytest.mark.parametrize("arguments", [["status", "run-coarse"], ["show", "cyclegan"]])
def test_a_reader_that_has_gone_is_no_mistake(folder: Path, arguments: list[str]) -> None:
    command, name = arguments
    place = str(folder / name) if command == "status" else name
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "launcher", command, place],
        cwd=ROOT,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
