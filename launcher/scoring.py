"""`score`: how far translated pictures are from the photos, beside the simplest answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from shards.records import DataError

Pixels = np.ndarray


def score(pictures: Path, photos: Path) -> int:
    """Print mean absolute errors on the 0..1 scale; 1 when a constant colour does as well."""
    pairs = matched(pictures, photos)
    ours = weighted(np.abs(a - b).mean() for a, b in read(pairs))
    colour = best_constant(real for _, real in read(pairs))
    constant = weighted(np.abs(real - colour).mean() for _, real in read(pairs))
    better = ours < constant
    print(
        f"mean absolute error over {len(pairs)} pictures: {ours:.4f}; "
        f"best constant colour: {constant:.4f} "
        f"({'better' if better else 'NOT better'}, ratio {ours / constant:.2f})"
    )
    return 0 if better else 1


def matched(pictures: Path, photos: Path) -> list[tuple[Path, Path]]:
    """Files of both folders by stem."""
    ours = {path.stem: path for path in sorted(pictures.glob("*.png"))}
    real = {path.stem: path for path in sorted(photos.iterdir()) if path.is_file()}
    missing = sorted(ours.keys() - real.keys())
    if not ours or missing:
        what = f"no photo for {missing[0]}" if missing else f"no PNG in {pictures}"
        raise DataError(f"score: {what}; give the folder of `translate` and that of its photos.")
    return [(ours[stem], real[stem]) for stem in ours]


def read(pairs: list[tuple[Path, Path]]):
    """Pairs as float arrays [H, W, 3] in 0..1; pictures of another size are refused."""
    for paths in pairs:
        a, b = (load(path) for path in paths)
        if a.shape != b.shape:
            raise DataError(f"score: {paths[0]} is {a.shape[:2]}, its photo {b.shape[:2]}.")
        yield a, b


def load(path: Path) -> Pixels:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def best_constant(photos) -> Pixels:
    """The colour with the least absolute error: each channel's median over all photos."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for photo in photos:
        for channel in range(3):
            values = np.round(photo[..., channel] * 255).astype(np.int64)
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    totals = counts.cumsum(axis=1)
    return np.array([np.searchsorted(t, t[-1] / 2) for t in totals], dtype=np.float32) / 255


def weighted(errors) -> float:
    """Mean over pictures."""
    return float(np.mean(list(errors)))
