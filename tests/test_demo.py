"""`make demo`, as a user runs it, for each recipe: on two processes, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.benchmarks.samples import judge
from tests.launcher.sample import ROOT, environment, organza
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


def made(folder: Path, name: str) -> str:
    """Output of a demo."""
    done = patience.run(
        # The environment that runs this test is set up already: nothing is to be made anew.
        ["make", "demo", f"RECIPE={name}", f"DEMO={folder}", "--assume-old=.venv/ready"],
        cwd=ROOT,
        env=environment() | {"MAKEFLAGS": ""},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module", params=RUNS)
def demo(folder: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and output of a demo. It has the status 0 only if its pictures beat simple answers."""
    return request.param, made(folder, request.param)


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


def test_digits_are_those_that_were_asked_for(folder: Path) -> None:
    """By the word of a classifier that knows real digits."""
    made(folder, "digits")
    assert len(list((folder / "digits-pictures").glob("0*.png"))) == 100
    out = folder / "many"
    status, output = organza("sample", folder / "digits-run", out, "--num=500", "--grid=0")
    assert status == 0, output
    known = judge.trained(*judge.labelled(folder / "digits" / "train", 1))
    real, truth = judge.labelled(folder / "digits" / "test", 1)
    assert (judge.opinion(known, real)[0] == truth).float().mean() >= 0.95
    samples = judge.pictures(out, 1)
    shown, sure = judge.opinion(known, samples)
    asked = torch.arange(len(shown)) % 10
    # One in ten by chance; a longer training comes to more than nine (tests/benchmarks/README.md).
    assert (shown == asked).float().mean() >= 0.7 and sure.mean() >= 0.8
    noise = 2 * torch.rand_like(samples) - 1
    assert judge.distance(known, samples, real) < judge.distance(known, noise, real) / 3
