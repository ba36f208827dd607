"""What a recipe will read, as far as it can be known here: the packed set, or a stated guess."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.recipe.config import Config, ConfigError
from launcher.recipe.data_fit import preprocess_of
from launcher.recipe.errors import config_errors
from launcher.run.sources import sources_of
from shards.read.sources import Source, epoch_size
from shards.records import size_text

SIZE, NUM_IMAGES = (2048, 1024), 3000
"""(width, height) and number of the pictures where nothing is known: about Cityscapes."""
DECODE = 35e-3 / (2048 * 1024)
"""CPU seconds to read and decode a pixel of a label, instance and JPEG triplet: the README's 35 ms
at 2048x1024. With PNG photos it is about twice as much."""


@dataclass(frozen=True)
class ExpectedData:
    """The samples of an epoch."""

    stored: tuple[int, int]
    """(width, height) of the pictures as they were packed."""
    num_images: int
    """Samples of an epoch."""
    sample_bytes: float | None
    """Mean bytes of a sample in the shards; None if unknown."""
    origin: str
    """A sentence for the user."""
    sources: tuple[Source, ...] = ()
    """The packed sets; () where they are not here, or other sizes were asked for."""

    @property
    def decode_seconds(self) -> float:
        """CPU time of one sample, from shard to pixels."""
        return DECODE * self.stored[0] * self.stored[1]

    def trained(self, config: Config) -> tuple[int, int]:
        """(width, height) that the networks see."""
        preprocess = preprocess_of(config)
        preprocess.check_crop(preprocess.resized(*self.stored), "a picture as expected (--size)")
        return preprocess.output_size(*self.stored)


def expected_data(config: Config, size: str, images: str) -> ExpectedData:
    """The packed set if it lies on this machine; `size` ("2048x1024") and `images`, unless empty,
    count instead."""
    shards = config.data.shards
    if isinstance(shards, Path) and shards.exists():
        with config_errors():
            data = of_sources(sources_of(config))
    else:
        side = config.model.needs.side
        usual = SIZE if side is None else (side, side)
        guess = f"{NUM_IMAGES} pictures of {size_text(usual)} are assumed (--images, --size)"
        data = ExpectedData(usual, NUM_IMAGES, None, f"data.shards={shards} is not here: {guess}.")
    wishes: dict[str, Any] = {}
    if size:
        wishes |= {"stored": width_height(size), "sources": ()}
    if images:
        wishes["num_images"] = whole("images", images)
    if wishes:
        data = replace(data, **wishes)
        given = f"{data.num_images} pictures of {size_text(data.stored)}"
        data = replace(data, origin=f"As asked for: {given}.")
    return data


def of_sources(sources: tuple[Source, ...]) -> ExpectedData:
    """What the manifests tell."""
    sets = [source.shard_set for source in sources]
    width, height, _ = max(sets[0].sizes, key=lambda entry: entry[2])
    num_bytes = sum(
        sum(shard.num_bytes for shard in found.manifest.shards) / found.num_samples
        for found in sets
    )
    origin = (
        f"{sets[0].store}: {epoch_size(sources)} samples, most of them {width}x{height}, "
        f"{num_bytes / 1e6:.2f} MB each."
    )
    return ExpectedData((width, height), epoch_size(sources), num_bytes, origin, sources)


def width_height(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text, re.ASCII)
    width, height = map(int, match.groups()) if match else (0, 0)
    if not width or not height:
        raise ConfigError(f"plan: --size={text} must be WIDTHxHEIGHT: 2048x1024, for example.")
    return width, height


def whole(name: str, text: str) -> int:
    """A number of things, at least one."""
    if not re.fullmatch(r"\d{1,9}", text) or int(text) == 0:
        raise ConfigError(f"plan: --{name}={text} must be a whole number from 1 to 999999999.")
    return int(text)
