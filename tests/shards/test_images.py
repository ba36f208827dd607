from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards import images
from shards.images import check_checksums, decode, decode_sample, extension
from shards.records import DataError
from tests.shards.sources import encoded

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


def test_pictures_become_rgb():
    assert (decode(encoded(PHOTO), "image", "F") == PHOTO).all()
    grey = decode(encoded(IDS), "a", "F")
    assert grey.shape == (6, 8, 3) and (grey == IDS[..., None]).all()
    deep = decode(encoded(WIDE_IDS), "a", "F")
    assert deep.dtype == np.uint8 and (deep == (WIDE_IDS >> 8)[..., None]).all()
    assert (decode(encoded(PHOTO, mode="RGBA"), "b", "F") == PHOTO).all()  # opaque
    jpeg = decode(encoded(np.full((8, 8, 3), 90, np.uint8), "JPEG"), "image", "F")
    assert np.abs(jpeg.astype(int) - 90).max() <= 1


def transparent() -> bytes:
    return encoded(np.concatenate([PHOTO, IDS[..., None]], axis=2))


def grey_of_depth(bits: int) -> bytes:
    """A 4 x 1 grey PNG with 1, 2 or 4 bits a pixel, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    row = bytes(1) + bytes([0b01] * (4 * bits // 8 or 1))
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


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


REFUSED = {
    "colours for ids": ("label", encoded(PHOTO), "mode RGB, not single-channel 8-bit ids"),
    "wide label ids": ("label", encoded(WIDE_IDS), "mode I;16, not single-channel 8-bit ids"),
    "colours for instances": ("inst", encoded(PHOTO), "convert it to an index map"),
    "lossy ids": ("label", encoded(IDS, "JPEG"), "JPEG, which blurs ids"),
    "2-bit grey ids": ("label", grey_of_depth(2), "2-bit grey PNG"),
    "4-bit grey ids": ("inst", grey_of_depth(4), "4-bit grey PNG"),
    "transparency": ("image", transparent(), "transparent pixels: flatten"),
    "print colours": ("a", encoded(PHOTO, "JPEG", "CMYK"), "colour mode CMYK"),
    "text": ("image", b"hello, I am a text", "not a PNG or JPEG image"),
    "nothing": ("image", b"", "not a PNG or JPEG image"),
    "PostScript": ("image", saved_as("EPS"), "not a PNG or JPEG image"),
    "GIF": ("image", saved_as("GIF"), "not a PNG or JPEG image"),
    "TIFF": ("image", saved_as("TIFF"), "not a PNG or JPEG image"),
    "half a PNG": ("image", encoded(PHOTO)[:100], "truncated or corrupt"),
    "half a JPEG": ("image", encoded(PHOTO, "JPEG")[:400], "truncated or corrupt"),
    "a PNG's first bytes": ("image", encoded(PHOTO)[:12], "truncated or corrupt"),
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
    assert decode(grey_of_depth(1), "label", "F").tolist() == [[0, 0, 0, 0]]


def test_size_limit_holds_below_the_decoders_own(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 47)
    with pytest.raises(DataError, match="8x6 pixels; at most 47"):
        decode(encoded(PHOTO), "image", "F")


def test_a_flipped_byte_that_decodes_is_found_by_checksum():
    data = bytearray(encoded(np.zeros((64, 64, 3), np.uint8)))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(DataError, match="F is corrupt"):
        check_checksums(bytes(data), "F")


def test_extension_follows_the_content():
    assert extension(encoded(PHOTO), "F") == "png"
    assert extension(encoded(PHOTO, "JPEG"), "F") == "jpg"


def test_unequal_sizes_are_refused_with_both():
    files = {"label": encoded(IDS), "image": encoded(PHOTO[:, :5])}
    with pytest.raises(DataError, match="L is 8x6, but I is 5x6"):
        decode_sample(files, {"label": "L", "image": "I"})


@given(
    original=st.sampled_from([encoded(IDS), encoded(PHOTO), encoded(PHOTO, "JPEG"), transparent()]),
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
    for examine in (lambda: decode(bytes(data), member, "F"), lambda: check_checksums(data, "F")):
        try:
            examine()
        except DataError as error:
            assert str(error).startswith("F")
