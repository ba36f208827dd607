"""Picture grids for the board and for disk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grid(columns: dict[str, Tensor], width: int = 512) -> Tensor:
    """Named uint8 pictures [N, 3, H, W] -> one picture [3, N*h, len(columns)*w].

    One row per sample, one column per name, each scaled down to at most `width` pixels; black
    below the lower ones."""
    cells = [shrink(pictures, width) for pictures in columns.values()]
    height = max(cell.shape[2] for cell in cells)
    rows = torch.cat([F.pad(cell, (0, 0, 0, height - cell.shape[2])) for cell in cells], dim=3)
    return torch.cat(list(rows), dim=1)


def shrink(pictures: Tensor, width: int) -> Tensor:
    if pictures.shape[3] <= width:
        return pictures.cpu()
    height = max(1, round(pictures.shape[2] * width / pictures.shape[3]))
    small = F.interpolate(pictures.float(), (height, width), mode="area")
    return small.round().to(torch.uint8).cpu()
