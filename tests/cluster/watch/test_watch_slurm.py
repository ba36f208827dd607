"""The watch inside a real SLURM: ranks, steps and nodes fail, jobs are told to leave.

The jobs are rendered as for training; small ranks take the place of `python -m launcher join`.
What can happen at the same time does: all jobs run side by side, and a node crashes at the end."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from cluster.slurm import queries
from cluster.slurm.sbatch import job, render
from cluster.watch import attempts, heartbeat
from cluster.watch.attempts import Attempt
from tests.cluster.minislurm import MiniSlurm
from tests.cluster.spaces import run
from tests.processes import patience
from tests.processes.patience import wait_for

ROOT = Path(__file__).parents[3]
FOREVER = 10_000
URGENT = "#!/bin/bash\n#SBATCH --partition=high -N 2 --mem=5000 -o /dev/null\nsleep 1\n"


class Run:
    """A submitted run of small ranks, one on each of two nodes."""

    def __init__(self, folder: Path, steps: int, *faults: str, **options: str):
        self.folder = folder
        folder.joinpath("logs").mkdir(parents=True)
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        options = {"nodes": "2", "mem": "300"} | options
        options["env"] = f"PATH={path},{options.get('env', 'NOTHING=')}"
        places = {"run_dir": str(folder), "work_dir": str(ROOT), "name": "small"}
        script = render(job(options, **places))
        ranks = shlex.join(["-m", "tests.cluster.ranks", str(folder), str(steps), *faults])
        script = script.replace("-m cluster.watch", "-m tests.cluster.watch.quick_watch")
        folder.joinpath("job.sh").write_text(script.replace(f"-m launcher join {folder}", ranks))
        self.number = queries.submit(folder / "job.sh")
        self.hurt = 0.0

    def lines(self, rank: int = 0) -> list[list[str]]:
        """Of each step: its number, the rank's pid, the time, the start."""
        path = self.folder / f"steps-{rank}"
        text = path.read_text() if path.exists() else ""
        return [line.split(maxsplit=3) for line in text.splitlines()]

    def steps(self, rank: int = 0) -> list[int]:
        return [int(line[0]) for line in self.lines(rank)]

    def await_steps(self, seconds: float = 30) -> None:
        wait_for(lambda: min(len(self.lines(rank)) for rank in (0, 1)) > 3, "steps", seconds)

    def await_end(self, state: str, seconds: float = 30) -> None:
        wait_for(lambda: self.state == state, state, seconds)

    def await_restart(self, seconds: float = 40) -> float:
        """Seconds from the fault until rank 1 trained in the next start."""

        def again() -> list[list[str]]:
            lines = self.lines(1)
            return [line for line in lines if line[3] != lines[0][3]]

        wait_for(again, "training", seconds)
        return float(again()[0][2]) - self.hurt

    @property
    def state(self) -> str:
        return queries.status(self.number).state

    @property
    def starts(self) -> list[tuple[int, int]]:
        """(restart, start) of each start."""
        return [(one.restart, one.start) for one in attempts.attempts(self.folder)]

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("logs/*.log"))

    def pids(self) -> list[int]:
        return [beat.pid for beat in heartbeat.read(self.folder / "heartbeats")]


