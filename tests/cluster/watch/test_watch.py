"""The watch over ranks that really start, hang and die; the rank itself takes srun's place."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.text_files import replace_text
from cluster.watch import attempts, heartbeat
from cluster.watch.heartbeat import Heart
from tests.processes import patience
from tests.processes.patience import wait_for

ROOT = Path(__file__).parents[3]
RANKS = (sys.executable, "-m", "tests.cluster.ranks")


class Watched:
    """A watch in a process of its own, and what it says."""

    def __init__(self, run: Path, *command: str, options: tuple[str, ...] = (), **variables: str):
        self.run = run
        watch = (sys.executable, "-m", "tests.cluster.watch.quick_watch", run, *options, "--")
        outside = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        self.process = subprocess.Popen(
            [*watch, *command],
            cwd=ROOT,
            text=True,
            env=outside | variables,
            stdout=subprocess.PIPE,
        )

    def end(self) -> tuple[int, str]:
        words, _ = patience.communicate(self.process)
        return self.process.returncode, words

    @property
    def starts(self) -> list[int]:
        """The images at which each start began."""
        return [attempt.images for attempt in attempts.attempts(self.run)]


@pytest.fixture()
def watch(tmp_path: Path) -> Iterator[object]:
    """watch(steps, *faults): a rank that trains in tmp_path."""
    watches = []

    def start(steps: int, *faults: str, options: tuple[str, ...] = ()) -> Watched:
        watches.append(
            Watched(tmp_path, *RANKS, str(tmp_path), str(steps), *faults, options=options)
        )
        return watches[-1]

    yield start
    for watched in watches:
        watched.process.kill()


def steps(run: Path, rank: int = 0) -> list[int]:
    path = run / f"steps-{rank}"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def test_ranks_that_finish_end_the_job(watch: type[Watched], tmp_path: Path) -> None:
    for name in ("outcome.json", "stop"):
        (tmp_path / name).write_text('{"outcome": "stopped", "reason": "SIGTERM", "images": 1}')
    watched = watch(3)
    status, words = watched.end()
    assert status == 0 and "Finished at 3 images" in words
    assert steps(tmp_path) == [0, 1, 2] and watched.starts == [0]
    (beat,) = heartbeat.read(tmp_path / "heartbeats")
    assert (beat.doing, beat.step) == ("end", 2)


def test_a_killed_rank_is_started_again_at_once_from_its_checkpoint(
    watch: type[Watched], tmp_path: Path
) -> None:
    watched = watch(6, "0:3:kill")
    status, words = watched.end()
    assert status == 0 and "status 137. The ranks are started again." in words
    assert steps(tmp_path) == [0, 1, 2, 3, 2, 3, 4, 5] and watched.starts == [0, 2]
    lines = [line.split()[2] for line in (tmp_path / "steps-0").read_text().splitlines()]
    assert float(lines[4]) - float(lines[3]) < 3


def test_a_rank_that_dies_again_and_again_ends_the_job(
    watch: type[Watched], tmp_path: Path
) -> None:
    watched = watch(9, "0:3:kill!", options=("--patience=2",))
    status, words = watched.end()
    assert status == 137 and "Given up: the last 2 starts got no further" in words
    assert watched.starts == [0, 2, 2]


def test_progress_renews_the_patience(watch: type[Watched], tmp_path: Path) -> None:
    watched = watch(6, *(f"0:{step}:kill" for step in (1, 3, 5)), options=("--patience=2",))
    assert watched.end()[0] == 0 and watched.starts == [0, 0, 2, 4]


def test_a_mistake_is_not_repeated(watch: type[Watched], tmp_path: Path) -> None:
    watched = watch(3, "0:1:exit=2")
    status, words = watched.end()
    assert status == 2 and "Not started again" in words and watched.starts == [0]


def test_a_frozen_rank_is_named_and_started_again(watch: type[Watched], tmp_path: Path) -> None:
    status, words = watch(6, "0:3:freeze", options=("--timeout_s=1",)).end()
    assert status == 0 and steps(tmp_path)[-1] == 5
    assert re.search(r"(has been|is) no sign of life from rank 0 on \S+ \(pid \d+, step \d", words)


def test_a_hung_rank_is_named_and_started_again(watch: type[Watched], tmp_path: Path) -> None:
    status, words = watch(6, "0:3:hang", options=("--timeout_s=1",)).end()
    assert status == 0 and steps(tmp_path)[-1] == 5
    assert re.search(r"No rank has gone on for 1 s: .* rank 0 on \S+ \(pid \d+, step 3", words)


def test_a_command_that_starts_no_rank_is_named(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "sleep", "60", options=("--timeout_s=1", "--patience=1"))
    status, words = watched.end()
    assert status == 1 and "No rank has given a sign of life within 1 s" in words


def test_a_command_that_does_not_end_after_its_ranks_is_ended(tmp_path: Path) -> None:
    """As srun after the death of a slurmstepd."""
    command = f"{' '.join(RANKS)} {tmp_path} 2; exec sleep 60"
    status, words = Watched(tmp_path, "bash", "-c", command).end()
    assert status == 0 and "Finished at 2 images" in words


def test_the_stop_file_ends_the_job_and_the_next_one_goes_on(
    watch: type[Watched], tmp_path: Path
) -> None:
    watched = watch(1000)
    wait_for(lambda: len(steps(tmp_path)) > 2, "steps")
    (tmp_path / "stop").touch()
    status, words = watched.end()
    saved = steps(tmp_path)[-1] + 1
    assert status == 0 and f"Stopped by stop file and saved at {saved} images" in words
    assert watch(saved + 2).end()[0] == 0
    assert steps(tmp_path) == list(range(saved + 2))


def test_the_warning_without_requeue_ends_the_job(watch: type[Watched], tmp_path: Path) -> None:
    watched = watch(1000)
    wait_for(lambda: len(steps(tmp_path)) > 2, "steps")
    os.kill(heartbeat.read(tmp_path / "heartbeats")[0].pid, signal.SIGUSR2)
    status, words = watched.end()
    assert status == 0 and "Stopped by SIGUSR2" in words and "goes on" in words


def test_the_warning_to_the_watch_is_passed_on(watch: type[Watched], tmp_path: Path) -> None:
    watched = watch(1000)
    wait_for(lambda: len(steps(tmp_path)) > 2, "steps")
    watched.process.send_signal(signal.SIGUSR2)
    status, words = watched.end()
    assert status == 0 and f"Stopped by SIGUSR2 and saved at {steps(tmp_path)[-1] + 1}" in words


@pytest.mark.parametrize("command", ["exec sleep 60", "sleep 1; exit 143", "kill -KILL $$"])
def test_a_warning_that_no_rank_could_catch_starts_nothing_again(
    tmp_path: Path, command: str
) -> None:
    """While they start, and between two starts."""
    watched = Watched(tmp_path, "bash", "-c", f"kill -USR2 $PPID; {command}")
    status, words = watched.end()
    assert status == 0 and "The time limit is near. The ranks ended" in words
    assert watched.starts == [0]


def test_ranks_that_hang_after_the_warning_are_given_up(
    watch: type[Watched], tmp_path: Path
) -> None:
    watched = watch(1000, "0:3:freeze", options=("--requeue", "--signal_s=1"))
    wait_for(lambda: len(steps(tmp_path)) > 3, "steps")
    watched.process.send_signal(signal.SIGUSR2)
    status, words = watched.end()
    assert "The time limit is near. The ranks have not left in time." in words, words
    assert status == 0 and watched.starts == [0]  # there is nobody here to requeue it


def test_a_wish_to_stop_between_two_starts_is_kept(tmp_path: Path) -> None:
    crash = f"test -e {tmp_path}/once || {{ touch {tmp_path}/once {tmp_path}/stop; exit 1; }}"
    watched = Watched(tmp_path, "bash", "-c", f"{crash}; exec {' '.join(RANKS)} {tmp_path} 1000")
    status, words = watched.end()
    assert status == 0 and "Stopped by stop file" in words and watched.starts == [0, 0]


def test_a_second_watch_changes_nothing(watch: type[Watched], tmp_path: Path) -> None:
    first = watch(1000)
    wait_for(lambda: len(steps(tmp_path)) > 2, "steps")
    status, words = watch(1000).end()
    assert status == 1 and f"is in the hands of process {first.process.pid} on" in words
    (tmp_path / "stop").touch()
    assert first.end()[0] == 0 and first.starts == [0]
    assert steps(tmp_path) == list(range(len(steps(tmp_path))))


def test_a_later_restart_of_a_job_takes_the_run_from_an_earlier_one(tmp_path: Path) -> None:
    """As of one on a node that SLURM does not reach any more."""
    command = (*RANKS, str(tmp_path), "40")
    lost = Watched(tmp_path, *command, SLURM_JOB_ID="17")
    wait_for(lambda: len(steps(tmp_path)) > 2, "steps")
    again = Watched(tmp_path, *command, SLURM_JOB_ID="17", SLURM_RESTART_COUNT="1")
    assert "started again (job 17, restart 1" in lost.end()[1] and lost.process.returncode == 1
    assert again.end()[0] == 0 and steps(tmp_path)[-1] == 39


def test_after_sigterm_the_job_stays_until_slurm_ends_it(
    watch: type[Watched], tmp_path: Path
) -> None:
    watched = watch(1000)
    wait_for(lambda: len(steps(tmp_path)) > 2, "steps")
    watched.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert watched.process.poll() is None and not (tmp_path / "outcome.json").exists()
    os.kill(heartbeat.read(tmp_path / "heartbeats")[0].pid, signal.SIGTERM)
    wait_for((tmp_path / "outcome.json").exists, "outcome")
    time.sleep(1.5)
    assert watched.process.poll() is None and watched.starts == [0]


def test_a_rank_of_an_earlier_start_is_gone_before_the_next(
    watch: type[Watched], tmp_path: Path
) -> None:
    """As one that a killed slurmstepd has left behind."""
    heartbeat.begin(tmp_path / "heartbeats", "an earlier start")
    orphan = subprocess.Popen(
        [*RANKS, tmp_path, "1000"], cwd=ROOT, env=os.environ | {heartbeat.START: "an earlier start"}
    )
    wait_for(lambda: heartbeat.read(tmp_path / "heartbeats"), "beat")
    saved = 2 * (len(steps(tmp_path)) // 2) + 20
    assert watch(saved).end()[0] == 0
    assert orphan.wait(5) == -signal.SIGKILL
    lines = [line.split() for line in (tmp_path / "steps-0").read_text().splitlines()]
    pids = [line[1] for line in lines]
    assert pids == sorted(pids, key=lambda pid: pid != str(orphan.pid))


def test_a_stranger_s_rank_that_lives_on_is_named(tmp_path: Path, watch: type[Watched]) -> None:
    """`train` by hand in the same run folder belongs to no start."""
    heart = Heart(tmp_path / "heartbeats", 0).start()
    wait_for(lambda: heartbeat.read(tmp_path / "heartbeats"), "beat")
    beats = tmp_path / "heartbeats" / "rank00000.json"
    watched = watch(3)

    def beaten_until_its_end() -> bool:
        words = json.loads(beats.read_text())
        replace_text(beats, json.dumps(words | {"beats": words["beats"] + 1}))
        return watched.process.poll() is not None

    wait_for(beaten_until_its_end, "end of the watch", every=0.1)
    heart.stop()
    status, words = watched.end()
    assert status == 1 and f"(pid {os.getpid()}, step 0, starting) still runs" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: run"),
        (("RUN",), "after --"),
        (("RUN", "--"), "after --"),
        (("RUN", "--patience=0", "--", "true"), "must be greater than 0"),
        (("RUN", "--timeout_s=nan", "--", "true"), "must be greater than 0"),
        (("RUN", "--patients=3", "--", "true"), "unrecognized arguments"),
        (("/nowhere", "--", "true"), "There is no run in /nowhere"),
        (("RUN", "--", "no-such-srun"), "no-such-srun"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    command = [sys.executable, "-m", "cluster.watch"]
    command += [str(tmp_path) if word == "RUN" else word for word in arguments]
    done = patience.run(command, cwd=ROOT)
    assert done.returncode in (1, 2) and message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
