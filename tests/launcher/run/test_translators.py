"""CycleGAN and pix2pix with the real commands: pack, train, resume, translate, and mistakes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from launcher.data.scoring import score
from launcher.recipe.config import ConfigError, load
from launcher.recipe.data_fit import check_data
from launcher.run import training
from launcher.run.sources import sources_of
from launcher.run.translating import translate
from shards.pack.packing import pack
from shards.pixels.storing import Storing
from shards.records import DataError
from tests.launcher.sample import organza
from trainers.checkpoints.checkpoint import find
from trainers.errors import TrainingError

CROPPED = {"mode": "resize_and_crop", "load_size": 40, "crop_size": 32}


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    width, height = size
    draw = np.random.RandomState(seed).randint(0, 256, (height // 4, width // 4, 3))
    return Image.fromarray(draw.astype(np.uint8)).resize(size)


def fill(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (48, 36)) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        picture(seed + number, size).save(folder / f"{number:02d}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """horses: unpaired, 6 and 4; houses: side by side; beasts: three classes."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        fill(folder / "horses" / f"{split}A", 6)
        fill(folder / "horses" / f"{split}B", 4, seed=50)
        fill(folder / "houses" / split, 5, seed=90, size=(96, 36))
    for number, name in enumerate(("cat", "dog", "owl")):
        fill(folder / "beasts" / name, 3, seed=10 * number)
    for name, layout in (("horses", "auto"), ("houses", "side-by-side"), ("beasts", "classes")):
        arguments = (folder / name, folder / f"{name}-packed", f"--layout={layout}")
        status, output = organza("pack", *arguments)
        assert status == 0, output
        status, output = organza("verify", folder / f"{name}-packed")
        assert status == 0 and "all is well" in output, output
    return folder


def write(folder: Path, gan: str, shards: Path, **changes: object) -> Path:
    generators = {
        "cyclegan": {"ngf": 2, "num_blocks": 1},
        "pix2pix": {"ngf": 2, "num_downsamples": 5, "norm": "instance", "dropout": 0},
    }
    tree = {
        "gan": gan,
        "run_dir": str(folder / gan),
        "model": {"generator": generators[gan], "discriminator": {"ndf": 2, "num_layers": 1}},
        "data": {"shards": str(shards), "workers": 1, "preprocess": CROPPED},
        "batch": {"total": 2},
        "schedule": {"constant": "1 epochs", "decay": 6},
        "cadence": {"log": 4, "pictures": 6, "save": 4},
    } | changes
    path = folder / f"{gan}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CycleGAN run of two processes, and a pix2pix run of one."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = write(folder, "cyclegan", data / "horses-packed", ema={"halflife": 4})
    status, output = organza("train", recipe, "--model.pool_size=2", launch=2)
    assert status == 0, output
    recipe = write(folder, "pix2pix", data / "houses-packed")
    status, output = organza("train", recipe, "--model.direction=B2A")
    assert status == 0, output
    return folder


def test_the_nominal_epoch_is_the_larger_set(runs: Path) -> None:
    assert find(runs / "cyclegan").progress.images == 6 + 6
    assert find(runs / "pix2pix").progress.images == 5 + 6 + 1  # a whole number of steps


def test_every_process_keeps_its_own_pools(runs: Path) -> None:
    files = [find(runs / "cyclegan").tensors(f"rank0000{rank}") for rank in (0, 1)]
    pools = [[n for n in tensors if n.startswith("gan/fake_A/image")] for tensors in files]
    assert [len(pool) for pool in pools] == [2, 2]
    assert not torch.equal(files[0][pools[0][0]], files[1][pools[1][0]])


@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_cyclegan_translates_both_ways(
    runs: Path, data: Path, tmp_path: Path, direction: str
) -> None:
    arguments = (runs / "cyclegan", data / "horses", tmp_path / "out", f"--direction={direction}")
    status, output = organza("translate", *arguments)
    assert status == 0, output
    pictures = sorted((tmp_path / "out").iterdir())
    assert len(pictures) == {"A2B": 6, "B2A": 4}[direction]
    assert Image.open(pictures[0]).size == (32, 32)  # as in training, but whole