@pytest.fixture(scope="module")
def runs(
    slurm_cluster: MiniSlurm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Run]]:
    """Runs to which it has just happened."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}

    def submit(name: str, steps: int, *faults: str, **options: str) -> None:
        runs[name] = Run(folder / name, steps, *faults, **options)

    submit("killed", 30)
    submit("lost", 40, "0:20:freeze", timeout_s="2")
    submit("left", 20)
    submit("warned", FOREVER, requeue="yes")
    submit("cancelled", FOREVER, requeue="yes")
    submit("limited", FOREVER, "0:5:hang", "1:5:hang", requeue="yes", time="1", signal_s="58")
    submit("preempted", FOREVER, requeue="yes", partition="low", mem="5000", env="SLOW_RESTART=3")
    submit("hopeless", 20, "1:0:kill!", patience="2")
    for name in ("killed", "lost", "left", "warned", "cancelled", "preempted"):
        runs[name].await_steps()
    runs["warned"].copy = queries.submit(runs["warned"].folder / "job.sh")
    hurt(slurm_cluster, runs)
    (folder / "urgent.sh").write_text(URGENT)
    preempting = Thread(target=preempt, args=(runs["preempted"], folder / "urgent.sh"))
    preempting.start()
    yield runs
    preempting.join()
    for one in runs.values():
        queries.cancel(one.number)
    for one in runs.values():
        wait_for(lambda one=one: queries.status(one.number).over, "end of the job")
    for node in slurm_cluster.names:
        wait_for(lambda node=node: slurm_cluster.state(node) == "IDLE", f"idle {node}")


def hurt(cluster: MiniSlurm, runs: dict[str, Run]) -> None:
    for one in runs.values():
        one.hurt, one.victims = time.time(), one.pids()
    cluster.execute("n2", "kill", "-KILL", str(runs["killed"].victims[1]))
    for name in ("lost", "left"):
        pattern = rf"^slurmstepd: \[{runs[name].number}\.[0-9]+\]"
        cluster.execute("n2", "pkill", "-KILL", "-f", pattern)
    run("scancel", "--signal=USR2", runs["warned"].number)  # as SLURM does before the limit
    queries.cancel(runs["cancelled"].number)


def preempt(one: Run, urgent: Path) -> None:
    """Once in training, and three times while the ranks start."""
    for restart in range(4):
        wait_for(lambda restart=restart: one.starts[-1:] == [(restart, 0)], "start")
        time.sleep(0.5)
        queries.submit(urgent)


@pytest.fixture()
def one(runs: dict[str, Run], request: pytest.FixtureRequest) -> Iterator[Run]:
    """The run of the test's parameter; its log is shown if the test fails."""
    one = runs[request.param]
    yield one
    print(one.starts, one.log)


@pytest.mark.parametrize("one", ["killed"], indirect=True)
def test_a_killed_rank_is_started_again_inside_the_job(one: Run) -> None:
    print(f"kill -9 of a rank: training again after {one.await_restart():.1f} s")
    one.await_end("COMPLETED")
    assert one.starts == [(0, 0), (0, 1)]
    assert "Making sure" not in one.log and "The ranks are started again" in one.log


@pytest.mark.parametrize("one", ["hopeless"], indirect=True)
def test_a_job_without_progress_fails_in_the_end(one: Run) -> None:
    one.await_end("FAILED")
    assert one.starts == [(0, 0), (0, 1)]
    assert "the last 2 starts got no further" in one.log


@pytest.mark.parametrize("one", ["left"], indirect=True)
def test_the_death_of_a_step_s_daemon_does_not_keep_a_finished_job(one: Run) -> None:
    one.await_end("COMPLETED")
    assert one.starts == [(0, 0)] and one.steps()[-1] == 19
    assert "Finished at 20 images" in one.log


@pytest.mark.parametrize("one", ["lost"], indirect=True)
def test_ranks_that_slurm_has_lost_are_gone_before_the_next_start(
    slurm_cluster: MiniSlurm, one: Run
) -> None:
    """Their slurmstepd was killed: they train on unseen, until one of them does not."""
    print(f"training again {one.await_restart():.1f} s after the death of a slurmstepd")
    lost = ("ps", "-o", "pid=", "-p", str(one.victims[1]))
    assert slurm_cluster.execute("n2", *lost, check=False) == ""
    one.await_end("COMPLETED")
    assert "no sign of life from rank 0 on n1" in one.log and "Making sure" in one.log
    starts = [line[3] for line in one.lines(1)]
    assert starts == sorted(starts)  # no step of the lost rank comes after its successor's


