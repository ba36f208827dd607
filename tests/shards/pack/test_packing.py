"""Packing: the same bytes always, read by stock webdataset, whatever ended it on the way."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.pack import workplace
from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.shard_set import open_shards
from tests.processes import patience
from tests.shards.sources import (
    ROOT,
    alive,
    contents,
    descendants,
    encoded,
    label_source,
    pair_source,
    save,
)


def test_the_bytes_do_not_depend_on_the_workers(large_source, large_set, tmp_path):
    reports = []
    out = tmp_path / "out"
    (shard_set,) = pack(
        large_source, out, shard_mib=1, workers=2, progress=lambda *report: reports.append(report)
    )
    assert contents(out) == contents(large_set.store.path)
    assert len(shard_set.manifest.shards) == 28 == shard_set.num_samples
    assert reports[-1] == (28, 28, "samples")
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)


def test_stock_webdataset_reads_the_pixels(labels_source, packed):
    url = str(packed.store.path / "000000.tar")
    raw = webdataset.WebDataset(url, shardshuffle=False)
    samples = list(raw.to_tuple("__key__", "label.png", "inst.png", "image.png"))
    assert [key for key, *_ in samples] == list(packed.keys)
    for key, *files in samples:
        for folder, data in zip(("label", "inst", "img"), files, strict=True):
            assert data == (labels_source / f"train_{folder}" / f"{key}.png").read_bytes()
    decoded = webdataset.WebDataset(url, shardshuffle=False).decode("pil")
    for key, label, image in decoded.to_tuple("__key__", "label.png", "image.png"):
        for folder, pixels in (("label", label), ("img", image)):
            original = Image.open(labels_source / f"train_{folder}" / f"{key}.png").convert("RGB")
            assert (np.asarray(pixels) == np.asarray(original)).all(), (key, folder)


def test_stock_webdataset_reads_many_shards_by_a_pattern(large_source, large_set):
    """Two lines, as its manual has them."""
    url = str(large_set.store.path / "{000000..000027}.tar")
    dataset = webdataset.WebDataset(url, shardshuffle=False).decode("rgb8")
    samples = list(dataset.to_tuple("__key__", "image.png;image.jpg", "label.png"))
    assert [key for key, *_ in samples] == list(large_set.keys)
    for key, image, label in samples[::9]:
        assert (image == np.asarray(Image.open(large_source / f"train_img/{key}.png"))).all()
        ids = np.asarray(Image.open(large_source / f"train_label/{key}.png"))
        assert (label == ids[..., None]).all()  # rgb8 repeats grey in three channels


def test_stock_webdataset_reads_nested_keys(tmp_path):
    for name in ("x/1", "y/1", "y/" + "long" * 40):
        for side in "AB":
            save(tmp_path / "source" / f"train_{side}" / f"{name}.jpg", np.zeros((8, 8, 3), "u1"))
    pack(tmp_path / "source", tmp_path / "out", workers=1)
    url = str(tmp_path / "out/000000.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["x/1", "y/1", "y/" + "long" * 40]
    assert {"a.jpg", "b.jpg"} <= samples[2].keys()


def test_a_jpeg_named_png_is_packed_as_what_it_is(tmp_path):
    source = pair_source(tmp_path / "source", 1)
    (source / "train_A/0.jpg").rename(source / "train_A/0.png")
    pack(source, tmp_path / "out", workers=1)
    assert open_shards(tmp_path / "out").entry_name(0, "a") == "0.a.jpg"


def test_totals_are_counted(tmp_path):
    source = tmp_path / "source"
    for key, value, size in (("a", 3, (4, 6)), ("b", 7, (4, 6)), ("c", 3, (8, 2))):
        save(source / f"train_label/{key}.png", np.full(size, value, np.uint8))
        save(source / f"train_img/{key}.png", np.zeros((*size, 3), np.uint8))
    (shard_set,) = pack(source, tmp_path / "out", workers=1)
    manifest = shard_set.manifest
    assert manifest.sizes == ((6, 4, 2), (2, 8, 1))
    assert manifest.min_size == (2, 4) and manifest.max_size == (6, 8)
    uses = {i: (use.num_pixels, use.first_key) for i, use in manifest.label_ids.items()}
    assert uses == {3: (24 + 16, "a"), 7: (24, "b")}


def test_packing_again_changes_nothing(labels_source, packed):
    before = {path: path.stat().st_mtime_ns for path in packed.store.path.iterdir()}
    (again,) = pack(labels_source, packed.store.path, workers=1)
    assert again.manifest == packed.manifest
    assert {path: path.stat().st_mtime_ns for path in packed.store.path.iterdir()} == before


def test_another_source_does_not_replace_a_finished_set(labels_source, packed, tmp_path):
    before = contents(packed.store.path)
    source = Path(shutil.copytree(labels_source, tmp_path / "source"))
    save(source / "train_label/003.png", np.zeros((8, 16), np.uint8))
    with pytest.raises(DataError, match="already holds what was packed from other images"):
        pack(source, packed.store.path, workers=1)
    assert contents(packed.store.path) == before
    with pytest.raises(DataError, match="num_labels=2"):
        pack(labels_source, packed.store.path, workers=1, num_labels=2)


PHOTO = np.zeros((8, 16, 3), np.uint8)
BAD_FILES = {
    "train_img/002.png": (encoded(np.zeros((4, 4, 3), np.uint8)), "002.png is 4x4"),
    "train_img/001.png": (encoded(PHOTO)[:60], "001.png is corrupt"),
    "train_img/003.png": (b"not an image", "003.png is not a PNG, JPEG or WebP image"),
    "train_label/001.png": (encoded(PHOTO), "001.png has mode RGB, not single-channel"),
    "train_inst/000.png": (encoded(PHOTO), "000.png has mode RGB, not single-channel"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_file_is_named_and_can_be_mended(name, workers, labels_source, packed, tmp_path):
    source = Path(shutil.copytree(labels_source, tmp_path / "source"))
    data, expected = BAD_FILES[name]
    good = (source / name).read_bytes()
    (source / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        pack(source, tmp_path / "out", workers=workers)
    assert expected in str(caught.value) and str(source / name) in str(caught.value)
    with pytest.raises(DataError, match="no finished set"):
        open_shards(tmp_path / "out")
    (source / name).write_bytes(good)
    pack(source, tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == contents(packed.store.path)


def test_workers_report_the_first_bad_file_without_a_traceback(large_source, tmp_path):
    source = Path(shutil.copytree(large_source, tmp_path / "source"))
    for number in (20, 11, 25):
        (source / f"train_img/{number:03d}.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError) as caught:
        pack(source, tmp_path / "out", shard_mib=1, workers=2)
    assert "3 of 28 samples" in str(caught.value)
    assert "011.png is truncated or corrupt" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_label_ids_are_checked(tmp_path):
    source = label_source(tmp_path / "source", 3, inst=False)
    label = np.zeros((8, 16), np.uint8)
    label[0, :5] = 35
    save(source / "train_label/001.png", label)
    with pytest.raises(DataError, match=r"train_label/001.png: 5 pixels have label id 35.* 34"):
        pack(source, tmp_path / "out", num_labels=35, workers=1)
    (shard_set,) = pack(source, tmp_path / "out", num_labels=36, workers=1)
    assert max(shard_set.label_ids) == 35


def test_shards_kept_from_a_run_with_more_labels_are_checked_too(large_source, tmp_path):
    source = Path(shutil.copytree(large_source, tmp_path / "source"))
    few = np.random.default_rng(0).integers(0, 3, (300, 512), dtype=np.uint8)
    save(source / "train_label/027.png", few)  # the only sample that is not kept
    leave_unfinished(source, tmp_path / "out")
    with pytest.raises(DataError, match="maybe others.*num_labels=3 "):
        pack(source, tmp_path / "out", shard_mib=1, workers=1, num_labels=3)


def leave_unfinished(source: Path, out: Path) -> None:
    """Pack all shards but the last, whose image is broken; then mend it."""
    last = source / "train_img/027.png"
    good = last.read_bytes()
    last.write_bytes(good[:1000] + bytes(len(good) - 1000))
    stale = out / ".pack/000099.tar.tmp"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half a shard")
    with pytest.raises(DataError, match="027.png"):
        pack(source, out, shard_mib=1, workers=1)
    assert not stale.exists()
    last.write_bytes(good)
    assert len(receipts(out)) == 27


def test_foreign_folders_are_left_alone(labels_source, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="is not empty and no unfinished set"):
        pack(labels_source, tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(DataError, match="is a file"):
        pack(labels_source, tmp_path / "thesis.tex")
    with pytest.raises(DataError, match="shard_mib=0"):
        pack(labels_source, tmp_path / "out", shard_mib=0)


def test_two_packers_do_not_meet(labels_source, tmp_path):
    out = tmp_path / "out"
    (out / ".pack").mkdir(parents=True)
    with open(out / ".pack/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="being packed by another process"):
            pack(labels_source, out, workers=1)


PACK_SCRIPT = """
import sys
from pathlib import Path
from shards.pack.packing import pack
from shards.records import DataError
if __name__ == "__main__":
    source, out, workers = sys.argv[1:]
    try:
        pack(Path(source), Path(out), shard_mib=1, workers=int(workers))
    except DataError as error:
        sys.exit(f"DataError: {error}")
