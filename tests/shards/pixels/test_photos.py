"""Photos stored anew: they alone, the same bytes each time, and the manifest tells it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.pack.packing import pack
from shards.pixels.images import decode
from shards.pixels.photos import Photos
from shards.pixels.storing import Storing
from shards.records import DataError
from shards.sets.manifest import read_manifest
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_shards
from shards.sets.verify import verify
from shards.storage.opening import open_store
from tests.shards.sources import contents, domain_source, encoded, save

SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:5, 0:256:4, 90:93]), -1).max(-1).astype("u1")
"""A ramp [48, 64, 3]: lossy formats keep it well."""
KINDS = [Photos("jpeg", 95), Photos("webp", 95)]
EXTENSIONS = {"jpeg": "jpg", "webp": "webp"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples: photos as PNG, as JPEG with EXIF, and as WebP."""
    folder = tmp_path_factory.mktemp("photos")
    label = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64) % 30
    for key in "abc":
        save(folder / f"train_label/{key}.png", label)
        save(folder / f"train_inst/{key}.png", label.astype(np.uint16) * 1000)
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    (folder / "train_img").mkdir()
    for name in ("a.png", "b.jpg", "c.webp"):
        Image.fromarray(SMOOTH).save(folder / "train_img" / name, exif=exif, quality=90)
    return folder


