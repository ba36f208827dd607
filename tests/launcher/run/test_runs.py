"""The whole walk with the real commands: pack, verify, train both stages, translate, score."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from nets.losses.perceptual import Vgg
from shards.read.order import FullOrder
from shards.sets.shard_set import open_shards
from tests.launcher.sample import make_shards, make_source, organza, start, write_recipe
from tests.processes import patience
from tests.shards.sources import flip_byte
from trainers.checkpoints.checkpoint import find


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_source(folder / "source")
    status, output = organza("pack", folder / "source", folder / "shards", "--num_labels=8")
    assert status == 0 and "6 samples in 1 shards" in output, output
    return folder / "shards"


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse run of one process and a full run of two that starts from it."""
    folder = tmp_path_factory.mktemp("runs")
    status, output = organza("train", write_recipe(folder, shards))
    assert status == 0, output
    recipe = write_recipe(folder, shards, "full", start_from=str(folder / "run-coarse"))
    status, output = organza(
        "train",
        recipe,
        "--model.ngf=2",
        "--model.num_scales=3",
        "--model.fix_global=8",
        "--model.memory=halves",
        "--backend.world=2",
        launch=2,
    )
    assert status == 0 and "Started from" in output and "Finished" in output, output
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return find(run).weights()


def assert_equal(one: Path, two: Path) -> None:
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert [n for n in ours if not torch.equal(ours[n], theirs[n])] == []


def test_verify_reads_everything(shards: Path) -> None:
    status, output = organza("verify", shards)
    assert status == 0 and "6 samples in 1 shards" in output and "all is well" in output


def test_the_walk_leaves_what_a_user_looks_for(runs: Path) -> None:
    for run in (runs / "run-coarse", runs / "run-full"):
        found = {path.name for path in run.iterdir()}
        assert found - {".lock"} == {
            "attempts.jsonl",
            "board",
            "checkpoints",
            "config.yaml",
            "configs",
            "heartbeats",
            "metrics.jsonl",
            "outcome.json",
            "versions.json",
        }
        assert find(run).progress.images == 24
        assert yaml.safe_load((run / "config.yaml").read_text())["schedule"]["constant"] == 12


def test_the_full_run_trained_the_global_part_after_the_switch(runs: Path) -> None:
    coarse, full = weights(runs / "run-coarse"), weights(runs / "run-full")
    same = [name for name in coarse if name.startswith("G.trunk") and name.endswith("weight")]
    assert same and not any(torch.equal(coarse[name], full[name]) for name in same)


@pytest.mark.parametrize("stage", ["coarse", "full"])
def test_translate_reads_the_architecture_from_the_checkpoint(
    runs: Path, shards: Path, tmp_path: Path, stage: str
) -> None:
    source = shards.parent / "source"
    status, output = organza("translate", runs / f"run-{stage}", source, tmp_path / "out")
    assert status == 0, output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{number:03d}.png" for number in range(6)]
    picture = np.asarray(Image.open(tmp_path / "out" / "000.png"))
    assert picture.shape == (32, 64, 3) and picture.std() > 0
    status, output = organza("score", tmp_path / "out", source / "test_img")
    assert status in (0, 1) and "best constant colour" in output


def test_raw_weights_and_the_average_give_different_pictures(
    runs: Path, shards: Path, tmp_path: Path
) -> None:
    pictures = {}
    for kind in ("raw", "ema"):
        arguments = (runs / "run-coarse", shards.parent / "source", tmp_path / kind)
        status, output = organza("translate", *arguments, f"--weights={kind}")
        assert status == 0, output
        pictures[kind] = np.asarray(Image.open(tmp_path / kind / "000.png"))
    assert not np.array_equal(pictures["raw"], pictures["ema"])


def test_an_encoder_looks_at_the_photo_where_there_is_one(shards: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, shards, **SHORT)
    assert organza("train", recipe, "--model.encoder=true", "--model.encoder_ngf=4")[0] == 0
    source = tmp_path / "source"
    shutil.copytree(shards.parent / "source", source)
    pictures = []
    for name in ("with", "without"):
        status, output = organza("translate", tmp_path / "run-coarse", source, tmp_path / name)
        assert status == 0, output
        pictures.append(np.asarray(Image.open(tmp_path / name / "000.png")))
        shutil.rmtree(source / "test_img", ignore_errors=True)
    assert not np.array_equal(*pictures)


