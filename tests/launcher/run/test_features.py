"""Features of pix2pixHD's encoder: clustered, chosen in translation, and read as pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from launcher.commands.cli import Commands
from launcher.recipe.config import ConfigError
from launcher.run.features import home_of
from shards.records import DataError
from tests.launcher.sample import make_shards, make_source, organza, write_recipe

ENCODER = ("--model.encoder=true", "--model.encoder_ngf=2", "--model.num_encoder_downsamples=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """source/, shards/, and run-coarse/, which has an encoder."""
    folder = tmp_path_factory.mktemp("features")
    recipe = write_recipe(folder, make_shards(folder, count=3))
    status, output = organza("train", recipe, *ENCODER)
    assert status == 0, output
    status, output = organza("features", folder / "run-coarse", folder / "source")
    assert status == 0 and "looks in 3 pictures" in output, output
    return folder


def translated(folder: Path, out: Path, *options: str) -> dict[str, np.ndarray]:
    status, output = organza("translate", folder / "run-coarse", folder / "source", out, *options)
    assert status == 0, output
    return {path.name: np.asarray(Image.open(path)) for path in out.iterdir()}


def test_clusters_are_chosen_in_translation(folder: Path, tmp_path: Path) -> None:
    clusters = load_file(folder / "run-coarse" / "features.safetensors")
    assert clusters and all(c.shape[1] == 3 and len(c) <= 10 for c in clusters.values())
    encoded = translated(folder, tmp_path / "encoded")
    common = translated(folder, tmp_path / "common", "--features=cluster")
    one = translated(folder, tmp_path / "one", "--features=sample", "--seed=1")
    checkpoint = next((folder / "run-coarse" / "checkpoints").glob("[0-9]*"))
    assert home_of(checkpoint) == home_of(folder / "run-coarse") == folder / "run-coarse"
    two = translated(folder, tmp_path / "two", "--features=sample", "--seed=2")
    file = folder / "run-coarse" / "features.safetensors"
    again = translated(folder, tmp_path / "again", f"--features={file}", "--seed=1")
    assert all(np.array_equal(one[name], again[name]) for name in one)
    for these, those in ((encoded, common), (common, one), (one, two)):
        assert any(not np.array_equal(these[name], those[name]) for name in these)


def test_a_run_reads_features_from_pictures(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        maps = folder / "source" / f"{split}_feat"
        arguments = (folder / "run-coarse", folder / "source", f"--out={maps}", f"--split={split}")
        status, output = organza("features", *arguments, "--maps=yes")
        assert status == 0 and "features of 3 pictures" in output, output
        for path in maps.iterdir():  # one colour for each instance
            inst = np.asarray(Image.open(folder / "source" / f"{split}_inst" / path.name))
            colours = np.asarray(Image.open(path))
            assert all(len(np.unique(colours[inst == i], axis=0)) == 1 for i in np.unique(inst))
    status, output = organza("pack", folder / "source", tmp_path / "shards", "--photos=webp")
    assert status == 0, output
    recipe = write_recipe(tmp_path, tmp_path / "shards")
    reading = ("--model.load_features=true", "--optim.lr=1e-30", f"--run_dir={tmp_path}/reading")
    status, output = organza("train", recipe, *reading)
    assert status == 0, output
    status, output = organza("translate", tmp_path / "reading", folder / "source", tmp_path / "out")
    assert status == 0 and len([*(tmp_path / "out").iterdir()]) == 3, output
    status, output = organza(
        "train", recipe, *reading[:1], f"--data.shards={folder}/shards", "--run_dir=x"
    )
    assert status == 1 and "holds no pictures of features" in output, output


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("features $0/plain $0/source", "has no encoder (model.encoder=true in training)"),
        ("features $0/run-coarse $0/maps", "holds no photo of"),
        ("features $0/run-coarse $0/source --out=$0/coarse.yaml", "coarse.yaml is neither"),
        ("features $0/run-coarse $0/source --out=$0/no/x", "there is no folder"),
        ("features $0/run-coarse $0/source --num_clusters=0", "--num_clusters=0 must be 1"),
        ("features $0/run-coarse $0/source --maps=yes", "--maps=yes needs --out"),
        ("translate $0/plain $0/source $0/out --features=sample", "a run that takes features"),
        ("translate $0/run-coarse $0/source $0/out --features=$0/none", "make it by `organza"),
        ("translate $0/run-coarse $0/source $0/out --features=$0/coarse.yaml", "is neither"),
    ],
)
def test_mistakes_are_a_sentence(folder: Path, command: str, sentence: str) -> None:
    if not (folder / "plain").exists():
        status, output = organza("train", folder / "coarse.yaml", f"--run_dir={folder}/plain")
        assert status == 0, output
        make_source(folder / "maps", count=2)
        shutil.rmtree(folder / "maps" / "train_img")
    before = (folder / "coarse.yaml").read_text()
    name, *words = command.replace("$0", str(folder)).split()
    places = [word for word in words if not word.startswith("--")]
    options = dict(word.removeprefix("--").split("=") for word in words if word not in places)
    with pytest.raises((ConfigError, DataError), match=re.escape(sentence)):
        getattr(Commands(), name)(*places, **options)._run()
    assert (folder / "coarse.yaml").read_text() == before and not (folder / "out").exists()
