"""Jobs over processes: results in order, and the first failure in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shards.processes import Tick, run_jobs
from shards.records import DataError
from tests.processes import patience
from tests.shards.sources import ROOT, alive, descendants


def square(job: int, tick: Tick) -> int:
    tick()
    return job * job


def fail_on_odd(job: int, tick: Tick) -> int:
    if job % 2:
        raise DataError(f"job {job} is odd")
    return job


def err(job: int, tick: Tick) -> int:
    raise KeyError("a bug")


def die(job: int, tick: Tick) -> int:
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(3000):
        time.sleep(0.01)
        tick()
    return job


def kill_idle_workers(job: int, tick: Tick) -> int:
    """Job 3 kills two of three idle workers: most likely one that holds the queue's lock."""
    if job == 3:
        time.sleep(1)
        for pid in sorted(descendants(os.getppid()) - {os.getpid()})[:2]:
            os.kill(pid, signal.SIGKILL)
        time.sleep(1)
    return job


def run(function, jobs, num_workers):
    return run_jobs(
        function, jobs, num_workers=num_workers, total=len(jobs), unit="jobs", progress=None
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_the_order_of_jobs(num_workers):
    assert run(square, list(range(20)), num_workers) == [n * n for n in range(20)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_first_failing_job_speaks(num_workers):
    with pytest.raises(DataError, match="^job 3 is odd$"):
        run(fail_on_odd, [2, 4, 3, 6, 5, 7], num_workers)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_bug_stays_a_bug(num_workers):
    with pytest.raises(KeyError, match="a bug"):
        run(err, [1, 2], num_workers)


@pytest.mark.parametrize("function, num_workers", [(die, 2), (kill_idle_workers, 4)])
def test_a_killed_worker_is_a_sentence_and_ends_the_others(function, num_workers):
    start = time.monotonic()
    with pytest.raises(DataError, match="a worker process was killed"):
        run(function, [0, 1, 2, 3], num_workers)
    assert time.monotonic() - start < 15


SLOW_SCRIPT = """
import time
from shards.processes import run_jobs
def slow(job, tick):
    for _ in range(3000):
        time.sleep(0.01)
        tick()
if __name__ == "__main__":
    run_jobs(slow, [0, 1, 2], num_workers=2, total=9000, unit="naps",
             progress=lambda done, *_: print(done, flush=True) if done else None)
"""


def test_an_interrupt_at_the_terminal_ends_all_quickly(tmp_path: Path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process.stdout.readline()
    family = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = patience.communicate(process)
    assert process.returncode != 0
    assert errors.count("Traceback") == 1 and errors.endswith("KeyboardInterrupt\n"), errors
    patience.wait_for(lambda: not alive(family))


def test_a_worker_keeps_what_it_frees():
    """Faults: pages that the system had to give."""
    code = """
import resource
from shards.processes import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(2**26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before > 10 * max(after, 1)
