"""Bytes of one PNG or JPEG file -> pixels, with every surprise met by a sentence.

Conversions: grey pictures become RGB, 16-bit ones keep their upper 8 bits, an opaque alpha
channel is dropped and a transparent one refused. Label and instance maps are indices: a palette
PNG gives its indices, not its colours. EXIF orientation is ignored, as in the original loaders.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image

from shards.records import KINDS, DataError, size_text

MAX_PIXELS = 2**26
"""Larger images (8192 x 8192) are refused before they are decoded: decompression bombs."""

_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_IDS = ("1", "L", "P")
_WIDE_IDS = (*_IDS, "I;16", "I")
_ID_BITS = {"label": "8-bit", "inst": "8- or 16-bit"}
_PICTURES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I")


def decode(data: bytes, member: str, where: str) -> np.ndarray:
    """Pixels of one member of a sample.

    Returns label: uint8 [H, W]; inst: int32 [H, W]; image, a, b: uint8 [H, W, 3].
    Raises DataError, naming `where`, unless data is a whole PNG or JPEG fit for that member."""
    image = _open(data, where)
    try:
        image.load()
    except _BROKEN as error:
        raise DataError(f"{where} is truncated or corrupt ({error}): replace the file") from error
    kind = KINDS[member]
    if kind == "rgb":
        return _rgb(image, where)
    _check_ids(image, data, kind, where)
    return np.asarray(image).astype(np.uint8 if kind == "label" else np.int32)


def decode_sample(files: dict[str, bytes], names: dict[str, str]) -> dict[str, np.ndarray]:
    """Pixels of all members of a sample, of one size; `names` says what errors call each file."""
    pixels = {member: decode(data, member, names[member]) for member, data in files.items()}
    first, *others = pixels
    for other in others:
        if size_of(pixels[first]) != size_of(pixels[other]):
            raise DataError(
                f"{names[first]} is {size_text(size_of(pixels[first]))}, but {names[other]} is "
                f"{size_text(size_of(pixels[other]))}: the images of a sample need one size"
            )
    return pixels


def extension(data: bytes, where: str) -> str:
    """By content, "png" or "jpg": a file's name proves nothing."""
    return {"PNG": "png", "JPEG": "jpg"}[_open(data, where).format]


def check_checksums(data: bytes, where: str) -> None:
    """Raise DataError if a PNG contradicts its own checksums, which decoding does not check."""
    try:
        _open(data, where).verify()
    except _BROKEN as error:
        raise DataError(f"{where} is corrupt ({error}): replace the file") from error


def size_of(pixels: np.ndarray) -> tuple[int, int]:
    """(width, height) of an array [H, W] or [H, W, C]."""
    return pixels.shape[1], pixels.shape[0]


def _open(data: bytes, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, refused below, and about EXIF
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except Image.UnidentifiedImageError as error:
        state = "truncated or corrupt" if data.startswith(_MAGIC) else "not a PNG or JPEG image"
        raise DataError(f"{where} is {state}: replace or remove the file") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where}: {error}; at most {MAX_PIXELS} pixels are accepted") from error
    except _BROKEN as error:
        raise DataError(f"{where} is truncated or corrupt ({error}): replace the file") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{where} has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are "
            f"accepted: cut it into smaller images"
        )
    return image


def _rgb(image: Image.Image, where: str) -> np.ndarray:
    if image.mode not in _PICTURES:
        raise DataError(f"{where} has colour mode {image.mode}: convert it to RGB")
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise DataError(
                f"{where} has {int((alpha < 255).sum())} transparent pixels: flatten it over a "
                f"background colour"
            )
    if image.mode in ("I;16", "I"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _check_ids(image: Image.Image, data: bytes, kind: str, where: str) -> None:
    """Ids survive only a lossless, single-channel file whose values a decoder leaves alone."""
    if image.format != "PNG":
        raise DataError(f"{where} is a JPEG, which blurs ids: save {kind} maps as PNG")
    if image.mode not in (_IDS if kind == "label" else _WIDE_IDS):
        raise DataError(
            f"{where} has mode {image.mode}, not single-channel {_ID_BITS[kind]} ids: convert "
            f"{'colours' if kind == 'label' else 'it'} to an index map first"
        )
    bit_depth, colour_type = data[24], data[25]
    if colour_type == 0 and bit_depth in (2, 4):
        # Decoders stretch such greys to 0..255: id 1 would read as 85 or 17.
        raise DataError(f"{where} is a {bit_depth}-bit grey PNG: save {kind} maps with 8 bits")
