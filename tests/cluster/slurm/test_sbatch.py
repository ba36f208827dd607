"""The batch script as a whole, and the values that it must not let through."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError
from cluster.slurm.sbatch import Job, job, render
from tests.cluster.jobs import GOLDENS, JOBS, RUN, golden


@pytest.mark.parametrize("name", JOBS)
def test_the_script_is_the_one_that_was_read_and_approved(name: str) -> None:
    assert render(golden(name)) == (GOLDENS / f"{name}.sh").read_text()


@pytest.mark.parametrize("name", JOBS)
def test_bash_understands_the_script(name: str) -> None:
    subprocess.run(["bash", "-n", GOLDENS / f"{name}.sh"], check=True)


def test_no_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDENS.glob("*.sh")} == set(JOBS)


@given(st.text(min_size=1))
def test_any_value_of_a_variable_arrives_whole_or_is_refused(value: str) -> None:
    try:
        script = render(Job(**RUN, env=(("ANY", value),)))
    except ClusterError as error:
        assert not value.isprintable() and "control sign" in str(error)
        return
    (line,) = (line for line in script.splitlines() if line.startswith("export"))
    assert shlex.split(line) == ["export", f"ANY={value}"]


@pytest.mark.parametrize(
    "name", ["account", "partition", "qos", "constraint", "mem", "mail", "after", "array", "time"]
)
@pytest.mark.parametrize("value", ["a b", "x\n#SBATCH --uid=0", "$(reboot)", "`id`", "a'b", 'a"b'])
def test_directives_let_nothing_through(name: str, value: str) -> None:
    with pytest.raises(ClusterError, match=f"--{name}|The time"):
        job({name: value}, **RUN)


@pytest.mark.parametrize("place", ["run_dir", "work_dir", "name"])
@pytest.mark.parametrize("value", ["", "a b", "/a b", "/a\nb", "/50%", "/a'b", "/a#b"])
def test_places_let_nothing_through(place: str, value: str) -> None:
    with pytest.raises(ClusterError, match=f"--{place}"):
        Job(**RUN | {place: value})


@pytest.mark.parametrize("name", ["venv", "conda", "container"])
def test_surroundings_are_quoted(name: str) -> None:
    script = render(job({name: "x; reboot #$(id)"}, **RUN))
    assert "'x; reboot #$(id)" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"node": "2"}, r"--node is no option \(did you mean --nodes\?\): there are nodes, gpus,"),
        ({"run_dir": "/x"}, "--run_dir is no option"),
        ({"nodes": "two"}, "--nodes=two must be a whole number"),
        ({"nodes": "0"}, "--nodes=0 must be 1 or more"),
        ({"signal_s": "0"}, "--signal_s=0 must be 1 or more"),
        ({"requeue": "maybe"}, "--requeue=maybe must be yes or no"),
        ({"launch": "mpirun"}, "must be one of rank, accelerate, torchrun, deepspeed"),
        ({"time": "one hour"}, "The time 'one hour' is not one that SLURM reads"),
        ({"time": "2"}, "--time=2 is over before the ranks are told to save"),
        ({"venv": "/v", "conda": "c"}, "--venv and --conda exclude each other"),
        ({"env": "A"}, "--env=A must read KEY=VALUE"),
        ({"env": "1A=2"}, "'1A' is not the name of a variable"),
        ({"env": "WORLD_SIZE=2"}, "WORLD_SIZE is set by the launcher"),
        ({"env": "SLURM_NTASKS=2"}, "SLURM_NTASKS is set by the launcher"),
        ({"mem": "64 GB"}, "--mem=64 GB must be memory per node"),
        ({"array": "0-"}, "--array=0- must be task numbers"),
        ({"modules": "gcc\nreboot"}, "--modules holds a line break"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        job(options, **RUN)


def test_cores_are_counted_for_each_rank() -> None:
    ranks = job({"gpus": "4", "cpus": "8"}, **RUN)
    assert (ranks.tasks_per_node, ranks.cpus_per_task) == (4, 8)
    nodes = job({"gpus": "4", "cpus": "8", "launch": "accelerate"}, **RUN)
    assert (nodes.tasks_per_node, nodes.cpus_per_task) == (1, 32)


@pytest.mark.parametrize("name", ["account", "qos", "partition"])
@pytest.mark.parametrize("value", ["proj:a100@team", "group/sub+x", "a=b~c", "normal-1.2"])
def test_names_have_all_signs_that_slurm_takes(name: str, value: str) -> None:
    assert f"#SBATCH --{name}={value}\n" in render(job({name: value}, **RUN))


def test_free_directives_stand_among_the_others() -> None:
    wish = "--gres=gpu:a100:2 --exclude='n[7,9]' --exclusive --licenses=matlab:1"
    lines = render(job({"sbatch": wish}, **RUN)).splitlines()
    for line in ("--gres=gpu:a100:2", "--exclude=n[7,9]", "--exclusive", "--licenses=matlab:1"):
        assert f"#SBATCH {line}" in lines
    assert lines.index("#SBATCH --exclusive") < lines.index("")


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("--signal=USR1@60", "--signal is ours to write: give --signal_s instead"),
        ("--time=1", "give --time instead"),
        ("--output=x", "--output is fixed to RUN/logs"),
        ("--wrap=reboot", "--wrap is fixed to nothing"),
        ("-x n7", "must read --NAME or --NAME=VALUE, by its long name"),
        ("--exclude n7", "'n7' must read"),
        ("--comment='a b'", "without blanks"),
        ("--comment='a\"b'", "without blanks, quotes"),
        ("--comment=$(reboot)", "without blanks"),
        ("--comment='", "close its quotes"),
        ("--comment=a\n#SBATCH --uid=0", "control sign"),
        ("reboot", "'reboot' must read"),
    ],
)
def test_free_directives_let_nothing_through_and_contradict_nothing(
    wish: str, sentence: str
) -> None:
    with pytest.raises(ClusterError, match="--sbatch") as refused:
        job({"sbatch": wish}, **RUN)
    assert sentence in str(refused.value)


def test_gpus_are_asked_for_once() -> None:
    with pytest.raises(ClusterError, match="both ask for GPUs"):
        job({"sbatch": "--gres=gpu:2", "gpus": "2"}, **RUN)
    assert job({"sbatch": "--gres=gpu:2", "ranks": "2"}, **RUN).directives == ("gres=gpu:2",)