def test_folders_of_any_size_keep_it_when_asked(runs: Path, tmp_path: Path) -> None:
    fill(tmp_path / "mine", 1, size=(60, 44))
    fill(tmp_path / "mine" / "not-looked-at", 1)
    (tmp_path / "mine" / "00.png").rename(tmp_path / "mine" / "big.png")
    picture(1, (36, 100)).save(tmp_path / "mine" / "tall.jpg")
    keep = "--data.preprocess.mode=none"
    source, out = tmp_path / "mine", tmp_path / "o"
    status, output = organza("translate", runs / "cyclegan", source, out, keep)
    assert status == 0, output
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "o").iterdir()}
    assert sizes == {"big.png": (60, 44), "tall.png": (36, 100)}
    arguments = (runs / "pix2pix", tmp_path / "mine", tmp_path / "p", keep)
    status, output = organza("translate", *arguments)
    assert status == 1 and "sides that are multiples of 32: add --model.generator.pad" in output
    assert not (tmp_path / "p").exists()
    status, output = organza("translate", *arguments, "--model.generator.pad=true")
    assert status == 0, output
    assert Image.open(tmp_path / "p" / "big.png").size == (60, 44)


@pytest.mark.parametrize("way", ["itself", "link to it", "links to the pictures", "labels", "jpg"])
def test_no_file_of_the_user_is_replaced(runs: Path, tmp_path: Path, way: str) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    fill(mine, 2, size=(48, 48))
    if way == "itself":
        out = mine
    elif way == "link to it":
        out.symlink_to(mine)
    elif way == "links to the pictures":
        out.mkdir()
        (out / "01.png").symlink_to(mine / "01.png")
    elif way == "labels":
        fill(out, 2)
    else:
        Image.open(mine / "01.png").save(mine / "02.jpg")
        (mine / "00.png").unlink(), (mine / "01.png").unlink()
        out = mine
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="choose another folder for the results"):
        translated(runs / "cyclegan", mine, out)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_results_may_be_made_again_but_not_from_themselves(runs: Path, tmp_path: Path) -> None:
    fill(tmp_path / "mine", 1)
    long = f"{'x' * 230}.v1.2"
    (tmp_path / "mine" / "00.png").rename(tmp_path / "mine" / f"{long}.png")
    out = tmp_path / "out"
    for _ in range(2):
        translated(runs / "cyclegan", tmp_path / "mine", out)
    assert [path.name for path in out.iterdir()] == [f"{long}.png"]  # its dots too
    with pytest.raises(DataError, match="would lie among the pictures"):
        translated(runs / "cyclegan", out, out)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "1.png").hardlink_to(out / f"{long}.png")
    (out / f"{long}.png").rename(out / "1.png")
    with pytest.raises(DataError, match="is another name of a picture"):
        translated(runs / "cyclegan", out, tmp_path / "linked")


def test_transparent_and_turned_pictures_are_translated_as_they_would_be_packed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "mine", 1)
    sprite = picture(3, (48, 36)).convert("RGBA")
    sprite.putalpha(128)
    exif = Image.Exif()
    exif[0x0112] = 6
    sprite.save(tmp_path / "mine" / "sprite.png", exif=exif)
    keep = {"data.preprocess.mode": "none"}
    with pytest.raises(DataError, match="1728 transparent pixels: compose it .* --background"):
        translated(runs / "cyclegan", tmp_path / "mine", tmp_path / "out", overrides=keep)
    translated(
        runs / "cyclegan", tmp_path / "mine", tmp_path / "out", overrides=keep, background="white"
    )
    assert Image.open(tmp_path / "out" / "sprite.png").size == (36, 48)
    told = capsys.readouterr().out
    assert "1 files are turned by EXIF: they are translated upright." in told
    assert "a: 1 transparent pictures composed over white." in told


def test_nothing_is_translated_before_all_files_are_known_to_fit(
    runs: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "mine", 1, size=(64, 64))
    for name, harm in (("small", lambda p: picture(0, (4, 64)).save(p)), ("cmyk", save_cmyk)):
        bad = tmp_path / "mine" / f"{name}.jpg"
        harm(bad)
        with pytest.raises(DataError, match=f"{name}.jpg"):
            keep = {"data.preprocess.mode": "none"}
            translated(runs / "cyclegan", tmp_path / "mine", tmp_path / "out", overrides=keep)
        assert not (tmp_path / "out").exists()
        bad.unlink()