"""


def start_packing(
    source: Path, out: Path, workers: int, file_limit: int | None = None
) -> subprocess.Popen[str]:
    script = out.parent / "script.py"
    script.write_text(PACK_SCRIPT)

    def limit_file_size() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.Popen(
        [sys.executable, str(script), str(source), str(out), str(workers)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit_file_size,
    )


def receipts(out: Path) -> list[Path]:
    return sorted((out / ".pack").glob("*.json"))


def interrupt(out: Path, source: Path, workers: int, signum: int) -> None:
    """End a packing process when a few shards are done; a terminal's SIGINT goes to its group."""
    process = start_packing(source, out, workers)
    try:
        patience.wait_for(
            lambda: len(receipts(out)) >= 3 or process.poll() is not None, every=0.005
        )
        family = descendants(process.pid)
        send = os.killpg if signum == signal.SIGINT else os.kill
        send(process.pid, signum)
        patience.communicate(process)
    finally:
        process.kill()
    patience.wait_for(lambda: not alive(family))
    assert process.returncode == -signum, "it finished before it was ended"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_ended_pack_goes_on(workers, signum, large_source, large_set, tmp_path):
    out = tmp_path / "out"
    interrupt(out, large_source, workers, signum)
    if signum == signal.SIGINT:
        assert not list(out.rglob("*.tmp"))
    kept = [out / path.name.removesuffix(".json") for path in receipts(out)]
    written = {path: path.stat().st_mtime_ns for path in kept}
    assert 3 <= len(kept) < 28
    with pytest.raises(DataError, match="no finished set"):
        open_shards(out)
    pack(large_source, out, shard_mib=1, workers=2)
    assert contents(out) == contents(large_set.store.path)
    assert {path: path.stat().st_mtime_ns for path in kept} == written


