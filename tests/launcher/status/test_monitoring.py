"""`status`, `runs`, `logs`, `stop` and `cancel` on run folders as a training leaves them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from cluster.errors import ClusterError
from cluster.watch import attempts, heartbeat
from cluster.watch.attempts import Attempt
from launcher.status import job_file, monitoring
from launcher.status.job_file import Submission
from launcher.status.monitoring import duration
from launcher.status.run_state import Jobs, last_row, observe
from tests.launcher.sample import organza

ROW = {
    "step": 50,
    "images": 100,
    "speed/images_per_s": 3.14159,
    "G/gan": 0.5,
    "D/real": 1.25,
    "lr/G": 2e-4,
    "memory/peak_gib": 1.0,
    "grad_norm/G": 3.0,
}


class NoJobs(Jobs):
    """Where there is no SLURM."""

    def __init__(self) -> None:
        self.reachable = False


@pytest.fixture()
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 1000 images at its hundredth; rank 2 of three has been silent for long."""
    monkeypatch.setenv("PATH", "/nowhere")
    folder = tmp_path / "city"
    (folder / "checkpoints" / "000000080").mkdir(parents=True)
    schedule = {"constant": 600, "decay": 400}
    (folder / "config.yaml").write_text(yaml.safe_dump({"schedule": schedule}))
    (folder / "checkpoints" / "latest").write_text("000000080")
    aged(folder / "checkpoints" / "latest", 600)
    rows = [json.dumps(ROW | {"images": 96}), json.dumps(ROW)]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n" + '{"step": 51, "ima')
    attempts.record(folder, Attempt("17", 0, 0, "2026-11-22T05:00:00+00:00", 0))
    (folder / "heartbeats").mkdir()
    for rank, step in enumerate((52, 51, 52)):
        beat = heartbeat.Beat(rank, f"n{rank}", 40 + rank, step, 2 * step, "step", 9, time.time())
        path = folder / "heartbeats" / heartbeat.file_name(rank)
        path.write_text(json.dumps(vars(beat)) + "\n")
    aged(path, 300)
    return folder


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_status_tells_progress_and_the_silent_rank(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monitoring.status(run)
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        "running",
        "1",
        "104/1000 images, step 52, 3.14 images/s",
        "G/gan 0.5 D/real 1.25",
        "at 80 images, 10 min ago",
        "3, of which 1 silent",
        "silent: rank 2 on n2 (pid 42, step 52, computing), last sign 5 min ago",
    ]


def test_the_slowest_rank_is_named_when_all_are_well(run: Path) -> None:
    os.utime(run / "heartbeats" / heartbeat.file_name(2))
    *_, line = monitoring.about_ranks(observe(run, NoJobs()))
    assert line.startswith("slowest: rank 1 on n1 (pid 41, step 51, computing), last sign ")


def test_a_rank_that_has_left_is_not_silent(run: Path) -> None:
    path = run / "heartbeats" / heartbeat.file_name(2)
    path.write_text(path.read_text().replace('"step", "beats"', '"end", "beats"'))
    aged(path, 300)
    assert not any(sign.silent for sign in observe(run, NoJobs()).signs)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ({"outcome": "finished", "reason": "", "images": 1000}, "finished"),
        ({"outcome": "stopped", "reason": "SIGUSR2", "images": 100}, "stopped by SIGUSR2"),
    ],
)
def test_the_ranks_last_word_is_the_state(run: Path, outcome: dict, state: str) -> None:
    (run / "outcome.json").write_text(json.dumps(outcome))
    assert observe(run, NoJobs()).state == state


def test_runs_that_nobody_works_on(run: Path) -> None:
    for path in run.glob("heartbeats/rank*"):
        aged(path, 300)
    assert observe(run, NoJobs()).state == "ended"
    (run / "metrics.jsonl").unlink()
    assert observe(run, NoJobs()).state == "not started"
    assert last_row(run) == {}


def test_epochs_leave_the_total_open(run: Path) -> None:
    (run / "config.yaml").write_text("schedule: {constant: 100 epochs, decay: 5}\n")
    assert observe(run, NoJobs()).total is None


