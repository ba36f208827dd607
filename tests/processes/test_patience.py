"""Waits bear a slow machine, and end where nothing moves."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import patience

BUSY = (
    "import time\nend = time.monotonic() + 2.5\nwhile time.monotonic() < end: pass\nprint('done')"
)
"""Works for longer than the tests here bear idleness, in a process of its own below another."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "QUIET", 1.5)


def test_who_works_is_waited_for() -> None:
    nested = ["bash", "-c", f'{sys.executable} -c "{BUSY}"; true']
    assert patience.run(nested, quiet=0).stdout == "done\n"


def test_who_sleeps_is_not(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(AssertionError, match="nothing moves for 1.5 s"):
        patience.run(["sleep", "60"], quiet=0)
    with pytest.raises(AssertionError, match="no letter: nothing moves"):
        patience.wait_for(lambda: False, "letter", quiet=0)
    assert time.monotonic() - started < 30


def test_a_writer_that_ends_without_a_line_is_told(tmp_path: Path) -> None:
    process = subprocess.Popen(["echo", "gone"], text=True, stdout=subprocess.PIPE)
    process.wait()
    with pytest.raises(AssertionError, match="gone"):
        patience.wait_for_line(tmp_path / "line", process)
    (tmp_path / "line").write_text("one\n")
    patience.wait_for_line(tmp_path / "line")