def test_changed_sources_and_shards_are_packed_anew(large_source, tmp_path):
    source = Path(shutil.copytree(large_source, tmp_path / "source"))
    out = tmp_path / "out"
    leave_unfinished(source, out)
    changed = source / "train_img/000.png"
    times = changed.stat()
    pixels = np.asarray(Image.open(changed)).copy()
    changed.write_bytes(encoded(pixels[::-1]))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    (out / "000001.tar").write_bytes(b"damaged")
    shutil.copy(out / "000002.tar", out / "000777.tar")
    (out / ".pack" / "000777.tar.json").write_text("{}")  # by a run on more sources
    pack(source, out, shard_mib=1, workers=1)
    fresh = tmp_path / "fresh"
    pack(source, fresh, shard_mib=1, workers=1)
    assert contents(out) == contents(fresh)


def test_a_receipt_of_an_older_version_is_not_believed(large_source, large_set, tmp_path):
    source = Path(shutil.copytree(large_source, tmp_path / "source"))
    leave_unfinished(source, tmp_path / "out")
    for receipt in receipts(tmp_path / "out"):
        content = json.loads(receipt.read_text())
        del content["conversions"]
        receipt.write_text(json.dumps(content))
    pack(source, tmp_path / "out", shard_mib=1, workers=1)
    assert contents(tmp_path / "out") == contents(large_set.store.path)


def test_a_full_disk_is_a_sentence_and_loses_nothing(large_source, tmp_path):
    # The last sample alone exceeds the largest file that this process may write.
    source = Path(shutil.copytree(large_source, tmp_path / "source"))
    for folder, channels in (("train_label", ()), ("train_img", (3,))):
        noise = np.random.default_rng(0).integers(0, 30, (900, 1400, *channels), dtype=np.uint8)
        save(source / folder / "999.png", noise)
    out = tmp_path / "out"
    process = start_packing(source, out, workers=2, file_limit=3 * 2**19)
    _, errors = patience.communicate(process)
    assert process.returncode == 1
    assert errors.startswith("DataError: ") and errors.count("\n") == 1, errors
    assert ".tar cannot be written: the disk is full; make room" in errors
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(kept) == len(receipts(out)) == 28
    assert not list(out.rglob("*.tmp")) and not (out / "manifest.json").exists()
    pack(source, out, shard_mib=1, workers=1)
    assert open_shards(out).num_samples == 29
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # not written again


def test_too_small_a_disk_is_refused_before_work(labels_source, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(workplace.shutil, "disk_usage", lambda path: free)
    with pytest.raises(DataError, match="0.0 MiB free, but the shards still need"):
        pack(labels_source, tmp_path / "out", workers=1)


def test_a_read_only_place(labels_source):
    with pytest.raises(DataError, match="/proc/organza cannot be written"):
        pack(labels_source, Path("/proc/organza"), workers=1)


def test_the_manifest_is_plain_json(packed):
    content = json.loads((packed.store.path / "manifest.json").read_text())
    assert content["format"] == "organza-shards" and content["layout"] == "labels"
    assert content["shards"][0]["file"] == "000000.tar"
    assert "conversions" not in content  # so that such sets keep their fingerprints
    assert sorted(os.listdir(packed.store.path)) == ["000000.tar", "index.json", "manifest.json"]
