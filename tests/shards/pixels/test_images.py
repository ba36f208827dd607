"""Files of every kind become pixels, or one sentence that names the file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from shards.pixels import images
from shards.pixels.containers import without_texts
from shards.pixels.images import check_checksums, conversion, decode, decode_sample, extension
from shards.records import DataError
from tests.shards.sources import encoded, png

RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, 35, (6, 8), dtype=np.uint8)
WIDE_IDS = RANDOM.integers(0, 33009, (6, 8)).astype(np.uint16)
PHOTO = RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_label_ids_survive():
    label = decode(encoded(IDS), "label", "F")
    assert label.dtype == np.uint8 and (label == IDS).all()


def test_a_palette_gives_indices_not_colours():
    image = Image.fromarray(IDS).convert("P")
    image.putdata(IDS.ravel().tolist())
    image.putpalette([255 - n // 3 for n in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    for member in ("label", "inst"):
        assert (decode(buffer.getvalue(), member, "F") == IDS).all()


@pytest.mark.parametrize("ids", [IDS, WIDE_IDS, IDS > 17])
def test_instance_ids_of_any_width_become_int32(ids):
    inst = decode(encoded(ids), "inst", "F")
    assert inst.dtype == np.int32 and (inst == ids).all()


GREY = RANDOM.integers(0, 256, (6, 8), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (6, 8, 3)).astype(np.uint16)
PALETTE = RANDOM.integers(0, 256, (35, 3), dtype=np.uint8)
PALETTE_CHUNK = (b"PLTE", PALETTE.tobytes())
ONE_BIT = GREY > 99


def flat(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1)


def with_alpha(pixels: np.ndarray, alpha: int) -> np.ndarray:
    """The rows of an image [H, W, C] with one more channel."""
    plane = np.full((*pixels.shape[:2], 1), alpha, pixels.dtype)
    return flat(np.concatenate([pixels, plane], axis=2))


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


CONVERTED = {
    "RGB": (encoded(PHOTO), None, PHOTO),
    "grey": (encoded(GREY), "grey", repeated(GREY)),
    "1-bit grey": (encoded(ONE_BIT), "grey", repeated(ONE_BIT * np.uint8(255))),
    "4-bit grey": (png(IDS, 4, 0), "grey", repeated(np.stack([IDS >> 4, IDS & 15], 2) * 17)),
    "grey + alpha": (
        png(with_alpha(GREY[..., None], 255), 8, 4),
        "grey with opaque alpha",
        repeated(GREY),
    ),
    "palette": (png(IDS, 8, 3, PALETTE_CHUNK), "paletted", PALETTE[IDS]),
    "RGBA": (png(with_alpha(PHOTO, 255), 8, 6), "RGB with opaque alpha", PHOTO),
    "16-bit grey": (png(DEEP[..., 0], 16, 0), "16-bit grey", repeated(DEEP[..., 0] >> 8)),
    "16-bit RGB": (png(flat(DEEP), 16, 2), "16-bit RGB", DEEP >> 8),
    "16-bit grey + alpha": (
        png(with_alpha(DEEP[..., :1], 65535), 16, 4),
        "16-bit grey with opaque alpha",
        repeated(DEEP[..., 0] >> 8),
    ),
    "16-bit RGBA": (png(with_alpha(DEEP, 65535), 16, 6), "16-bit RGB with opaque alpha", DEEP >> 8),
}
"""Case -> file, what the census calls it, its pixels: 16 bits keep the upper 8, nothing rounds."""


@pytest.mark.parametrize("case", CONVERTED)
def test_every_kind_of_png_becomes_8_bit_rgb_and_says_so(case):
    data, kind, expected = CONVERTED[case]
    pixels = decode(data, "a", "F")
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert np.array_equal(pixels, expected.reshape(pixels.shape))
    assert conversion(data, "a", "F") == kind


def test_jpegs_are_grey_or_rgb():
    for pixels, kind in ((np.full((8, 8, 3), 90, np.uint8), None), (GREY, "grey")):
        data = encoded(pixels, "JPEG")
        assert conversion(data, "a", "F") == kind
        assert decode(data, "image", "F").shape == (*pixels.shape[:2], 3)
    flat_grey = decode(encoded(np.full((8, 8), 90, np.uint8), "JPEG"), "image", "F")
    assert np.abs(flat_grey.astype(int) - 90).max() <= 1


def test_a_jpeg_with_a_preview_is_its_first_picture():
    # Cameras write such files (MPO) as .jpg, and Pillow calls them by another format.
    picture, preview = (Image.fromarray(array) for array in (PHOTO, PHOTO[:3, :4]))
    buffer = io.BytesIO()
    picture.save(buffer, "MPO", save_all=True, append_images=[preview])
    assert Image.open(buffer).format == "MPO"
    assert decode(buffer.getvalue(), "image", "F").shape == PHOTO.shape
    assert extension(buffer.getvalue(), "F") == "jpg"
    assert conversion(buffer.getvalue(), "a", "F") is None


def test_a_side_by_side_picture_gives_its_halves():
    halves = decode_sample({"ab": encoded(PHOTO)}, {"ab": "F"})
    assert list(halves) == ["a", "b"]
    assert (halves["a"] == PHOTO[:, :4]).all() and (halves["b"] == PHOTO[:, 4:]).all()
    expected = "F is 7 pixels wide, which cannot be halved.*crop or resize it"
    with pytest.raises(DataError, match=expected):
        decode_sample({"ab": encoded(PHOTO[:, :7])}, {"ab": "F"})


def transparent() -> bytes:
    return encoded(np.concatenate([PHOTO, IDS[..., None]], axis=2))


def bomb() -> bytes:
    """A valid header that asks for 30000 x 30000 pixels."""
    data = bytearray(encoded(PHOTO))
    data[16:24] = struct.pack(">II", 30000, 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def saved_as(image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, image_format)
    return buffer.getvalue()


def five_channels() -> bytes:
    """What numpy saves of an image with five channels."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((6, 8, 5), np.float32))
    return buffer.getvalue()


