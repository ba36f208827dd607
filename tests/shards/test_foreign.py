"""Tars of other programs become sets where they lie."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.foreign import Indexed, index_shards
from shards.foreign_domains import domain_folders, index_domains
from shards.images import decode_sample
from shards.index import ShardSet, open_domain, open_shards
from shards.reader import Reader
from shards.records import DataError
from shards.tar_names import MAX_NAMES, expand
from shards.verify import verify
from tests.shards.foreign import label, photo, street_tars, write_tar
from tests.shards.sources import contents, encoded


def index(*shards: object, **members: str) -> Indexed:
    return index_shards([str(given) for given in shards], members=members, workers=1)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars of three samples, not indexed; tests must not change it."""
    return street_tars(tmp_path_factory.mktemp("foreign") / "streets")


@pytest.fixture
def copy(streets: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(streets, tmp_path / "copy"))


def test_foreign_tars_become_a_set_and_stay_as_they_are(copy):
    before = contents(copy)
    indexed = index(copy)
    after = contents(copy)
    assert {name: data for name, data in after.items() if name.endswith(".tar")} == before
    assert after.keys() - before.keys() == {"index.json", "manifest.json"}
    assert indexed.is_new and indexed.others == {"json": 6}
    assert indexed.endings == {"jpg": "image", "seg.png": "label"}
    shard_set = open_shards(copy)
    assert shard_set.layout == "labels" and shard_set.members == ("label", "image")
    assert shard_set.keys == tuple(f"city/{number:03d}" for number in range(6))
    assert shard_set.sizes == ((16, 8, 6),)
    reader = Reader(shard_set)
    for sample in range(6):
        files = reader.read(sample)
        assert files == {"label": label(sample), "image": photo(sample)}
        pixels = decode_sample(files, shard_set.names(sample))
        original = Image.open(io.BytesIO(photo(sample))).convert("RGB")
        assert (pixels["image"] == np.asarray(original)).all()
    assert verify(copy, workers=1).problems == ()


def test_any_number_of_processes_writes_the_same_index(streets, copy, tmp_path):
    index(copy)
    reports = []
    other = Path(shutil.copytree(streets, tmp_path / "other"))
    index_shards(
        [str(other)], members={}, workers=2, progress=lambda *report: reports.append(report)
    )
    assert contents(other) == contents(copy)
    assert (2, 2, "shards") in reports and reports[-1] == (6, 6, "samples")


def test_a_packed_set_indexes_to_what_pack_wrote(packed: ShardSet, tmp_path):
    copy = Path(shutil.copytree(packed.store.path, tmp_path / "copy"))
    (copy / "index.json").unlink()
    (copy / "manifest.json").unlink()
    index(copy)
    assert contents(copy) == contents(packed.store.path)


def test_the_same_index_again_changes_nothing_another_is_refused(copy):
    index(copy)
    times = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert not index(copy).is_new
    assert {path: path.stat().st_mtime_ns for path in copy.iterdir()} == times
    write_tar(copy / "train-0002.tar", [("new.jpg", photo(9)), ("new.seg.png", label(9))])
    with pytest.raises(DataError, match="manifest.json is of other tars.* delete it"):
        index(copy)
    (copy / "manifest.json").unlink()
    assert index(copy).shard_set.num_samples == 7


def test_an_index_of_an_older_version_is_replaced(copy):
    index(copy)
    whole = contents(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"version": 1}))
    assert index(copy).is_new
    assert contents(copy) == whole


@pytest.mark.parametrize("name", ["index.json", "manifest.json"])
def test_what_other_programs_call_so_is_left_alone(name, copy):
    (copy / name).write_text('{"shards": [], "version": 2}')
    with pytest.raises(DataError, match=f"{name} was written by another program"):
        index(copy)
    assert (copy / name).read_text() == '{"shards": [], "version": 2}'


