"""DALI's index files: their format as NVIDIA documents it, every byte compared with the tars."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from shards.indexing.dali import write_dali
from shards.indexing.index_tars import index_shards
from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.shard_set import ShardSet, open_shards
from shards.sets.verify import verify
from tests.shards.foreign import photo, street_tars, write_tar
from tests.shards.sources import domain_source

Component = tuple[str, int, int, str]


def parse(path: Path) -> list[list[Component]]:
    """An index as DALI's reader takes it: blanks separate, lines are samples, and offsets are those
    of tar blocks."""
    head, *lines = path.read_text().splitlines()
    version, count = head.split()
    assert version == "v1.2" and int(count) == len(lines) > 0
    samples = []
    for line in lines:
        words = line.split()
        assert len(words) % 4 == 0
        offsets, sizes = map(int, words[1::4]), map(int, words[2::4])
        samples.append(list(zip(words[0::4], offsets, sizes, words[3::4], strict=True)))
    for _, offset, _, _ in (component for sample in samples for component in sample):
        assert offset % 512 == 0
    return samples


def check(idx: Path, shard: Path) -> list[list[Component]]:
    """The samples of an index, once it lists every file of the tar in order with its bytes."""
    samples = parse(idx)
    data = shard.read_bytes()
    components = [component for sample in samples for component in sample]
    with tarfile.open(shard) as tar:
        entries = tar.getmembers()
        assert [name for *_, name in components] == [entry.name for entry in entries]
        for (suffix, offset, size, name), entry in zip(components, entries, strict=True):
            assert data[offset : offset + size] == tar.extractfile(entry).read()
            folder, _, base = name.rpartition("/")
            assert base.split(".", 1)[1] == suffix
    for sample in samples:
        assert len({name.rpartition("/")[2].split(".")[0] for *_, name in sample}) == 1
    return samples


def test_packed_shards_are_told_to_dali(packed: ShardSet, tmp_path):
    (idx,) = write_dali(packed, tmp_path / "out")
    assert idx == tmp_path / "out/000000.idx"
    samples = check(idx, packed.store.path / "000000.tar")
    assert len(samples) == 13
    assert {suffix for suffix, *_ in samples[0]} == {"image.png", "inst.png", "label.png"}


def test_foreign_shards_are_told_with_all_their_files(tmp_path):
    street_tars(tmp_path)
    shard_set = index_shards([str(tmp_path)], members={}, workers=1).shard_set
    paths = write_dali(shard_set, tmp_path)
    assert [path.name for path in paths] == ["train-0000.idx", "train-0001.idx"]
    for path in paths:
        samples = check(path, path.with_suffix(".tar"))
        assert [suffix for suffix, *_ in samples[0]] == ["jpg", "json", "seg.png"]
    # Beside the tars they disturb nothing, and are written again.
    assert open_shards(tmp_path).num_samples == 6
    assert verify(tmp_path, workers=1).problems == ()
    assert write_dali(shard_set, tmp_path) == paths


def test_what_the_format_cannot_hold_is_refused(packed: ShardSet, tmp_path):
    write_tar(tmp_path / "a.tar", [("my photo.jpg", photo(0))])
    shard_set = index_shards([str(tmp_path)], members={}, workers=1).shard_set
    with pytest.raises(DataError, match="a.tar: 'my photo.jpg' has blanks"):
        write_dali(shard_set, tmp_path)
    copy = Path(shutil.copytree(packed.store.path, tmp_path / "copy"))
    (copy / "000000.idx").write_bytes(b"of another program")
    with pytest.raises(DataError, match="000000.idx is no index for DALI"):
        write_dali(open_shards(copy), copy)
    assert (copy / "000000.idx").read_bytes() == b"of another program"


def test_classes_are_told_to_dali(tmp_path):
    source = domain_source(tmp_path / "source", cat=1, dog=1)
    (labelled,) = pack(source, tmp_path / "set", layout="labelled", workers=1)
    (idx,) = write_dali(labelled, tmp_path / "out")
    first, second = check(idx, tmp_path / "set/000000.tar")
    assert {suffix for suffix, *_ in first} == {"image.png", "cls"}
