"""What SLURM's commands print, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.slurm import queries
from cluster.slurm.queries import Status, field, parse_status, seconds

RUNNING = (
    "JobId=12 JobName=a State=odd UserId=me(1000) Requeue=1 Restarts=2 BatchFlag=1 ExitCode=0:0 "
    "JobState=RUNNING Reason=None RunTime=00:10:00 TimeLimit=1-00:00:00 ReqNodeList=(null) "
    "NodeList=n[1-2] BatchHost=n1\n"
)


def test_a_job_s_line_is_read() -> None:
    status = parse_status(RUNNING)
    assert status == Status("12", "RUNNING", "None", 2, "n[1-2]", 0, 85800)
    assert not status.over


def test_a_failed_task_of_an_array_is_read() -> None:
    line = (
        "JobId=15 ArrayJobId=14 ArrayTaskId=3 JobState=FAILED Reason=NonZeroExitCode Restarts=0 "
        "ExitCode=137:0 RunTime=00:00:02 TimeLimit=UNLIMITED NodeList=(null)"
    )
    status = parse_status(line)
    assert status == Status("14_3", "FAILED", "NonZeroExitCode", 0, "", 137, None)
    assert status.over


def test_the_grace_time_of_a_preemption_is_seen() -> None:
    assert parse_status(f"{RUNNING.strip()} PreemptTime=2026-11-26T16:46:50\n").preempted
    assert not parse_status(f"{RUNNING.strip()} PreemptTime=None\n").preempted


def test_a_job_that_waits_for_its_partition_s_limit_has_none_yet() -> None:
    assert parse_status(RUNNING.replace("1-00:00:00", "Partition_Limit")).seconds_left is None


def test_fields_are_found_whole() -> None:
    assert field(RUNNING, "NodeList") == "n[1-2]"
    assert field(RUNNING, "List") == ""
    assert field(RUNNING, "JobId") == "12"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("01:00:00", 3600),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("1-00:00:01", 86401),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_times_are_read_as_slurm_does(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "-5", "1-", "\u0663"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ClusterError, match="is not one that SLURM reads"):
        seconds(text)


def test_without_slurm_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    calls = {
        "sbatch": lambda: queries.submit(Path("job.sh")),
        "scontrol": lambda: queries.status("17"),
        "scancel": lambda: queries.cancel("17"),
    }
    for program, call in calls.items():
        with pytest.raises(ClusterError, match=f"{program} is not on this machine"):
            call()


@pytest.mark.parametrize("job", ["", "17;reboot", "--all", "seventeen", "17_", "1 2"])
def test_only_numbers_name_jobs(job: str) -> None:
    for call in (queries.status, queries.cancel, queries.requeue):
        with pytest.raises(ClusterError, match="is not a job of SLURM's"):
            call(job)


def test_an_answer_that_never_comes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "scancel"
    silent.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(queries, "TIMEOUT", 0.2)
    with pytest.raises(ClusterError, match="scancel got no answer within 0 s"):
        queries.cancel("17")
