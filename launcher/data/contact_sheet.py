"""One picture of some samples: a row each, label and instance maps in colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from nets.layers.conditioning import label_colours
from shards.pixels.images import decode_sample
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet

NUM_ROWS = 16
CELL = 256
"""Pixels: width of a cell, and most of its height."""
GAP = 4
_NUM_COLOURS = 256


def contact_sheet(sets: Sequence[ShardSet]) -> Image.Image:
    """Samples of each set from its first to its last, evenly spaced; several sets side by side.

    Pictures are scaled down to cells of one width and never up. Raises DataError for a sample that
    cannot be read."""
    columns = [column for shard_set in sets for column in sample_columns(shard_set)]
    num_rows = max(map(len, columns))
    cells = [cell for column in columns for cell in column]
    height = max(cell.height for cell in cells) + GAP
    sheet = Image.new("RGB", (len(columns) * (CELL + GAP) - GAP, num_rows * height - GAP))
    for x, column in enumerate(columns):
        for y, cell in enumerate(column):
            sheet.paste(cell, (x * (CELL + GAP), y * height))
    return sheet


def sample_columns(shard_set: ShardSet) -> list[list[Image.Image]]:
    """The cells of one set: a column for each member, from top to bottom."""
    reader = Reader(shard_set)
    num_rows = min(NUM_ROWS, shard_set.num_samples)
    numbers = np.linspace(0, shard_set.num_samples - 1, num_rows).round().astype(int)
    channels = shard_set.manifest.channels
    samples = (
        decode_sample(reader.read(n), shard_set.names(n), channels) for n in map(int, numbers)
    )
    rows = [[cell(pixels) for pixels in sample.values()] for sample in samples]
    return [list(column) for column in zip(*rows, strict=True)]


def cell(pixels: np.ndarray) -> Image.Image:
    """A picture [H, W, 3 or 4], over white where it is transparent, or a map of ids [H, W] in
    colours, that fits into a cell."""
    picture = Image.fromarray(colours(pixels) if pixels.ndim == 2 else pixels)
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    picture.thumbnail((CELL, CELL), Image.Resampling.BOX)
    return picture


def colours(ids: np.ndarray) -> np.ndarray:
    """Ids [H, W] -> uint8 [H, W, 3], as the board colours labels; instance ids beyond 255 share
    colours."""
    tensor = torch.from_numpy(ids.astype(np.int64) % _NUM_COLOURS)[None, None]
    return label_colours(tensor, _NUM_COLOURS)[0].permute(1, 2, 0).numpy()
