"""Whatever was altered, cut, lost or told wrongly in a set is found."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zlib
from pathlib import Path

import pytest

from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.shard_set import open_shards
from shards.sets.verify import verify
from shards.storage.sealed import fingerprint_of
from tests.shards.sources import flip_byte, label_source


@pytest.fixture(scope="module")
def three_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    source = label_source(folder / "source", 5, size=(384, 256))
    pack(source, folder / "set", shard_mib=1, workers=1)
    return folder / "set"


@pytest.fixture
def copy(three_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three_shards, tmp_path / "copy"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_whole_set(three_shards, workers):
    reports = []
    summary = verify(three_shards, workers=workers, progress=lambda *report: reports.append(report))
    assert summary.problems == ()
    assert (summary.num_samples, summary.num_shards) == (5, 3)
    assert summary.num_bytes == sum(path.stat().st_size for path in three_shards.glob("*.tar"))
    assert reports[-1] == (5, 5, "samples")


def test_every_flipped_byte_is_found(copy):
    shard = copy / "000001.tar"
    original = shard.read_bytes()
    entry = tarfile.open(shard).getmembers()[1]
    last = len(original) - 1
    for position in (5, entry.offset + 3, entry.offset_data, entry.offset_data + 900, last):
        flip_byte(shard, position)
        problems = verify(copy, workers=1).problems
        assert any("000001.tar was altered" in problem for problem in problems), position
        shard.write_bytes(original)
    flip_byte(shard, entry.offset_data + 900)
    assert any(f"{entry.name} was cut or altered" in p for p in verify(copy, workers=1).problems)


def test_shards_cut_missing_and_unknown_are_all_listed(copy):
    with open(copy / "000000.tar", "r+b") as shard:
        shard.truncate(tarfile.open(copy / "000000.tar").getmembers()[3].offset)
    (copy / "000001.tar").unlink()
    shutil.copy(copy / "000002.tar", copy / "000009.tar")
    problems = verify(copy, workers=1).problems
    assert len(problems) == 3
    for expected in ("000000.tar has", "000001.tar is missing", "000009.tar is missing from the"):
        assert any(expected in problem for problem in problems), problems


def commit(folder: Path, change: dict[str, object]) -> None:
    """Rewrite the manifest with a right fingerprint: damage only a full check can see."""
    content = json.loads((folder / "manifest.json").read_text()) | change
    content["fingerprint"] = fingerprint_of(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_totals_that_lie(copy):
    content = json.loads((copy / "manifest.json").read_text())
    content["label_ids"]["3"]["pixels"] += 1
    commit(copy, {"label_ids": content["label_ids"]})
    open_shards(copy)
    (problem,) = verify(copy, workers=1).problems
    assert "totals in the manifest are not those of the shards" in problem


def test_a_tar_that_holds_other_files_than_the_index(copy):
    # The contents stay where they are: only a name changes, and sha256 with it.
    shard = copy / "000002.tar"
    data = shard.read_bytes()
    entry = tarfile.open(shard).getmembers()[0]
    renamed = tarfile.TarInfo(entry.name.replace("image", "imagf"))
    renamed.size, renamed.mode = entry.size, entry.mode
    header = renamed.tobuf(tarfile.GNU_FORMAT)
    assert len(header) == entry.offset_data - entry.offset
    shard.write_bytes(data[: entry.offset] + header + data[entry.offset_data :])
    content = json.loads((copy / "manifest.json").read_text())
    content["shards"][2]["sha256"] = hashlib.sha256(shard.read_bytes()).hexdigest()
    commit(copy, {"shards": content["shards"]})
    (problem,) = verify(copy, workers=1).problems
    assert "000002.tar does not hold the files that the index lists" in problem


def test_a_shard_of_zeros(copy):
    size = (copy / "000001.tar").stat().st_size
    (copy / "000001.tar").write_bytes(bytes(size))
    problems = verify(copy, workers=1).problems
    assert any("does not hold the files" in problem for problem in problems)


def test_what_is_no_set_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no manifest.json"):
        verify(tmp_path)


def test_a_listed_image_that_does_not_decode(copy):
    # As if it was packed by another program: index, sha256 and crc32 all agree with a bad file.
    shard_set = open_shards(copy)
    shard = copy / "000000.tar"
    column = shard_set.index["image"]
    start, size = int(column.offsets[0]), int(column.sizes[0])
    data = bytearray(shard.read_bytes())
    data[start : start + size] = b"x" * size
    shard.write_bytes(data)
    index = json.loads((copy / "index.json").read_text())
    index["members"]["image"]["crc32"][0] = zlib.crc32(b"x" * size)
    (copy / "index.json").write_text(json.dumps(index))
    content = json.loads((copy / "manifest.json").read_text())
    content["shards"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256((copy / "index.json").read_bytes()).hexdigest()
    commit(copy, {"shards": content["shards"], "index_sha256": digest})
    (problem,) = verify(copy, workers=1).problems
    assert "000.image.png is not a PNG, JPEG or WebP image" in problem
