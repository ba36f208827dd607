"""Resize, crop and flip: the modes of the original loaders, one random draw per sample.

    none                    as it is
    resize_and_crop         to load_size x load_size, then crop
    crop                    crop only
    scale_width             to width load_size, the aspect ratio kept
    scale_width_and_crop    both

All images of a sample share the draw. Pictures are resized bicubically, ids take the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from shards.hashing import hash64
from shards.pixels.images import size_of
from shards.records import EXACT, DataError, size_text

MODES = ("none", "resize_and_crop", "crop", "scale_width", "scale_width_and_crop")
Side = int | tuple[int, int]


@dataclass(frozen=True)
class Preprocess:
    """How every sample is brought to size. Sides are one integer or (height, width).

    Raises ValueError that names the option data.preprocess.*."""

    mode: str = "none"
    load_size: Side | None = None
    crop_size: Side | None = None
    flip: bool = True
    """Mirror half of the samples."""
    random_crop: bool = True
    """Draw the crop's place; otherwise the centre is cut out."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"data.preprocess.mode={self.mode!r}: choose {', '.join(MODES)}")
        for name, used in (("load_size", self.resizes), ("crop_size", self.crops)):
            self._check_side(name, used)
        if self.mode.startswith("scale_width") and not isinstance(self.load_size, int):
            raise ValueError(
                f"data.preprocess.load_size={self.load_size}: mode {self.mode} takes one "
                f"integer, the width"
            )

    @property
    def resizes(self) -> bool:
        """Whether the mode reads load_size."""
        return self.mode.startswith(("resize", "scale_width"))

    @property
    def crops(self) -> bool:
        """Whether the mode reads crop_size."""
        return self.mode.endswith("crop")

    def deterministic(self) -> Preprocess:
        """The same without chance, for evaluation: no flip, the crop in the centre."""
        return replace(self, flip=False, random_crop=False)

    def uncropped(self) -> Preprocess:
        """The same without chance and without a crop, for translation: whole pictures.

        resize_and_crop then resizes to crop_size, as the originals test (load_size = crop_size):
        the networks learnt crops of that size. The scale differs from that of training."""
        whole = self.deterministic()
        if self.mode == "resize_and_crop":
            return replace(whole, load_size=self.crop_size)
        return replace(whole, mode=self.mode.removesuffix("_and_crop").replace("crop", "none"))

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a sample of that size after apply()."""
        return self._crop_size() if self.crops else self.resized(width, height)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a sample of that size before it is cropped."""
        if not self.resizes:
            return width, height
        if self.mode.startswith("scale_width") and isinstance(self.load_size, int):
            return self.load_size, max(1, self.load_size * height // width)
        return _width_height(self.load_size)

    def check_crop(self, size: tuple[int, int], where: str) -> None:
        """Raise DataError if the crop exceeds `size`, the (width, height) that `where` has then."""
        if not self.crops:
            return
        crop = self._crop_size()
        if size[0] < crop[0] or size[1] < crop[1]:
            raise DataError(
                f"{where} is {size_text(size)} before the crop, smaller than "
                f"data.preprocess.crop_size={size_text(crop)}: lower crop_size or raise load_size."
            )

    def apply(self, pixels: dict[str, np.ndarray], draw: int, where: str) -> dict[str, np.ndarray]:
        """Bring all images of one sample to size.

        pixels: arrays [H, W] (ids) or [H, W, C] (pictures) of one size; draw: 64 random bits;
        where: what errors call the sample. Gives views, some of them mirrored (of negative
        strides). Raises DataError if the crop exceeds the image."""
        size = self.resized(*size_of(next(iter(pixels.values()))))
        self.check_crop(size, where)
        left, top, right, bottom = self._box(size, draw)
        mirror = self.flip and hash64(draw, 2) >> 63 == 1
        step = -1 if mirror else 1
        return {
            member: _resize(array, size, member in EXACT)[top:bottom, left:right][:, ::step]
            for member, array in pixels.items()
        }

    def _check_side(self, name: str, used: bool) -> None:
        side = getattr(self, name)
        if side is None:
            if used:
                raise ValueError(f"data.preprocess.{name} is missing: mode {self.mode} needs it")
            return
        sides = (side,) if isinstance(side, int) else side
        if len(sides) > 2 or not all(isinstance(n, int) and n > 0 for n in sides):
            raise ValueError(
                f"data.preprocess.{name}={side}: give a positive integer or (height, width)"
            )

    def _crop_size(self) -> tuple[int, int]:
        return _width_height(self.crop_size)

    def _box(self, size: tuple[int, int], draw: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the part that is kept."""
        if not self.crops:
            return 0, 0, *size
        crop = self._crop_size()
        spare = (size[0] - crop[0], size[1] - crop[1])
        if self.random_crop:
            left, top = (hash64(draw, axis) % (spare[axis] + 1) for axis in (0, 1))
        else:
            left, top = spare[0] // 2, spare[1] // 2
        return left, top, left + crop[0], top + crop[1]


def _width_height(side: Side | None) -> tuple[int, int]:
    assert side is not None, "the mode needs it"
    return (side, side) if isinstance(side, int) else (side[1], side[0])


def _resize(array: np.ndarray, size: tuple[int, int], exact: bool) -> np.ndarray:
    if size_of(array) == size:
        return array
    if array.ndim == 2:
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.NEAREST))
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    mixing = Image.Resampling.NEAREST if exact else Image.Resampling.BICUBIC
    resized = np.asarray(image.resize(size, mixing))
    return resized.reshape(*resized.shape[:2], array.shape[2])
