"""`join`: goldens of what each node's launcher is called with, meeting, logs, and signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.start import token
from cluster.start.token import token_of
from launcher.slurm import launchers
from launcher.slurm.launchers import Command, Node
from tests.launcher.sample import ROOT, environment, organza
from tests.processes import patience
from tests.processes.gang import free_port

NODE = Node(
    run=Path("/scratch/runs/city"),
    ranks=4,
    index=1,
    hosts=("n1", "n2"),
    own_address="10.0.0.2",
    address="10.0.0.1",
    port=12404,
    interface="eth0",
    name="job 17, restart 0, step 1",
)
ELASTIC = {
    "PET_RDZV_ENDPOINT": "10.0.0.1:12404",
    "PET_RDZV_ID": "job-17-restart-0-step-1",
    "PET_LOCAL_ADDR": "10.0.0.2",
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "60",
    "GLOO_SOCKET_IFNAME": "eth0",
}
COMMANDS = {
    "torchrun": (
        "torch.distributed.run --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d "
        "--rdzv-conf=is_host=0 --max-restarts=3 "
        "-m launcher train /scratch/runs/city/config.yaml",
        ELASTIC,
    ),
    "accelerate": (
        f"accelerate.commands.accelerate_cli launch "
        f"--config_file={ROOT}/cluster/accelerate-multi-node.yaml --num_machines=2 "
        "--num_processes=8 --machine_rank=1 --main_process_ip=10.0.0.1 "
        "--main_process_port=12404 --rdzv_backend=c10d --rdzv_conf=is_host=0 --max_restarts=3 "
        "-m launcher train /scratch/runs/city/config.yaml",
        ELASTIC,
    ),
    "deepspeed": (
        "deepspeed.launcher.runner --hostfile=/scratch/runs/city/hostfile --no_ssh "
        "--node_rank=1 --master_addr=10.0.0.1 --master_port=12404 "
        "--module launcher train /scratch/runs/city/config.yaml",
        {"GLOO_SOCKET_IFNAME": "eth0"},
    ),
}
LAUNCHER = """
import os, subprocess, sys, time
time.sleep(0.5)  # imports torch, so to speak
worker = [sys.executable, sys.argv[1]]
ranks = [dict(os.environ, RANK=str(i), LOCAL_RANK=str(i)) for i in range(2)]
workers = [subprocess.Popen(worker, env=rank) for rank in ranks]
sys.exit(max(w.wait() for w in workers))
"""
WORKER = """
import os, signal, subprocess, sys, time
from pathlib import Path
Path(__file__).with_name(f"begun-{os.environ['RANK']}").touch()
time.sleep(0.5)  # until its first line, so to speak
from cluster import signals
signals.hold()
helper = subprocess.Popen(["sleep", "60"])
stop = signals.StopRequest().install()
Path(__file__).with_name(f"ready-{os.environ['RANK']}").touch()
while stop() != signal.SIGUSR2:
    time.sleep(0.02)
alive = helper.poll() is None
helper.kill()
sys.exit(77 if alive else 1)
"""
TASK = """
import sys
from cluster.signals import StopRequest
from launcher.slurm import signal_relay
sys.exit(signal_relay.run(sys.argv[1:], StopRequest().install()))
"""
DIVERTED = """
import os, sys
from pathlib import Path
from launcher.commands import endings
from launcher.run import logs
logs.divert(Path(sys.argv[1]), 3)
print("only for me")
os.write(1, b"from a library\\n")
if sys.argv[2] == "sentence":
    endings.fail("out of paper", 1)