def test_an_unfinished_set_and_a_second_indexer_are_refused(copy):
    (copy / ".pack").mkdir()
    with open(copy / ".pack/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="in use by another"):
            index(copy)
    (copy / ".pack/000000.tar.json").write_text("{}")
    with pytest.raises(DataError, match="is an unfinished set"):
        index(copy)


def test_the_shards_may_be_named_in_any_way(copy, monkeypatch):
    one, two = copy / "train-0000.tar", copy / "train-0001.tar"
    assert index(copy / "train-{0000..0001}.tar").is_new
    monkeypatch.chdir(copy)
    for shards in ([two, one], [copy / "train-{0001,0000}.tar"], ["."], ["train-000{0..1}.tar"]):
        assert not index(*shards).is_new


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("a.tar", ["a.tar"]),
        ("t-{08..11}.tar", ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{x}{}", ["{x}{}"]),
        ("{a..b}", ["{a..b}"]),
    ],
)
def test_braces_stand_for_what_they_do_in_bash(pattern, names):
    assert expand(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..99999999999}", "{1..1000}{1..1000}"])
def test_too_many_names_are_refused_at_once(pattern):
    with pytest.raises(DataError, match=f"more than {MAX_NAMES} names"):
        expand(pattern)


def test_wrong_places_are_refused(copy, tmp_path):
    for given, expected in (
        ((), "no shards are named"),
        ((tmp_path / "absent.tar",), "absent.tar is no file"),
        ((copy / "train-{0000..0002}.tar",), "train-0002.tar is no file"),
        ((copy / "train-0000.tar",), "also holds train-0001.tar"),
        ((tmp_path,), "holds no .*tar"),
        (("http://host/a.tar",), "must be on a disk"),
    ):
        with pytest.raises(DataError, match=expected):
            index(*given)
    other = write_tar(tmp_path / "other/a.tar", [("0.jpg", photo(0))])
    with pytest.raises(DataError, match="are several folders"):
        index(copy, other)
    os.rename(other, tmp_path / "other/a b.tar")
    with pytest.raises(DataError, match="'a b.tar' cannot be a shard"):
        index(tmp_path / "other")


A, B, C = photo(0), photo(1), label(2)


@pytest.mark.parametrize(
    "files, asked, layout, members",
    [
        (["0.jpg", "0.cls"], {}, "images", {"image": "jpg"}),
        (["0.png", "1.jpg", "2.JPEG"], {}, "images", {"image": "png jpg jpeg"}),
        (["0.a.jpg", "0.b.jpg"], {}, "pairs", {"a": "a.jpg", "b": "b.jpg"}),
        (["0.ab.jpg"], {}, "side-by-side", {"ab": "ab.jpg"}),
        (["0.x.jpg", "0.y.jpg"], {"a": "y.jpg", "b": "x.jpg"}, "pairs", {"a": "y.jpg"}),
        (["0.jpg", "0.depth.jpg"], {"image": "jpg"}, "images", {"image": "jpg"}),
        (["d.1/0.img.jpg", "d.1/.DS_Store.jpg", "__meta__/x.jpg"], {}, "images", {}),
    ],
)
def test_endings_tell_the_members(files, asked, layout, members, tmp_path):
    write_tar(tmp_path / "a.tar", [(name, A) for name in files])
    indexed = index(tmp_path, **asked)
    assert indexed.shard_set.layout == layout
    for member, endings in members.items():
        for ending in endings.split():
            assert indexed.endings[ending] == member
    assert verify(tmp_path, workers=1).problems == ()


@pytest.mark.parametrize(
    "files, asked, expected",
    [
        (["0.jpg", "0.depth.png"], {}, r"ending in .jpg \(1\), .depth.png \(1\), which does not"),
        (["0.txt"], {}, "ending in .txt"),
        (["0.label.png"], {}, "does not tell the members"),
        (["0.jpg", "0.png"], {}, "0.jpg and 0.png could both be the member image"),
        (["0.jpg", "1.cls"], {}, r"a.tar: 1 has no image \(.jpg\)"),
        (["0.seg.png", "0.jpg", "0.inst.png", "1.seg.png", "1.jpg"], {}, "1 has no inst"),
        (["0.jpg"], {"picture": "jpg"}, "'picture' is no member; choose from label, inst"),
        (["0.jpg"], {"image": "png"}, r"--members=image=png: no file .* there are .jpg \(1\)"),
        (["0.jpg"], {"a": "jpg", "b": "jpg"}, "gives one ending to two members"),
        (["0.jpg"], {"label": "jpg"}, "does not tell the members of one layout"),
    ],
)
def test_doubtful_members_are_refused(files, asked, expected, tmp_path):
    write_tar(tmp_path / "a.tar", [(name, C) for name in files])
    with pytest.raises(DataError, match=expected):
        index(tmp_path, **asked)
    assert os.listdir(tmp_path) == ["a.tar"]


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
        ([("0.jpg", b"GIF89a")], "a.tar: 0.jpg is not a PNG or JPEG"),
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


