"""The whole walk on a real SLURM of two nodes: submit, join by every launcher, status, logs, runs.

All jobs are queued at once and share the nodes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluster.errors import ClusterError
from cluster.slurm import queries
from cluster.watch import attempts
from launcher.recipe.config import ConfigError
from launcher.slurm import submitting
from launcher.status import job_file, monitoring
from tests.cluster.minislurm import MiniSlurm
from tests.launcher.sample import ROOT, environment, make_shards, organza, write_recipe
from tests.processes.patience import wait_for
from trainers.checkpoints.checkpoint import find

LAUNCHERS = ("rank", "torchrun", "accelerate")
JOB = {"nodes": "2", "mem": "1000M", "time": "10"}
LONG = {"schedule.constant": "1000000", "cadence.save": "1000000", "data.workers": "1"}
SLOW_TORCH = """
import os, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and "SLURM_RESTART_COUNT" not in os.environ:
            time.sleep(4)

sys.meta_path.insert(0, Slow())
"""
WARNED = {
    # Whom the warning reaches, and the calm run with as many processes.
    "rank": (("scancel", "--batch", "--signal=USR2"), "sweep/000"),
    "torchrun": (("pkill", "-USR2", "-f"), "rank"),
    "accelerate": (("scancel", "--full", "--signal=USR2"), "sweep/000"),
    "deepspeed": (("scancel", "--signal=USR2"), "sweep/000"),
}


@pytest.fixture(scope="module")
def folder(slurm_cluster: MiniSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Packed shards, and room for runs."""
    folder = tmp_path_factory.mktemp("jobs")
    make_shards(folder, "--num_labels=8")
    yield folder
    for path in folder.glob("**/job.json"):
        job = json.loads(path.read_text())["job"]
        queries.cancel(job)
        wait_for(lambda job=job: ended(job), f"end of job {job}")


@pytest.fixture(scope="module")
def walked(folder: Path) -> Path:
    """Runs of every launcher, a sweep of two and a wrong one, all ended."""
    (folder / "sweep.yaml").write_text("{optim.lr: [2e-4, 3e-4]}")
    for launch in LAUNCHERS[1:]:
        submit(folder, launch, launch=launch)
    submit(folder, "sweep", nodes="1", array=str(folder / "sweep.yaml"), requeue="yes")
    submit(folder, "wrong", patience="1", **{"model.num_labels": "5"})
    # One by the command itself; the others spare the time to load torch.
    options = [f"--{name}={value}" for name, value in JOB.items()]
    status, output = organza("submit", recipe(folder, "rank"), *options, "--data.workers=0")
    assert status == 0 and f"log:     tail -F {folder}/rank/logs/job-" in output, output
    for run in [folder / name for name in (*LAUNCHERS, "wrong", "sweep/000", "sweep/001")]:
        job = job_file.submission(run).job
        wait_for(lambda job=job: ended(job), f"end of {run}", 120)
    return folder


def submit(folder: Path, name: str, **options: str) -> str:
    """Queue the run `folder`/NAME; its job."""
    wishes = JOB | {"data.workers": "0"} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for variable, value in environment().items():  # sbatch hands on all of it
            patch.setenv(variable, value)
        submitting.submit(str(recipe(folder, name)), wishes, dry=False)
    members = job_file.members(folder / name)
    return job_file.submission(members[0]).job


def recipe(folder: Path, name: str) -> Path:
    """A recipe of its own file, with its run in `folder`/NAME."""
    place = folder / f"recipe-{name}"
    place.mkdir(exist_ok=True)
    return write_recipe(place, folder / "shards", run_dir=str(folder / name))


def ended(job: str) -> bool:
    status = queries.status(job)
    return status is None or status.over


@pytest.fixture(scope="module")
def warned(slurm_cluster: MiniSlurm, walked: Path) -> Path:
    """Runs of every launcher that were warned of their time limit two seconds after their start,
    while somebody imports torch; one of them, of two nodes, on the second node only."""
    (walked / "slow").mkdir()
    (walked / "slow" / "sitecustomize.py").write_text(SLOW_TORCH)
    jobs = {}
    for launch, (_, calm) in WARNED.items():
        nodes, path = "2" if calm == "rank" else "1", f"PYTHONPATH={walked}/slow"
        options = {"launch": launch, "nodes": nodes, "env": path, "requeue": "yes"}
        jobs[launch] = submit(walked, f"warned-{launch}", **options)
    for launch, (way, _) in WARNED.items():
        run = walked / f"warned-{launch}"
        wait_for((run / "attempts.jsonl").exists, f"start of {run}")
        time.sleep(max(0.0, (run / "attempts.jsonl").stat().st_mtime + 2 - time.time()))
        if way[0] == "pkill":
            slurm_cluster.execute("n2", *way, f"launcher join {run}")
        else:
            subprocess.run([*way, jobs[launch]], check=True)
    for launch, job in jobs.items():
        wait_for(lambda job=job: ended(job), f"end of {launch}", 180)
    return walked