raise KeyError("lost")
"""


@pytest.mark.parametrize("launch", COMMANDS)
def test_the_launchers_are_called_as_was_read_and_approved(launch: str) -> None:
    words, variables = COMMANDS[launch]
    expected = Command([sys.executable, "-m", *words.split()], variables)
    assert launchers.command(launch, NODE) == expected


def test_every_launcher_has_a_golden() -> None:
    assert COMMANDS.keys() == launchers.BUILDERS.keys()


def test_the_hostfile_lists_all_nodes() -> None:
    assert NODE.hostfile == "n1 slots=4\nn2 slots=4\n"


def pair(*runs: Path) -> list[tuple[int, str]]:
    """`join` as two tasks of one launcher, each with its own view of the run folder."""
    port = str(free_port())
    tasks = []
    for rank, run in enumerate(runs):
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "launcher", "join", str(run)]
        tasks.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment() | place,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    outputs = [patience.communicate(task)[0] for task in tasks]
    return [(task.returncode, output) for task, output in zip(tasks, outputs, strict=True)]


def test_a_node_with_another_configuration_is_named_on_both(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"seed: {name}\n")
    token_of(tmp_path / "one")  # of one folder, of which a node sees an older file
    shutil.copy2(tmp_path / "one" / token.FILE, tmp_path / "two")
    started = time.monotonic()
    for status, output in pair(tmp_path / "one", tmp_path / "two"):
        assert status == 1 and "Traceback" not in output, output
        assert "Rank 1 on" in output and "has the configuration" in output, output
    assert time.monotonic() - started < 30


def test_a_node_that_does_not_see_the_run_folder_is_named(tmp_path: Path) -> None:
    ((status, output),) = pair(tmp_path / "nowhere")
    assert status == 1 and "nowhere is not there on" in output, output
    assert "must lie on a file system that all nodes share" in output
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        ({}, ["--launch=mpirun"], "--launch=mpirun must be one of rank, accelerate, torchrun"),
        ({}, ["--launch=torchrun", "--ranks=0"], "--ranks=0 must be 1 or more"),
        ({}, ["--ranks=two"], "--ranks=two is not a whole number"),
        ({"SLURM_NTASKS": "2"}, [], "put `srun` in front of the command"),
        (
            {
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
                "SLURM_NODEID": "0",
                "SLURM_NTASKS": "2",
                "SLURM_JOB_NODELIST": "n1",
                "SLURM_TASKS_PER_NODE": "2",
            },
            ["--launch=torchrun", "--ranks=2"],
            "started once per node, by srun --ntasks-per-node=1, but there are 2 tasks on 1 nodes",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, variables: dict[str, str], options: list[str], message: str
) -> None:
    done = patience.run(
        [sys.executable, "-m", "launcher", "join", str(tmp_path), *options],
        cwd=ROOT,
        env=environment() | variables,
    )
    assert done.returncode in (1, 2) and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_deepspeed_s_extra_argument_is_no_mistake() -> None:
    status, output = organza("--local_rank=0", "show", "pix2pix")
    assert status == 0 and "gan: pix2pix" in output, output


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("sentence", "organza (rank 3): out of paper"),
        ("traceback", "organza (rank 3): KeyError: 'lost' (traceback in"),
    ],
)
def test_a_rank_s_last_words_are_in_both_logs(tmp_path: Path, end: str, last: str) -> None:
    variables = {"RANK": "3", "SLURMD_NODENAME": "n2"}
    done = patience.run(
        [sys.executable, "-c", DIVERTED, str(tmp_path / "logs"), end],
        cwd=ROOT,
        env=environment() | variables,
    )
    own = (tmp_path / "logs" / "n2-rank00003.log").read_text()
    assert "only for me" in own and "from a library" in own
    assert done.stderr.startswith(last) and done.stderr.count("\n") == 1
    assert done.stdout == "" and done.returncode == 1
    assert ("Traceback" in own) == (end == "traceback")


@pytest.mark.parametrize("moment", ["launcher", "begun-1", "ready-1"])
def test_a_signal_reaches_the_workers_and_harms_nobody_else(tmp_path: Path, moment: str) -> None:
    """While their launcher starts, while they start themselves, and in their work."""
    (tmp_path / "launch.py").write_text(LAUNCHER)
    (tmp_path / "work.py").write_text(WORKER)
    words = [sys.executable, str(tmp_path / "launch.py"), str(tmp_path / "work.py")]
    task = subprocess.Popen([sys.executable, "-c", TASK, *words], cwd=ROOT, env=without_rank())
    try:

        def reached() -> object:
            assert task.poll() is None
            return children(task.pid) if moment == "launcher" else (tmp_path / moment).exists()

        patience.wait_for(reached, moment)
        (launcher,) = children(task.pid).split()
        os.kill(int(launcher), signal.SIGUSR2)  # as some SLURMs do: it must not die of it
        task.send_signal(signal.SIGUSR2)
        patience.wait_for(lambda: task.poll() is not None, "end of the task")
        assert task.returncode == 77
    finally:
        task.kill()


def test_a_launcher_that_stays_without_workers_is_ended(tmp_path: Path) -> None:
    """As one that waits for a lost node to come back."""
    words = ["bash", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"]
    quick = TASK.replace("sys.exit", "signal_relay.ALONE = 0.5\nsys.exit")
    task = subprocess.Popen([sys.executable, "-c", quick, *words], cwd=ROOT, env=without_rank())
    patience.wait_for_line(tmp_path / "pid")
    task.send_signal(signal.SIGTERM)
    patience.wait_for(lambda: task.poll() is not None, "end of the task")
    assert task.returncode == 128 + signal.SIGKILL
    assert not is_alive((tmp_path / "pid").read_text().strip())


def is_alive(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def without_rank() -> dict[str, str]:
    variables = environment() | {"PYTHONPATH": str(ROOT)}
    return {name: value for name, value in variables.items() if name != "LOCAL_RANK"}
