"""`sample`: a checkpoint of a GAN that makes images from noise -> a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from launcher.recipe.building import PRECISIONS
from launcher.recipe.config import ConfigError
from launcher.recipe.errors import memory_errors
from launcher.run.generator import generator_of
from launcher.run.samples import between, drawn
from launcher.text.progress_bar import progress_bar
from nets.layers.conditioning import denormalise, in_colours
from shards.pixels.made_pictures import check_replaceable, save_pixels
from trainers.board.pictures import mosaic
from trainers.engine.translate import run_all
from trainers.gan import Batch
from trainers.settings import Needs

SHEET = "sheet.png"
SHEET_HOLDS = 400
"""Pictures of the contact sheet, from the first on."""
AT_ONCE = 16
"""Images that are made together."""


@dataclass(frozen=True)
class Wanted:
    """Which images are made."""

    num: int
    seed: int = 0
    classes: tuple[int, ...] = ()
    """In turn; () for all that there are."""
    truncation: float | None = None
    columns: int = 8
    """Of the contact sheet; 0 for none."""
    steps: int = 0
    """Images from each one to the next; 0: the images alone."""

    def names(self) -> list[str]:
        """Of the files, in order."""
        if not self.steps:
            return [f"{number:06d}.png" for number in range(self.num)]
        pairs = ((n, step) for n in range(self.num) for step in range(self.steps))
        return [f"{number:06d}-{step:02d}.png" for number, step in pairs]

    def class_of(self, number: int, needs: Needs) -> int:
        """The class of an image."""
        classes = self.classes or range(needs.sample_classes)
        return classes[number % len(classes)]

    def batch(self, numbers: range, needs: Needs) -> Batch:
        """What the pictures with these positions in `names` are made of."""
        if not self.steps:
            return self._told(drawn(needs, self.seed, numbers, self.truncation), numbers, needs)
        owners = [position // self.steps for position in numbers]
        parts = []
        for position, owner in zip(numbers, owners, strict=True):
            ends = drawn(needs, self.seed, (owner, owner + 1), self.truncation)
            parts.append(between(ends, needs, position % self.steps / (self.steps - 1)))
        stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        return self._told(stacked, owners, needs)

    def _told(self, draws: Batch, numbers: list[int] | range, needs: Needs) -> Batch:
        if not needs.sample_classes:
            return draws
        return draws | {"class": torch.tensor([self.class_of(n, needs) for n in numbers])}


class Batches:
    """The batches of all pictures, as `run_all` takes them."""

    def __init__(self, wanted: Wanted, needs: Needs, total: int):
        self.wanted, self.needs, self.total = wanted, needs, total

    def __len__(self) -> int:
        return -(-self.total // AT_ONCE)

    def __iter__(self) -> Iterator[tuple[str, Batch]]:
        for start in range(0, self.total, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, self.total))
            yield str(start), self.wanted.batch(numbers, self.needs)


def sample(checkpoint: Path, out: Path, wanted: Wanted, ema: bool) -> None:
    """Pictures of `wanted` into the folder `out`, and a contact sheet beside them."""
    config, gan, stored = generator_of(checkpoint, {}, ema)
    needs = config.model.needs
    check(wanted, needs, config.gan)
    paths = [out / name for name in wanted.names()]
    check_replaceable([*paths, out / SHEET], [])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures: list[Tensor] = []

    columns, done = wanted.steps or wanted.columns, 0

    def use(key: str, batch: Batch, images: Tensor) -> None:
        nonlocal done
        for picture in denormalise(images).cpu():
            save_pixels(picture.permute(1, 2, 0).numpy(), paths[done])
            done += 1
            if columns and len(pictures) < SHEET_HOLDS:
                pictures.append(picture)

    bar, move = progress_bar("sampling")
    with bar, memory_errors("sample on another GPU, or on the CPU."):
        batches = Batches(wanted, needs, len(paths))
        run_all(gan.to(device), batches, gan.sample, use, PRECISIONS[config.precision], move)
    if columns:
        sheet = mosaic(in_colours(torch.stack(pictures)), columns)
        save_pixels(sheet.permute(1, 2, 0).numpy(), out / SHEET)
    print(f"{out}: {len(paths)} pictures by {stored.path}.")


def check(wanted: Wanted, needs: Needs, gan: str) -> None:
    """Refuse what this GAN cannot be asked for."""
    if not needs.samples:
        raise ConfigError(f"sample: {gan} makes pictures from pictures: use `translate`.")
    if wanted.classes and not needs.sample_classes:
        raise ConfigError(f"sample: {gan} knows no classes here: leave out --classes.")
    for number in wanted.classes:
        if number >= needs.sample_classes:
            raise ConfigError(
                f"sample: --classes={number} is not there: this run has the classes 0 to "
                f"{needs.sample_classes - 1}."
            )
