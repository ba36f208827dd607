"""Links in a folder that somebody else has made are not followed: what they lead to stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import text_files
from cluster.watch import attempts, claim
from cluster.watch.attempts import Attempt
from launcher.run import run_folder
from shards.indexing.index_tars import index_shards
from shards.pack.packing import pack
from shards.records import DataError
from tests.shards.foreign import street_tars
from tests.shards.sources import label_source
from trainers.board.board import Board
from trainers.checkpoints import durable_files
from trainers.checkpoints.checkpoint import Progress

PRECIOUS = "of great value"


@pytest.fixture()
def precious(tmp_path: Path) -> Path:
    file = tmp_path / "precious.txt"
    file.write_text(PRECIOUS)
    return file


@pytest.mark.parametrize(
    ("place", "write"),
    [
        ("heartbeats/claim", lambda run: claim.take(run, claim.own_name())),
        ("attempts.jsonl", lambda run: attempts.record(run, Attempt("", 0, 0, "", 0))),
        (".lock", run_folder.lock),
        ("state.json.writing", lambda run: durable_files.replace_text(run / "state.json", "{}")),
        ("metrics.jsonl", lambda run: Board(run).start(Progress(), 4, "")),
    ],
)
def test_a_run_folder(
    tmp_path: Path, precious: Path, place: str, write: Callable[[Path], object]
) -> None:
    link = tmp_path / "run" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    try:
        write(tmp_path / "run")
    except OSError as error:
        assert "symbolic links" in str(error) and Path(error.filename).name == link.name
    assert precious.read_text() == PRECIOUS


def test_a_draft(tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / ".job.json.7").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        text_files.replace_text(tmp_path / "job.json", "{}")
    assert precious.read_text() == PRECIOUS


@pytest.mark.parametrize("place", [".pack/lock", ".pack"])
def test_a_folder_that_is_packed_into(tmp_path: Path, precious: Path, place: str) -> None:
    out = tmp_path / "out"
    (out / ".pack").mkdir(parents=True)
    if place == ".pack":
        (out / ".pack").rmdir()
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "x.tmp").write_text(PRECIOUS)
        (out / ".pack").symlink_to(tmp_path / "theirs")
    else:
        (out / place).symlink_to(precious)
    with pytest.raises(DataError, match=f"{out}/{place} is a link"):
        pack(label_source(tmp_path / "source", 1), out)
    assert precious.read_text() == PRECIOUS
    if place == ".pack":
        assert (tmp_path / "theirs" / "x.tmp").read_text() == PRECIOUS


@pytest.mark.parametrize("name", ["lock", "index.json.tmp", "manifest.json.tmp"])
def test_a_folder_that_is_indexed(tmp_path: Path, precious: Path, name: str) -> None:
    folder = tmp_path / "tars"
    street_tars(folder)
    (folder / ".index").mkdir()
    (folder / ".index" / name).symlink_to(precious)
    try:
        index_shards([str(folder)], members={})
    except DataError as error:
        assert f"{name} is a link" in str(error)
    assert precious.read_text() == PRECIOUS
