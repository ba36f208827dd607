"""`submit` without a cluster: what it prints, writes, freezes, and refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.slurm.sbatch import Job
from launcher.recipe.config import Config, ConfigError
from launcher.slurm import submitting, sweeps
from launcher.status import job_file
from tests.launcher.sample import ROOT, environment, make_shards, write_recipe
from tests.processes import patience

SCRIPT = """\
#!/bin/bash
# run-coarse: 2 x 1 processes. Written by `organza submit`; the run is in
# {run}
#SBATCH --job-name=run-coarse
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --partition=main
#SBATCH --chdir={root}
#SBATCH --output={run}/logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue

"""


def submit(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, as on a machine without SLURM."""
    words = ["submit", *map(str, arguments)]
    return patience.run(
        [sys.executable, "-m", "launcher", *words],
        cwd=ROOT,
        env=environment() | {"PATH": "/nowhere"},
    )


def test_dry_prints_the_script_and_writes_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "shards")
    before = sorted(tmp_path.iterdir())
    done = submit(recipe, "--nodes=2", "--partition=main", "--requeue", "--optim.lr=1e-4", "--dry")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    run = tmp_path / "run-coarse"
    assert done.stdout.startswith(SCRIPT.format(run=run, root=ROOT))
    assert done.stdout.endswith(f"python -m launcher join {run}\n")
    assert "python -m cluster.watch" in done.stdout and "--requeue" in done.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_shards_that_no_rank_could_read_are_refused(tmp_path: Path) -> None:
    done = submit(write_recipe(tmp_path, tmp_path / "shards"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"submit: data.shards: {tmp_path}/shards holds no manifest.json" in done.stderr
    assert not (tmp_path / "run-coarse").exists()


def test_an_option_of_the_recipe_without_its_section_is_recognised(tmp_path: Path) -> None:
    done = submit(write_recipe(tmp_path, tmp_path / "shards"), "--lr=1e-4")
    assert done.returncode == 2
    assert "submit: --lr is no option; did you mean `optim.lr`?" in done.stderr, done.stderr


def test_without_slurm_one_sentence_says_where_to_go(tmp_path: Path) -> None:
    make_shards(tmp_path, count=1)
    done = submit(write_recipe(tmp_path, tmp_path / "shards"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "sbatch is not on this machine: run this on a login node" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--node=2"], "--node is no option (did you mean --nodes?): there are nodes, gpus,"),
        (["--dry=maybe"], "--dry=maybe must be one of yes, no"),
        (["--dry", "--dry"], "--dry is given twice"),
        (["--nodes"], "--nodes needs a value"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(
    tmp_path: Path, options: list[str], message: str
) -> None:
    done = submit(write_recipe(tmp_path, tmp_path / "shards"), *options)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run-coarse").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": "two"}, "--nodes=two must be a whole number"),
        ({"nodes": "3"}, "batch.total=2 cannot be shared by 3 processes"),
        ({"gpus": "4"}, "batch.total=2 cannot be shared by 4 processes"),
        ({"nodes": "2", "batch.micro": "2"}, "batch.micro=2 does not divide the 1 images"),
        ({"nodes": "2", "backend.world": "4"}, "backend.world=4, but --nodes=2 with 1 processes"),
        ({"optim.rate": "1"}, "unknown option `optim.rate`"),
        ({"time": "soon"}, "The time 'soon' is not one that SLURM reads"),
        ({"run_dir": "my runs"}, "must be an absolute path without spaces"),
        ({"array": "nowhere.yaml"}, "--array=nowhere.yaml must be a YAML file"),
        ({"array": "twice.yaml"}, "`seed` is given in line 1 and again in line 2"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    tmp_path: Path, options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "shards")
    tmp_path.joinpath("twice.yaml").write_text("seed: [1]\nseed: [2]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)):
        submitting.batch_of(str(recipe), options)


def test_paths_are_frozen_as_they_are_meant_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    recipe = write_recipe(tmp_path, Path("~/shards"), run_dir="runs/one", start_from="../coarse")
    batch = submitting.batch_of(str(recipe), {"venv": "my venv"})
    (config,) = batch.configs.values()
    assert config.run_dir == batch.run == tmp_path / "runs" / "one"
    assert config.data.shards == Path("/home/me/shards")
    assert config.start_from == tmp_path / "../coarse"
    assert batch.job.venv == str(tmp_path / "my venv") and batch.job.work_dir == str(tmp_path)
    assert batch.job.name == "one"


def test_no_option_of_the_job_is_one_of_the_recipe() -> None:
    places = {"run_dir"}
    assert Config.model_fields.keys() & Job.__dataclass_fields__.keys() == places


def grid(folder: Path, text: str) -> str:
    (folder / "sweep.yaml").write_text(text)
    return str(folder / "sweep.yaml")


def test_a_sweep_has_a_run_for_each_combination(tmp_path: Path) -> None:
    array = grid(tmp_path, "{optim.lr: [1e-4, 2e-4], seed: [0, 1], ema.halflife: [8]}")
    done = submit(write_recipe(tmp_path, tmp_path / "shards"), f"--array={array}%2", "--dry")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-3%2\n" in done.stdout
    assert "logs/job-%A_%a.log\n" in done.stdout
    assert done.stderr.splitlines() == [
        "run  optim.lr  seed  ema.halflife",
        "000  1e-4      0     8",
        "001  1e-4      1     8",
        "002  2e-4      0     8",
        "003  2e-4      1     8",
    ]


def test_the_members_of_a_sweep_are_frozen_each_in_its_folder(tmp_path: Path) -> None:
    array = grid(tmp_path, "{optim.lr: [1e-4, 2e-4], data.preprocess.flip: [true, false]}")
    recipe = write_recipe(tmp_path, tmp_path / "shards")
    batch = submitting.batch_of(str(recipe), {"array": array})
    submitting.write(batch, "")
    submitting.record(batch, "17")
    members = job_file.members(tmp_path / "run-coarse")
    assert [member.name for member in members] == ["000", "001", "002", "003"]
    for i, member in enumerate(members):
        config = yaml.safe_load((member / "config.yaml").read_text())
        assert config["run_dir"] == str(member)
        assert config["optim"]["lr"] == (1e-4, 2e-4)[i // 2]
        assert config["data"]["preprocess"]["flip"] is (i % 2 == 0)
        submission = job_file.submission(member)
        assert submission.job == f"17_{i}"
        assert submission.log == f"{tmp_path}/run-coarse/logs/job-17_{i}.log"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("[1, 2]", {}, "must map options to lists"),
        ("{optim.lr: 1e-4}", {}, "`optim.lr` is '1e-4'; write a list"),
        ("{optim.lr: []}", {}, "write a list of values"),
        ("{run_dir: [a, b]}", {}, "`run_dir` is chosen by the sweep"),
        ("{seed: [1, 2]}", {"seed": "3"}, "seed is an option here and in the sweep"),
        ("{optim.rate: [1, 2]}", {}, "unknown option `optim.rate`"),
        ("{seed: [0, 1], batch.total: [1, 3]}", {"nodes": "2"}, "batch.total=1 cannot be shared"),
        ("{", {}, "must be a YAML file"),
    ],
)
def test_a_wrong_sweep_is_refused(
    tmp_path: Path, text: str, options: dict[str, str], message: str
) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "shards")
    with pytest.raises(ConfigError, match=message):
        submitting.batch_of(str(recipe), {"array": grid(tmp_path, text)} | options)


def test_a_sweep_larger_than_slurm_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 1001 runs: submit at most 1000"):
        sweeps.product({"seed": [str(i) for i in range(1001)]})


def test_what_sbatch_gets_is_whole_on_disk(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "shards")
    batch = submitting.batch_of(str(recipe), {})
    submitting.write(batch, "#!/bin/bash\n")
    run = tmp_path / "run-coarse"
    assert sorted(os.listdir(run)) == ["config.yaml", "job.sh", "logs"]
    assert yaml.safe_load((run / "config.yaml").read_text())["run_dir"] == str(run)
