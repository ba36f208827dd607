"""A GAN is added with one Python file, one recipe and one test, as the README says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launcher.sample import ROOT, environment
from tests.processes import patience

ADDED = {
    "ebgan.py": "trainers/gans/from_noise/ebgan.py",
    "ebgan.yaml": "launcher/configs/from_noise/ebgan.yaml",
    "check_ebgan.py": "tests/trainers/test_ebgan.py",
}
"""All that is added, and where."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, with the three files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("launcher", "trainers", "nets", "shards", "cluster", "tests"):
        skipped = shutil.ignore_patterns("__pycache__", "*.jpg")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    shutil.copy(ROOT / "setup.cfg", folder)
    for name, place in ADDED.items():
        shutil.copy(Path(__file__).parent / "added" / name, folder / place)
    pictures = folder / "data"
    pictures.mkdir(parents=True)
    for number in range(6):
        draw = np.random.RandomState(number).randint(0, 256, (40, 40, 3))
        Image.fromarray(draw.astype(np.uint8)).save(pictures / f"{number}.png")
    return folder


def run(checkout: Path, *words: str, launch: bool = False) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *words]
    if launch:
        command = ["accelerate", "launch", "--multi_gpu", "--num_processes", "2"]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", "0", "-m", *words]
    return patience.run(command, cwd=checkout, env=environment())


def test_three_files_make_a_gan(checkout: Path) -> None:
    packed = run(checkout, "launcher", "pack", "data", "packed", "--layout=images")
    assert packed.returncode == 0, packed.stderr
    shown = run(checkout, "launcher", "show", "ebgan", "--model.margin=3")
    assert "margin: 3.0" in shown.stdout
    train = ("launcher", "train", "ebgan", "--data.shards=packed")
    done = run(checkout, *train, launch=True)
    assert done.returncode == 0, done.stderr
    checkpoints = checkout / "runs" / "ebgan" / "checkpoints"
    assert (checkpoints / "latest").read_text().strip() == "000000048"
    assert (checkpoints / "000000048" / "rank00001.safetensors").exists()
    again = run(checkout, *train, "--schedule.constant=56")
    assert again.returncode == 0, again.stderr
    assert (checkpoints / "latest").read_text().strip() == "000000056"


def test_its_own_test_passes(checkout: Path) -> None:
    done = run(checkout, "pytest", "-q", "-p", "no:cacheprovider", ADDED["check_ebgan.py"])
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_it_says_that_it_translates_nothing(checkout: Path) -> None:
    done = run(checkout, "launcher", "translate", "runs/ebgan", "data", "out")
    assert done.returncode == 2
    assert "ebgan makes pictures from noise, not from pictures" in done.stderr
