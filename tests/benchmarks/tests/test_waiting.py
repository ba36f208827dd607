"""What the board calls waiting for data is that, and the benchmark prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.waiting import Stream, waited
from tests.launcher.sample import ROOT, environment
from trainers.backends.base import Backend
from trainers.gan import Batch

STEP = 0.05


def source(start: float, each: float, rank: int) -> Stream:
    """Takes so many seconds for its first batch, and for each on this rank; on others, none."""

    def stream(backend: Backend, position: int) -> Iterator[Batch]:
        time.sleep(start)
        while True:
            time.sleep(each if backend.rank == rank else 0)
            yield {}

    return stream


@pytest.mark.parametrize(
    ("start", "each", "ranks", "least", "most"),
    [(0, 3 * STEP, 1, 0.4, 0.9), (10 * STEP, 0, 1, 0, 0.3), (0, 3 * STEP, 2, 0.4, 0.9)],
    ids=["a slow source", "a late and fast one", "slow on the other rank"],
)
def test_the_share_of_the_rank_that_waits(
    start: float, each: float, ranks: int, least: float, most: float
) -> None:
    share, _ = waited(source(start, each, rank=ranks - 1), ranks, images=6, step=STEP)
    assert least <= share <= most


def test_a_row_for_each_number_of_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.waiting", "--size=64x32", "--triplets=4"]
    command += ["--images=3", "--step=0.01", "--workers=0,1", "--ranks=1", "--pictures=png"]
    command += [f"--json={tmp_path / 'rows.json'}", f"--folder={tmp_path}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["workers"] for row in rows] == [0, 1]
    assert all(0 < row["data_wait_share"] < 1 and row["images_per_s"] > 0 for row in rows)
    assert done.stdout.count("png") == 2
