"""GANs from noise with the real commands: pack, train, sample, and mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launcher.run.samples import truncated
from launcher.run.sampling import Wanted
from tests.launcher.sample import organza

SIDE = 8
NETWORKS = {
    "generator": {"kind": "dcgan", "ngf": 2, "num_embedding": 2},
    "discriminator": {"kind": "dcgan", "ndf": 2},
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures of three classes."""
    folder = tmp_path_factory.mktemp("classes")
    for number, name in enumerate(("bright", "dark", "middle")):
        place = folder / "source" / name
        place.mkdir(parents=True)
        for index in range(3):
            draw = np.random.RandomState(10 * number + index).randint(0, 80, (SIDE, SIDE))
            Image.fromarray((draw + 80 * number).astype(np.uint8)).save(place / f"{index}.png")
    pack = ("pack", folder / "source", folder / "packed", "--layout=labelled")
    status, output = organza(*pack)
    assert status == 0, output
    return folder / "packed"


def recipe(folder: Path, packed: Path, gan: str = "cgan", **model: object) -> Path:
    options = {"side": SIDE, "channels": 1, "num_noise": 3}
    options |= {"num_classes": 3, **NETWORKS} if gan == "cgan" else {}
    options |= model
    tree = {
        "gan": gan,
        "run_dir": str(folder / "run"),
        "model": options,
        "data": {"shards": str(packed), "workers": 0},
        "batch": {"total": 4},
        "schedule": {"constant": 8, "decay": 0},
        "cadence": {"log": 4, "pictures": 4, "save": 4},
        "ema": {"halflife": 8},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def run(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a CGAN."""
    folder = tmp_path_factory.mktemp("run")
    status, output = organza("train", recipe(folder, packed))
    assert status == 0, output
    assert f"sample: organza sample {folder / 'run'} OUT." in output
    return folder / "run"


def sampled(run: Path, out: Path, *options: str) -> dict[str, bytes]:
    """The pictures that the command makes, by name."""
    status, output = organza("sample", run, out, *options)
    assert status == 0, output
    return {path.name: Image.open(path).tobytes() for path in sorted(out.glob("*.png"))}


def test_a_picture_follows_from_the_seed_and_its_number(run: Path, tmp_path: Path) -> None:
    few = sampled(run, tmp_path / "few", "--num=3")
    many = sampled(run, tmp_path / "many", "--num=20", "--grid=0")
    assert sorted(few) == ["000000.png", "000001.png", "000002.png", "sheet.png"]
    assert len(many) == 20
    assert all(many[name] == few[name] for name in few if name != "sheet.png")
    assert few["000000.png"] != few["000001.png"]
    other = sampled(run, tmp_path / "other", "--num=3", "--seed=1")
    assert other["000000.png"] != few["000000.png"]
    raw = sampled(run, tmp_path / "raw", "--num=3", "--weights=raw")
    assert raw["000000.png"] != few["000000.png"]


def test_classes_are_taken_in_turn(run: Path, tmp_path: Path) -> None:
    turns = sampled(run, tmp_path / "turns", "--num=6")
    ones = sampled(run, tmp_path / "ones", "--num=6", "--classes=1")
    same = [name for name in ones if turns[name] == ones[name]]
    assert same == ["000001.png", "000004.png"]
    asked = sampled(run, tmp_path / "asked", "--num=4", "--classes=2,1")
    assert asked["000001.png"] == ones["000001.png"]
    assert asked["000003.png"] == ones["000003.png"]


def test_the_sheet_holds_all_pictures(run: Path, tmp_path: Path) -> None:
    sampled(run, tmp_path, "--num=5", "--grid=3")
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "000004.png") as last:
        assert sheet.size == (3 * SIDE, 2 * SIDE)
        cell = sheet.crop((SIDE, SIDE, 2 * SIDE, 2 * SIDE)).convert("L")
        assert last.mode == "L" and cell.tobytes() == last.tobytes()


def test_the_way_from_picture_to_picture(run: Path, tmp_path: Path) -> None:
    plain = sampled(run, tmp_path / "plain", "--num=3", "--classes=0")
    way = sampled(run, tmp_path / "way", "--num=2", "--classes=0", "--interpolate=4")
    assert len(way) == 2 * 4 + 1
    assert way["000000-00.png"] == plain["000000.png"]
    assert way["000000-03.png"] == way["000001-00.png"] == plain["000001.png"]
    assert way["000001-03.png"] == plain["000002.png"]
    assert way["000000-01.png"] not in plain.values()


def test_truncated_noise_is_that_without_large_numbers() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).double()
    cut = truncated(values, 0.7)
    assert cut.abs().max() <= 0.7
    kept = values[values.abs() <= 0.7]
    shares = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    assert torch.allclose(cut.quantile(shares), kept.quantile(shares), atol=0.02)
    assert torch.equal(cut.argsort(), values.argsort())


def test_truncation_reaches_the_pictures(run: Path, tmp_path: Path) -> None:
    whole = sampled(run, tmp_path / "whole", "--num=2")
    cut = sampled(run, tmp_path / "cut", "--num=2", "--truncation=0.1")
    assert cut["000000.png"] != whole["000000.png"]


def test_the_board_shows_the_same_samples_over_time(run: Path) -> None:
    board = EventAccumulator(str(run / "board")).Reload()
    images = board.Images("pictures")
    assert [image.step for image in images] == [4, 8]
    # Three rows of classes, eight of each; those of the average beside them.
    assert {(image.width, image.height) for image in images} == {(2 * 8 * SIDE, 3 * SIDE)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--num=0",), "--num=0 must be 1 or more."),
        (("--classes=3",), "--classes=3 is not there: this run has the classes 0 to 2."),
        (("--classes=one",), "--classes=one is not a whole number."),
        (("--truncation=-1",), "--truncation=-1 is not a number above 0."),
        (("--interpolate=1",), "--interpolate=1 must be 2 or more, or 0 for none."),
        (("--weights=best",), "--weights=best must be one of ema, raw."),
    ],
)
def test_what_cannot_be_asked_for(
    options: tuple[str, ...], sentence: str, run: Path, tmp_path: Path
) -> None:
    status, output = organza("sample", run, tmp_path / "out", *options)
    assert (status, f"sample: {sentence}" in output) == (2, True), output
    assert not (tmp_path / "out").exists()


def test_files_of_others_stay(run: Path, tmp_path: Path) -> None:
    (tmp_path / "000001.png").write_bytes(b"somebody's")
    status, output = organza("sample", run, tmp_path, "--num=2")
    assert status and "was not made by this program" in output
    assert [path.name for path in tmp_path.iterdir()] == ["000001.png"]


def test_a_run_from_noise_translates_nothing(run: Path, packed: Path, tmp_path: Path) -> None:
    status, output = organza("translate", run, packed.parent / "source", tmp_path / "out")
    assert status == 2
    assert "translate: cgan makes pictures from noise, not from pictures." in output


MISTAKES = [
    ({"num_classes": 4}, "model.num_classes"),
    ({"channels": 3}, "holds grey pictures alone, but these networks make RGB ones"),
    ({"side": 16}, "images of 8x8 after data.preprocess, but these networks make images of"),
    ({"num_critic_steps": 0}, "num_critic_steps"),
    ({"num_noise": 0}, "num_noise"),
    ({"num_critic_steps": 2}, "model.generator_first=true"),
    ({"gan_loss": "wgangp", "discriminator": {"kind": "dcgan", "norm": "sync-batch"}}, "twice"),
]


@pytest.mark.parametrize(("model", "sentence"), MISTAKES)
def test_mistakes_are_told_before_training(
    model: dict[str, object], sentence: str, packed: Path, tmp_path: Path
) -> None:
    status, output = organza("train", recipe(tmp_path, packed, **model))
    assert status and sentence in output and "Traceback" not in output, output
    assert not (tmp_path / "run").exists()


GROWING = {"fmap_base": 16, "fmap_max": 4}
LARGE = {"side": 32, "num_classes": 3, "num_noise": 4}
NORMED = {"side": 32, "generator": {"widths": [4, 4], "norm": "batch"}}
ENLARGED = ("mode=resize_and_crop", "load_size=32", "crop_size=32")


@pytest.mark.parametrize(
    ("gan", "model", "options", "sentence"),
    [
        ("progan", {"group_size": 3}, (), "which cannot be divided into groups of"),
        ("progan", {"level_batches": {5: 4}}, (), "names 5: the levels of side=8 are 4, 8"),
        ("progan", {"level_batches": {4: 3}}, ("--batch.micro=2",), "model.level_batches.4=3"),
        ("progan", {"stable": 0, "fading": 0}, (), "no level would ever be trained"),
        ("s2gan", {"turned": 0.5}, (), "but this GAN compares 8"),
        ("s2gan", {"joint": False}, (), "model.joint=false is refused"),
        ("biggan", {"shared": False}, (), "model.hierarchical=true needs model.shared=true"),
        ("biggan", {"num_noise": 3}, (), "model.num_noise=3 cannot be shared by 4 parts"),
        ("biggan", {"generator_attention": [48]}, (), "model.generator_attention=48 is no side"),
        ("progan", {"fmap_base": 8, "side": 64}, (), "leaves the level of 64x64 no channel"),
        ("progan", {"level_batches": {4: 6}, "group_size": 4}, (), "divided into groups of"),
        ("gan", {"side": 8, "generator": {"widths": []}}, (), "generator.widths"),
        ("gan", {"side": 8, "generator": {"norm": "instance"}}, (), "norm=instance is refused"),
        ("gan", NORMED, ("--batch.micro=1",), "but this GAN compares 2 or more"),
        ("dcgan", {"side": 30}, (), "model.side=30: images of 30x30 do not fit"),
        ("infogan", {"side": 28, "norm": "instance"}, (), "model.norm=instance is refused"),
        ("infogan", {"side": 30}, (), "model.form=original makes 28 or 32"),
        ("infogan", {"side": 28, "trunk_widths": [1]}, (), "trunk_widths=[1]: give 3 numbers"),
        ("cogan", {"side": 32}, (), "model.form=original makes 28, enlarging a multiple of 16"),
        ("sagan", {"num_classes": 3, "side": 48}, (), "with classes choose 32, 64, 128, 256"),
    ],
)
def test_mistakes_of_each_gan(
    gan: str,
    model: dict[str, object],
    options: tuple[str, ...],
    sentence: str,
    packed: Path,
    tmp_path: Path,
) -> None:
    if gan != "progan":
        options = (*options, *(f"--data.preprocess.{option}" for option in ENLARGED))
    usual = {"progan": GROWING}.get(gan, LARGE if gan in ("biggan", "s2gan", "sagan") else {})
    path = recipe(tmp_path, packed, gan, **usual | model)
    status, output = organza("train", path, *options)
    assert status and sentence in output and "Traceback" not in output, output


def test_other_noise_cannot_be_started_from(run: Path, packed: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, packed, num_noise=5)
    status, output = organza("train", path, f"--start_from={run}")
    assert status == 2 and "their options differ" in output and "Traceback" not in output, output


def test_classes_belong_to_gans_that_know_them(packed: Path, tmp_path: Path) -> None:
    networks = {"generator": {"ngf": 2}, "discriminator": {"ndf": 2}}
    status, output = organza("train", recipe(tmp_path, packed, "dcgan", **networks))
    assert status == 0, output
    status, output = organza("sample", tmp_path / "run", tmp_path / "out", "--classes=1")
    assert status == 2 and "dcgan knows no classes here" in output


def test_the_names_of_pictures() -> None:
    assert Wanted(2).names() == ["000000.png", "000001.png"]
    assert Wanted(1, steps=2).names() == ["000000-00.png", "000000-01.png"]