def two_channel_jpeg() -> bytes:
    data = bytearray(encoded(GREY, "JPEG"))
    data[data.index(b"\xff\xc0") + 9] = 2
    return bytes(data)


def scans(number: int) -> tuple[bytes, bytes, bytes]:
    """A progressive JPEG whose last scan is there so many times: its beginning, scans and end."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last], data[last:-2] * number, data[-2:]


def misordered_png() -> bytes:
    data = encoded(PHOTO)
    text = png(PHOTO[:1, :, 0], 8, 0, (b"tEXt", b"a\0b"))[33:][:15]
    return data[:8] + text + data[8:]


def webp(*frames: np.ndarray) -> bytes:
    first, *others = map(Image.fromarray, frames)
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=bool(others), append_images=others, lossless=True)
    return buffer.getvalue()


def webp_bomb() -> bytes:
    """A few bytes that claim 16383 x 16383 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "WEBP", exif=b"Exif\0\0" + bytes(8))  # its header is VP8X
    return buffer.getvalue()[:24] + struct.pack("<I", 16382)[:3] * 2 + buffer.getvalue()[30:]


REFUSED = {
    "colours for ids": ("label", encoded(PHOTO), "mode RGB, not single-channel 8-bit ids"),
    "wide label ids": ("label", encoded(WIDE_IDS), "mode I;16, not single-channel 8-bit ids"),
    "colours for instances": ("inst", encoded(PHOTO), "convert it to an index map"),
    "lossy ids": ("label", encoded(IDS, "JPEG"), "JPEG, which blurs ids"),
    "2-bit grey ids": ("label", png(IDS, 2, 0), "2-bit grey PNG"),
    "4-bit grey ids": ("inst", png(IDS, 4, 0), "4-bit grey PNG"),
    "transparency": (
        "image",
        transparent(),
        "transparent pixels: compose it over a colour by --background",
    ),
    "grey transparency": ("a", png(with_alpha(GREY[..., None], 0), 8, 4), "48 transparent pixels"),
    "16-bit transparency": ("a", png(with_alpha(DEEP, 999), 16, 6), "48 transparent pixels"),
    "a transparent colour": (
        "a",
        png(IDS, 8, 0, (b"tRNS", struct.pack(">H", IDS[0, 0]))),
        "transparent pixels",
    ),
    "a transparent entry of the palette": (
        "a",
        png(IDS, 8, 3, PALETTE_CHUNK, (b"tRNS", bytes(35))),
        "48 transparent pixels",
    ),
    "a transparent 16-bit colour": (
        "a",
        png(flat(DEEP), 16, 2, (b"tRNS", bytes(6))),
        "marks a 16-bit colour as transparent",
    ),
    "print colours": ("a", encoded(PHOTO, "JPEG", "CMYK"), "colour mode CMYK"),
    "text": ("image", b"hello, I am a text", "not a PNG, JPEG or WebP image"),
    "nothing": ("image", b"", "not a PNG, JPEG or WebP image"),
    "PostScript": ("image", saved_as("EPS"), "not a PNG, JPEG or WebP image"),
    "five channels": ("a", five_channels(), "not a PNG, JPEG or WebP image"),
    "a JPEG of two channels": ("a", two_channel_jpeg(), "truncated or corrupt"),
    "a PNG that starts with another chunk": ("a", misordered_png(), "does not start with IHDR"),
    "GIF": ("image", saved_as("GIF"), "not a PNG, JPEG or WebP image"),
    "TIFF": ("image", saved_as("TIFF"), "not a PNG, JPEG or WebP image"),
    "lossy ids of another kind": ("inst", encoded(IDS, "WEBP", "RGB"), "WebP, which blurs ids"),
    "a WebP with transparency": ("image", webp(np.dstack([PHOTO, GREY])), "48 transparent pixels"),
    "an animated WebP": ("image", webp(PHOTO, PHOTO[::-1]), "an animated WebP: save the one"),
    "half a WebP": ("image", webp(PHOTO)[:60], "truncated or corrupt"),
    "a WebP's first bytes": ("image", webp(PHOTO)[:13], "truncated or corrupt"),
    "a sound": ("image", b"RIFF\x24\0\0\0WAVEfmt " + bytes(24), "not a PNG, JPEG or WebP"),
    "half a PNG": ("image", encoded(PHOTO)[:100], "truncated or corrupt"),
    "half a JPEG": ("image", encoded(PHOTO, "JPEG")[:400], "truncated or corrupt"),
    "a PNG's first bytes": ("image", encoded(PHOTO)[:12], "truncated or corrupt"),
    "a bomb of another kind": ("image", webp_bomb(), f"at most {images.MAX_PIXELS}"),
    "a JPEG of many scans": ("b", b"".join(scans(92)), "JPEG of more than 100 scans: save it anew"),
    "a bomb": ("image", bomb(), f"at most {images.MAX_PIXELS}"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_sentence_that_names_the_file(case):
    member, data, expected = REFUSED[case]
    with pytest.raises(DataError) as caught:
        decode(data, member, "train_img/007.png")
    message = str(caught.value)
    assert message.startswith("train_img/007.png") and expected in message, message
    assert "\n" not in message


def test_one_bit_ids_are_read():
    ids = png(np.array([[0b00000101]], np.uint8), 1, 0)
    assert decode(ids, "label", "F").tolist() == [[0, 0, 0, 0, 0, 1, 0, 1]]


def test_size_limit_holds_below_the_decoders_own(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 47)
    with pytest.raises(DataError, match="8x6 pixels; at most 47"):
        decode(encoded(PHOTO), "image", "F")


def test_only_the_scans_of_the_picture_itself_count():
    """Not those of previews in or behind it."""
    head, last, end = scans(1)
    preview = b"\xff\xe5" + struct.pack(">H", 402) + b"\xff\xda\0\2" * 100
    data = head[:2] + preview + head[2:] + last + end + bytes(2) + b"\xff\xda\0\2" * 100
    assert decode(data, "image", "F").tolist() == decode(head + last + end, "image", "F").tolist()
    assert decode(b"".join(scans(91)), "image", "F").shape == (6, 8, 3)


def test_a_flipped_byte_that_decodes_is_found_by_checksum():
    data = bytearray(encoded(np.zeros((64, 64, 3), np.uint8)))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(DataError, match="F is corrupt"):
        check_checksums(bytes(data), "F")


def test_extension_follows_the_content():
    assert extension(encoded(PHOTO), "F") == "png"
    assert extension(encoded(PHOTO, "JPEG"), "F") == "jpg"
    assert extension(webp(PHOTO), "F") == "webp"


def test_unequal_sizes_are_refused_with_both():
    files = {"label": encoded(IDS), "image": encoded(PHOTO[:, :5])}
    with pytest.raises(DataError, match="L is 8x6, but I is 5x6"):
        decode_sample(files, {"label": "L", "image": "I"})


@given(
    original=st.sampled_from(
        [encoded(IDS), encoded(PHOTO), encoded(PHOTO, "JPEG"), transparent(), webp(PHOTO)]
    ),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=5),
    length=st.integers(0, 3000),
    member=st.sampled_from(["label", "inst", "image"]),
)
@settings(max_examples=300, deadline=None)
def test_damage_never_escapes_as_another_error(original, flips, length, member):
    data = bytearray(original[:length])
    for position, value in flips:
        if data:
            data[position % len(data)] = value
    for examine in (
        lambda: decode(bytes(data), member, "F"),
        lambda: check_checksums(data, "F"),
        lambda: conversion(bytes(data), "a", "F"),
    ):
        try:
            examine()
        except DataError as error:
            assert str(error).startswith("F")


def turned(pixels: np.ndarray, orientation: int, image_format: str) -> bytes:
    """A file whose EXIF says how to turn it, so that it shows `pixels`."""
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # what undoes each
    image = Image.fromarray(pixels)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = back.get(orientation, 1)
    image = ImageOps.exif_transpose(with_exif(image, exif))
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    image.save(buffer, image_format, exif=exif, **options.get(image_format, {}))
    return buffer.getvalue()


def with_exif(image: Image.Image, exif: Image.Exif) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return Image.open(buffer)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_what_exif_turns_is_turned_upright(image_format, orientation):
    smooth = np.array(Image.fromarray(PHOTO).resize((16, 24), Image.Resampling.BICUBIC))
    data = turned(smooth, orientation, image_format)
    pixels = decode(data, "a", "F")
    assert pixels.shape == smooth.shape
    assert np.abs(pixels.astype(int) - smooth).max() <= (0 if image_format != "JPEG" else 12)
    assert images.check_header(data, "a", "F") == (16, 24)
    assert conversion(data, "a", "F") == (None if orientation == 1 else "RGB turned by EXIF")


@pytest.mark.parametrize(("ids", "member"), [(IDS, "label"), (WIDE_IDS, "inst"), (IDS, "inst")])
def test_maps_of_ids_are_turned_too(ids, member):
    data = turned(ids, 6, "PNG")
    assert (decode(data, member, "F") == ids).all()
    assert conversion(data, member, "F") == "ids turned by EXIF"
    assert conversion(encoded(ids), member, "F") is None


def test_a_turn_that_is_told_after_the_pixels_or_is_none():
    data = turned(PHOTO, 6, "PNG")
    (start,) = (i for i in range(len(data)) if data[i + 4 : i + 8] == b"eXIf")
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    late = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    assert (decode(late, "a", "F") == PHOTO).all()
    assert images.check_header(late, "a", "F") == (8, 6)
    broken = encoded(PHOTO)[:-12] + chunk(b"eXIf", b"nonsense") + encoded(PHOTO)[-12:]
    assert (decode(broken, "a", "F") == PHOTO).all()


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"tEXt", b"iCCP"])
def test_long_texts_and_profiles_do_not_matter(name):
    middle = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"tEXt": b"k\0", b"iCCP": b"p\0\0"}
    content = b"x" * 3_000_000 if name == b"tEXt" else zlib.compress(bytes(3_000_000))
    plain = encoded(PHOTO)
    data = plain[:33] + chunk(name, middle[name] + content) + plain[33:]
    assert (decode(data, "a", "F") == PHOTO).all()
    check_checksums(data, "F")
    damaged = bytearray(data)
    damaged[60] ^= 1
    with pytest.raises(DataError, match="F is .*corrupt"):
        check_checksums(bytes(damaged), "F")


