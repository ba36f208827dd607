"""Users, passwords and signatures of URLs stand in nothing that a command prints or leaves."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.launcher.sample import make_source, organza, write_recipe
from tests.shards.fault_server import FaultServer

SECRET = "SECRET"
CACHE = ("--data.cache.folder=CACHE", "--schedule.constant=4", "--schedule.decay=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    make_source(folder / "source", count=2)
    assert organza("pack", folder / "source", folder / "set", "--workers=1")[0] == 0
    write_recipe(folder, folder / "set")
    return folder


def left(folder: Path) -> list[Path]:
    """Files below a folder that hold the secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(("fault", "status"), [("presigned", 0), ("signed", 1)])
def test_a_run_through_signed_urls(folder: Path, tmp_path: Path, fault: str, status: int) -> None:
    """As object stores send those who ask them for a file."""
    options = [option.replace("CACHE", str(tmp_path / "cache")) for option in CACHE]
    run = f"--run_dir={tmp_path / 'run'}"
    with FaultServer(folder / "set") as server:
        for method in ("GET", "HEAD"):
            server.fail("000000.tar", itertools.repeat(fault), method)
        shards = f"--data.shards={server.url}"
        train = organza("train", folder / "coarse.yaml", shards, run, *options)
        assert train[0] == status, train[1]
        assert server.requests["GET", "000000.tar"] >= 1
        asked = [organza("verify", server.url), organza("doctor", folder / "coarse.yaml", shards)]
    if status == 0:
        asked += [organza("status", tmp_path / "run"), organza("runs", tmp_path)]
    for _, output in [train, *asked]:
        assert SECRET not in output, output
    (tmp_path / "kept").touch()
    assert left(tmp_path) == []


@pytest.mark.parametrize("url", ["http://me:SECRET@HOST/set", "s3://SECRET@bucket/set"])
def test_urls_with_a_password_are_refused_and_written_nowhere(
    folder: Path, tmp_path: Path, url: str
) -> None:
    url, recipe = url.replace("HOST", "127.0.0.1:9"), folder / "coarse.yaml"
    run = f"--run_dir={tmp_path / 'run'}"
    for words in (
        ("train", recipe, f"--data.shards={url}", run),
        ("show", recipe, f"--data.shards={url}"),
        ("doctor", recipe, f"--data.shards={url}"),
        ("submit", recipe, f"--data.shards={url}", run, "--dry"),
        ("verify", url),
        ("stats", url, f"--out={tmp_path / 'samples.png'}"),
        ("dali", url),
    ):
        status, output = organza(*words)
        assert status in (1, 2) and SECRET not in output, output
    (tmp_path / "kept").touch()
    assert left(tmp_path) == []