def test_folders_of_tars_become_domains(tmp_path):
    for name, numbers in (("horse", (0, 1)), ("zebra", (2,))):
        write_tar(tmp_path / name / "a.tar", [(f"{n}.jpg", photo(n)) for n in numbers])
    (tmp_path / "notes").mkdir()
    folders = domain_folders([str(tmp_path)])
    assert [folder.name for folder in folders] == ["horse", "zebra"]
    assert domain_folders([str(tmp_path / "horse")]) == domain_folders([str(tmp_path / "x")]) == []
    for _ in range(2):
        index_domains(folders, members={}, workers=1)
        assert open_domain(tmp_path, "horse").num_samples == 2
        assert verify(tmp_path, workers=1).problems == ()
    with pytest.raises(DataError, match="domains.json is of other domains"):
        index_domains(folders[:1], members={}, workers=1)
    write_tar(tmp_path / "pairs/a.tar", [("0.a.jpg", A), ("0.b.jpg", B)])
    with pytest.raises(DataError, match="pairs holds samples of layout pairs, but a domain is"):
        index_domains(domain_folders([str(tmp_path)]), members={}, workers=1)


def block(name: str, kind: bytes, size: int) -> bytes:
    return header(name, kind, size).tobuf(tarfile.GNU_FORMAT)


SPARSE = bytearray(block("0.jpg", tarfile.GNUTYPE_SPARSE, 0))
SPARSE[482] = 1  # "the map goes on in the next block", and there is none
SPARSE[148:156] = b"%06o\0 " % (sum(SPARSE[:148]) + 8 * 32 + sum(SPARSE[156:]))


@pytest.mark.parametrize(
    "data",
    [
        block("0.jpg", tarfile.REGTYPE, 0) + block(".1", tarfile.REGTYPE, -512) + bytes(1024),
        block("0", tarfile.GNUTYPE_LONGNAME, 0) * 1200 + bytes(1024),
        block("0", tarfile.GNUTYPE_LONGNAME, 2**63) + bytes(1024),
        block("0", tarfile.GNUTYPE_LONGNAME, 2**62) + bytes(1024),
        bytes(SPARSE),
        block("0.jpg", tarfile.REGTYPE, 2**40) + bytes(1024),
    ],
    ids=["round for ever", "deep", "huge", "large", "sparse", "beyond the end"],
)
def test_headers_made_to_harm(data, tmp_path):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match="a.tar"):
        index(tmp_path)


def test_labels_are_checked(copy):
    with pytest.raises(DataError, match=r"train-0000.tar: city/000.seg.png: .*label id 8"):
        index_shards([str(copy)], members={}, num_labels=8, workers=1)
    write_tar(copy / "a.tar", [("0.jpg", photo(0, (8, 8))), ("0.seg.png", C)])
    with pytest.raises(DataError, match="0.jpg is 8x8|is 16x8, but .*is 8x8"):
        index(copy)


def test_a_long_name_and_a_palette_are_no_trouble(tmp_path):
    name = "long/" * 40 + "0"
    ids = encoded(np.arange(128, dtype=np.uint8).reshape(8, 16))
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        files = [(f"{name}{number}.seg.png", ids), (f"{name}{number}.jpg", A)]
        write_tar(tmp_path / f"{number}.tar", files, format=form)
    shard_set = index(tmp_path).shard_set
    assert shard_set.keys == (name + "0", name + "1") and max(shard_set.label_ids) == 127