def test_any_size_is_translated_at_its_own_size(runs: Path, tmp_path: Path) -> None:
    for member in ("label", "inst"):
        (tmp_path / f"test_{member}").mkdir()
    Image.fromarray(np.full((37, 50), 3, np.uint8)).save(tmp_path / "test_label" / "odd.png")
    Image.fromarray(np.full((37, 50), 3, np.uint8)).save(tmp_path / "test_inst" / "odd.png")
    status, output = organza("translate", runs / "run-full", tmp_path, tmp_path / "out")
    assert status == 0, output
    assert Image.open(tmp_path / "out" / "odd.png").size == (50, 37)


SHORT = {"schedule": {"constant": 4, "decay": 0}, "cadence": {"log": 2, "pictures": 4, "save": 2}}


@pytest.mark.parametrize(
    "overrides",
    [
        ["--model.encoder=true", "--model.encoder_ngf=4", "--model.num_encoder_downsamples=2"],
        ["--model.edges=false", "--model.gan_loss=hinge", "--precision=bf16", "--optim.clip=1"],
        ["--model.gan_loss=bce", "--precision=fp16", "--batch.micro=1", "--model.lambda_feat=0"],
        [
            "--data.preprocess.mode=resize_and_crop",
            "--data.preprocess.load_size=[40, 72]",
            "--data.preprocess.crop_size=[32, 64]",
            "--model.memory=whole+strips",
        ],
        [
            "--data.preprocess.mode=scale_width",
            "--data.preprocess.load_size=50",
            "--model.encoder=true",
            "--model.encoder_ngf=4",
            "--model.num_encoder_downsamples=3",
        ],
    ],
    ids=["encoder", "hinge-bf16-clip", "bce-fp16-accumulation", "resized", "encoder-padded"],
)
def test_other_configurations_train_resume_and_translate(
    shards: Path, tmp_path: Path, overrides: list[str]
) -> None:
    recipe = write_recipe(tmp_path, shards, **SHORT)
    for total in (2, 4):  # the second command resumes the first
        status, output = organza("train", recipe, *overrides, f"--schedule.constant={total}")
        assert status == 0, output
    assert find(tmp_path / "run-coarse").progress.images == 4
    source = shards.parent / "source"
    status, output = organza("translate", tmp_path / "run-coarse", source, tmp_path / "out")
    assert status == 0 and len(list((tmp_path / "out").iterdir())) == 6, output


def test_pictures_are_translated_to_pictures_with_a_perceptual_loss(tmp_path: Path) -> None:
    """An A/B folder and a VGG file, as for RGB conditions."""
    make_source(tmp_path / "source", count=2)
    for name, member in (("A", "label"), ("B", "img")):
        for split in ("train", "test"):
            pictures = tmp_path / "source" / f"{split}_{member}"
            pictures.rename(tmp_path / "source" / f"{split}_{name}")
    status, output = organza("pack", tmp_path / "source", tmp_path / "pairs")
    assert status == 0, output
    save_file(Vgg("vgg16").state_dict(), tmp_path / "vgg16.safetensors")
    status, output = organza(
        "train",
        write_recipe(tmp_path, tmp_path / "pairs", **SHORT),
        "--model.condition=rgb",
        "--model.edges=false",
        "--model.lambda_vgg=0.1",
        "--model.vgg=vgg16",
        f"--model.vgg_weights={tmp_path / 'vgg16.safetensors'}",
    )
    assert status == 0 and "G/vgg" in output, output
    status, output = organza(
        "translate", tmp_path / "run-coarse", tmp_path / "source", tmp_path / "out"
    )
    assert status == 0 and len(list((tmp_path / "out").iterdir())) == 2, output


