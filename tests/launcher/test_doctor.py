"""`doctor` finds what would fail later, says what to do, and is content where all is well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import doctor
from launcher.doctor import Finding
from tests.cluster.minislurm import MiniSlurm
from tests.gang import free_port
from tests.launcher.sample import ROOT, environment, make_source, organza, write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    make_source(folder / "source", count=2)
    status, output = organza("pack", folder / "source", folder / "shards", "--num_labels=8")
    assert status == 0, output
    return write_recipe(folder, folder / "shards")


def lines(output: str) -> dict[str, str]:
    """The table: what -> ok or WRONG."""
    rows = [line.split() for line in output.splitlines() if line.startswith(("ok ", "WRONG "))]
    return {row[1]: row[0] for row in rows}


def test_all_is_well(slurm_cluster: MiniSlurm, recipe: Path) -> None:
    status, output = organza("doctor", recipe)
    assert status == 0, output
    wanted = "versions code GPUs /dev/shm run_dir clock shards SLURM controller".split()
    assert lines(output) == dict.fromkeys(wanted, "ok")
    assert "2 samples an epoch, fingerprint" in output
    assert not (recipe.parent / "run-coarse").exists(), "it only looks"


def test_what_is_wrong_is_told_with_its_remedy_and_the_rest_is_still_looked_at(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sbatch").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(commands))
    overrides = {"data.shards": str(tmp_path), "run_dir": "/proc/runs/city"}
    assert doctor.doctor(str(recipe), overrides) == 1
    output = capsys.readouterr().out
    found = lines(output)
    assert {what for what, verdict in found.items() if verdict == "WRONG"} == {
        "run_dir", "data", "SLURM",
    }
    assert f"data: {tmp_path} holds no manifest.json" in output
    assert "SLURM: install srun, scontrol, scancel" in output
    assert found["versions"] == "ok"


def test_a_machine_without_slurm_is_no_mistake(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert doctor.doctor(str(recipe), {}) == 0
    assert "not on this machine: `submit` works on login nodes only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "value", "message"),
    [
        ("model.num_labels", "5", "num_labels=5 ids end at 4"),
        ("batch.micro", "3", "batch.micro=3 does not divide the 2 images"),
    ],
)
def test_data_that_do_not_fit_the_recipe_are_found(
    recipe: Path, override: str, value: str, message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert doctor.doctor(str(recipe), {override: value}) == 1
    assert message in capsys.readouterr().out


def test_a_check_that_ends_with_a_sentence_is_a_finding() -> None:
    def network(config: object) -> None:
        raise OSError("no route to host")

    assert doctor.looked_at(network, None) == [
        Finding("network", "does not work", "no route to host")
    ]


def tasks(recipe: Path, *overrides: str) -> list[tuple[int, str]]:
    """`doctor` as two tasks of one launcher."""
    port = str(free_port())
    started = []
    for rank in range(2):
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PATH": "/nowhere"}
        started.append(subprocess.Popen(
            [sys.executable, "-m", "launcher", "doctor", str(recipe), *overrides],
            cwd=ROOT, env=os.environ | environment() | place, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ))
    outputs = [task.communicate(timeout=100)[0] for task in started]
    return [(task.returncode, output) for task, output in zip(started, outputs, strict=True)]


def test_several_tasks_find_each_other(recipe: Path) -> None:
    (status, output), (other_status, other_output) = tasks(recipe)
    assert (status, other_status, other_output) == (0, 0, ""), output + other_output
    assert "2 ranks on" in output and lines(output)["peers"] == "ok"
    assert lines(output)["clocks"] == "ok"
