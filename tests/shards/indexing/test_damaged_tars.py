"""Foreign tars that are cut, joined, compressed, or made to harm: each is refused by name."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from shards.indexing.index_tars import index_shards
from shards.indexing.tar_samples import tar_samples
from shards.records import DataError
from shards.storage.tars import tar_files
from tests.shards.foreign import label, photo, street_tars, write_tar

pytestmark = pytest.mark.usefixtures("in_time")
A, B, C = photo(0), photo(1), label(2)


def index(folder: Path) -> None:
    index_shards([str(folder)], members={}, workers=1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return street_tars(tmp_path / "copy")


def header(name: str, kind: bytes, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, "/etc/passwd", size
    return entry


@pytest.mark.parametrize(
    "files, expected",
    [
        ([("0.jpg", A), ("1.jpg", A), ("0.seg.png", C)], "'0' are not next to each other"),
        ([("0.jpg", A), ("0.jpg", B)], "holds '0.jpg' twice"),
        ([("0.jpg", A), ("1.jpg", B), ("0.JPG", B)], "holds '0.jpg' twice"),
        ([("../0.jpg", A)], "'../0.jpg' leads out of the folder"),
        ([("/0.jpg", A)], "'/0.jpg' leads out"),
        ([("0\n.jpg", A)], "unprintable characters"),
        ([("0.jpg", A), (header("1.jpg", tarfile.SYMTYPE), b"")], "'1.jpg' is a link"),
        ([("0.jpg", A), (header("1.jpg", tarfile.LNKTYPE), b"")], "'1.jpg' is a link"),
        ([("0.jpg", A), (header("1.jpg", tarfile.CHRTYPE), b"")], "'1.jpg' is a link, a device"),
        ([("0.jpg", A[:200])], "a.tar: 0.jpg is truncated or corrupt"),
        ([("0.jpg", b"GIF89a")], "a.tar: 0.jpg is not a PNG, JPEG or WebP"),
        ([(".hidden", b"x")], "holds no samples"),
        ([], "holds no samples"),
    ],
)
def test_bad_tars_are_refused_by_name(files, expected, tmp_path):
    shard = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=expected) as caught:
        index(tmp_path)
    assert str(shard) in str(caught.value)
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_key_in_two_shards(copy):
    shutil.copy(copy / "train-0001.tar", copy / "train-0002.tar")
    expected = "train-0002.tar and train-0001.tar both hold the key 'city/003'"
    with pytest.raises(DataError, match=expected):
        index(copy)


def test_every_cut_is_seen(copy):
    """Behind each header, each content, in the end of the archive: other readers see no error."""
    shard = copy / "train-0000.tar"
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        entries = tar.getmembers()
    ends = [entry.offset for entry in entries[1:]] + [entry.offset_data for entry in entries]
    last = entries[-1].offset_data + 512
    for end in (*ends, last, last + 512, *(end + 100 for end in ends)):
        shard.write_bytes(whole[:end])
        with pytest.raises(DataError, match="train-0000.tar"):
            index(copy)
    shard.write_bytes(whole[: last + 1024])
    index(copy)


def test_tars_that_were_joined_or_compressed(copy):
    shard = copy / "train-0001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole + (copy / "train-0000.tar").read_bytes())
    with pytest.raises(DataError, match="goes on behind its end"):
        index(copy)
    shard.write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="is compressed with gzip.*gunzip"):
        index(copy)
    shard.rename(copy / "train-0001.tar.gz")
    with pytest.raises(DataError, match="train-0001.tar.gz is compressed"):
        index(copy)


def block(name: str, kind: bytes, size: int) -> bytes:
    return header(name, kind, size).tobuf(tarfile.GNU_FORMAT)


SPARSE = bytearray(block("0.jpg", tarfile.GNUTYPE_SPARSE, 0))
SPARSE[482] = 1  # "the map goes on in the next block", and there is none
SPARSE[148:156] = b"%06o\0 " % (sum(SPARSE[:148]) + 8 * 32 + sum(SPARSE[156:]))


MAPPED = header("0.jpg", tarfile.REGTYPE, 2**21)
MAPPED.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
MAPPED = MAPPED.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize(
    "data",
    [
        block("0.jpg", tarfile.REGTYPE, 0) + block(".1", tarfile.REGTYPE, -512) + bytes(1024),
        block("0", tarfile.GNUTYPE_LONGNAME, 0) * 1200 + bytes(1024),
        block("0", tarfile.GNUTYPE_LONGNAME, 2**63) + bytes(1024),
        block("0", tarfile.GNUTYPE_LONGNAME, 2**62) + bytes(1024),
        bytes(SPARSE),
        block("0.jpg", tarfile.REGTYPE, 2**40) + bytes(1024),
        block("0", tarfile.XHDTYPE, 2**20) + b"1" * 2**20 + bytes(1024),
        block("0", tarfile.XGLTYPE, 2**20) + b"1" * 2**20 + bytes(1024),
    ],
    ids=[
        *("round for ever", "deep", "huge", "large", "sparse", "beyond the end"),
        *("digits", "digits for all"),
    ],
)
def test_headers_made_to_harm(data, tmp_path):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match="a.tar"):
        index(tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (block("0", tarfile.GNUTYPE_LONGNAME, 2**28), "a header of 268435456 bytes, more than"),
        (block("0", tarfile.GNUTYPE_LONGLINK, 2**28), "a header of 268435456 bytes, more than"),
        (block("0", tarfile.GNUTYPE_LONGNAME, -512), "a header of -512 bytes"),
        (MAPPED + b"900000\n" + b"0\n" * 1_800_000, "'0.jpg' is a link, a device or a sparse file"),
    ],
    ids=["long name", "long link", "all that follows", "a map of a million holes"],
)
def test_no_header_takes_memory(data, words, tmp_path):
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(data)
        file.truncate(2**28 + 1536)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"a.tar: {words}"):
            tar_samples(tmp_path / "a.tar")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_long_names_and_attributes_are_read(tmp_path):
    name = "/".join(["a" * 99] * 40) + "/0.jpg"
    entry = header(name, tarfile.REGTYPE, len(A))
    entry.pax_headers = {"SCHILY.xattr.user.note": "x" * 1000}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        shard = write_tar(tmp_path / "a.tar", [(entry, A)], format=form)
        assert [sample.files["jpg"].name for sample in tar_samples(shard)] == [name]


def test_global_headers_are_few(tmp_path: Path) -> None:
    """Each of them is copied for every file behind it that has a header of its own."""
    path = tmp_path / "many.tar"
    with path.open("wb") as file:
        for number in range(200):
            words = tarfile.TarInfo.create_pax_global_header({f"word{number}": "x"})
            file.write(words + tarfile.TarInfo(f"{number}.jpg").tobuf())
        file.write(bytes(1024))
    with path.open("rb") as file, pytest.raises(DataError, match="more than 100 global headers"):
        list(tar_files(file, "many.tar"))
