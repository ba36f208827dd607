"""`make demo`, as a user runs it: both stages at 2048x1024 on two processes, and it learns."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.launcher.sample import ROOT, environment
from trainers.checkpoint import find

TIMEOUT = 900


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        # The environment that runs this test is set up already: nothing is to be made anew.
        ["make", "demo", f"DEMO={folder}", "--assume-old=.venv/ready"],
        cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout


def test_the_held_out_pictures_beat_the_best_constant_colour(demo: tuple[Path, str]) -> None:
    _, output = demo
    assert "best constant colour" in output and "(better," in output
    assert "tensorboard --logdir" in output


def test_both_stages_ran_at_their_real_sizes_on_two_processes(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    for stage in ("coarse", "full"):
        checkpoint = find(folder / stage)
        assert checkpoint.state["world"] == 2
        assert checkpoint.config["model"]["stage"] == stage
        rows = (folder / stage / "metrics.jsonl").read_text().splitlines()
        assert json.loads(rows[-1])["images"] == checkpoint.progress.images
        board = EventAccumulator(str(folder / stage / "board")).Reload()
        assert "G/gan" in board.Tags()["scalars"] and "pictures" in board.Tags()["images"]
    pictures = sorted((folder / "pictures").glob("*.png"))
    assert len(pictures) == 4
    assert all(Image.open(path).size == (2048, 1024) for path in pictures)
