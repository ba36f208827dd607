"""Bad files of a source: all are told in one run, or left out and recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.shard_set import open_all, open_shards
from shards.sets.verify import verify
from tests.shards.sources import domain_source, label_source, save


def damaged(folder: Path) -> Path:
    """Six samples; 1 is no picture, 3 has another size than its map, 4 a label id too many."""
    source = label_source(folder, 6)
    (source / "train_img/001.png").write_bytes(b"junk")
    save(source / "train_img/003.png", np.zeros((4, 4, 3), np.uint8))
    save(source / "train_label/004.png", np.full((8, 16), 99, np.uint8))
    return source


@pytest.mark.parametrize("workers", [1, 2])
def test_all_bad_files_are_told_at_once(tmp_path, workers):
    source, out = damaged(tmp_path / "s"), tmp_path / "out"
    listed = out / ".pack/bad-files.txt"
    with pytest.raises(DataError) as caught:
        pack(source, out, num_labels=30, workers=workers)
    assert str(caught.value).startswith(f"3 of 6 samples cannot be packed, all listed in {listed}")
    assert "001.png is not a PNG, JPEG or WebP image" in str(caught.value)
    first, second, third = listed.read_text().splitlines()
    assert "001.png" in first and "003.png" in second and "label id 99" in third
    assert not (out / "manifest.json").exists()


def test_a_single_one_is_told_as_it_is(tmp_path):
    source = label_source(tmp_path / "s", 2)
    (source / "train_img/001.png").write_bytes(b"junk")
    with pytest.raises(DataError, match="^.*001.png is not a PNG, JPEG or WebP image: replace or"):
        pack(source, tmp_path / "out", workers=1)


def test_they_may_be_left_out_and_are_recorded(tmp_path):
    source, out = damaged(tmp_path / "s"), tmp_path / "out"
    for _ in range(2):  # the second run finds the same
        (found,) = pack(source, out, num_labels=30, leave_out_bad=True, workers=1)
        assert list(found.keys) == ["000", "002", "005"]
        assert found.manifest.left_out == ("001", "003", "004")
    assert len((out / "left-out.txt").read_text().splitlines()) == 3
    assert verify(out, workers=1).problems == ()
    label_source(source, 6)
    with pytest.raises(DataError, match="from other images or with other options"):
        pack(source, out, num_labels=30, workers=1)
    assert open_shards(out).num_samples == 3


def test_a_sound_source_is_the_same_set_with_the_option(tmp_path):
    source = label_source(tmp_path / "s", 3)
    plain = pack(source, tmp_path / "a", workers=1)[0].manifest
    assert pack(source, tmp_path / "b", leave_out_bad=True, workers=1)[0].manifest == plain
    assert not (tmp_path / "b/left-out.txt").exists()


def test_domains_lose_their_own_and_must_keep_some(tmp_path):
    source = domain_source(tmp_path / "s", trainA=2, trainB=3)
    (source / "trainB/trainB-1.png").write_bytes(b"junk")
    pack(source, tmp_path / "out", leave_out_bad=True, workers=1)
    sets = open_all(str(tmp_path / "out"))
    left_out = {name: one.manifest.left_out for name, one in sets.items()}
    assert left_out == {"A": (), "B": ("trainB-1",)}
    for path in (source / "trainA").iterdir():
        path.write_bytes(b"junk")
    with pytest.raises(DataError, match="nothing can be packed of 2 samples"):
        pack(source, tmp_path / "other", leave_out_bad=True, workers=1)
