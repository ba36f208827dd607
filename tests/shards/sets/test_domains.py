"""A source of several domains: packed into one folder, whole or not at all, and checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from shards.pack import packing as pack_module
from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.domains import DOMAINS_FILE, read_domains
from shards.sets.reader import Reader
from shards.sets.shard_set import open_domain, open_shards
from shards.sets.verify import verify
from shards.storage.opening import open_store
from shards.storage.sealed import fingerprint_of
from tests.shards.sources import (
    contents,
    domain_source,
    encoded,
    flip_byte,
    label_source,
    png,
    save,
)


@pytest.fixture(scope="module")
def unpaired_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five grey pictures of 1.1 MiB in A, three of colour in B: each is a shard of one MiB."""
    folder = tmp_path_factory.mktemp("unpaired")
    random = np.random.default_rng(0)
    for side, number, shape in (("A", 5, (1200, 960)), ("B", 3, (600, 640, 3))):
        for n in range(number):
            photo = random.integers(0, 256, shape, dtype=np.uint8)
            save(folder / f"train{side}" / f"{side}{n}.png", photo)
    return folder


@pytest.fixture(scope="module")
def whole(unpaired_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source above, packed at once; tests must not change it."""
    out = tmp_path_factory.mktemp("whole") / "set"
    pack(unpaired_source, out, shard_mib=1, workers=1)
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_each_domain_is_a_set_and_domains_json_lists_them(unpaired_source, whole):
    assert sorted(path.name for path in whole.iterdir()) == ["A", "B", DOMAINS_FILE]
    listed = json.loads((whole / DOMAINS_FILE).read_text())
    assert (listed["format"], listed["version"]) == ("organza-domains", 1)
    for entry, name, num_samples in zip(listed["domains"], "AB", (5, 3), strict=True):
        shard_set = open_domain(whole, name)
        assert entry == {"name": name, "fingerprint": shard_set.fingerprint}
        assert (shard_set.layout, shard_set.members) == ("images", ("image",))
        assert shard_set.num_samples == num_samples == len(shard_set.manifest.shards)
        assert tuple(shard_set.keys) == tuple(f"{name}{n}" for n in range(num_samples))
        data = (unpaired_source / f"train{name}" / f"{name}1.png").read_bytes()
        assert Reader(shard_set).read(1) == {"image": data}


def test_workers_change_no_byte_and_progress_counts_all_domains(unpaired_source, whole, tmp_path):
    reports = []
    sets = pack(
        unpaired_source,
        tmp_path / "out",
        shard_mib=1,
        workers=2,
        progress=lambda *report: reports.append(report),
    )
    assert contents(tmp_path / "out") == contents(whole)
    assert [found.store.path for found in sets] == [tmp_path / "out/A", tmp_path / "out/B"]
    assert reports[-1] == (8, 8, "samples")


def test_class_folders_become_domains(tmp_path):
    source = domain_source(tmp_path / "source", zebra=2, horse=3, giraffe=1)
    pack(source, tmp_path / "out", layout="classes", workers=1)
    assert list(read_domains(open_store(tmp_path / "out"))) == ["giraffe", "horse", "zebra"]
    assert open_domain(tmp_path / "out", "horse").num_samples == 3


def test_packing_again_changes_nothing_and_refuses_other_images(unpaired_source, whole, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    again = pack(unpaired_source, whole, shard_mib=1, workers=1)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert [found.fingerprint for found in again] == list(read_domains(open_store(whole)).values())
    other = Path(shutil.copytree(unpaired_source, tmp_path / "other"))
    (other / "trainB/B2.png").unlink()
    with pytest.raises(DataError, match="already holds what was packed from other images"):
        pack(other, whole, shard_mib=1, workers=1)
    classes = put_as_classes(unpaired_source, tmp_path / "classes")
    with pytest.raises(DataError, match="already holds what was packed from other images"):
        pack(classes, whole, layout="classes", shard_mib=1, workers=1)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def put_as_classes(source: Path, folder: Path) -> Path:
    for side, name in (("trainA", "A"), ("trainB", "B"), ("trainB", "C")):
        shutil.copytree(source / side, folder / "train" / name)
    return folder


@pytest.mark.parametrize("done", range(1, 9))
def test_an_interrupted_packing_goes_on_where_it_was(unpaired_source, whole, tmp_path, done):
    def interrupt_there(count: int, total: int, unit: str) -> None:
        if count == done:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack(unpaired_source, out, shard_mib=1, workers=1, progress=interrupt_there)
    assert not (out / DOMAINS_FILE).exists()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert len(kept) == done - 1
    with pytest.raises(DataError, match="no finished set"):
        open_domain(out, "A")
    pack(unpaired_source, out, shard_mib=1, workers=1)
    assert contents(out) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_finished_sets_without_the_list_are_no_finished_folder(
    unpaired_source, whole, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pack_module, "write_domains", interrupt)
        pack(unpaired_source, out, shard_mib=1, workers=1)
    open_shards(out / "B")
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    pack(unpaired_source, out, shard_mib=1, workers=1)
    assert contents(out) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_sets_are_unfinished_again_once_their_packing_goes_on(
    unpaired_source, tmp_path, monkeypatch
):
    source = Path(shutil.copytree(unpaired_source, tmp_path / "source"))
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pack_module, "write_domains", interrupt)
        pack(source, out, shard_mib=1, workers=1)
    (source / "trainB/B1.png").write_bytes(b"x")
    with pytest.raises(DataError, match="B1.png is not"):
        pack(source, out, shard_mib=1, workers=1)
    for name in "AB":
        with pytest.raises(DataError, match="holds no manifest.json"):
            open_shards(out / name)


def test_a_bad_file_is_named_and_leaves_no_list(unpaired_source, tmp_path):
    source = Path(shutil.copytree(unpaired_source, tmp_path / "source"))
    (source / "trainB/B1.png").write_bytes(b"x")
    for workers in (1, 2):
        with pytest.raises(DataError, match="trainB/B1.png is not a PNG, JPEG or WebP image"):
            pack(source, tmp_path / "out", shard_mib=1, workers=workers)
    assert not (tmp_path / "out" / DOMAINS_FILE).exists()


def test_sets_of_an_interrupted_run_on_other_folders_are_not_mixed_in(tmp_path):
    (tmp_path / "out/.pack").mkdir(parents=True)
    (tmp_path / "out/C").mkdir()
    for source in (
        domain_source(tmp_path / "source", trainA=1, trainB=1),
        label_source(tmp_path / "labels", 1),
    ):
        with pytest.raises(DataError, match="out/C is no part of what is packed into .*delete it"):
            pack(source, tmp_path / "out", workers=1)
    (tmp_path / "out/C").rmdir()
    (tmp_path / "out/000000.tar").write_bytes(b"of labels")
    with pytest.raises(DataError, match="out/000000.tar is no part of"):
        pack(tmp_path / "source", tmp_path / "out", workers=1)


def test_a_folder_of_domains_is_not_packed_over_by_one_set_nor_the_other_way_round(copy, tmp_path):
    with pytest.raises(DataError, match="already holds what was packed .* --replace=yes"):
        pack(label_source(tmp_path / "labels", 1), copy, workers=1)
    pack(tmp_path / "labels", tmp_path / "set", workers=1)
    with pytest.raises(DataError, match="already holds what was packed .* --replace=yes"):
        pack(domain_source(tmp_path / "s", trainA=1, trainB=1), tmp_path / "set", workers=1)


def test_verify_reads_all_domains(whole):
    summary = verify(whole, workers=2)
    assert (summary.num_samples, summary.num_shards, summary.problems) == (8, 8, ())
    assert summary.num_bytes == sum(path.stat().st_size for path in whole.rglob("*.tar"))


def test_verify_lists_the_problems_of_every_domain(copy):
    flip_byte(copy / "B/000001.tar", 5000)
    (copy / "A/000002.tar").unlink()
    problems = verify(copy, workers=1).problems
    assert any("A/000002.tar is missing" in problem for problem in problems)
    assert any("B/000001.tar was altered after packing" in problem for problem in problems)
    (copy / "A/manifest.json").unlink()
    problems = verify(copy, workers=1).problems
    assert any("copy/A holds no manifest.json" in problem for problem in problems)
    assert any("B/000001.tar was altered after packing" in problem for problem in problems)


def test_a_domain_that_was_exchanged_is_found(copy, tmp_path):
    shutil.rmtree(copy / "B")
    shutil.copytree(copy / "A", copy / "B")
    expected = "copy/B is not the set that .*domains.json lists .their fingerprints differ"
    with pytest.raises(DataError, match=expected):
        open_domain(copy, "B")
    open_domain(copy, "A")
    (problem,) = verify(copy, workers=1).problems
    assert "fingerprints differ" in problem


def rewrite(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content | {"fingerprint": fingerprint_of(content)}))


def test_an_altered_or_foreign_list_is_refused(copy):
    file = copy / DOMAINS_FILE
    good = file.read_text()
    file.write_text(good.replace('"B"', '"C"'))
    with pytest.raises(DataError, match="domains.json was altered after packing"):
        read_domains(open_store(copy))
    file.write_text(good[:-30])
    with pytest.raises(DataError, match="domains.json cannot be read"):
        read_domains(open_store(copy))
    file.write_text("[]")
    with pytest.raises(DataError, match="is not the domains of a packed set"):
        verify(copy)
    file.write_text(good)
    rewrite(file, version=2)
    with pytest.raises(DataError, match="format version 2, but this program reads 1"):
        read_domains(open_store(copy))


def test_a_listed_name_leads_nowhere_else(copy):
    manifest = json.loads((copy / "A/manifest.json").read_text())
    entry = {"name": "../copy/A", "fingerprint": manifest["fingerprint"]}
    rewrite(copy / DOMAINS_FILE, domains=[entry])
    with pytest.raises(DataError, match="cannot be a domain"):
        open_domain(copy, "../copy/A")


def test_conversions_are_counted_by_domain_kept_and_verified(tmp_path):
    source = domain_source(tmp_path / "source", trainA=3, trainB=4)
    grey = np.random.default_rng(0).integers(0, 256, (8, 10), dtype=np.uint8)
    for number in range(3):
        save(source / f"trainA/trainA-{number}.png", grey)
    (source / "trainB/trainB-1.png").write_bytes(encoded(grey, mode="RGB"))
    (source / "trainB/trainB-2.png").write_bytes(encoded(np.zeros((8, 10, 3), "u1"), mode="RGBA"))
    (source / "trainB/trainB-3.png").write_bytes(png(np.zeros((8, 30), "u2"), 16, 2))
    sets = pack(source, tmp_path / "out", workers=1)
    assert [found.manifest.conversions["image"] for found in sets] == [
        {"grey": 3},
        {"16-bit RGB": 1, "RGB with opaque alpha": 1},
    ]
    assert verify(tmp_path / "out", workers=1).problems == ()
    content = json.loads((tmp_path / "out/A/manifest.json").read_text())
    rewrite(tmp_path / "out/A/manifest.json", conversions={})
    listed = json.loads((tmp_path / "out" / DOMAINS_FILE).read_text())["domains"]
    listed[0]["fingerprint"] = fingerprint_of(content | {"conversions": {}})
    rewrite(tmp_path / "out" / DOMAINS_FILE, domains=listed)
    (problem,) = verify(tmp_path / "out", workers=1).problems
    assert "totals in the manifest are not those of the shards" in problem