@pytest.mark.parametrize(
    ("signum", "launch"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGTERM, 2)]
)
def test_a_signal_saves_and_the_same_command_goes_on(
    shards: Path, tmp_path: Path, signum: int, launch: int
) -> None:
    options = {"schedule": {"constant": 10**6, "decay": 0}, "cadence": {"log": 2, "save": 10**6}}
    recipe = write_recipe(tmp_path, shards, **options)
    process = start("train", recipe, launch=launch)
    patience.wait_for_line(tmp_path / "run-coarse" / "metrics.jsonl", process)
    process.send_signal(signum)
    output, _ = patience.communicate(process)
    assert "the same command again goes on" in output, output
    assert process.returncode == (1 if launch else 128 + signum), output
    done = find(tmp_path / "run-coarse").progress.images
    assert done > 0
    total = f"--schedule.constant={done + 8}"
    status, output = organza("train", recipe, total, launch=launch)
    assert status == 0 and f"resuming at {done}" in output, output
    whole = write_recipe(tmp_path, shards, run_dir=str(tmp_path / "whole"), **options)
    status, output = organza("train", whole, total, launch=launch)
    assert status == 0, output
    assert_equal(tmp_path / "run-coarse", tmp_path / "whole")


def test_a_second_writer_of_a_run_is_refused(shards: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, shards, schedule={"constant": 10**6, "decay": 0})
    process = start("train", recipe)
    try:
        patience.wait_for_line(tmp_path / "run-coarse" / "metrics.jsonl", process)
        status, output = organza("train", recipe)
    finally:
        process.kill()
        process.communicate()
    assert status == 2 and f"is in the hands of process {process.pid} on" in output, output


