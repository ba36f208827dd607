"""What slim GANs from noise learn in minutes, judged by a classifier of held-out real pictures.

    python -m tests.benchmarks.samples FOLDER [--gans=dcgan,cgan] [--images=50000] [--num=1000]
        [--along=wgan_gp] [--json=FILE]

Trains each with `organza train` on digits, or on tiles of four land covers, that are packed below
FOLDER, draws samples with `organza sample`, and prints a row: the share of the class that is met
least, that of samples which show the asked class, the normalised mutual information of asked and
shown class, how sure the judge is, and the distance of its features to held-out real pictures,
beside that of a run of one step and of the real pictures of the training set. What is there already
is not made again. --along: how the critic's estimate of a distance and ours go together over the
checkpoints of one of them (Spearman's rank correlation).
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
import torch.nn.functional as F
from torch import Tensor

from launcher.text.tables import table
from tests.benchmarks.samples import judge


@dataclass(frozen=True)
class Data:
    """A sample set, and how it is seen."""

    sample: str
    train: str
    test: str
    channels: int
    side: int


@dataclass(frozen=True)
class Learner:
    """A recipe in slim, and what it learns from."""

    recipe: str
    images: int
    """Of the training."""
    options: tuple[str, ...]
    data: str = "digits"


DATA = {
    "digits": Data("digits", "train", "test", 1, 28),
    "covers": Data("earth", "covers-64-train", "covers-64-test", 3, 32),
}
DIGITS = (
    *("--model.side=28", "--model.channels=1", "--data.preprocess.mode=none"),
    *("--model.generator.ngf=16", "--model.discriminator.ndf=16"),
)
COVERS = (
    *("--model.side=32", "--batch.total=32", "--data.preprocess.load_size=32"),
    *("--data.preprocess.crop_size=32", "--data.workers=1"),
)
CLASSES = (*COVERS, "--model.num_classes=4", "--model.ngf=16", "--model.ndf=16")
BIGGAN = (
    *CLASSES,
    *("--model.num_noise=40", "--model.num_shared=16", "--model.generator_attention=[16]"),
    *("--model.discriminator_attention=[16]", "--optim.lr=2e-4", "--optim.players.D.lr=4e-4"),
    *("--model.memory=none", "--ema.start=0"),
)
LEARNERS = {
    "gan": Learner("gan", 1_000_000, ("--batch.total=64", "--optim.lr=2e-4", "--optim.beta1=0.5")),
    "dcgan": Learner("dcgan", 400_000, (*DIGITS, "--batch.total=64")),
    "wgan": Learner("wgan", 800_000, (*DIGITS, "--optim.lr=5e-4")),
    "wgan_gp": Learner("wgan-gp", 500_000, (*DIGITS, "--optim.lr=3e-4")),
    "cgan": Learner("digits", 300_000, ()),
    "infogan": Learner(
        "infogan",
        300_000,
        (
            *("--batch.total=64", "--model.generator_widths=[128,32,16]"),
            *("--model.trunk_widths=[16,32,128]", "--model.recogniser_width=32"),
        ),
    ),
    "sagan": Learner("sagan", 60_000, CLASSES, "covers"),
    "biggan": Learner("biggan", 60_000, BIGGAN, "covers"),
    "s2gan": Learner("s2gan", 60_000, (*BIGGAN, "--model.labelled=0.25"), "covers"),
    "progan": Learner(
        "progan",
        120_000,
        (
            *COVERS,
            *("--model.fmap_base=512", "--model.fmap_max=64", "--model.num_noise=64"),
            *("--model.stable=15000", "--model.fading=15000", "--model.level_batches={}"),
        ),
        "covers",
    ),
}


def main(arguments: list[str]) -> None:
    words = [word for word in arguments if not word.startswith("--")]
    options = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    names = options.get("gans", ",".join(LEARNERS)).split(",")
    counts = int(options.get("images", 0)), int(options.get("num", 1000))
    rows = list(judged(Path(words[0]), names, *counts))
    columns = list(rows[0])
    print(table(columns, [[str(row[column]) for column in columns] for row in rows]))
    if "along" in options:
        print(
            f"{options['along']}: rank correlation {along(Path(words[0]), options['along']):.2f}."
        )
    if "json" in options:
        Path(options["json"]).write_text(json.dumps(rows, indent=1) + "\n")


@dataclass(frozen=True)
class Bench:
    """A judge, and the real pictures that it compares with."""

    shards: Path
    data: Data
    judge: judge.Judge
    real: Tensor
    held_out: Tensor
    accuracy: float


def judged(folder: Path, names: list[str], images: int, num: int) -> Iterator[dict[str, Any]]:
    """A row for each; images: of the training, 0: each one's own; num: samples that are judged."""
    benches: dict[str, Bench] = {}
    for name in names:
        learner = LEARNERS[name]
        if learner.data not in benches:
            benches[learner.data] = bench_of(folder, learner.data)
        yield row(folder, name, learner, benches[learner.data], images or learner.images, num)


