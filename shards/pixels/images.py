"""Bytes of one PNG, JPEG or WebP file -> pixels, with every surprise met by a sentence.

Pictures become 8-bit RGB: grey is repeated, a palette looked up, 16 bits keep their upper 8, an
opaque alpha channel is dropped; transparency, CMYK and all else are refused. Read with one channel
they are then turned grey (Pillow's "L"); read with four, alpha and transparency are kept. Label and
instance maps are indices: a palette PNG gives its indices, not its colours. What EXIF says is
turned is turned upright, pictures and maps alike.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import numpy as np
from PIL import Image

from shards.pixels.containers import (
    BROKEN,
    num_scans,
    orientation,
    upright,
    upright_size,
    without_texts,
)
from shards.records import HALVES, KINDS, DataError, pictures, size_text

MAX_PIXELS = 2**26
"""Larger images (8192 x 8192) are refused before they are decoded: decompression bombs."""
MAX_SCANS = 100
"""JPEGs with more are refused, too: each is work for all pixels, and can be of a few bytes."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_IDS = ("1", "L", "P")
_WIDE_IDS = (*_IDS, "I;16", "I")
_ID_BITS = {"label": "8-bit", "inst": "8- or 16-bit"}
_GREY = ("1", "L", "I;16", "I")
_PICTURES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I")
_EXTENSIONS: dict[str | None, str] = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}
"""MPO is a camera's JPEG with a preview."""
WITH_TRANSPARENT = " with transparent pixels"
"""Ends the name of a kind of pictures."""
_LOSSY_MODES = {"L": "grey", "RGBA": "RGB with opaque alpha"}
"""Mode of a JPEG or WebP -> what users call an accepted picture of it, RGB excepted."""
_PNG_COLOURS = {
    0: "grey",
    2: "RGB",
    3: "paletted",
    4: "grey with opaque alpha",
    6: "RGB with opaque alpha",
}
"""Colour type of a PNG -> what users call an accepted picture of it."""


def decode(data: bytes, member: str, where: str, channels: int = 3) -> np.ndarray:
    """Pixels of one member of a sample.

    Returns label: uint8 [H, W]; inst: int32 [H, W]; image, a, b, ab: uint8 [H, W, channels]: 1 is
    grey, 3 RGB, 4 RGB and alpha, which is 255 in a picture that has none.
    Raises DataError, naming `where`, unless data is a whole image fit for that member: a PNG for
    ids, a PNG, JPEG or WebP for a picture."""
    image = _loaded(data, where)
    kind, turned = KINDS[member], orientation(image, data)
    if kind == "rgb":
        _check_rgb(image, data, where, may_be_transparent=channels == 4)
        return _with_channels(upright(image, turned), channels)
    _check_ids(image, data, kind, where)
    return np.asarray(upright(image, turned)).astype(np.uint8 if kind == "label" else np.int32)


def decode_sample(
    files: dict[str, bytes], names: dict[str, str], channels: Mapping[str, int] = {}
) -> dict[str, np.ndarray]:
    """Pixels of all pictures of a sample, of one size; `names` says what errors call each file.

    A side-by-side picture `ab` gives its halves `a` and `b`. channels: of pictures as `decode`
    gives them, by what is returned; 3 where nothing is said."""
    pixels: dict[str, np.ndarray] = {}
    for member in pictures(files):
        data, parts, where = files[member], HALVES.get(member, (member,)), names[member]
        array = decode(data, member, where, max(channels.get(part, 3) for part in parts))
        if member in HALVES:
            pixels |= {
                part: _narrowed(half, channels.get(part, 3), where)
                for part, half in _halves(array, member, where).items()
            }
        else:
            pixels[member] = array
    first, *others = pixels
    for other in others:
        if size_of(pixels[first]) != size_of(pixels[other]):
            raise DataError(
                f"{names[first]} is {size_text(size_of(pixels[first]))}, but {names[other]} is "
                f"{size_text(size_of(pixels[other]))}: the images of a sample need one size."
            )
    return pixels


