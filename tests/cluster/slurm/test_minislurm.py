"""A real SLURM: what it sets, accepts and does when nodes fail.

The jobs are rendered as for training; a small stand-in for `python -m launcher join` writes down
what each task sees."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterError
from cluster.slurm import queries
from cluster.slurm.sbatch import job, render
from cluster.start.hosts import compress, expand
from tests.cluster.jobs import GOLDENS, JOBS
from tests.cluster.minislurm import MiniSlurm
from tests.cluster.spaces import run
from tests.processes.patience import wait_for

ROOT = Path(__file__).parents[3]
STAND_IN = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from cluster.watch.attempts import write_outcome
from cluster.start.preflight import preflight
from cluster.start.rendezvous import interface, rendezvous
from cluster.start.token import token_of
from cluster.start.topology import topology

where = topology()
meeting = rendezvous(where)
reports = preflight(where.world, meeting, {"code": "same"}, token_of(Path(sys.argv[2])), 20.0)
seen = {
    "host": os.environ["SLURMD_NODENAME"],
    "where": asdict(where),
    "meeting": asdict(meeting),
    "interface": interface(meeting.address),
    "peers": [report.host for report in reports],
    "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
}
out = Path(sys.argv[2])
(out / f"{where.world.rank}.json").write_text(json.dumps(seen))
if where.world.rank == 0:
    write_outcome(out, "finished", "", 0)
"""


@pytest.fixture()
def start(slurm_cluster: MiniSlurm, tmp_path: Path) -> Any:
    """start(**options) submits a job of stand-ins; its number. The run is in tmp_path."""
    tmp_path.joinpath("logs").mkdir()
    tmp_path.joinpath("launcher").mkdir()
    tmp_path.joinpath("launcher/__init__.py").touch()
    tmp_path.joinpath("launcher/__main__.py").write_text(STAND_IN)
    jobs = []

    def submit(**options: str) -> str:
        env = f"PYTHONPATH={ROOT},PATH={Path(sys.executable).parent}:"
        options |= {"env": env + "/usr/bin:/bin"}
        places = {"run_dir": str(tmp_path), "work_dir": str(tmp_path), "name": "stand-in"}
        tmp_path.joinpath("job.sh").write_text(render(job(options, **places)))
        jobs.append(queries.submit(tmp_path / "job.sh"))
        return jobs[-1]

    yield submit
    for log in tmp_path.glob("logs/*"):
        print(log.read_text())  # shown if the test failed
    for number in jobs:
        queries.cancel(number)
        wait_for(lambda: queries.status(number).over, "end of the job")
    for name in slurm_cluster.names:
        wait_for(lambda: slurm_cluster.state(name) == "IDLE", f"idle {name}")


def seen(folder: Path) -> list[dict[str, Any]]:
    """What the tasks wrote, by rank."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9].json"))]


def in_state(number: str, state: str) -> bool:
    return queries.status(number).state == state


def test_the_tasks_of_two_nodes_find_each_other(
    slurm_cluster: MiniSlurm, start: Any, tmp_path: Path
) -> None:
    number = start(nodes="2", gpus="2", cpus="2")
    wait_for(lambda: in_state(number, "COMPLETED"), "end of the job")
    tasks = seen(tmp_path)
    assert [task["host"] for task in tasks] == ["n1", "n1", "n2", "n2"]
    for rank, task in enumerate(tasks):
        world = {"rank": rank, "size": 4, "local_rank": rank % 2, "local_size": 2}
        assert task["where"]["world"] == world
        assert task["where"]["hosts"] == ["n1", "n2"] and task["where"]["tasks"] == [2, 2]
        assert task["where"]["node"] == rank // 2
        assert task["meeting"] == tasks[0]["meeting"]
        assert task["gpus"] == "0,1"
        if slurm_cluster.spaces:
            assert task["peers"] == ["n1", "n1", "n2", "n2"]
            assert task["meeting"]["address"] == f"{slurm_cluster.net}.1"
            assert task["interface"] == "eth0"


def test_debian_s_loopback_name_leads_nobody_astray(
    slurm_cluster: MiniSlurm, start: Any, tmp_path: Path
) -> None:
    if not slurm_cluster.spaces:
        pytest.skip("a local cluster has one /etc/hosts")
    hosts = slurm_cluster.home / "hosts"
    before = hosts.read_text()
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 n1\n127.0.1.1 n2\n")
    try:
        number = start(nodes="2")
        wait_for(lambda: in_state(number, "COMPLETED"), "end of the job")
    finally:
        hosts.write_text(before)
    (address,) = {task["meeting"]["address"] for task in seen(tmp_path)}
    assert address == f"{slurm_cluster.net}.1"


@pytest.mark.parametrize(
    "hostlist", ["n[1-3,07-09]-ib[0-1],gpu5", "a,,b", "n[9-11],n[009-010]", "r[1-2]n[1,3],x07"]
)
def test_scontrol_expands_hostlists_alike(slurm_cluster: MiniSlurm, hostlist: str) -> None:
    names = run("scontrol", "show", "hostnames", hostlist).split()
    assert expand(hostlist) == names
    assert run("scontrol", "show", "hostnames", compress(names)).split() == names
    assert run("scontrol", "show", "hostlist", ",".join(names)).strip() == compress(names)


@pytest.mark.parametrize("name", JOBS)
def test_sbatch_accepts_the_goldens(slurm_cluster: MiniSlurm, name: str) -> None:
    assert "to start at" in queries.check(GOLDENS / f"{name}.sh")


def test_sbatch_s_own_words_come_through(slurm_cluster: MiniSlurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\n#SBATCH --partition=no\ntrue\n")
    with pytest.raises(ClusterError, match="sbatch .*failed: .*invalid partition"):
        queries.submit(script)
    assert queries.status("999999") is None
    with pytest.raises(ClusterError, match="Invalid job id"):
        queries.requeue("999999")


def test_a_cable_can_be_pulled_and_put_back(slurm_cluster: MiniSlurm) -> None:
    if not slurm_cluster.spaces:
        pytest.skip("a local cluster has no cables")
    connected = ("bash", "-c", f"exec 3<>/dev/tcp/{slurm_cluster.net}.254/{slurm_cluster.port}")
    slurm_cluster.execute("n2", *connected)
    slurm_cluster.cut("n2")
    with pytest.raises(AssertionError):
        slurm_cluster.execute("n2", "timeout", "1", *connected)
    slurm_cluster.heal("n2")
    slurm_cluster.execute("n2", *connected)


def test_a_daemon_can_be_killed_and_started_again(slurm_cluster: MiniSlurm) -> None:
    slurm_cluster.kill_slurmd("n1")
    slurm_cluster.start_slurmd("n1")
    assert run("srun", "--nodelist=n1", "true") == ""
