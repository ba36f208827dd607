"""`score` against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher.data.scoring import CONSTANT, IDENTITY, MISMATCH, score
from shards.records import DataError

STEP = np.array([[0, 0], [0, 255]], np.uint8)
"""A photo, grey: its best constant is black, which is off by 255 in a quarter: 0.25."""
LIGHTER = np.array([[51, 51], [51, 255]], np.uint8)
"""Off by 51 of 255 in three quarters: 0.15."""
FLAT = np.full((2, 2), 51, np.uint8)
"""Off by 51 in three quarters and by 204 in one: 0.35."""


def put(folder: Path, **pictures: np.ndarray) -> Path:
    """PNG files; a double underscore in a name stands for a folder."""
    folder.mkdir()
    for name, grey in pictures.items():
        path = folder / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(grey).convert("RGB").save(path)
    return folder


def test_better_than_a_constant(tmp_path, capsys):
    photos = put(tmp_path / "photos", a=STEP, b=STEP, unused=FLAT)
    assert score(put(tmp_path / "out", a=LIGHTER, b=STEP), photos) == 0
    assert capsys.readouterr().out == (
        "mean absolute error over 2 pictures: 0.0750; "
        "best constant colour: 0.2500 (better, ratio 0.30); "
        "beside another photo: 0.0750 (NOT better, ratio 1.00)\n"
    )


def test_not_better_than_a_constant(tmp_path, capsys):
    assert score(put(tmp_path / "out", a=FLAT), put(tmp_path / "photos", a=STEP)) == 1
    assert "0.3500; best constant colour: 0.2500 (NOT better, ratio 1.40)" in (
        capsys.readouterr().out
    )


def test_photos_of_one_colour_leave_nothing_to_win(tmp_path, capsys):
    assert score(put(tmp_path / "out", a=STEP), put(tmp_path / "photos", a=FLAT)) == 1
    assert "best constant colour: 0.0000 (NOT better)" in capsys.readouterr().out


def test_what_does_not_depend_on_the_source_is_no_better_beside_its_own_photo(tmp_path, capsys):
    photos = put(tmp_path / "photos", a=STEP, b=255 - STEP, c=STEP)
    same = put(tmp_path / "same", a=LIGHTER, b=LIGHTER, c=LIGHTER)
    own = put(tmp_path / "own", a=LIGHTER, b=255 - LIGHTER, c=LIGHTER)
    assert [score(folder, photos, None, (MISMATCH,)) for folder in (own, same)] == [0, 1]


def test_beside_the_sources_themselves(tmp_path, capsys):
    photos, sources = put(tmp_path / "photos", a=STEP), put(tmp_path / "sources", a=FLAT)
    good, bad = put(tmp_path / "good", a=LIGHTER), put(tmp_path / "bad", a=FLAT)
    assert score(good, photos, sources, (CONSTANT, IDENTITY)) == 0
    assert "identity map: 0.3500 (better, ratio 0.43)" in capsys.readouterr().out
    assert score(bad, photos, sources, (IDENTITY,)) == 1
    # Between the two answers: worse than the constant, better than the source.
    between = put(tmp_path / "between", a=np.array([[51, 51], [51, 102]], np.uint8))
    assert [score(between, photos, sources, (name,)) for name in (CONSTANT, IDENTITY)] == [1, 0]
    with pytest.raises(DataError, match="holds no source of 1 pictures"):
        score(good, photos, put(tmp_path / "empty", b=FLAT), (IDENTITY,))


@pytest.mark.parametrize(
    ("key", "photo"),
    [
        ("aachen__a", "aachen__a_leftImg8bit"),  # labels of Cityscapes: the key has no ending
        ("aachen__a_leftImg8bit", "aachen__a_leftImg8bit"),  # pairs: it has
        ("v1_2__frame_0001", "v1.2__frame.0001"),
    ],
)
def test_photos_are_found_by_the_keys_of_translate(tmp_path, key, photo):
    photos = put(tmp_path / "photos", **{photo: STEP})
    assert score(put(tmp_path / "out", **{key: LIGHTER}), photos) == 0


def test_what_cannot_be_compared_is_named(tmp_path):
    photos = put(tmp_path / "photos", a=STEP, b=STEP[:1])
    with pytest.raises(DataError, match="out holds no picture"):
        score(put(tmp_path / "out"), photos)
    with pytest.raises(DataError, match=r"photos holds no photo of 1 pictures \(first: c/d\)"):
        score(put(tmp_path / "other", c__d=STEP), photos)
    with pytest.raises(DataError, match="b.png is 2x2, but .*b.png is 2x1"):
        score(put(tmp_path / "size", b=STEP), photos)