@pytest.mark.parametrize("launch", LAUNCHERS)
def test_two_nodes_train_under_every_launcher(walked: Path, launch: str) -> None:
    run = walked / launch
    log = organza("logs", run)[1]
    assert find(run) is not None and find(run).progress.images == 24, log
    assert queries.status(job_file.submission(run).job).state == "COMPLETED", log
    assert "Finished. Watch: tensorboard" in log and log.count("24/24 images") == 1, log
    ranks = {path.name[-13:] for path in run.glob("logs/attempt-0-0/*.log")}
    assert ranks == {"rank00001.log"}
    state = json.loads((find(run).path / "state.json").read_text())
    assert state["config"]["run_dir"] == str(run)


def test_the_launcher_makes_no_difference(walked: Path) -> None:
    first, *others = (find(walked / launch).weights() for launch in LAUNCHERS)
    for other in others:
        assert [name for name in first if not torch.equal(first[name], other[name])] == []


@pytest.mark.parametrize("launch", WARNED)
def test_a_warning_while_the_ranks_start_costs_nothing(warned: Path, launch: str) -> None:
    run = warned / f"warned-{launch}"
    log = organza("logs", run)[1]
    assert queries.status(job_file.submission(run).job).state == "COMPLETED", log
    starts = [(start.restart, start.start) for start in attempts.attempts(run)]
    assert starts == [(0, 0), (1, 0)] and "The job is requeued" in log, log
    ours, calm = find(run).weights(), find(warned / WARNED[launch][1]).weights()
    assert [name for name in calm if not torch.equal(ours[name], calm[name])] == []


def test_status_logs_and_runs_tell_of_them(walked: Path) -> None:
    status, output = organza("status", walked / "rank")
    job = job_file.submission(walked / "rank").job
    assert status == 0 and f"finished, job {job}" in output, output
    assert "24/24 images, step 12" in output and "checkpoint  at 24 images" in output
    status, output = organza("logs", walked / "rank", "--rank=1")
    assert status == 0 and "n2-rank00001.log <==" in output, output
    status, output = organza("logs", walked / "rank", "--rank=7")
    assert status == 1 and "ranks with a log: 1." in output, output
    status, output = organza("runs", walked)
    found = {line.split()[0]: line.split()[2] for line in output.splitlines()[1:]}
    wanted = [*LAUNCHERS, "sweep/000", "sweep/001"]
    assert {name: found.get(name) for name in wanted} == dict.fromkeys(wanted, "finished"), output


def test_each_member_of_a_sweep_trains_with_its_own_options(walked: Path) -> None:
    for i, lr in enumerate((2e-4, 3e-4)):
        checkpoint = find(walked / "sweep" / f"00{i}")
        assert checkpoint.config["optim"]["lr"] == lr
        assert checkpoint.progress.images == 24
    status, output = organza("status", walked / "sweep")
    assert status == 0 and output.count("finished") == 2, output


def test_a_finished_run_is_no_other_run(walked: Path) -> None:
    with pytest.raises(ConfigError, match="model.ngf was 4 in .* and is 8 now"):
        submit(walked, "rank", **{"model.ngf": "8"})


def test_a_mistake_that_only_the_ranks_can_see_ends_the_job_with_its_sentence(walked: Path) -> None:
    run = walked / "wrong"
    log = organza("logs", run)[1]
    assert queries.status(job_file.submission(run).job).state == "FAILED", log
    assert "num_labels=5 ids end at 4" in log and "Traceback" not in log, log


def test_a_run_has_one_job_at_a_time_whose_workers_are_told_to_save(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under torchrun, which would die of the signal and leave them alone."""
    job = submit(folder, "slow", launch="torchrun", **LONG)
    run, waiting = folder / "slow", folder / "waiting"
    submit(folder, "waiting", after=job)
    monitoring.status(waiting)
    assert "PENDING (Dependency)" in capsys.readouterr().out
    with pytest.raises(ClusterError, match="which is PENDING: wait for its end"):
        submit(folder, "waiting")
    for words in ("Cancelled job", "has ended already (CANCELLED)"):
        monitoring.cancel(waiting)
        assert words in capsys.readouterr().out
    metrics = run / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size, "first step")
    monitoring.status(run)
    output = capsys.readouterr().out
    assert f"RUNNING, job {job}" in output and "2, of which 0 silent" in output, output
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    wait_for(lambda: ended(job), "end of the job")
    monitoring.status(run)
    assert f"stopped by SIGUSR2, job {job}" in capsys.readouterr().out
    assert find(run).progress.images > 0
