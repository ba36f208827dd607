"""Tars of other programs become sets where they lie."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.indexing.index_domains import domain_folders, index_domains
from shards.indexing.index_tars import Indexed, index_shards
from shards.pack.packing import pack
from shards.pixels.images import decode_sample
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_domain, open_shards
from shards.sets.verify import verify
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
    assert tuple(shard_set.keys) == tuple(f"city/{number:03d}" for number in range(6))
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
    whole = (copy / "index.json").read_bytes()
    (copy / "index.json").unlink()
    assert index(copy).is_new and (copy / "index.json").read_bytes() == whole
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
    with pytest.raises(DataError, match=f"{name} is damaged or was written by another program"):
        index(copy)
    assert (copy / name).read_text() == '{"shards": [], "version": 2}'


def test_an_unfinished_set_and_a_second_indexer_are_refused(copy):
    (copy / ".index").mkdir()
    with open(copy / ".index/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="is being indexed by another process"):
            index(copy)
    (copy / ".pack").mkdir()
    with pytest.raises(DataError, match="is an unfinished set"):
        index(copy)


def test_pack_never_takes_tars_that_are_indexed_for_its_own(labels_source, tmp_path):
    tar = write_tar(tmp_path / "set/000001.tar", [("0.jpg", A)])

    def pack_meanwhile(done: int, total: int, unit: str) -> None:
        with pytest.raises(DataError, match="is not empty and no unfinished set"):
            pack(labels_source, tmp_path / "set", workers=1)

    index_shards([str(tmp_path / "set")], members={}, workers=1, progress=pack_meanwhile)
    assert tar.exists() and open_shards(tar.parent).num_samples == 1


A, B, C = photo(0), photo(1), label(2)


@pytest.mark.parametrize(
    "files, asked, layout, members",
    [
        (["0.jpg", "0.txt"], {}, "images", {"image": "jpg"}),
        (["0.jpg", "0.cls"], {"image": "jpg"}, "images", {"image": "jpg"}),
        (["0.png", "1.jpg", "2.JPEG"], {}, "images", {"image": "png jpg jpeg"}),
        (["0.a.jpg", "0.b.jpg"], {}, "pairs", {"a": "a.jpg", "b": "b.jpg"}),
        (["0.ab.jpg"], {}, "side-by-side", {"ab": "ab.jpg"}),
        (["0.x.jpg", "0.y.jpg"], {"a": "y.jpg", "b": "x.jpg"}, "pairs", {"a": "y.jpg"}),
        (["0.jpg", "0.depth.jpg"], {"image": "jpg"}, "images", {"image": "jpg"}),
        (["0.JPG", "0.depth.jpg"], {"image": ".JPG"}, "images", {"image": "jpg"}),
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
        (["0.jpg", "1.txt"], {}, r"a.tar: 1 has no image \(.jpg\)"),
        (["0.jpg", "1.jpg", "1.cls"], {}, r"a.tar: 0 has no cls \(.cls\)"),
        (["0.jpg", "0.cls"], {}, r"0.cls is '.*, but a class is .*--members=image=ENDING"),
        (["0.jpg"], {"attributes": "jpg"}, "'attributes' is no member; .* ab, cls"),
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


def test_folders_of_tars_become_domains(tmp_path):
    for name, numbers in (("horse", (0, 1)), ("zebra", (2,))):
        write_tar(tmp_path / name / "a.tar", [(f"{n}.jpg", photo(n)) for n in numbers])
    (tmp_path / "notes").mkdir()
    write_tar(tmp_path / "generation-000002/a.tar", [("4.jpg", photo(4))])
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
    assert tuple(shard_set.keys) == (name + "0", name + "1") and max(shard_set.label_ids) == 127


def test_classes_of_tars_are_named_by_their_numbers(tmp_path):
    files = [("a/0.jpg", photo(0)), ("a/0.cls", b"3"), ("a/1.cls", b"1"), ("a/1.jpg", photo(1))]
    write_tar(tmp_path / "a.tar", [*files, ("a/1.json", b"{}")])
    write_tar(tmp_path / "b.tar", [("b/0.cls", b"1"), ("b/0.jpg", photo(2))])
    indexed = index(tmp_path)
    assert indexed.endings == {"jpg": "image", "cls": "cls"} and indexed.others == {"json": 1}
    shard_set = open_shards(tmp_path)
    assert shard_set.layout == "labelled" and shard_set.members == ("image", "cls")
    assert shard_set.manifest.annotations == {"cls": {"0": 0, "1": 2, "2": 0, "3": 1}}
    assert Reader(shard_set).read(1) == {"image": photo(1), "cls": b"1"}
    assert verify(tmp_path, workers=1).problems == ()
    assert not index(tmp_path, image="jpg", cls="cls").is_new


def test_label_maps_with_classes_leave_the_classes_aside(tmp_path):
    write_tar(tmp_path / "a.tar", [("0.jpg", photo(0)), ("0.seg.png", label(0)), ("0.cls", b"3")])
    indexed = index(tmp_path)
    assert indexed.shard_set.layout == "labels" and indexed.others == {"cls": 1}


def test_domains_may_have_classes(tmp_path):
    for name in ("x", "y"):
        write_tar(tmp_path / name / "0.tar", [("0.jpg", photo(0)), ("0.cls", b"3")])
    index_domains(domain_folders([str(tmp_path)]), members={}, workers=1)
    assert open_domain(tmp_path, "y").layout == "labelled"
