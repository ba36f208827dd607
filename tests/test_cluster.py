"""The walk of a cluster user, on a real SLURM: whatever happens to the job, the run ends as it
would have without."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from cluster.slurm import queries
from tests.cluster.minislurm import MiniSlurm
from tests.launcher.sample import ROOT, environment, make_shards, organza, write_recipe
from tests.processes import patience
from tests.test_readme import QUEUED, commands
from trainers.checkpoints.checkpoint import find

TOTAL = 1200
"""Images: about half a minute of training."""
QUIET = 180
"""Seconds without work that SLURM's own waits take here, and more."""
SHORT = {
    "schedule": {"constant": TOTAL // 2, "decay": TOTAL // 2},
    "cadence": {"log": 4, "pictures": 0, "save": 40},
    "backend": {"timeout_s": 20},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed data, and a run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("cluster")
    make_shards(folder, "--num_labels=8")
    recipe = write_recipe(folder, folder / "shards", **SHORT)
    status, output = organza("train", recipe, f"--run_dir={folder}/calm", launch=2)
    assert status == 0, output
    return folder


@pytest.fixture(autouse=True)
def nodes_left_free(slurm_cluster: MiniSlurm) -> Iterator[None]:
    """A job that a failed test leaves behind would hold the nodes of the next."""
    yield
    subprocess.run(["scancel", "--me"], check=True)


class Job:
    """A submitted run."""

    def __init__(self, folder: Path, name: str, *options: str, nodes: int = 2, total: int = 0):
        self.run = folder / name
        longer = {"schedule": {"constant": total, "decay": 0}} if total else {}
        recipe = write_recipe(folder, folder / "shards", **SHORT | longer)
        command = ("submit", recipe, f"--run_dir={self.run}", f"--nodes={nodes}", "--requeue")
        status, output = organza(*command, *options)
        assert status == 0, output
        self.number = json.loads((self.run / "job.json").read_text())["job"]

    def wait(self, what: Callable[[], object], name: str) -> None:
        def met() -> object:
            state = queries.status(self.number)
            over = state is not None and state.over and state.state != "COMPLETED"
            assert not over, f"{name}: {state}\n{self.log()}"
            return what()

        try:
            patience.wait_for(met, name, QUIET, every=0.1)
        except AssertionError as error:
            error.add_note(self.log())
            raise

    def reach(self, images: int) -> None:
        self.wait(lambda: self.images() >= images, f"{images} images")

    def state(self) -> str:
        found = queries.status(self.number)
        return found.state if found else ""

    def images(self) -> int:
        """Of the last line on the board, whose end may be half written."""
        path = self.run / "metrics.jsonl"
        rows = path.read_text().splitlines() if path.exists() else []
        try:
            return json.loads(rows[-1])["images"]
        except (IndexError, ValueError):
            return 0

    def starts(self) -> int:
        path = self.run / "attempts.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def finish(self, total: int = TOTAL) -> None:
        def completed() -> bool:
            state = queries.status(self.number)
            return state is None or state.state == "COMPLETED"

        self.wait(completed, "the end")
        outcome = json.loads((self.run / "outcome.json").read_text())
        assert (outcome["outcome"], outcome["images"]) == ("finished", total)

    def stop(self) -> None:
        """Save and leave, by the stop file."""
        status, output = organza("stop", self.run)
        assert status == 0, output
        self.wait(lambda: self.state() in ("COMPLETED", ""), "the end")

    def log(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in (self.run / "logs").glob("*.log"))


def assert_as_calm(folder: Path, job: Job) -> None:
    """The same weights bit for bit, and one continuous curve."""
    ours, theirs = find(job.run).weights(), find(folder / "calm").weights()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    rows = [json.loads(row) for row in (job.run / "metrics.jsonl").read_text().splitlines()]
    seen = [row["images"] for row in rows]
    assert seen == sorted(set(seen)) and seen[-1] == TOTAL


SLIM = [
    "--model.ngf=4",
    "--model.ndf=4",
    "--model.num_blocks=1",
    "--precision=fp32",
    f"--schedule.constant={TOTAL}",
    "--schedule.decay=0",
    "--cadence.log=4",
    "--data.workers=0",
]


def test_the_pages_commands(slurm_cluster: MiniSlurm, folder: Path) -> None:
    """In their order, with processes where the pages have GPUs, and smaller networks."""
    (folder / "packed").mkdir()
    os.symlink(folder / "shards", folder / "packed" / "streets")
    lines = commands(queued=True)
    assert {line.split()[1] for line in lines} == set(QUEUED)
    for line in lines:
        words = shlex.split(line.replace("--gpus=4", "--ranks=1").replace("total=8", "total=2"))
        if words[1] in ("submit", "doctor"):
            words += SLIM
        done = patience.run(
            words,
            cwd=folder,
            env=environment() | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if words[1] == "submit" and "--dry" not in words:
            patience.wait_for_line(folder / "runs" / "city" / "metrics.jsonl")
        if words[1] == "stop":
            patience.wait_for_line(folder / "runs" / "city" / "outcome.json")
            outcome = json.loads((folder / "runs" / "city" / "outcome.json").read_text())
            assert outcome["reason"] == "stop file"


def test_srun_alone_starts_a_run_in_an_allocation(slurm_cluster: MiniSlurm, folder: Path) -> None:
    """What people type first, in a shell of salloc."""
    recipe = write_recipe(folder, folder / "shards", schedule={"constant": 8, "decay": 0})
    run = folder / "by-srun"
    command = [
        "salloc",
        "--nodes=2",
        "--ntasks-per-node=1",
        "srun",
        sys.executable,
        "-m",
        "launcher",
        "train",
        str(recipe),
        f"--run_dir={run}",
    ]
    done = patience.run(
        command,
        cwd=ROOT,
        env={k: v for k, v in environment().items() if k != "GLOO_SOCKET_IFNAME"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((run / "outcome.json").read_text())
    assert (outcome["outcome"], outcome["images"]) == ("finished", 8)
    assert len(list((run / "heartbeats").glob("rank*"))) == 2


def test_an_eventful_run_ends_as_a_calm_one(slurm_cluster: MiniSlurm, folder: Path) -> None:
    """A rank killed, one that hangs, a node cut off, a node lost."""
    job = Job(folder, "eventful", "--ranks=1")
    job.reach(100)
    slurm_cluster.execute("n2", "pkill", "-KILL", "-f", "launcher join")
    job.wait(lambda: job.starts() == 2, "the start after the kill")
    job.reach(300)
    slurm_cluster.execute("n2", "pkill", "-STOP", "-f", "launcher join")
    job.wait(lambda: job.starts() == 3, "the start after the hang")
    job.reach(500)
    slurm_cluster.cut("n2")
    job.wait(lambda: job.state() == "PENDING", "the requeue after the cut")
    slurm_cluster.heal("n2")
    job.wait(lambda: job.state() == "RUNNING", "the start after the cut")
    job.reach(800)
    slurm_cluster.crash("n2")
    job.wait(lambda: job.state() == "PENDING", "the requeue after the crash")
    slurm_cluster.boot("n2")
    job.wait(lambda: job.state() == "RUNNING", "the start after the crash")
    job.finish()
    assert_as_calm(folder, job)


def test_a_time_limit_costs_nothing(slurm_cluster: MiniSlurm, folder: Path) -> None:
    """SLURM's own warning, some seconds before its limit: saved, requeued, finished."""
    job = Job(folder, "limited", "--ranks=1", "--time=1", "--signal_s=45", total=2 * TOTAL)
    job.wait(lambda: job.starts() >= 2, "the start after the warning")
    assert "Stopped by SIGUSR2 and saved" in job.log()
    # On a slow machine the rest may take many such turns.
    subprocess.run(["scontrol", "update", f"job={job.number}", "timelimit=20"], check=True)
    job.finish(2 * TOTAL)


def test_deepspeed_on_the_other_hand(slurm_cluster: MiniSlurm, folder: Path) -> None:
    """Its launcher on each node, its engines, preempted and killed: the weights are DDP's."""
    job = Job(
        folder,
        "deepspeed",
        "--ranks=1",
        "--launch=deepspeed",
        "--partition=low",
        "--backend.kind=deepspeed",
        "--backend.zero=1",
    )
    job.reach(100)
    preempt()
    job.wait(lambda: job.starts() == 2, "the start after the preemption")
    job.reach(job.images() + 40)
    slurm_cluster.execute("n1", "pkill", "-KILL", "-f", "launcher train")
    job.wait(lambda: job.starts() == 3, "the start after the kill")
    job.finish()
    assert_as_calm(folder, job)


def preempt() -> None:
    """A short job of a higher partition takes both nodes."""
    command = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"]
    subprocess.run([*command, "--wrap=sleep 2"], check=True, capture_output=True)


def test_a_run_goes_from_two_nodes_to_one_and_back(slurm_cluster: MiniSlurm, folder: Path) -> None:
    """With the same global batches: the weights are the calm run's but for the order of sums."""
    job = Job(folder, "elastic", "--ranks=1")
    for images, nodes in ((200, 1), (500, 2)):
        job.reach(images)
        job.stop()
        job = Job(folder, "elastic", "--ranks=1", nodes=nodes)
    job.finish()
    ours, theirs = find(job.run).weights(), find(folder / "calm").weights()
    for name in theirs:
        if not name.endswith("conv.bias"):  # in front of a norm: only noise moves them
            assert torch.allclose(ours[name], theirs[name], atol=0.05), name
    rows = (job.run / "attempts.jsonl").read_text().splitlines()
    assert len(rows) == 3
