"""Files of a run and of a set that somebody, or something, has altered: a sentence, whatever it is.

Each is replaced by what is no JSON, and by JSON in which one value is lost, or another.
"""

from __future__ import annotations

import copy
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import ClusterError
from launcher.data.statistics import facts, label_rows
from launcher.recipe import config, epochs
from launcher.recipe.config import ConfigError
from launcher.run import run_folder
from launcher.status import monitoring
from shards.records import DataError
from shards.sets.shard_set import open_all
from shards.storage.sealed import fingerprint_of
from tests.launcher.sample import make_run
from trainers.checkpoints.checkpoint import find
from trainers.checkpoints.repair import mend
from trainers.checkpoints.restore import read_pasts
from trainers.errors import TrainingError

SENTENCES = (ConfigError, DataError, ClusterError, TrainingError, OSError)
NO_JSON = [b"", b"\0" * 10, b"\xff\xfe{", b"[" * 100_000, b'{"a":' * 20_000, b"[]", b"null", b"{}"]
OTHERS: list[Any] = [None, -1, 1.5, 10**40, "x", [], {}, float("nan"), float("inf"), True, [[]]]


def places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where a value stands, of lists the first two."""
    if isinstance(tree, (dict, list)):
        for key in tree if isinstance(tree, dict) else range(min(2, len(tree))):
            yield (*path, key)
            yield from places(tree[key], (*path, key))


def altered(tree: Any) -> Iterator[Any]:
    """The tree with one value lost, or another."""
    for *path, last in places(tree):
        for other in [*OTHERS, "lost"]:
            changed = copy.deepcopy(tree)
            inner = changed
            for key in path:
                inner = inner[key]
            if other == "lost":
                del inner[last]
            else:
                inner[last] = other
            yield changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed set, and a run of two steps on it."""
    folder = tmp_path_factory.mktemp("altered")
    make_run(folder)
    return folder


def tell(work: Callable[[], object]) -> None:
    """Whatever is wrong is told in a sentence."""
    try:
        work()
    except SENTENCES as error:
        assert str(error)


@pytest.mark.parametrize(
    "name",
    [
        *("config.yaml", "attempts.jsonl", "metrics.jsonl", "outcome.json", "versions.json"),
        *("heartbeats/rank00000.json", "checkpoints/latest", "checkpoints/000000004/files.json"),
        "checkpoints/000000004/state.json",
    ],
)
def test_a_run(folder: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run-coarse", run)
    text = (run / name).read_text()
    tree = yaml.safe_load(text.splitlines()[0] if name.endswith("l") else text)
    if name == "config.yaml":
        tree = yaml.safe_load(text)
    if name.endswith("state.json"):
        tree["versions"] = tree["config"] = {}  # not looked into
    options = {"run_dir": str(run), "schedule.constant": "8"}
    resolved = epochs.resolve(config.load(str(folder / "coarse.yaml"), options), 2)
    samples = find(run).state["data"]

    def go_on() -> None:
        run_folder.examine(resolved, samples)
        mend(run)
        checkpoint = find(run)
        if checkpoint is not None:
            run_folder.check_same_run(resolved, samples, checkpoint)
            read_pasts(checkpoint)

    changes = list(altered(tree))
    changes = changes[:: 13 if len(changes) > 60 else 1]  # another value at each place
    for data in [*NO_JSON, *(json.dumps(each).encode() for each in changes)]:
        (run / name).write_bytes(data + b"\n")
        if name.endswith("state.json"):  # as if it had been written so
            files = run / name.replace("state", "files")
            sums = json.loads(files.read_text()) | {"state.json": zlib.crc32(data + b"\n")}
            files.write_text(json.dumps(sums))
        tell(lambda: monitoring.status(run))
        tell(go_on)


@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_a_set(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder / "shards", tmp_path / "shards")
    path = tmp_path / "shards" / name
    tree = json.loads(path.read_text())

    def read() -> None:
        for shard_set in open_all(tmp_path / "shards").values():
            list(facts(shard_set))
            list(label_rows(shard_set))

    for changed in altered(tree):
        if name == "manifest.json" and isinstance(changed, dict):  # as if it had been packed so
            changed["fingerprint"] = fingerprint_of(changed)
        path.write_text(json.dumps(changed))
        tell(read)
    for data in NO_JSON:
        path.write_bytes(data)
        with pytest.raises(DataError):
            open_all(tmp_path / "shards")
