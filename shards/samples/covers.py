"""Which tiles of the earth show one land cover: pictures with a class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from shards.samples.rasters import LABEL_NAMES, NUM_LABELS, SEA_DEPTHS

COVERS = {
    "desert": ("desert", "dry upland", "mountain"),
    "forest": ("humid lowland", "cool forest", "mixed forest", "polar cool forest"),
    "grassland": ("grassland", "high plateau", "cool upland"),
    "water": (*LABEL_NAMES[: len(SEA_DEPTHS)], "lake"),
}
"""Cover -> labels that are of it. Ice and polar land are left out: they dominate too few tiles."""
MOST_TILES = {"train": 300, "test": 100}
"""Of a cover and size: there is water enough for thousands."""
LEAST_SHARE = 0.5
_TABLE = np.array(
    [
        next((n for n, own in enumerate(COVERS.values()) if name in own), len(COVERS))
        for name in LABEL_NAMES
    ]
)
"""Label -> number of its cover, the number after the last for none."""


def dominant_cover(label: np.ndarray) -> str | None:
    """The cover of at least half of the pixels of a label map, if there is one."""
    pixels = np.bincount(_TABLE, np.bincount(label.ravel(), minlength=NUM_LABELS))
    number = int(pixels[: len(COVERS)].argmax())
    return [*COVERS][number] if pixels[number] >= LEAST_SHARE * label.size else None


def by_cover(covers: Iterable[str | None], most: int) -> dict[str, list[int]]:
    """Numbers of the tiles of each cover, from the covers of all; at most so many of each, from all
    over the region."""
    found = defaultdict(list)
    for number, cover in enumerate(covers):
        if cover is not None:
            found[cover].append(number)
    return {cover: _spread(found[cover], most) for cover in COVERS if cover in found}


def _spread(numbers: list[int], most: int) -> list[int]:
    count = min(len(numbers), most)
    return [numbers[i * len(numbers) // count] for i in range(count)]
