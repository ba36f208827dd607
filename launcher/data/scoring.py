"""`score`: how far translated pictures are from the photos, beside the simplest answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.pixels.images import decode, num_channels, size_of
from shards.records import DataError, size_text
from shards.source.layouts import image_keys

Pixels = np.ndarray
"""uint8 [H, W, C]."""


CONSTANT = "best constant colour"
MISMATCH = "beside another photo"
IDENTITY = "identity map"


def score(
    pictures: Path, photos: Path, sources: Path | None = None, beat: tuple[str, ...] = (CONSTANT,)
) -> int:
    """Print mean absolute errors over all pixels on the 0..1 scale; 1 when one of the answers in
    `beat` does as well.

    CONSTANT: one colour for all; MISMATCH: the same pictures, each held against the photo of the
    next key of its size, so that what does not depend on the source gains nothing; IDENTITY: the
    sources as they are. A grey picture is held against the photo turned grey, and transparency
    counts as a fourth channel. Raises DataError for a picture without a photo or source of its
    size."""
    ours = image_keys(pictures, "b")
    if not ours:
        raise DataError(f"score: {pictures} holds no picture; give the folder of `translate`.")
    real = partners(ours, pictures, photos, "photo")
    given = partners(ours, pictures, sources, "source") if sources else {}
    error, values = Mean(), np.zeros((4, 256), dtype=np.int64)
    answers = {MISMATCH: Mean()} | ({IDENTITY: Mean()} if given else {})
    rounds: dict[tuple[int, ...], Round] = {}
    for key in sorted(ours):
        channels = channels_of(ours[key], real[key])
        picture, photo = read(ours[key], channels), read(real[key], channels)
        check_size(picture, ours[key], photo, real[key])
        error.add(picture, photo)
        rounds.setdefault(photo.shape, Round(answers[MISMATCH])).add(picture, photo)
        if given:
            source = read(given[key], channels)
            check_size(source, given[key], photo, real[key])
            answers[IDENTITY].add(source, photo)
        for channel in range(channels):
            values[channel] += np.bincount(photo[..., channel].ravel(), minlength=256)
    for same_size in rounds.values():
        same_size.close()
    found = {CONSTANT: error_of_best_constant(values)}
    found |= {name: mean.value for name, mean in answers.items() if mean.count}
    print(f"mean absolute error over {len(ours)} pictures: {error.value:.4f}", end="")
    for name, other in found.items():
        print(f"; {name}: {other:.4f} ({verdict(error.value, other)})", end="")
    print()
    return 0 if all(error.value < found[name] for name in beat if name in found) else 1


class Round:
    """Each picture beside the next photo, the last one beside the first."""

    def __init__(self, mean: Mean):
        self.mean = mean
        self.first: Pixels | None = None
        self.last: Pixels | None = None
        self.count = 0

    def add(self, picture: Pixels, photo: Pixels) -> None:
        if self.last is not None:
            self.mean.add(self.last, photo)
        else:
            self.first = photo
        self.last, self.count = picture, self.count + 1

    def close(self) -> None:
        if self.count > 1:
            assert self.first is not None and self.last is not None  # as there were pictures
            self.mean.add(self.last, self.first)


class Mean:
    """Mean absolute difference of many pictures."""

    def __init__(self) -> None:
        self.total = self.count = 0

    def add(self, one: Pixels, other: Pixels) -> None:
        self.total += int(np.abs(one.astype(np.int16) - other).sum(dtype=np.int64))
        self.count += one.size

    @property
    def value(self) -> float:
        return self.total / self.count / 255


def verdict(ours: float, other: float) -> str:
    word = "better" if ours < other else "NOT better"
    return f"{word}, ratio {ours / other:.2f}" if other > 0 else word


def error_of_best_constant(values: np.ndarray) -> float:
    """Mean absolute error of the median colour, which has the least, 0..1.

    values: int64 [4, 256], how often each channel of the photos takes each value."""
    totals = values.cumsum(axis=1)
    medians = np.array([np.searchsorted(t, t[-1] / 2) for t in totals])
    distances = np.abs(np.arange(256) - medians[:, None])
    return float((values * distances).sum() / values.sum() / 255)


def partners(pictures: dict[str, Path], folder: Path, others: Path, kind: str) -> dict[str, Path]:
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


def check_size(picture: Pixels, path: Path, photo: Pixels, photo_path: Path) -> None:
    if picture.shape != photo.shape:
        raise DataError(
            f"score: {path} is {size_text(size_of(picture))}, but {photo_path} is "
            f"{size_text(size_of(photo))}: resize the photos."
        )


def channels_of(picture: Path, photo: Path) -> int:
    """Channels in which the two are compared."""
    ours, other = (num_channels(path.read_bytes(), str(path)) for path in (picture, photo))
    return max(ours, other) if 4 in (ours, other) else ours


def read(path: Path, channels: int) -> Pixels:
    return decode(path.read_bytes(), "image", str(path), channels)
