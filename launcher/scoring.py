"""`score`: how far translated pictures are from the photos, beside the simplest answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.images import decode, size_of
from shards.layouts import image_keys
from shards.records import DataError, size_text

Pixels = np.ndarray
"""uint8 [H, W, 3]."""


CONSTANT, IDENTITY = "best constant colour", "identity map"


def score(
    pictures: Path, photos: Path, sources: Path | None = None, beat: tuple[str, ...] = (CONSTANT,)
) -> int:
    """Print mean absolute errors over all pixels on the 0..1 scale; 1 when one of the answers in
    `beat` does as well: a constant colour, or (IDENTITY) the sources themselves.

    Raises DataError for a picture without a photo (or source) of its size."""
    ours = image_keys(pictures, "b")
    if not ours:
        raise DataError(f"score: {pictures} holds no picture; give the folder of `translate`.")
    real = partners(ours, pictures, photos, "photo")
    given = partners(ours, pictures, sources, "source") if sources else {}
    error, identity, values = 0, 0, np.zeros((3, 256), dtype=np.int64)
    for key, path in ours.items():
        photo = read(real[key])
        error += distance(path, real[key], photo)
        if given:
            identity += distance(given[key], real[key], photo)
        for channel in range(3):
            values[channel] += np.bincount(photo[..., channel].ravel(), minlength=256)
    mean = 1 / values.sum() / 255
    answers = {CONSTANT: error_of_best_constant(values)}
    if given:
        answers[IDENTITY] = identity * mean
    print(f"mean absolute error over {len(ours)} pictures: {error * mean:.4f}", end="")
    for name, other in answers.items():
        print(f"; {name}: {other:.4f} ({verdict(error * mean, other)})", end="")
    print()
    return 0 if all(error * mean < answers[name] for name in beat) else 1


def verdict(ours: float, other: float) -> str:
    word = "better" if ours < other else "NOT better"
    return f"{word}, ratio {ours / other:.2f}" if other > 0 else word


def error_of_best_constant(values: np.ndarray) -> float:
    """Mean absolute error of the median colour, which has the least, 0..1.

    values: int64 [3, 256], how often each channel of the photos takes each value."""
    totals = values.cumsum(axis=1)
    medians = np.array([np.searchsorted(t, t[-1] / 2) for t in totals])
    distances = np.abs(np.arange(256) - medians[:, None])
    return float((values * distances).sum() / values.sum() / 255)


def partners(
    pictures: dict[str, Path], folder: Path, others: Path, kind: str
) -> dict[str, Path]:
    """The file of `others` under the key of each picture; `kind` is what messages call it."""
    found = image_keys(others, "b")
    if not pictures.keys() <= found.keys():
        found = image_keys(others, "image")  # photos of Cityscapes have an ending that keys lack
    missing = sorted(pictures.keys() - found.keys())
    if missing:
        raise DataError(
            f"score: {others} holds no {kind} of {len(missing)} pictures (first: {missing[0]}); "
            f"give the folder with the {kind}s of {folder}."
        )
    return found


def distance(path: Path, photo_path: Path, photo: Pixels) -> int:
    """Sum of absolute differences; a file of another size than the photo is refused."""
    picture = read(path)
    if picture.shape != photo.shape:
        raise DataError(
            f"score: {path} is {size_text(size_of(picture))}, but {photo_path} is "
            f"{size_text(size_of(photo))}: resize the photos."
        )
    return int(np.abs(picture.astype(np.int16) - photo).sum(dtype=np.int64))


def read(path: Path) -> Pixels:
    return decode(path.read_bytes(), "image", str(path))