def test_texts_are_taken_out_of_whole_pngs_alone():
    assert without_texts(b"\xff\xd8 tEXt") == b"\xff\xd8 tEXt"
    cut = encoded(PHOTO)[:-20] + b"tEXt"
    assert without_texts(cut) == cut


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "I;16"])
def test_one_channel_is_pillows_grey_of_the_rgb_picture(mode: str) -> None:
    image = Image.fromarray(PHOTO)
    buffer = io.BytesIO()
    if mode == "I;16":
        wide = Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16) << 8) + 77)
        wide.save(buffer, "PNG")
        expected = image.convert("L")
    else:
        image.convert(mode).save(buffer, "PNG")
        expected = image.convert(mode).convert("RGB").convert("L")
    grey = decode(buffer.getvalue(), "a", "F", channels=1)
    assert grey.shape == (*PHOTO.shape[:2], 1)
    assert (grey[..., 0] == np.asarray(expected)).all()


def test_four_channels_keep_alpha_and_make_it_where_there_is_none() -> None:
    sprite = np.dstack([PHOTO, PHOTO[..., 0]])
    assert (decode(encoded(sprite), "a", "F", channels=4) == sprite).all()
    opaque = decode(encoded(PHOTO), "a", "F", channels=4)
    assert (opaque[..., :3] == PHOTO).all() and (opaque[..., 3] == 255).all()
    for channels in (1, 3):
        with pytest.raises(DataError, match="transparent pixels"):
            decode(encoded(sprite), "a", "F", channels=channels)


def test_halves_have_channels_of_their_own() -> None:
    pair = np.hstack([PHOTO, PHOTO])
    pair = np.dstack([pair, np.full(pair.shape[:2], 255, np.uint8)])
    pair[:, PHOTO.shape[1] :, 3] = 9
    halves = decode_sample({"ab": encoded(pair)}, {"ab": "F"}, {"a": 1, "b": 4})
    assert (halves["a"] == decode(encoded(PHOTO), "a", "F", 1)).all()
    assert (halves["b"] == pair[:, PHOTO.shape[1] :]).all()
    with pytest.raises(DataError, match="F has transparent pixels in a half that is read without"):
        decode_sample({"ab": encoded(pair)}, {"ab": "F"}, {"a": 4, "b": 3})
