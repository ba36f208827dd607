"""The worker as the deepspeed launcher starts it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from launcher.recipe.arguments import prepared
from tests.launcher.sample import ROOT, environment, make_source, organza, write_recipe
from tests.processes import patience
from tests.processes.gang import free_port
from trainers.checkpoints.checkpoint import find


def deepspeed(hostfile: Path, *arguments: object) -> tuple[int, str]:
    """Exit status and output of the command under `deepspeed`, as on a node without ssh."""
    command = [
        "deepspeed",
        "--hostfile",
        str(hostfile),
        "--no_ssh",
        "--node_rank",
        "0",
        "--master_addr",
        "127.0.0.1",
        "--master_port",
        str(free_port()),
        "--module",
        "launcher",
        *map(str, arguments),
    ]
    done = patience.run(
        command,
        cwd=ROOT,
        env=environment() | {"DS_ACCELERATOR": "cpu"},
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


def test_two_processes_train_under_the_deepspeed_launcher(tmp_path: Path) -> None:
    source, shards = make_source(tmp_path / "source"), tmp_path / "shards"
    assert organza("pack", source, shards)[0] == 0
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("localhost slots=2\n")
    recipe = write_recipe(tmp_path, shards, schedule={"constant": 4, "decay": 4})
    kind = ("--backend.kind=deepspeed", "--backend.zero=2", "--backend.world=2")
    code, output = deepspeed(hostfile, "train", recipe, *kind)
    assert code == 0 and "Finished." in output, output
    run = tmp_path / "run-coarse"
    assert find(run).progress.images == 8 and find(run).state["world"] == 2
    assert json.loads((run / "versions.json").read_text())["deepspeed"] != "absent"


def test_only_the_local_rank_before_the_command_is_dropped() -> None:
    assert prepared(["--local_rank=1", "train", "x"]) == ["train", "'x'"]
    assert prepared(["train", "--local_rank=1"]) == ["train", "--local_rank='1'"]
    assert prepared([]) == []