def save_cmyk(path: Path) -> None:
    picture(0, (64, 64)).convert("CMYK").save(path)


def translated(checkpoint: Path, source: Path, out: Path, **options: object) -> None:
    usual = {"split": "test", "layout": "auto", "direction": "", "ema": True, "overrides": {}}
    translate(checkpoint, source, out, **usual | options)


def test_pix2pix_translates_its_half_of_side_by_side_files(
    runs: Path, data: Path, tmp_path: Path
) -> None:
    calm = "--model.test_dropout=false"
    arguments = (runs / "pix2pix", data / "houses", tmp_path / "ab", "--layout=side-by-side", calm)
    status, output = organza("translate", *arguments)
    assert status == 0, output
    (tmp_path / "b").mkdir()
    for path in (data / "houses" / "test").iterdir():
        Image.open(path).crop((48, 0, 96, 36)).save(tmp_path / "b" / path.name)
    status, output = organza("translate", runs / "pix2pix", tmp_path / "b", tmp_path / "one", calm)
    assert status == 0, output
    for path in (tmp_path / "one").iterdir():
        assert np.array_equal(Image.open(path), Image.open(tmp_path / "ab" / path.name))


def test_two_classes_are_two_domains(data: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, "cyclegan", data / "beasts-packed")
    status, output = organza("train", recipe, "--data.domains=[owl, cat]", "--schedule.decay=0")
    assert status == 0, output
    assert find(tmp_path / "cyclegan").config["data"]["domains"] == ["owl", "cat"]
    status, output = organza("train", recipe, "--data.domains=[cat, owl]", "--schedule.decay=2")
    assert status == 2 and "data.domains was ['owl', 'cat']" in output, output


@pytest.mark.parametrize(
    ("gan", "name", "options", "message"),
    [
        ("cyclegan", "beasts", ["--data.domains=[cat, dgo]"], "did you mean"),
        ("cyclegan", "beasts", ["--data.domains=[cat, cat]"], "two different domains"),
        ("cyclegan", "houses", [], "holds no domains.json"),
        ("pix2pix", "horses", [], "domains"),
        ("pix2pix", "houses", ["--data.domains=[A, B]"], "belongs to unpaired training"),
        ("pix2pix", "houses", ["--model.direction=AtoB"], "`model.direction` is 'AtoB'"),
        ("pix2pix", "houses", ["--data.preprocess.crop_size=36"], "multiples of 32, 32x32 for"),
        ("cyclegan", "horses", ["--model.pool_size=-1"], "`model.pool_size` is '-1'"),
        ("cyclegan", "horses", ["--model.generator.nfg=3"], "did you mean `model.generator.ngf`?"),
        ("cyclegan", "horses", ["--model.generator.norm=layer"], "`model.generator.norm` is"),
        ("cyclegan", "horses", ["--model.discriminator.num_layers=4"], "need sides of 48 pixels"),
    ],
)
def test_mistakes_are_met_before_training(
    data: Path, tmp_path: Path, gan: str, name: str, options: list[str], message: str
) -> None:
    recipe = write(tmp_path, gan, data / f"{name}-packed")
    with pytest.raises((ConfigError, DataError)) as caught:
        config = load(str(recipe), overrides(options))
        check_data(config, sources_of(config), micro_batch=2)
    assert message in str(caught.value)


def overrides(options: list[str]) -> dict[str, str]:
    return dict(option.removeprefix("--").split("=", 1) for option in options)


