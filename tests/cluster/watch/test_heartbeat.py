"""Signs of life: real files, written by threads and by processes that end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster.text_files import replace_text
from cluster.watch import heartbeat
from cluster.watch.heartbeat import Beat, Heart
from tests.processes.patience import wait_for

BEAT = Beat(rank=3, host="n2", pid=4711, step=120, images=960, doing="data", beats=7, time=1e9)
LIVING = """
import sys, time
from pathlib import Path
from cluster.watch import heartbeat
heartbeat.INTERVAL = 0.1
heartbeat.Heart(Path(sys.argv[1]), 0).start()
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)


def put(folder: Path, beat: Beat) -> None:
    folder.mkdir(exist_ok=True)
    (folder / heartbeat.file_name(beat.rank)).write_text(json.dumps(asdict(beat)))


def test_a_heart_tells_where_the_rank_is_until_it_leaves(tmp_path: Path) -> None:
    heart = Heart(tmp_path / "heartbeats", 3).start()
    heart.pulse("data", 12, 96)
    wait_for(lambda: [b.step for b in heartbeat.read(tmp_path / "heartbeats")] == [12], "beat")
    (beat,) = heartbeat.read(tmp_path / "heartbeats")
    assert (beat.rank, beat.pid, beat.images, beat.doing) == (3, os.getpid(), 96, "data")
    wait_for(lambda: heartbeat.read(tmp_path / "heartbeats")[0].beats > beat.beats, "next beat")
    heart.stop()
    (last,) = heartbeat.read(tmp_path / "heartbeats")
    assert (last.step, last.doing) == (12, "end") and not heart.thread.is_alive()
    assert [path.name for path in (tmp_path / "heartbeats").iterdir()] == ["rank00003.json"]


def test_pulses_of_many_threads_and_readers_never_tear_a_beat(tmp_path: Path) -> None:
    heart = Heart(tmp_path, 0).start()
    end = time.monotonic() + 0.5
    step = 0
    while time.monotonic() < end:
        step += 1
        heart.pulse("step", step, 8 * step)
        for beat in heartbeat.read(tmp_path):
            assert beat.images == 8 * beat.step
    heart.stop()
    assert step > 100


def test_a_pulse_costs_nothing(tmp_path: Path) -> None:
    heart = Heart(tmp_path, 0)
    start = time.perf_counter()
    for step in range(10_000):
        heart.pulse("step", step, step)
    assert time.perf_counter() - start < 0.1


def test_a_folder_that_cannot_be_written_is_told_once_and_beats_come_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "heartbeats").write_text("a file where the folder should be")
    heart = Heart(tmp_path / "heartbeats", 1).start()
    time.sleep(0.3)
    assert heart.thread.is_alive()
    error = capfd.readouterr().err
    assert error.count("Rank 1 cannot write its heartbeat") == 1 and "goes on" in error
    (tmp_path / "heartbeats").unlink()
    wait_for(lambda: heartbeat.read(tmp_path / "heartbeats"), "beat after all")
    heart.stop()
    assert capfd.readouterr().err == ""


def test_a_full_disk_leaves_the_old_beat_and_no_draft(tmp_path: Path) -> None:
    put(tmp_path, BEAT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: .*rank00003.json'"):
            replace_text(tmp_path / "rank00003.json", "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert heartbeat.read(tmp_path) == [BEAT]
    assert [path.name for path in tmp_path.iterdir()] == ["rank00003.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps(asdict(BEAT))[:40],
        "[" * 100_000,
        "null",
        "{}",
        "\xff\x00",
        json.dumps(asdict(replace(BEAT, rank=4))),
        json.dumps(asdict(BEAT) | {"step": "12"}),
        json.dumps(asdict(BEAT) | {"step": True}),
        json.dumps(asdict(BEAT) | {"more": 1}),
    ],
)
def test_what_is_no_beat_is_left_out(tmp_path: Path, text: str) -> None:
    put(tmp_path, replace(BEAT, rank=0))
    (tmp_path / "rank00003.json").write_text(text, encoding="latin-1")
    (tmp_path / "rank00009.json").mkdir()
    (tmp_path / "notes.txt").touch()
    assert heartbeat.read(tmp_path) == [replace(BEAT, rank=0)]
    assert heartbeat.read(tmp_path / "nowhere") == []


def test_beats_are_sorted_and_cleared(tmp_path: Path) -> None:
    beats = [replace(BEAT, rank=rank) for rank in (2, 100000, 11)]
    for beat in beats:
        put(tmp_path, beat)
    assert [beat.rank for beat in heartbeat.read(tmp_path)] == [2, 11, 100000]
    heartbeat.begin(tmp_path, "job 17")
    heartbeat.clear(tmp_path)
    assert heartbeat.read(tmp_path) == [] and heartbeat.current_start(tmp_path) == "job 17"


def live(folder: Path, start: str) -> subprocess.Popen[str]:
    environment = os.environ | {heartbeat.START: start} if start else os.environ
    return subprocess.Popen(
        [sys.executable, "-c", LIVING, folder], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_a_rank_of_an_earlier_start_ends_itself(tmp_path: Path) -> None:
    heartbeat.begin(tmp_path, "start 0")
    with live(tmp_path, "start 0") as rank:
        wait_for(lambda: heartbeat.read(tmp_path), "beat")
        heartbeat.begin(tmp_path, "start 1")
        assert rank.wait(5) == -signal.SIGKILL
        assert "belongs to the start start 0" in rank.stderr.read()


@pytest.mark.parametrize(("own", "current"), [("", "start 1"), ("start 1", "")])
def test_a_rank_that_nobody_watches_lives_on(tmp_path: Path, own: str, current: str) -> None:
    if current:
        heartbeat.begin(tmp_path, current)
    with live(tmp_path, own) as rank:
        wait_for(lambda: [b for b in heartbeat.read(tmp_path) if b.beats > 3], "beats")
        assert rank.poll() is None
        rank.kill()