@pytest.mark.parametrize("one", ["warned"], indirect=True)
def test_the_warning_requeues_the_job(one: Run) -> None:
    print(f"USR2: training again after {one.await_restart():.1f} s")
    assert one.starts == [(0, 0), (1, 0)]
    steps = one.steps()
    assert steps == list(range(len(steps)))  # nothing is lost or done twice


@pytest.mark.parametrize("one", ["cancelled"], indirect=True)
def test_a_cancelled_job_stays_cancelled(one: Run) -> None:
    one.await_end("CANCELLED")
    assert attempts.read_outcome(one.folder).reason == "SIGTERM"
    time.sleep(max(0, one.hurt + 12 - time.time()))  # a requeued job would be back
    assert one.state == "CANCELLED" and one.starts == [(0, 0)]


@pytest.mark.parametrize("one", ["warned"], indirect=True)
def test_a_second_copy_of_a_job_leaves_the_first_alone(one: Run) -> None:
    wait_for(lambda: queries.status(one.copy).state == "FAILED", "end of the copy")
    words = one.folder.joinpath("logs", f"job-{one.copy}.log").read_text()
    assert f"is in the hands of job {one.number}" in words and words.count("\n") == 1
    assert {start.job for start in attempts.attempts(one.folder)} == {one.number}


def test_a_job_that_waits_to_go_on_keeps_its_run(slurm_cluster: MiniSlurm, tmp_path: Path) -> None:
    """As after a preemption, when a copy of it would come first."""
    (tmp_path / "held.sh").write_text("#!/bin/bash\n#SBATCH --hold -o /dev/null\n")
    waiting = queries.submit(tmp_path / "held.sh")
    attempts.record(tmp_path, Attempt(waiting, 0, 0, "2026-11-22T05:00:00", 8))
    command = [sys.executable, "-m", "cluster.watch", str(tmp_path), "--", "true"]
    copy = os.environ | {"SLURM_JOB_ID": "999"}
    done = patience.run(command, cwd=ROOT, env=copy)
    queries.cancel(waiting)
    assert done.returncode == 1
    assert f"in the hands of job {waiting}, which is PENDING" in done.stdout
    assert len(attempts.attempts(tmp_path)) == 1


@pytest.mark.parametrize("one", ["limited"], indirect=True)
def test_ranks_that_hang_at_the_time_limit_are_requeued_before_it(one: Run) -> None:
    print(f"hung at the time limit: training again after {one.await_restart(90):.1f} s")
    assert one.starts[:2] == [(0, 0), (1, 0)]
    assert "The time limit is near. The ranks have not left in time." in one.log


@pytest.mark.parametrize("one", ["preempted"], indirect=True)
def test_a_preempted_job_comes_back(one: Run) -> None:
    """Also from preemptions while its ranks start, more often than it may fail."""
    restarts = [(restart, 0) for restart in range(5)]
    wait_for(lambda: one.lines(1)[-1][3].startswith(f"job {one.number}, restart 4"), "training", 90)
    assert one.starts == restarts and one.log.count("SLURM preempts this job") == 4
    steps = one.steps()
    assert steps == list(range(len(steps)))


@pytest.mark.parametrize("one", ["warned"], indirect=True)
def test_the_job_of_a_crashed_node_goes_on(slurm_cluster: MiniSlurm, one: Run) -> None:
    if not slurm_cluster.spaces:
        pytest.skip("a local cluster's nodes cannot crash alone")
    one.await_restart()
    restarts = queries.status(one.number).restarts
    hurt_at, before = time.time(), len(one.lines(1))
    slurm_cluster.crash("n2")
    wait_for(lambda: queries.status(one.number).restarts == restarts + 1, "requeue")
    assert slurm_cluster.state("n2").startswith("DOWN")
    slurm_cluster.boot("n2")
    wait_for(lambda: one.starts[-1] == (restarts + 1, 0), "start")
    wait_for(lambda: len(one.lines(1)) > before, "training")
    print(f"crash of a node: training again after {time.time() - hurt_at:.1f} s")
