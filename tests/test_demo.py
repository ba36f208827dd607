"""`make demo`, as a user runs it, for each recipe: on two processes, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.launcher.sample import ROOT, environment
from tests.processes import patience
from trainers.checkpoints.checkpoint import find

RUNS = {
    "pix2pixhd": {"coarse": "G/gan", "full": "G/gan"},
    "pix2pix": {"pix2pix": "G/gan"},
    "cyclegan": {"cyclegan": "G/cycle_A"},
}
"""The runs of each demo, and a curve of each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demos share the packed sample data."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module", params=RUNS)
def demo(folder: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and output of a demo. It has the status 0 only if its pictures beat simple answers."""
    done = patience.run(
        # The environment that runs this test is set up already: nothing is to be made anew.
        ["make", "demo", f"RECIPE={request.param}", f"DEMO={folder}", "--assume-old=.venv/ready"],
        cwd=ROOT,
        env=environment() | {"MAKEFLAGS": ""},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return request.param, done.stdout


def test_the_held_out_pictures_beat_simple_answers(demo: tuple[str, str]) -> None:
    name, output = demo
    scores = [line for line in output.splitlines() if line.startswith("mean absolute error")]
    assert len(scores) == {"cyclegan": 2}.get(name, 1)
    for line in scores:
        constant, another, *identity = line.split("; ")[1:]
        assert constant.startswith("best constant colour")
        assert name == "cyclegan" or "(better," in constant
        # What a picture owes to its source: one picture for all sources would gain nothing.
        assert another.startswith("beside another photo") and "(better," in another
        assert name == "pix2pixhd" or "(better," in identity[0]
    assert "tensorboard --logdir" in output


def test_it_ran_at_its_real_size_on_two_processes(demo: tuple[str, str], folder: Path) -> None:
    name, _ = demo
    for run, curve in RUNS[name].items():
        checkpoint = find(folder / run)
        assert checkpoint.state["world"] == 2
        rows = (folder / run / "metrics.jsonl").read_text().splitlines()
        assert json.loads(rows[-1])["images"] == checkpoint.progress.images
        board = EventAccumulator(str(folder / run / "board")).Reload()
        assert curve in board.Tags()["scalars"] and "pictures" in board.Tags()["images"]
    pictures = sorted((folder / f"{name}-pictures").rglob("*.png"))
    number, size = {
        "pix2pixhd": (4, (2048, 1024)),
        "pix2pix": (29, (256, 256)),
        "cyclegan": (58, (256, 256)),
    }[name]
    assert len(pictures) == number
    assert all(Image.open(path).size == size for path in pictures)
