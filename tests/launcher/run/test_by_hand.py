"""`train` as it is started without `join`: by hand, by mpirun, and where that fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.start.test_preflight import free_pair
from tests.launcher.sample import ROOT, environment, make_shards, write_recipe
from tests.processes import patience


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-hand")
    make_shards(folder, count=2)
    return write_recipe(folder, folder / "shards", schedule={"constant": 4, "decay": 0})


def train(recipe: Path, *ranks: dict[str, str], timeout_s: float = 30) -> list[tuple[int, str]]:
    """Status and words of processes that are started side by side, with these variables."""
    command = [
        sys.executable,
        "-m",
        "launcher",
        "train",
        str(recipe),
        f"--backend.timeout_s={timeout_s}",
    ]
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment() | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for variables in ranks
    ]
    outputs = [patience.communicate(process)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


def by_hand(rank: int, port: int, **others: str) -> dict[str, str]:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | others


def test_openmpi_needs_no_address_on_one_machine(recipe: Path) -> None:
    ranks = [
        {
            "OMPI_COMM_WORLD_RANK": rank,
            "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_LOCAL_RANK": rank,
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            "MASTER_PORT": port,
        }
        for port in [str(free_pair())]
        for rank in ("0", "1")
    ]
    (status, output), (other, nothing) = train(recipe, *ranks)
    assert (status, other) == (0, 0) and "Finished." in output, output + nothing


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"MASTER_ADDR": "no-such-host.invalid"}, "is no address that"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000 is no port"),
        ({"GLOO_SOCKET_IFNAME": "ib7"}, "GLOO_SOCKET_IFNAME=ib7, but"),
    ],
)
def test_places_that_cannot_be_are_told_on_every_rank(
    recipe: Path, others: dict[str, str], sentence: str
) -> None:
    port = free_pair()
    for status, output in train(recipe, *(by_hand(rank, port, **others) for rank in (0, 1))):
        assert status == 1 and len(output.splitlines()) == 1 and sentence in output, output


@pytest.mark.parametrize(
    ("rank", "sentence"),
    [(0, "1 of 2 ranks did not report"), (1, "got no word from rank 0 at 127.0.0.1:")],
)
def test_a_peer_that_never_comes_is_told_in_time(recipe: Path, rank: int, sentence: str) -> None:
    began = time.monotonic()
    ((status, output),) = train(recipe, by_hand(rank, free_pair()), timeout_s=2)
    assert status == 1 and len(output.splitlines()) == 1 and sentence in output, output
    assert time.monotonic() - began < 30
