"""`score`: how far translated pictures are from the photos, beside the simplest answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shards.images import decode, size_of
from shards.layouts import image_keys
from shards.records import DataError, size_text

Pixels = np.ndarray
"""uint8 [H, W, 3]."""


def score(pictures: Path, photos: Path) -> int:
    """Print mean absolute errors over all pixels on the 0..1 scale; 1 when a constant colour does
    as well.

    Raises DataError for a picture without a photo of its size."""
    pairs = matched(pictures, photos)
    total, values = 0, np.zeros((3, 256), dtype=np.int64)
    for picture, photo in read(pairs):
        total += int(np.abs(picture.astype(np.int16) - photo).sum(dtype=np.int64))
        for channel in range(3):
            values[channel] += np.bincount(photo[..., channel].ravel(), minlength=256)
    ours = total / values.sum() / 255
    constant = error_of_best_constant(values)
    better = ours < constant
    verdict = "better" if better else "NOT better"
    if constant > 0:  # it is 0 where all photos have one colour
        verdict += f", ratio {ours / constant:.2f}"
    print(
        f"mean absolute error over {len(pairs)} pictures: {ours:.4f}; "
        f"best constant colour: {constant:.4f} ({verdict})"
    )
    return 0 if better else 1


def error_of_best_constant(values: np.ndarray) -> float:
    """Mean absolute error of the median colour, which has the least, 0..1.

    values: int64 [3, 256], how often each channel of the photos takes each value."""
    totals = values.cumsum(axis=1)
    medians = np.array([np.searchsorted(t, t[-1] / 2) for t in totals])
    distances = np.abs(np.arange(256) - medians[:, None])
    return float((values * distances).sum() / values.sum() / 255)


def matched(pictures: Path, photos: Path) -> list[tuple[Path, Path]]:
    """(picture, photo) by the keys under which `translate` writes pictures."""
    ours, real = image_keys(pictures, "b"), image_keys(photos, "b")
    if not ours.keys() <= real.keys():
        real = image_keys(photos, "image")  # photos of Cityscapes have an ending that keys lack
    missing = sorted(ours.keys() - real.keys())
    if not ours:
        raise DataError(f"score: {pictures} holds no picture; give the folder of `translate`.")
    if missing:
        raise DataError(
            f"score: {photos} holds no photo of {len(missing)} pictures (first: {missing[0]}); "
            f"give the folder with the photos of {pictures}."
        )
    return [(ours[key], real[key]) for key in sorted(ours)]


def read(pairs: list[tuple[Path, Path]]) -> Iterator[tuple[Pixels, Pixels]]:
    """The pixels of both; pictures of another size are refused."""
    for paths in pairs:
        picture, photo = (decode(path.read_bytes(), "image", str(path)) for path in paths)
        if picture.shape != photo.shape:
            raise DataError(
                f"score: {paths[0]} is {size_text(size_of(picture))}, but {paths[1]} is "
                f"{size_text(size_of(photo))}: resize the photos."
            )
        yield picture, photo
