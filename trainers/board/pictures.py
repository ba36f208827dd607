"""Picture grids for the board and for disk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nets.layers.norms import untracked
from trainers.checkpoints.rng_state import drawing_from, random_state
from trainers.ema import Ema
from trainers.gan import GAN, Batch

PICTURED = 4
"""Samples of a batch that the board shows."""


@torch.no_grad()
def picture_of(
    gan: GAN,
    ema: Ema | None,
    batch: Batch,
    precision: torch.dtype | None,
    device: torch.device,
    columns: int | None = None,
) -> Tensor:
    """The board's picture, uint8 [3, H, W], of the first samples of a raw batch: a row each; or,
    with `columns`, of all, so many in a row."""
    few = batch if columns else {name: value[:PICTURED] for name, value in batch.items()}
    found = look(gan, few, precision, device)
    if ema is not None:
        with ema.swapped(gan):
            averaged = look(gan, few, precision, device)
        found |= {f"EMA {name}": averaged[name] for name in averaged if name.startswith("fake")}
    if columns:
        return torch.cat([mosaic(pictures, columns) for pictures in found.values()], dim=2)
    return grid(found)


def look(
    gan: GAN, batch: Batch, precision: torch.dtype | None, device: torch.device
) -> dict[str, Tensor]:
    """Pictures as a user would get them; the training after them is none the wiser: this rank alone
    makes them, and spectral norms that move in eval mode too would leave it apart."""
    gan.eval()
    try:
        with (
            untracked(gan),
            drawing_from(random_state(device), device),
            torch.autocast(device.type, precision, enabled=precision is not None),
        ):
            return gan.pictures(gan.prepare(batch))
    finally:
        gan.train()


def grid(columns: dict[str, Tensor], width: int = 512) -> Tensor:
    """Named uint8 pictures [N, 3, H, W] -> one picture [3, N*h, len(columns)*w].

    One row per sample, one column per name, each scaled down to at most `width` pixels; black
    below the lower ones."""
    cells = [shrink(pictures, width) for pictures in columns.values()]
    height = max(cell.shape[2] for cell in cells)
    rows = torch.cat([F.pad(cell, (0, 0, 0, height - cell.shape[2])) for cell in cells], dim=3)
    return torch.cat(list(rows), dim=1)


def mosaic(pictures: Tensor, columns: int) -> Tensor:
    """uint8 pictures [N, 3, H, W] -> one picture of rows of `columns`, black where some lack."""
    missing = -len(pictures) % columns
    whole = torch.cat([pictures, torch.zeros_like(pictures[:1]).expand(missing, -1, -1, -1)])
    rows = whole.cpu().unflatten(0, (-1, columns))
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def shrink(pictures: Tensor, width: int) -> Tensor:
    if pictures.shape[3] <= width:
        return pictures.cpu()
    height = max(1, round(pictures.shape[2] * width / pictures.shape[3]))
    small = F.interpolate(pictures.float(), (height, width), mode="area")
    return small.round().to(torch.uint8).cpu()
