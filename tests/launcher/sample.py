"""A small pix2pixHD-style folder of real PNG files, and runs of the real commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests.launcher import warm_start
from tests.processes import patience
from tests.processes.gang import free_port

ROOT = Path(__file__).parents[2]
NUM_LABELS = 8


def make_source(folder: Path, count: int = 6, size: tuple[int, int] = (64, 32)) -> Path:
    """train_* and test_* folders of label, instance and photo; the photo follows from the label."""
    width, height = size
    for split, first in (("train", 0), ("test", 1000)):
        for member in ("label", "inst", "img"):
            (folder / f"{split}_{member}").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw = np.random.RandomState(first + number)
            small = draw.randint(0, NUM_LABELS, (height // 8, width // 8))
            label = np.kron(small, np.ones((8, 8))).astype(np.uint8)
            photo = np.stack([label * 30, 255 - label * 30, label * 15], -1).astype(np.uint8)
            name = f"{number:03d}.png"
            Image.fromarray(label).save(folder / f"{split}_label" / name)
            Image.fromarray(label.astype(np.uint16) * 1000).save(folder / f"{split}_inst" / name)
            Image.fromarray(photo).save(folder / f"{split}_img" / name)
    return folder


def make_shards(folder: Path, *options: str, **source: Any) -> Path:
    """FOLDER/shards, packed from FOLDER/source, which is made as `source` says."""
    make_source(folder / "source", **source)
    status, output = organza("pack", folder / "source", folder / "shards", *options)
    assert status == 0, output
    return folder / "shards"


def make_run(folder: Path) -> Path:
    """FOLDER/run-coarse, two steps by FOLDER/coarse.yaml on FOLDER/shards, of FOLDER/source."""
    shards = make_shards(folder, "--workers=1", count=2)
    recipe = write_recipe(folder, shards, schedule={"constant": 4, "decay": 0})
    status, output = organza("train", recipe)
    assert status == 0, output
    return folder / "run-coarse"


def write_recipe(folder: Path, shards: Path, stage: str = "coarse", **changes: object) -> Path:
    """A slim recipe of either stage; `changes` replace whole sections."""
    model = {
        "stage": stage,
        "num_labels": NUM_LABELS,
        "ngf": 4,
        "ndf": 4,
        "num_downsamples": 2,
        "num_blocks": 1,
        "num_local_blocks": 1,
        "num_scales": 2,
        "num_layers": 2,
        "lambda_vgg": 0,
    }
    tree = {
        "gan": "pix2pixhd",
        "run_dir": str(folder / f"run-{stage}"),
        "model": model,
        "data": {"shards": str(shards), "workers": 0},
        "batch": {"total": 2},
        "schedule": {"constant": 12, "decay": 12},
        "cadence": {"log": 4, "pictures": 12, "save": 8},
        "ema": {"halflife": 8},
    } | changes
    path = folder / f"{stage}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def environment() -> dict[str, str]:
    """This interpreter's commands first, one thread a process, gloo on the loopback interface."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def start(*arguments: object, launch: int = 0) -> subprocess.Popen:
    """The command in the background; with `launch`, under accelerate with so many processes."""
    command = [sys.executable]
    if launch:
        command = [
            "accelerate",
            "launch",
            "--multi_gpu",
            "--num_processes",
            str(launch),
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
            "--main_process_port",
            str(free_port()),
        ]
    command += ["-m", "launcher", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def organza(*arguments: object, launch: int = 0) -> tuple[int, str]:
    """Exit status and everything printed."""
    if not launch:
        return warm_start.run([*map(str, arguments)], environment())
    process = start(*arguments, launch=launch)
    try:
        output, _ = patience.communicate(process)
    finally:
        process.kill()
    return process.returncode, output
