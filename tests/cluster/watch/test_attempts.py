"""What a run folder tells of its starts, also after crashes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster.watch import attempts, heartbeat
from cluster.watch.attempts import Attempt, Outcome


def start(job: str, images: int) -> Attempt:
    return Attempt(job, 0, 0, "2026-11-22T05:00:00", images)


def test_starts_are_kept_in_order(tmp_path: Path) -> None:
    assert attempts.attempts(tmp_path) == []
    for images in (0, 8, 8):
        attempts.record(tmp_path, start("17", images))
    assert attempts.attempts(tmp_path) == [start("17", images) for images in (0, 8, 8)]


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    attempts.record(tmp_path, start("17", 0))
    path = tmp_path / "attempts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"job": "17", "rest\xff')
    attempts.record(tmp_path, start("17", 8))
    assert attempts.attempts(tmp_path) == [start("17", 0), start("17", 8)]


def end_at(run: Path, job: str, began: int, ended: int, innocent: bool = False) -> int:
    """A start from `began` images ends; how often the job has got no further."""
    attempt = Attempt(job, 0, len(list(run.glob("*"))), str(time.monotonic()), began)
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "heartbeats").mkdir(exist_ok=True)
    (run / "checkpoints" / "latest").write_text(f"{ended:09d}\n")
    tries = attempts.fruitless(run, attempt)
    if not innocent:
        for _ in range(2):  # looked at twice, it is still one start
            attempts.count(run, attempt, tries)
            assert attempts.fruitless(run, attempt) == tries
    return tries


def test_starts_without_progress_are_counted(tmp_path: Path) -> None:
    assert [end_at(tmp_path, "17", 0, 0) for _ in range(2)] == [1, 2]
    assert end_at(tmp_path, "17", 0, 8) == 0
    assert [end_at(tmp_path, "17", 8, 8) for _ in range(3)] == [1, 2, 3]
    # The user has set something right and submitted again.
    assert end_at(tmp_path, "18", 8, 8) == 1


def test_starts_that_slurm_ended_are_not_counted(tmp_path: Path) -> None:
    assert end_at(tmp_path, "17", 0, 0) == 1
    for _ in range(3):
        end_at(tmp_path, "17", 0, 0, innocent=True)
    assert end_at(tmp_path, "17", 0, 0) == 2
    end_at(tmp_path, "17", 0, 8, innocent=True)
    assert end_at(tmp_path, "17", 8, 8) == 1


@pytest.mark.parametrize(("text", "images"), [("000000800\n", 800), ("", 0), ("abc", 0)])
def test_the_newest_checkpoint_s_images(tmp_path: Path, text: str, images: int) -> None:
    assert attempts.newest_images(tmp_path) == 0
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/latest").write_text(text)
    assert attempts.newest_images(tmp_path) == images


@pytest.mark.parametrize("text", ["", "{", "[]", '{"outcome": "finished"}', "\xff"])
def test_what_is_no_outcome_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "outcome.json").write_text(text, encoding="latin-1")
    assert attempts.read_outcome(tmp_path) is None


def test_an_outcome_is_read_and_cleared(tmp_path: Path) -> None:
    assert attempts.read_outcome(tmp_path) is None
    text = '{"outcome": "stopped", "reason": "SIGTERM", "images": 8}'
    (tmp_path / "outcome.json").write_text(text)
    (tmp_path / "stop").touch()
    assert attempts.read_outcome(tmp_path) == Outcome("stopped", "SIGTERM", 8)
    attempts.clear(tmp_path, keep_stop=True)
    assert [path.name for path in tmp_path.iterdir()] == ["stop"]
    attempts.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_outcome_carries_its_start_and_another_s_is_not_written(tmp_path: Path) -> None:
    heartbeat.begin(tmp_path / "heartbeats", "the second")
    for name in ("the second", "the first"):
        attempts.write_outcome(tmp_path, "stopped", name, 8, {heartbeat.START: name})
    assert attempts.read_outcome(tmp_path) == Outcome("stopped", "the second", 8, "the second")
    attempts.write_outcome(tmp_path, "finished", "", 9, {})
    assert attempts.read_outcome(tmp_path) == Outcome("finished", "", 9)


def test_a_member_of_a_sweep_has_its_own_folder(tmp_path: Path) -> None:
    assert attempts.member(tmp_path, {}) == tmp_path
    assert attempts.member(tmp_path, {"SLURM_ARRAY_TASK_ID": "7"}) == tmp_path / "007"