def check_header(data: bytes, member: str, where: str) -> tuple[int, int]:
    """(width, height) of what decode() would give, without decoding: DataError for what can be
    seen from the file's header alone."""
    image = _open(data, where)
    if KINDS[member] == "rgb":
        _check_mode(image, where)
    else:
        _check_ids(image, data, KINDS[member], where)
    width, height = upright_size(image, orientation(image, data))
    return (width // 2 if member in HALVES else width), height


def extension(data: bytes, where: str) -> str:
    """By content, "png", "jpg" or "webp": a file's name proves nothing."""
    return _EXTENSIONS[_open(data, where).format]


def conversion(data: bytes, member: str, where: str, transparent: bool = False) -> str | None:
    """What a member is before decode() makes it upright, and a picture 8-bit RGB; or None if it is
    that already. transparent: whether some of its pixels are."""
    image = _open(data, where)
    kind = _kind_of(image, data) if KINDS[member] == "rgb" else "ids"
    if transparent:
        kind = kind.removesuffix(" with opaque alpha") + WITH_TRANSPARENT
    if is_turned(data, where):
        return f"{kind} turned by EXIF"
    return None if kind in ("RGB", "ids") else kind


def is_turned(data: bytes, where: str) -> bool:
    """Whether decode() has to turn a file upright."""
    return orientation(_open(data, where), data) != 1


def _kind_of(image: Image.Image, data: bytes) -> str:
    if image.format != "PNG":
        return _LOSSY_MODES.get(image.mode, "RGB")
    bit_depth, colour_type = _png_header(data)
    return ("16-bit " if bit_depth == 16 else "") + _PNG_COLOURS[colour_type]


def check_checksums(data: bytes, where: str) -> None:
    """Raise DataError if a PNG contradicts its own checksums, which decoding does not check."""
    try:
        _open(data, where).verify()
    except BROKEN as error:
        raise DataError(f"{where} is corrupt ({error}): replace the file.") from error


def has_alpha(data: bytes, where: str) -> bool:
    """Whether a picture may be transparent, by its header."""
    return _open(data, where).has_transparency_data


def num_channels(data: bytes, where: str) -> int:
    """Channels in which a picture differs: 1 if it is grey, 4 if some of it is transparent."""
    image = _loaded(data, where)
    if image.has_transparency_data and _alpha(image).min() < 255:
        return 4
    return 1 if image.mode in _GREY else 3


def size_of(pixels: np.ndarray) -> tuple[int, int]:
    """(width, height) of an array [H, W] or [H, W, C]."""
    return pixels.shape[1], pixels.shape[0]


def _open(data: bytes, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, refused below, and about EXIF
            image = Image.open(io.BytesIO(without_texts(data)), formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        known = data.startswith(_MAGIC) or data[8:12] == b"WEBP"
        state = "truncated or corrupt" if known else "not a PNG, JPEG or WebP image"
        raise DataError(f"{where} is {state}: replace or remove the file.") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where}: {error}; at most {MAX_PIXELS} pixels are accepted.") from error
    except BROKEN as error:
        raise DataError(f"{where} is truncated or corrupt ({error}): replace the file.") from error
    if image.format == "PNG" and data[12:16] != b"IHDR":  # decoders forgive it; we read the header
        raise DataError(f"{where} is corrupt (it does not start with IHDR): replace the file.")
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{where} has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are "
            f"accepted: cut it into smaller images."
        )
    if _EXTENSIONS[image.format] == "jpg" and num_scans(data) > MAX_SCANS:
        raise DataError(f"{where} is a JPEG of more than {MAX_SCANS} scans: save it anew.")
    if image.format == "WEBP" and getattr(image, "is_animated", False):
        raise DataError(f"{where} is an animated WebP: save the one picture that is meant.")
    return image


def _loaded(data: bytes, where: str) -> Image.Image:
    image = _open(data, where)
    try:
        image.load()
    except BROKEN as error:
        raise DataError(f"{where} is truncated or corrupt ({error}): replace the file.") from error
    return image


def _halves(array: np.ndarray, member: str, where: str) -> dict[str, np.ndarray]:
    half, odd = divmod(array.shape[1], 2)
    if odd:
        raise DataError(
            f"{where} is {array.shape[1]} pixels wide, which cannot be halved, but layout "
            f"side-by-side takes the left half for A and the right one for B: crop or resize it."
        )
    left, right = HALVES[member]
    return {left: array[:, :half], right: array[:, half:]}


def _narrowed(array: np.ndarray, channels: int, where: str) -> np.ndarray:
    """Half of a picture [H, W, C] that was read with the channels of the other half, with fewer."""
    if array.shape[2] == channels:
        return array
    if array.shape[2] == 4 and array[..., 3].min() < 255:
        raise DataError(
            f"{where} has transparent pixels in a half that is read without alpha: make it opaque."
        )
    return _with_channels(Image.fromarray(np.ascontiguousarray(array[..., :3])), channels)


def _check_rgb(image: Image.Image, data: bytes, where: str, may_be_transparent: bool) -> None:
    """DataError for a picture that has no one 8-bit RGB form."""
    _check_mode(image, where)
    if "transparency" in image.info and _png_header(data)[0] == 16:
        # The decoder compares the colour with pixels that it has cut to 8 bits.
        raise DataError(f"{where} marks a 16-bit colour as transparent: flatten or convert it.")
    if may_be_transparent or not image.has_transparency_data:
        return
    num_transparent = int((_alpha(image) < 255).sum())
    if num_transparent:
        raise DataError(
            f"{where} has {num_transparent} transparent pixels: compose it over a colour by "
            f"--background=white, black or #rrggbb."
        )


def composed(data: bytes, where: str, colour: tuple[int, int, int]) -> np.ndarray | None:
    """Pixels [H, W, 3] of a picture with transparent parts, over a colour and turned upright; None
    of a picture that has none, or that decode() refuses for another reason."""
    image = _loaded(data, where)
    if not image.has_transparency_data or _alpha(image).min() == 255:
        return None
    if "transparency" in image.info and _png_header(data)[0] == 16:
        return None
    below = Image.new("RGBA", image.size, (*colour, 255))
    below.alpha_composite(image.convert("RGBA"))
    return np.asarray(upright(below.convert("RGB"), orientation(image, data)))


def _alpha(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGBA"))[..., 3]


def _with_channels(image: Image.Image, channels: int) -> np.ndarray:
    """uint8 [H, W, channels]."""
    if image.mode in ("I;16", "I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    # PIL converts RGB to RGB by a copy, which takes as long as a JPEG's decoding.
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if channels == 1 else pixels


def _check_mode(image: Image.Image, where: str) -> None:
    if image.mode not in _PICTURES:
        raise DataError(f"{where} has colour mode {image.mode}: convert it to RGB.")


def _check_ids(image: Image.Image, data: bytes, kind: str, where: str) -> None:
    """Ids survive only a lossless, single-channel file whose values a decoder leaves alone."""
    if image.format != "PNG":
        name = "WebP" if image.format == "WEBP" else "JPEG"
        raise DataError(f"{where} is a {name}, which blurs ids: save {kind} maps as PNG.")
    if image.mode not in (_IDS if kind == "label" else _WIDE_IDS):
        raise DataError(
            f"{where} has mode {image.mode}, not single-channel {_ID_BITS[kind]} ids: convert "
            f"{'colours' if kind == 'label' else 'it'} to an index map first."
        )
    bit_depth, colour_type = _png_header(data)
    if colour_type == 0 and bit_depth in (2, 4):
        # Decoders stretch such greys to 0..255: id 1 would read as 85 or 17.
        raise DataError(f"{where} is a {bit_depth}-bit grey PNG: save {kind} maps with 8 bits.")


def _png_header(data: bytes) -> tuple[int, int]:
    """(bits per channel, colour type) of a PNG that _open() accepted."""
    return data[24], data[25]