@pytest.mark.parametrize(
    ("gan", "options", "message"),
    [
        ("cyclegan", {"direction": "AtoB"}, "this checkpoint translates A2B or B2A"),
        ("pix2pix", {"direction": "A2B"}, "this checkpoint translates B2A"),
        ("cyclegan", {"layout": "side-by-side"}, "cyclegan takes unpaired here"),
        ("pix2pix", {"overrides": {"model.generator.ngf": "3"}}, "ngf is fixed by the training"),
        ("pix2pix", {"overrides": {"model.direction": "A2B"}}, "direction is fixed by the"),
        ("cyclegan", {"split": "val"}, "give another split or the folder"),
    ],
)
def test_mistakes_in_translation(
    runs: Path, data: Path, tmp_path: Path, gan: str, options: dict, message: str
) -> None:
    with pytest.raises((ConfigError, DataError, TrainingError), match=message):
        translated(runs / gan, data / "horses", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_grey_to_colour_with_a_gradient_penalty(data: Path, tmp_path: Path) -> None:
    """Trained with the fastest preset that fits, translated both ways, and scored."""
    recipe = write(tmp_path, "cyclegan", data / "horses-packed", ema={"halflife": 4})
    options = {"model.generator.input_nc": "1", "model.gan_loss": "wgangp", "precision": "bf16"}
    asked = options | {"schedule.decay": "0", "model.memory": "auto"}
    assert training.train(load(str(recipe), asked)) == 0
    assert '"D/gp_A"' in (tmp_path / "cyclegan" / "metrics.jsonl").read_text()
    for direction, mode, real in (("A2B", "RGB", "testB"), ("B2A", "L", "testA")):
        out = tmp_path / direction
        translated(tmp_path / "cyclegan", data / "horses", out, direction=direction)
        pictures = sorted(out.iterdir())
        assert {Image.open(path).mode for path in pictures} == {mode}
        truth = tmp_path / f"truth-{direction}"
        truth.mkdir()
        for path in pictures[:4]:
            Image.open(data / "horses" / real / path.name).resize((32, 32)).save(truth / path.name)
        for path in pictures[4:]:
            path.unlink()
        score(out, truth)


def test_alpha_is_read_translated_and_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        fill(tmp_path / "data" / f"{split}_A", 2)
        (tmp_path / "data" / f"{split}_B").mkdir()
        for number in range(2):
            sprite = picture(number, (48, 36))
            sprite.putalpha(picture(9 + number, (48, 36)).convert("L"))
            sprite.save(tmp_path / "data" / f"{split}_B" / f"{number:02d}.png")
    packed = pack(tmp_path / "data", tmp_path / "packed", storing=Storing(background="keep"))
    assert packed[0].manifest.storing == {"background": "keep"}
    recipe = str(write(tmp_path, "pix2pix", tmp_path / "packed"))
    asked = {"schedule.constant": "2", "schedule.decay": "0", "data.workers": "0"}
    for options, message in (
        ({}, "2 transparent pictures, but this run reads 3 channels of b"),
        (
            {"model.input_nc": "4", "model.output_nc": "4"},
            "no picture with an alpha channel, .* a:",
        ),
    ):
        config = load(recipe, asked | options)
        with pytest.raises(DataError, match=message):
            check_data(config, sources_of(config), micro_batch=2)
    forwards = {"model.output_nc": "4", "model.direction": "A2B"}
    assert training.train(load(recipe, asked | forwards)) == 0
    translated(tmp_path / "pix2pix", tmp_path / "data", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "00.png").mode == "RGBA"
    backwards = {"model.direction": "B2A", "model.input_nc": "4", "run_dir": str(tmp_path / "back")}
    assert training.train(load(recipe, asked | backwards)) == 0
    translated(tmp_path / "back", tmp_path / "data", tmp_path / "out2")
    assert Image.open(tmp_path / "out2" / "00.png").mode == "RGB"
    capsys.readouterr()
    translated(tmp_path / "back", tmp_path / "data" / "test_A", tmp_path / "out3")
    told = capsys.readouterr().out
    assert "2 files have no alpha channel: they are taken as opaque." in told


def test_a_gradient_penalty_needs_pictures_of_one_size(data: Path, tmp_path: Path) -> None:
    fill(tmp_path / "data" / "trainA", 2)
    fill(tmp_path / "data" / "trainB", 2, size=(40, 36))
    pack(tmp_path / "data", tmp_path / "packed", layout="unpaired")
    recipe = str(write(tmp_path, "cyclegan", tmp_path / "packed"))
    for mode, loss, refused in (("none", "wgangp", 1), ("none", "lsgan", 0), ("crop", "wgangp", 0)):
        given = {"data.preprocess.mode": mode, "model.gan_loss": loss}
        config = load(recipe, given)
        with (
            pytest.raises(ConfigError, match="2 sizes .*40x36, 48x36.* that crops")
            if refused
            else nullcontext()
        ):
            check_data(config, sources_of(config), micro_batch=1)