def bench_of(folder: Path, name: str) -> Bench:
    """A judge that has learnt the training set; data that are not there are packed."""
    data = DATA[name]
    if not (folder / name).exists():
        organza("pack", data.sample, str(folder / name))
    images, classes = seen(folder / name / data.train, data)
    held_out, truth = seen(folder / name / data.test, data)
    trained = judge.trained(images, classes)
    found, _ = judge.opinion(trained, held_out)
    accuracy = float((found == truth).float().mean())
    return Bench(folder / name / data.train, data, trained, images, held_out, accuracy)


def seen(location: Path, data: Data) -> tuple[Tensor, Tensor]:
    """Pictures at the side that the GANs make, and their classes."""
    images, classes = judge.labelled(location, data.channels)
    if images.shape[-1] != data.side:
        images = F.interpolate(images, (data.side, data.side), mode="bicubic", antialias=True)
    return images, classes


def row(
    folder: Path, name: str, learner: Learner, bench: Bench, images: int, num: int
) -> dict[str, Any]:
    """What one has learnt."""
    started = time.monotonic()
    made = samples(folder / name, learner, bench, images, num)
    seconds = time.monotonic() - started
    first = samples(folder / f"{name}-untrained", learner, bench, 1, num)
    shown, sure = judge.opinion(bench.judge, made)
    num_classes = bench.judge.output.out_features
    asked = torch.arange(len(shown)) % num_classes
    counts = torch.bincount(shown, minlength=num_classes)

    def distance(images: Tensor) -> float:
        return round(judge.distance(bench.judge, images, bench.held_out), 3)

    return {
        "gan": name,
        "seconds": round(seconds),
        "least class": round(float(counts.min() / len(shown)), 3),
        "as asked": round(float((shown == asked).float().mean()), 3),
        "information": round(judge.information(asked, shown), 3),
        "confidence": round(float(sure.mean()), 3),
        "distance": distance(made),
        "untrained": distance(first),
        "real": distance(bench.real[::4]),
        "judge": round(bench.accuracy, 3),
    }


def along(folder: Path, name: str, num: int = 1000) -> float:
    """Rank correlation of D(x) - D(G(z)) in the log with our distance, over the checkpoints."""
    run, learner = folder / name, LEARNERS[name]
    bench = bench_of(folder, learner.data)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    estimates = {row["images"]: -row["D/real"] - row["D/fake"] for row in logged}
    ours, theirs = [], []
    for checkpoint in sorted((run / "checkpoints").glob("[0-9]*")):
        out = run / f"samples-{checkpoint.name}"
        organza("sample", str(checkpoint), str(out), f"--num={num}", "--grid=0")
        made = judge.pictures(out, bench.data.channels)
        ours.append(judge.distance(bench.judge, made, bench.held_out))
        images = min(estimates, key=lambda seen: abs(seen - int(checkpoint.name)))
        theirs.append(estimates[images])
    ranks = torch.tensor([ours, theirs]).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def samples(run: Path, learner: Learner, bench: Bench, images: int, num: int) -> Tensor:
    """What a run makes once it has seen so many images."""
    if not run.exists():
        organza(
            "train",
            learner.recipe,
            f"--run_dir={run}",
            f"--data.shards={bench.shards}",
            f"--schedule.constant={images}",
            "--schedule.decay=0",
            "--ema.halflife=5000",
            *learner.options,
            *(
                "--cadence.log=10000",
                "--cadence.pictures=0",
                f"--cadence.save={max(1, images // 8)}",
            ),
            "--cadence.keep_last=8",
        )
    organza("sample", str(run), str(run / "samples"), f"--num={num}", "--grid=20")
    return judge.pictures(run / "samples", bench.data.channels)


def organza(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "launcher", *words], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
