"""A pipe without a writer in the place of a file holds nobody up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.launcher.sample import make_run, organza
from trainers.checkpoints.checkpoint import find


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, its packed set, a recipe and its run."""
    folder = tmp_path_factory.mktemp("pipes")
    make_run(folder)
    os.mkfifo(folder / "pipe.csv")
    for name in ("pipe.jsonl", "pipe.yaml", "pipe.tar", "pipe.safetensors", "pipe.pth"):
        os.mkfifo(folder / name)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "pack F/pipe.csv F/out",
        "pack F/pipe.jsonl F/out",
        "pack F/source F/out --remap=F/pipe.csv",
        "index F/pipe.tar",
        "translate F/run-coarse F/source F/out --remap=F/pipe.csv",
        "train F/pipe.yaml",
        "train F/coarse.yaml --run_dir=F/new --start_from=F/pipe.pth",
        "train F/coarse.yaml --run_dir=F/new --model.lambda_vgg=1 --model.vgg_weights=F/pipe.pth",
        "submit F/coarse.yaml --run_dir=F/sweep --array=F/pipe.yaml --dry",
    ],
)
def test_a_pipe_for_a_file_that_is_given(folder: Path, command: str) -> None:
    status, output = organza(*command.replace("F/", f"{folder}/").split())
    assert status in (1, 2) and "pipe" in output and "Traceback" not in output, output
    assert not (folder / "out").exists() and not (folder / "new").exists()


@pytest.mark.parametrize(
    "name",
    ["source/train_img/000.png", "shards/manifest.json", "shards/index.json", "shards/*.tar"],
)
def test_a_pipe_among_the_data(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder / name.split("/")[0], tmp_path / name.split("/")[0])
    (path,) = tmp_path.glob(name)
    path.unlink()
    os.mkfifo(path)
    words = ("pack", tmp_path / "source", tmp_path / "out")
    words = ("verify", tmp_path / "shards") if name.startswith("shards") else words
    status, output = organza(*words)
    assert status in (1, 2) and path.name in output and "Traceback" not in output, output


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "files.json"])
def test_a_pipe_in_a_checkpoint(folder: Path, tmp_path: Path, name: str) -> None:
    """The one before is used, or there is none."""
    run = tmp_path / "run"
    shutil.copytree(folder / "run-coarse", run)
    path = find(run).path / name
    path.unlink()
    os.mkfifo(path)
    asked = ("train", folder / "coarse.yaml", f"--run_dir={run}", "--schedule.constant=8")
    for words in (("translate", run, folder / "source", tmp_path / "out"), asked):
        status, output = organza(*words)
        assert "Traceback" not in output, output
        assert status == 0 or path.parent.name in output, output


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "outcome.json", "attempts.jsonl", "heartbeats/rank00000.json"]
)
def test_a_pipe_in_a_run_folder(folder: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run-coarse", run)
    (run / name).unlink()
    os.mkfifo(run / name)
    train = ("train", folder / "coarse.yaml", f"--run_dir={run}", "--schedule.constant=8")
    for words in (("status", run), ("runs", run), train):
        status, output = organza(*words)
        assert status in (0, 1) and "Traceback" not in output, output
        assert status == 0 or name in output, output
