"""Sizes and places of every mode, drawn once for all images of a sample."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from shards.hashing import hash64
from shards.pixels.augment import Preprocess
from shards.records import DataError

HEIGHT, WIDTH = 20, 40
CORNER = np.arange(HEIGHT)[:, None] * 100 + np.arange(WIDTH)
"""Every pixel tells where it came from: row * 100 + column."""


def sample() -> dict[str, np.ndarray]:
    rows, columns = np.indices((HEIGHT, WIDTH))
    return {
        "label": (columns + rows).astype(np.uint8),
        "inst": (CORNER + 30000).astype(np.int32),
        "image": np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8),
    }


@pytest.mark.parametrize("draw", range(6))
def test_one_draw_for_all_images_of_a_sample(draw):
    out = Preprocess("crop", crop_size=(7, 9)).apply(sample(), draw, "S")
    rows, columns = divmod(out["inst"] - 30000, 100)
    assert (out["image"][..., 0] == rows).all() and (out["image"][..., 1] == columns).all()
    assert (out["label"] == rows + columns).all()
    assert out["inst"].dtype == np.int32 and out["inst"].shape == (7, 9)
    steps = np.diff(columns[0])
    assert (steps == 1).all() or (steps == -1).all()


def test_draws_reach_every_place_and_both_directions():
    preprocess = Preprocess("crop", crop_size=(HEIGHT - 1, WIDTH - 2))
    firsts = set()
    for draw in range(200):
        inst = preprocess.apply(sample(), hash64(draw), "S")["inst"] - 30000
        mirrored = inst[0, 0] > inst[0, -1]
        firsts.add((int(inst.min()), bool(mirrored)))
    places = [100 * top + left for top in range(2) for left in range(3)]
    assert firsts == {(place, mirrored) for place in places for mirrored in (False, True)}


def test_the_same_draw_gives_the_same_pixels():
    preprocess = Preprocess("resize_and_crop", load_size=30, crop_size=16)
    one, two = (preprocess.apply(sample(), 77, "S") for _ in range(2))
    assert all((one[member] == two[member]).all() for member in one)


@pytest.mark.parametrize(
    "width, height, expected", [(2048, 1024, 512), (1000, 333, 340), (1242, 375, 309)]
)
def test_scale_width_rounds_as_the_original(width, height, expected):
    preprocess = Preprocess("scale_width", load_size=1024)
    assert preprocess.output_size(width, height) == (1024, expected)
    label = np.zeros((height, width), np.uint8)
    assert preprocess.apply({"label": label}, 0, "S")["label"].shape == (expected, 1024)


@pytest.mark.parametrize(
    "preprocess, expected",
    [
        (Preprocess(), (40, 20)),
        (Preprocess("resize_and_crop", load_size=30, crop_size=16), (16, 16)),
        (Preprocess("resize_and_crop", load_size=(24, 48), crop_size=(8, 32)), (32, 8)),
        (Preprocess("crop", crop_size=20), (20, 20)),
        (Preprocess("scale_width", load_size=20), (20, 10)),
        (Preprocess("scale_width_and_crop", load_size=60, crop_size=30), (30, 30)),
    ],
)
def test_sizes_of_every_mode(preprocess, expected):
    assert preprocess.output_size(WIDTH, HEIGHT) == expected
    for array in preprocess.apply(sample(), 5, "S").values():
        assert array.shape[1::-1] == expected


def test_ids_take_the_nearest_and_pictures_are_bicubic():
    pixels = sample()
    out = Preprocess("scale_width", load_size=60, flip=False).apply(pixels, 0, "S")
    assert set(np.unique(out["inst"])) <= set(np.unique(pixels["inst"]))
    expected = Image.fromarray(pixels["image"]).resize((60, 30), Image.Resampling.BICUBIC)
    assert (out["image"] == np.asarray(expected)).all()
    nearest = Image.fromarray(pixels["label"]).resize((60, 30), Image.Resampling.NEAREST)
    assert (out["label"] == np.asarray(nearest)).all()


def test_deterministic_cuts_the_centre_and_never_flips():
    preprocess = Preprocess("crop", crop_size=(10, 20)).deterministic()
    for draw in range(20):
        inst = preprocess.apply(sample(), draw, "S")["inst"]
        assert (inst == CORNER[5:15, 10:30] + 30000).all()


@pytest.mark.parametrize(
    "preprocess, expected",
    [
        (Preprocess("none"), (40, 20)),
        (Preprocess("crop", crop_size=8), (40, 20)),
        (Preprocess("scale_width_and_crop", load_size=20, crop_size=8), (20, 10)),
        (Preprocess("resize_and_crop", load_size=30, crop_size=8), (8, 8)),
        (Preprocess("resize_and_crop", load_size=30, crop_size=(8, 12)), (12, 8)),
    ],
)
def test_uncropped_keeps_whole_pictures(preprocess, expected):
    out = preprocess.uncropped().apply(sample(), 3, "S")["inst"]
    assert out.shape[1::-1] == expected
    assert (np.diff(out[0]) > 0).all()


def test_a_crop_larger_than_the_image_names_sample_sizes_and_remedy():
    preprocess = Preprocess("scale_width_and_crop", load_size=30, crop_size=(16, 30))
    with pytest.raises(DataError, match=r"KEY is 30x15 .*crop_size=30x16.*raise load_size"):
        preprocess.apply(sample(), 0, "KEY")


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"mode": "resize"}, "data.preprocess.mode='resize': choose none,"),
        ({"mode": "resize_and_crop", "crop_size": 8}, "data.preprocess.load_size is missing"),
        ({"mode": "crop"}, "data.preprocess.crop_size is missing"),
        ({"mode": "crop", "crop_size": 0}, "data.preprocess.crop_size=0"),
        ({"mode": "crop", "crop_size": (1, 2, 3)}, "data.preprocess.crop_size="),
        ({"mode": "scale_width", "load_size": (8, 8)}, "takes one integer, the width"),
    ],
)
def test_wrong_options_are_named(options, expected):
    with pytest.raises(ValueError, match=expected.replace("(", r"\(")):
        Preprocess(**options)


def test_grey_pictures_are_resized_as_pictures():
    grey = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    preprocess = Preprocess("resize_and_crop", load_size=(9, 13), crop_size=(9, 13), flip=False)
    out = preprocess.apply({"a": grey}, 0, "S")["a"]
    expected = Image.fromarray(grey[..., 0]).resize((13, 9), Image.Resampling.BICUBIC)
    assert out.shape == (9, 13, 1) and (out[..., 0] == np.asarray(expected)).all()
