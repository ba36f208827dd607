"""Pictures side by side."""

from __future__ import annotations

import torch

from trainers.board.pictures import mosaic


def test_a_mosaic_fills_its_last_row_with_black() -> None:
    pictures = torch.arange(1, 6, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    made = mosaic(pictures, columns=3)
    assert made.shape == (3, 4, 6)
    assert made[0, ::2, ::2].tolist() == [[1, 2, 3], [4, 5, 0]]
