"""Training from, and translating with, weights in the authors' files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from launcher.recipe import config as configuration
from launcher.recipe.building import build
from tests.launcher.sample import organza
from tests.trainers.checkpoints.test_originals import publish
from trainers.checkpoints.checkpoint import find

NETWORK = ["--model.generator.ngf=2", "--model.generator.num_blocks=1"]
SLIM = [
    *NETWORK,
    "--model.discriminator.ndf=2",
    "--data.preprocess.load_size=36",
    "--data.preprocess.crop_size=32",
    "--data.workers=0",
    "--schedule.constant=2",
    "--schedule.decay=0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """trainA/, trainB/, shards/, and published/, the files of a CycleGAN."""
    folder = tmp_path_factory.mktemp("authors")
    draw = np.random.default_rng(0)
    for domain in ("trainA", "trainB"):
        (folder / "source" / domain).mkdir(parents=True)
        for i in range(2):
            picture = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / "source" / domain / f"{i}.png")
    status, output = organza("pack", folder / "source", folder / "shards")
    assert status == 0, output
    (folder / "published").mkdir()
    gan = build(configuration.load("cyclegan", options(SLIM)))
    for name in gan.nets:
        publish(gan, name, folder / "published" / f"latest_net_{name}.pth")
    return folder


def options(words: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=") for word in words)


def test_a_run_starts_from_a_folder_of_them_and_translates_as_they_do(folder: Path) -> None:
    run = folder / "run"
    command = ["train", "cyclegan", f"--data.shards={folder}/shards", f"--run_dir={run}", *SLIM]
    status, output = organza(*command, f"--start_from={folder}/published", "--optim.lr=1e-30")
    assert status == 0, output
    assert f"Started from {folder}/published: D_A, D_B, G_A, G_B" in output, output
    given = torch.load(folder / "published" / "latest_net_G_B.pth", weights_only=True)
    weights = [w for name, w in find(run).weights().items() if name.startswith("G_B.")]
    assert sum(w.sum() for w in weights) == pytest.approx(sum(w.sum() for w in given.values()))
    pictures = []
    for source, more in ((run, []), (folder / "published/latest_net_G_B.pth", NETWORK)):
        out = folder / f"out-{source.name}"
        recipe = ["--recipe=cyclegan"] if more else ["--direction=B2A"]
        status, output = organza(
            "translate",
            source,
            folder / "source" / "trainB",
            out,
            *recipe,
            *more,
            "--data.preprocess.mode=none",
        )
        assert status == 0, output
        pictures.append((out / "0.png").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["--recipe=cyclegan", "--direction=A2B", *NETWORK], "translates B2A: leave out"),
        (["--recipe=cyclegan"], "does not fit G_B as this recipe builds it"),
        ([], "does not tell its network: give --recipe="),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, command: list[str], sentence: str) -> None:
    file = folder / "published" / "latest_net_G_B.pth"
    status, output = organza("translate", file, folder / "source/trainB", folder / "no", *command)
    assert status == 2 and sentence in output and "Traceback" not in output, output
    assert not (folder / "no").exists()
