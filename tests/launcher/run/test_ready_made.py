"""The files in cluster/ that users copy: each is generated here, or run.

After an intended change of the batch script: python -m tests.launcher.run.test_ready_made"""

from __future__ import annotations

import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig

from cluster.slurm.sbatch import Job, job, render
from tests.launcher.sample import ROOT, environment, make_shards, write_recipe
from tests.processes import patience
from tests.processes.gang import free_port
from trainers.checkpoints.checkpoint import find

READY_MADE = ROOT / "cluster"
EXAMPLE = READY_MADE / "sbatch-example.sh"
TINY = ["--schedule.constant=4", "--schedule.decay=0", "--data.workers=0", "--backend.world=2"]


def example() -> Job:
    """Two nodes of four GPUs for a day, going on by itself; the paths are to be edited."""
    options = {
        "nodes": "2",
        "gpus": "4",
        "cpus": "8",
        "mem": "128G",
        "time": "1-00:00:00",
        "requeue": "yes",
        "venv": "/home/me/organza/.venv",
    }
    places = {"run_dir": "/scratch/me/runs/city", "work_dir": "/home/me/organza", "name": "city"}
    return job(options, **places)


def test_the_example_is_what_submit_writes() -> None:
    assert EXAMPLE.read_text() == render(example())


@pytest.mark.parametrize("name", ["accelerate-one-box", "accelerate-multi-node"])
def test_accelerate_knows_every_key(name: str) -> None:
    known = {field.name for field in fields(ClusterConfig)}
    tree = yaml.safe_load((READY_MADE / f"{name}.yaml").read_text())
    assert tree.keys() <= known
    assert tree["mixed_precision"] == "no" and tree["distributed_type"] == "MULTI_GPU"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ready-made")
    make_shards(folder, "--num_labels=8", count=2)
    return folder / "shards"


def launch(name: str, recipe: Path, *options: str) -> subprocess.Popen[str]:
    """As the head of the file says, with fewer processes."""
    words = ["accelerate", "launch", "--config_file", str(READY_MADE / f"{name}.yaml")]
    words += [*options, "--num_processes=2", "-m", "launcher", "train", str(recipe), *TINY]
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize("name", ["accelerate-one-box", "accelerate-multi-node"])
def test_accelerate_launches_two_processes(shards: Path, tmp_path: Path, name: str) -> None:
    recipe, port = write_recipe(tmp_path, shards), f"--main_process_port={free_port()}"
    options = [[port]]
    if name == "accelerate-multi-node":  # two machines, which are both this one
        place = [port, "--main_process_ip=127.0.0.1"]
        options = [[*place, f"--machine_rank={machine}"] for machine in range(2)]
    started = [launch(name, recipe, *more) for more in options]
    for process in started:
        output, _ = patience.communicate(process)
        assert process.returncode == 0, output
    assert find(tmp_path / "run-coarse").progress.images == 4
    assert len(list(find(tmp_path / "run-coarse").path.glob("rank*.safetensors"))) == 2


if __name__ == "__main__":
    EXAMPLE.write_text(render(example()))
