"""`doctor` finds what would fail later, says what to do, and is content where all is well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.watch.heartbeat import Heart
from launcher.doctor import data_checks, doctor
from launcher.doctor.file_systems import file_system
from launcher.doctor.finding import Finding
from launcher.recipe.config import load
from tests.cluster.minislurm import MiniSlurm
from tests.launcher.sample import ROOT, environment, make_shards, organza, write_recipe
from tests.processes import patience
from tests.processes.gang import free_port


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    make_shards(folder, "--num_labels=8", count=2)
    return write_recipe(folder, folder / "shards")


def lines(output: str) -> dict[str, str]:
    """The table: what -> ok or WRONG."""
    rows = [line.split() for line in output.splitlines() if line.startswith(("ok ", "WRONG "))]
    return {row[1]: row[0] for row in rows}


def test_all_is_well(slurm_cluster: MiniSlurm, recipe: Path) -> None:
    status, output = organza("doctor", recipe)
    assert status == 0, output
    wanted = "versions code GPUs run_dir clock shards /dev/shm decoding processors SLURM controller"
    assert lines(output) == dict.fromkeys(wanted.split(), "ok")
    assert "2 samples an epoch, fingerprint" in output
    assert not (recipe.parent / "run-coarse").exists(), "it only looks"


def test_what_is_wrong_is_told_with_its_remedy_and_the_rest_is_still_looked_at(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
        "run_dir",
        "data",
        "SLURM",
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
    recipe: Path,
    override: str,
    value: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert doctor.doctor(str(recipe), {override: value}) == 1
    assert message in capsys.readouterr().out


def found(recipe: Path, **overrides: object) -> dict[str, Finding]:
    """What the checks of the data find."""
    options = {name.replace("__", "."): str(value) for name, value in overrides.items()}
    findings = doctor.looked_at(data_checks.data, load(str(recipe), options))
    return {finding.what: finding for finding in findings}


def test_workers_of_all_ranks_of_a_node_share_its_memory_and_processors(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.statvfs("/dev/shm")
    batch = 64 * 32 * (1 + 4 + 3) * 2  # bytes of two samples: label, inst, image
    one_rank = status.f_bavail * status.f_frsize // (2 * batch) * 2 // 3
    assert found(recipe, data__workers=one_rank)["/dev/shm"].remedy == ""
    assert "--cpus-per-task" in found(recipe, data__workers=one_rank)["processors"].remedy
    two = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in two.items():
        monkeypatch.setenv(name, value)
    finding = found(recipe, data__workers=one_rank, batch__total=4)["/dev/shm"]
    assert "the workers of 2 ranks need" in finding.found
    assert "--shm-size" in finding.remedy


@pytest.mark.parametrize(
    ("speed", "workers", "enough"),
    [(0.001, 1, True), (1e6, 1, False), (0.001, 0, True), (1e6, 0, False)],
)
def test_a_run_tells_how_many_workers_its_pace_needs(
    recipe: Path, tmp_path: Path, speed: float, workers: int, enough: bool
) -> None:
    row = {"images": 8, "speed/images_per_s": speed, "speed/data_wait_share": 0.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    Heart(tmp_path / "heartbeats", 0).start().stop()
    finding = found(recipe, run_dir=tmp_path, data__workers=workers)["decoding"]
    assert f"which takes {speed:.1f}" in finding.found
    assert (finding.remedy == "") == enough, finding
    assert enough or "set data.workers=" in finding.remedy


def test_the_pace_of_a_rank_counts_no_waiting_for_data(tmp_path: Path) -> None:
    assert data_checks.samples_per_second(tmp_path) is None
    row = {"images": 8, "speed/images_per_s": 6.0, "speed/data_wait_share": 0.25}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    for rank in range(2):
        Heart(tmp_path / "heartbeats", rank).start().stop()
    assert data_checks.samples_per_second(tmp_path) == 6 / 0.75 / 2


def test_the_file_system_is_that_of_the_last_and_deepest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        f"23 22 0:5 / {tmp_path}/a\\040b rw - nfs4 server:/a rw\n"
        f"24 23 0:6 / {tmp_path}/a\\040b rw shared:2 master:1 - lustre mds:/a rw\n"
    )
    kinds = {name: file_system(tmp_path / name, mounts) for name in ("a b/c", "a", "a bc")}
    assert kinds == {"a b/c": "lustre", "a": "ext4", "a bc": "ext4"}


def test_the_run_folder_of_several_nodes_lies_on_no_file_system_of_one(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(str(recipe), {"run_dir": "/dev/shm/organza-doctor"})
    assert [finding.remedy for finding in doctor.run_dir(config)] == ["", ""]
    two = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in two.items():
        monkeypatch.setenv(name, value)
    remedy = next(doctor.run_dir(config)).remedy
    assert remedy == "choose a run_dir that all nodes share: each has a tmpfs of its own"


def test_a_cache_needs_room_for_its_limit(recipe: Path, tmp_path: Path) -> None:
    def look(folder: Path, limit: str) -> Finding:
        overrides = {"data.cache.folder": str(folder), "data.cache.limit_gib": limit}
        (finding,) = doctor.looked_at(data_checks.cache, load(str(recipe), overrides))
        return finding

    assert doctor.looked_at(data_checks.cache, load(str(recipe), {})) == []
    assert look(tmp_path, "0.001").remedy == ""
    assert "lower data.cache.limit_gib to" in look(tmp_path, "1e6").remedy
    assert "data.cache.folder: /proc/" in look(Path("/proc/copies"), "1").remedy


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
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "launcher", "doctor", str(recipe), *overrides],
                cwd=ROOT,
                env=os.environ | environment() | place,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    outputs = [patience.communicate(task)[0] for task in started]
    return [(task.returncode, output) for task, output in zip(started, outputs, strict=True)]


def test_several_tasks_find_each_other(recipe: Path) -> None:
    (status, output), (other_status, other_output) = tasks(recipe)
    assert (status, other_status, other_output) == (0, 0, ""), output + other_output
    assert "2 ranks on" in output and lines(output)["peers"] == "ok"
    assert lines(output)["clocks"] == "ok"