def test_runs_lists_all_runs_below_a_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run.parent / "sweeps" / "lr" / "000"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text("schedule: {constant: 10, decay: 0}\n")
    (run / "checkpoints" / "config.yaml").touch()  # not a run
    monitoring.runs(run.parent)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "job", "state", "images", "images/s", "losses", "checkpoint"]
    assert [line.split()[0] for line in lines] == ["city", "sweeps/lr/000"]
    assert "104/1000  3.14      G/gan 0.5 D/real 1.25  at 80 images, 10 min ago" in lines[0]
    assert "not started  0/10" in lines[1] and lines[1].endswith("none")


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="holds no run folder"):
        monitoring.runs(tmp_path)
    with pytest.raises(ClusterError, match="is no run folder: it has no config.yaml"):
        monitoring.status(tmp_path)
    with pytest.raises(ClusterError, match="is no run folder"):
        monitoring.stop(tmp_path)
    with pytest.raises(ClusterError, match="was not submitted: it has no job.json"):
        monitoring.cancel(tmp_path)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(ClusterError, match="job.json is damaged"):
        monitoring.cancel(tmp_path)


def test_logs_prints_the_newest_of_a_rank(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for attempt, host in (("0-0", "n3"), ("1-0", "n2")):
        folder = run / "logs" / f"attempt-{attempt}"
        folder.mkdir(parents=True)
        (folder / f"{host}-rank00003.log").write_text(f"I am on {host}\n")
    aged(run / "logs" / "attempt-0-0" / "n3-rank00003.log", 60)
    monitoring.print_log(run, 3)
    assert capsys.readouterr().out.endswith("n2-rank00003.log <==\nI am on n2\n")
    with pytest.raises(ClusterError, match="has no log of rank 5; ranks with a log: 3. Rank 0"):
        monitoring.print_log(run, 5)
    with pytest.raises(ClusterError, match="has no log of rank 0"):
        monitoring.print_log(run, 0)
    log = run / "logs" / "job-17.log"
    log.write_text("all is well\n")
    job_file.write(run, Submission("17", "2026-11-22T05:00:00", "rank", str(log)))
    monitoring.print_log(run, 0)
    assert capsys.readouterr().out == f"==> {log} <==\nall is well\n"


def test_stop_asks_every_member_of_a_sweep(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitoring.stop(run)
    assert (run / "stop").exists() and "will save and leave" in capsys.readouterr().out
    for name in ("000", "001"):
        (run.parent / name).mkdir()
        (run.parent / name / "config.yaml").write_text("schedule: {constant: 1, decay: 0}\n")
    monitoring.stop(run.parent)
    assert (run.parent / "000" / "stop").exists() and (run.parent / "001" / "stop").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (125, "2 min"), (7200, "2 h 0 min"), (190000, "2 d 4 h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", b""),
        ("config.yaml", b"gan: [\n"),
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"- a list\n"),
        ("job.json", b"{}"),
    ],
)
def test_one_run_that_cannot_be_read_does_not_hide_the_others(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, text: bytes
) -> None:
    other = run.with_name("village")
    shutil.copytree(run, other)
    (other / name).write_bytes(text)
    monitoring.runs(run.parent)
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert rows[1][0] == "city" and rows[2] == ["village", "unreadable"], rows
    assert f"village/{name}" in printed.err.replace("its last submission, ", ""), printed.err
    with pytest.raises(ClusterError, match=f"village/{name}"):
        monitoring.status(other)


@pytest.mark.parametrize("damage", ["[1]", '{"images": "many"}', '{"a":' * 2000 + "}", "\x00}"])
def test_damaged_rows_and_pointers_are_passed_over(run: Path, damage: str) -> None:
    (run / "metrics.jsonl").write_text(json.dumps(ROW) + "\n" + damage + "\n")
    (run / "checkpoints" / "latest").write_bytes(b"\xff\xff")
    found = observe(run, NoJobs())
    assert found.images == 104 and found.saved == 0


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "outcome.json", "checkpoints/latest", "job.json"]
)
def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("schedule: {constant: 4, decay: 0}\n")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    for command in (("status", run), ("runs", tmp_path)):
        status, output = organza(*command)
        assert status in (0, 1) and "Traceback" not in output, output
        assert "is no file" in output or "cannot be read" in output or name == "job.json", output