BAD_SOURCES = {
    "a missing partner": "have no partner of the same name",
    "a truncated image": "train_img/001.png is corrupt (Truncated File Read)",
    "not an image": "is not a PNG, JPEG or WebP image",
    "unequal sizes": "the images of a sample need one size",
    "an empty folder": "holds no PNG, JPEG or WebP file",
    "a label too many": "pixels have label id",
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_bad_sources_are_refused_by_pack_with_a_sentence(tmp_path: Path, case: str) -> None:
    source = make_source(tmp_path / "source", count=2)
    photo, label = source / "train_img" / "001.png", source / "train_label" / "001.png"
    if case == "a missing partner":
        photo.unlink()
    elif case == "a truncated image":
        photo.write_bytes(photo.read_bytes()[:-30])
    elif case == "not an image":
        photo.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    elif case == "unequal sizes":
        Image.open(photo).resize((32, 32)).save(photo)
    elif case == "an empty folder":
        for path in (source / "train_img").iterdir():
            path.unlink()
    else:
        Image.fromarray(np.full((32, 64), 200, np.uint8)).save(label)
    status, output = organza("pack", source, tmp_path / "out", "--num_labels=8")
    assert status == 1 and BAD_SOURCES[case] in output and "Traceback" not in output, output
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_damaged_shard_stops_both_processes_with_its_name(shards: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "shards"
    shutil.copytree(shards, damaged)
    content = bytearray((damaged / "000000.tar").read_bytes())
    content[content.find(b"IDAT") + 10] ^= 0xFF
    (damaged / "000000.tar").write_bytes(content)
    status, output = organza("train", write_recipe(tmp_path, damaged), launch=2)
    assert status == 1 and "000000.tar" in output and "crc32 is wrong" in output, output
    (damaged / "000000.tar").write_bytes(content[:-1000])
    status, output = organza("train", write_recipe(tmp_path, damaged))
    assert status == 1 and "it was cut or altered" in output, output


def test_a_damaged_sample_is_replaced_and_the_run_says_so(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    shard_set = open_shards(tmp_path / "shards")
    sample = FullOrder([6], seed=0).locate(2)[1]
    flip_byte(tmp_path / "shards" / "000000.tar", int(shard_set.index["image"].offsets[sample]))
    recipe = write_recipe(tmp_path, tmp_path / "shards", **SHORT)
    status, output = organza("train", recipe, "--data.substitutes=1")
    assert status == 0 and f"{shard_set.keys[sample]}.image.png was cut or altered" in output
    assert "takes its place at position 2" in output
    assert "Finished. Damaged samples were replaced 1 times" in output, output
    (line,) = (tmp_path / "run-coarse" / "substituted" / "00000.jsonl").read_text().splitlines()
    assert json.loads(line)["position"] == 2


def test_a_killed_run_goes_on_from_its_checkpoint(shards: Path, tmp_path: Path) -> None:
    options = {"schedule": {"constant": 10**6, "decay": 0}, "cadence": {"log": 2, "save": 4}}
    recipe = write_recipe(tmp_path, shards, **options)
    process = start("train", recipe)
    patience.wait_for_line(tmp_path / "run-coarse" / "checkpoints" / "latest", process)
    process.kill()
    process.communicate()
    done = find(tmp_path / "run-coarse").progress.images
    total = f"--schedule.constant={done + 8}"
    status, output = organza("train", recipe, total)
    assert status == 0 and f"resuming at {done}" in output, output
    whole = write_recipe(tmp_path, shards, run_dir=str(tmp_path / "whole"), **options)
    assert organza("train", whole, total)[0] == 0
    assert_equal(tmp_path / "run-coarse", tmp_path / "whole")


def test_a_finished_run_stays_as_it_is(runs: Path) -> None:
    before = weights(runs / "run-coarse")
    status, output = organza("train", runs / "coarse.yaml")
    assert status == 0 and "Finished" in output
    after = weights(runs / "run-coarse")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--model.ngf=8", "model.ngf was 4 in"),
        ("--seed=7", "seed was 0 in"),
        ("--data.preprocess.flip=false", "data.preprocess.flip was True in"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(runs: Path, override: str, message: str) -> None:
    status, output = organza("train", runs / "coarse.yaml", override)
    assert status == 2 and message in output and "run_dir" in output, output


def test_other_samples_in_the_same_run_are_refused(runs: Path, tmp_path: Path) -> None:
    make_shards(tmp_path, count=5)
    status, output = organza("train", runs / "coarse.yaml", f"--data.shards={tmp_path / 'shards'}")
    assert status == 2 and "holds other samples than the run" in output, output


@pytest.mark.parametrize(
    ("launch", "overrides", "message"),
    [
        (2, ["--batch.total=3"], "batch.total=3 cannot be shared by 2 processes"),
        (0, ["--batch.total=4", "--batch.micro=3"], "batch.micro=3 does not divide the 4 images"),
        (0, ["--backend.world=4"], "backend.world=4, but the launcher started 1 processes"),
        (0, ["--model.num_labels=5"], "num_labels=5 ids end at 4"),
        (0, ["--model.lambda_vgg=10"], "model.vgg_weights"),
        (0, ["--model.condition=rgb", "--model.edges=false"], "packed with layout labels"),
        (0, ["--start_from=nowhere"], "start_from=nowhere holds no checkpoint"),
        (0, ["--model.num_downsamples=5"], "sides of 33 pixels or more"),
        (0, ["--data.preprocess.mode=crop", "--data.preprocess.crop_size=40"], "crop_size=40x40"),
    ],
)
def test_mistakes_stop_before_training(
    shards: Path, tmp_path: Path, launch: int, overrides: list[str], message: str
) -> None:
    status, output = organza("train", write_recipe(tmp_path, shards), *overrides, launch=launch)
    assert status in (1, 2) and message in output, output
    if not launch:  # torchrun adds a traceback of its own
        assert "Traceback" not in output
    assert not (tmp_path / "run-coarse").exists(), "nothing may be left behind"


def test_a_coarse_run_of_another_width_is_refused(runs: Path, shards: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, shards, "full", start_from=str(runs / "run-coarse"))
    status, output = organza("train", recipe)  # ngf 4 at full size needs 8 in the coarse run
    assert status == 2 and "start_from" in output and "shape" in output, output


def test_a_map_too_small_for_the_network_is_named(runs: Path, tmp_path: Path) -> None:
    for member in ("label", "inst"):
        (tmp_path / f"test_{member}").mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"test_{member}" / "a.png")
    status, output = organza("translate", runs / "run-coarse", tmp_path, tmp_path / "out")
    assert status == 1 and "test_label/a.png is 4x4, but this network needs sides of 5" in output


def test_options_that_the_sample_data_does_not_take_are_refused(tmp_path: Path) -> None:
    status, output = organza("pack", "earth", tmp_path / "out", "--split=test")
    assert status == 2 and "leave out all options but --shard_mib" in output, output
    assert not (tmp_path / "out").exists()


def test_a_label_beyond_the_model_is_refused_in_translation(runs: Path, tmp_path: Path) -> None:
    for member in ("label", "inst"):
        (tmp_path / f"test_{member}").mkdir()
        Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / f"test_{member}" / "a.png")
    status, output = organza("translate", runs / "run-coarse", tmp_path, tmp_path / "out")
    assert status == 1 and "1024 pixels have label id 9" in output, output