@pytest.fixture(scope="module", params=KINDS, ids=lambda photos: photos.format)
def stored(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> ShardSet:
    """The source, packed with its photos in one format; not to be changed."""
    out = tmp_path_factory.mktemp("stored") / "set"
    return pack(source, out, storing=Storing(request.param), workers=1)[0]


def test_photos_of_other_formats_are_encoded_anew_and_nothing_else_is(source, stored):
    photos = Photos(**stored.manifest.storing["photos"])
    for sample, name in enumerate(("a.png", "b.jpg", "c.webp")):
        files = Reader(stored).read(sample)
        for member in ("label", "inst"):
            assert files[member] == (source / f"train_{member}" / f"{name[0]}.png").read_bytes()
        original = (source / "train_img" / name).read_bytes()
        assert stored.entry_name(sample, "image").endswith(f".image.{EXTENSIONS[photos.format]}")
        same_format = name.endswith(EXTENSIONS[photos.format])
        assert (files["image"] == original) == same_format
        image = Image.open(io.BytesIO(files["image"]))
        assert image.format.lower() == photos.format
        assert bool(image.getexif()) == same_format
        error = decode(files["image"], "image", "F").astype(int) - decode(original, "image", "G")
        assert np.abs(error).mean() < (0.1 if same_format else 2)
    assert verify(stored.store.path, workers=1).problems == ()


def test_jpegs_keep_their_colour_planes_whole(source):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    data = Photos("jpeg", 95).stored(encoded(stripes), "image", "F")
    assert np.abs(decode(data, "image", "F").astype(int) - stripes).max() < 40
    assert [layer[1:3] for layer in Image.open(io.BytesIO(data)).layer] == [(1, 1)] * 3


def test_the_manifest_records_it_and_the_bytes_are_the_same_again(source, stored, tmp_path):
    photos = Photos(**stored.manifest.storing["photos"])
    content = json.loads((stored.store.path / "manifest.json").read_text())
    assert content["photos"] == {"format": photos.format, "quality": 95}
    (again,) = pack(source, tmp_path / "again", storing=Storing(photos), workers=2)
    assert contents(tmp_path / "again") == contents(stored.store.path)
    before = contents(tmp_path / "again")
    pack(source, tmp_path / "again", storing=Storing(photos), workers=1)
    assert contents(tmp_path / "again") == before


@pytest.mark.parametrize("other", [None, Photos("jpeg", 90), Photos("webp", 90)])
def test_another_option_is_another_set(source, stored, tmp_path, other):
    with pytest.raises(DataError, match="other images or with other options"):
        pack(source, stored.store.path, storing=Storing(other), workers=1)
    out = Path(shutil.copytree(stored.store.path, tmp_path / "set"))
    pack(source, out, storing=Storing(other), workers=1, replace=True)
    assert open_shards(out).manifest.storing == Storing(other).to_json()


def test_files_that_are_right_already_still_make_another_set(tmp_path):
    # All bytes are equal: only the manifest tells what was asked for.
    folder = tmp_path / "source/train"
    folder.mkdir(parents=True)
    Image.fromarray(SMOOTH).save(folder / "1.jpg")
    pack(tmp_path / "source", tmp_path / "out", layout="side-by-side", workers=1)
    with pytest.raises(DataError, match="with other options"):
        pack(
            tmp_path / "source",
            tmp_path / "out",
            layout="side-by-side",
            storing=Storing(KINDS[0]),
            workers=1,
        )


def test_shards_kept_from_an_interrupted_run_are_of_the_same_option(large_source, tmp_path):
    def stop_at_two(done: int, total: int, unit: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    source = tmp_path / "source"
    for folder in ("train_label", "train_img"):
        for number in range(3):
            name = f"{folder}/{number:03d}.png"
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(large_source / name, source / name)
    jpeg = Photos("jpeg", 50)
    for out, first in (("kept", jpeg), ("other", None), ("better", Photos("jpeg", 51))):
        with pytest.raises(KeyboardInterrupt):
            pack(
                source,
                tmp_path / out,
                shard_mib=1,
                storing=Storing(first),
                workers=1,
                progress=stop_at_two,
            )
        shards = sorted((tmp_path / out).glob("*.tar"))
        times = [path.stat().st_mtime_ns for path in shards]
        assert len(shards) == 2
        pack(source, tmp_path / out, shard_mib=1, storing=Storing(jpeg), workers=1)
        assert ([path.stat().st_mtime_ns for path in shards] == times) == (first == jpeg)
        assert contents(tmp_path / out) == contents(tmp_path / "kept")


def test_pictures_of_domains_are_stored_anew_and_what_was_grey_is_no_conversion(tmp_path):
    source = domain_source(tmp_path / "source", trainA=1, trainB=2)
    save(source / "trainB/trainB-0.png", SMOOTH[..., 0])
    for found in pack(source, tmp_path / "out", storing=Storing(Photos("webp", 80)), workers=1):
        for sample in range(found.num_samples):
            assert found.entry_name(sample, "image").endswith(".image.webp")
        assert found.manifest.conversions == {}
    assert verify(tmp_path / "out", workers=1).problems == ()


def test_damaged_sources_are_found_before_they_are_encoded(source, tmp_path):
    copy = Path(shutil.copytree(source, tmp_path / "source"))
    data = bytearray((copy / "train_img/a.png").read_bytes())
    data[-14] ^= 1  # in the checksum of the pixels
    decode(bytes(data), "image", "F")  # which decoding does not look at
    (copy / "train_img/a.png").write_bytes(data)
    with pytest.raises(DataError, match="train_img/a.png is corrupt"):
        pack(copy, tmp_path / "out", storing=Storing(KINDS[0]), workers=1)


def test_a_picture_too_wide_for_the_format_is_a_sentence():
    wide = encoded(np.zeros((1, 16384, 3), np.uint8))
    with pytest.raises(DataError, match="^F cannot be stored as webp .*: choose --photos=keep"):
        Photos("webp", 95).stored(wide, "image", "F")
    assert Photos("jpeg", 95).stored(wide, "image", "F")


@pytest.mark.parametrize(
    "options, expected",
    [
        (("png", 95), "photos=png: choose keep, jpeg or webp"),
        (("jpeg", 0), "quality=0: choose 1 to 100"),
        (("webp", 101), "quality=101: choose 1 to 100"),
    ],
)
def test_options_that_are_none(options, expected):
    with pytest.raises(DataError, match=expected):
        Photos(*options)


def test_sets_without_the_option_say_nothing_of_it(packed):
    assert packed.manifest.storing == {}
    assert "photos" not in json.loads((packed.store.path / "manifest.json").read_text())
    assert read_manifest(open_store(packed.store.path)).storing == {}
