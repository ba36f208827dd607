"""Every test starts like a command typed at a terminal; one SLURM for all tests that need it."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import pytest

from tests.cluster import minislurm
from tests.cluster.minislurm import MiniSlurm

# Started in the background by a shell, pytest inherits an ignored SIGINT and so would the commands
# that it runs; tests that interrupt them need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)

REQUIRED = "ORGANZA_REQUIRE_SLURM"
"""Set where a missing SLURM must not pass unnoticed."""


@pytest.fixture(autouse=True)
def little_to_collect() -> None:
    """The loop collects garbage whenever players change, and must go through all that lives: here
    thousands of tests and whatever they import, which took most of the time of short runs."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[MiniSlurm]:
    """Two nodes, n1 and n2."""
    missing = minislurm.missing()
    if missing:
        tell = pytest.fail if os.environ.get(REQUIRED) else pytest.skip
        tell(f"{', '.join(missing)} not installed: see tests/cluster/minislurm.py")
    with MiniSlurm(2) as cluster:
        yield cluster
