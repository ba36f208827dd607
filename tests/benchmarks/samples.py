"""What slim GANs from noise learn in minutes, judged by a classifier of held-out real pictures.

    python -m tests.benchmarks.samples FOLDER [--gans=dcgan,cgan] [--images=50000] [--json=FILE]

Trains each with `organza train` on the digits (or the tiles of land covers) that are packed below
FOLDER, draws 1,000 samples with `organza sample`, and prints a row: the share of the class that is
met least and of the samples that show the asked class, the normalised mutual information of asked
and shown class, how sure the judge is, and the distance of its features to held-out real pictures,
beside that of samples of a run of one step, and of the real pictures of the training set.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from launcher.text.tables import table
from tests.benchmarks import judge

NUM = 1000


@dataclass(frozen=True)
class Learner:
    """A recipe in slim, and what it learns from."""

    recipe: str
    images: int
    """Of the training."""
    options: tuple[str, ...]
    data: str = "digits"


DIGITS = ("--model.side=28", "--model.channels=1", "--data.preprocess.mode=none")
LEARNERS = {
    "gan": Learner("gan", 1_600_000, ("--batch.total=64", "--optim.lr=2e-4", "--optim.beta1=0.5")),
    "dcgan": Learner(
        "dcgan",
        400_000,
        (*DIGITS, "--batch.total=64", "--model.generator.ngf=16", "--model.discriminator.ndf=16"),
    ),
    "wgan": Learner(
        "wgan",
        1_200_000,
        (*DIGITS, "--model.generator.ngf=16", "--model.discriminator.ndf=16", "--optim.lr=5e-4"),
    ),
    "wgan_gp": Learner(
        "wgan-gp",
        1_000_000,
        (*DIGITS, "--model.generator.ngf=16", "--model.discriminator.ndf=16", "--optim.lr=3e-4"),
    ),
    "cgan": Learner("digits", 400_000, ()),
    "infogan": Learner(
        "infogan",
        400_000,
        (
            "--batch.total=64",
            "--model.generator_widths=[128,32,16]",
            "--model.trunk_widths=[16,32,128]",
            "--model.recogniser_width=32",
        ),
    ),
}


def main(arguments: list[str]) -> None:
    words = [word for word in arguments if not word.startswith("--")]
    options = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    folder = Path(words[0])
    names = options.get("gans", ",".join(LEARNERS)).split(",")
    rows = list(judged(folder, names, int(options.get("images", 0))))
    columns = list(rows[0])
    print(table(columns, [[str(row[column]) for column in columns] for row in rows]))
    if "json" in options:
        Path(options["json"]).write_text(json.dumps(rows, indent=1) + "\n")


def judged(folder: Path, names: list[str], images: int = 0) -> Iterator[dict[str, Any]]:
    """A row for each; images: of the training, instead of each one's own."""
    judges: dict[str, Any] = {}
    for name in names:
        learner = LEARNERS[name]
        if learner.data not in judges:
            judges[learner.data] = judge_of(packed(folder, learner.data))
        yield row(folder, name, learner, judges[learner.data], images or learner.images)


@dataclass(frozen=True)
class Bench:
    """A judge, and the real pictures that it compares with."""

    where: Path
    judge: judge.Judge
    real: Tensor
    held_out: Tensor
    accuracy: float


def packed(folder: Path, data: str) -> Path:
    """The folder of the set, packed if it is not there."""
    if not (folder / data).exists():
        organza("pack", "digits" if data == "digits" else "earth", str(folder / data))
    return folder / data


def judge_of(where: Path) -> Bench:
    images, classes = judge.labelled(where / "train", 1)
    held_out, truth = judge.labelled(where / "test", 1)
    trained = judge.trained(images, classes)
    found, _ = judge.opinion(trained, held_out)
    return Bench(where, trained, images, held_out, float((found == truth).float().mean()))


def row(folder: Path, name: str, learner: Learner, bench: Bench, images: int) -> dict[str, Any]:
    started = time.monotonic()
    made = samples(folder / name, learner, bench.where, images)
    seconds = time.monotonic() - started
    first = samples(folder / f"{name}-untrained", learner, bench.where, 1)
    shown, sure = judge.opinion(bench.judge, made)
    asked = torch.arange(len(shown)) % 10
    floor = judge.distance(bench.judge, bench.real[::4], bench.held_out)
    return {
        "gan": name,
        "seconds": round(seconds),
        "least class": round(float(torch.bincount(shown, minlength=10).min() / len(shown)), 3),
        "as asked": round(float((shown == asked).float().mean()), 3),
        "information": round(judge.information(asked, shown), 3),
        "confidence": round(float(sure.mean()), 3),
        "distance": round(judge.distance(bench.judge, made, bench.held_out), 4),
        "untrained": round(judge.distance(bench.judge, first, bench.held_out), 4),
        "real": round(floor, 4),
        "judge": round(bench.accuracy, 3),
    }


def samples(run: Path, learner: Learner, where: Path, images: int) -> Tensor:
    """Train, if there is no such run, and sample."""
    if not run.exists():
        organza(
            "train",
            learner.recipe,
            f"--run_dir={run}",
            f"--data.shards={where / 'train'}",
            f"--schedule.constant={images}",
            "--schedule.decay=0",
            "--ema.halflife=5000",
            *learner.options,
            "--cadence.log=20000",
            "--cadence.pictures=0",
            "--cadence.save=0",
        )
    organza("sample", str(run), str(run / "samples"), f"--num={NUM}", "--grid=20")
    return judge.pictures(run / "samples", 1)


def organza(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "launcher", *words], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
