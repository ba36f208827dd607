"""A trained generator over a folder of conditions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from nets.conditioning import denormalise
from trainers.gan import GAN, Batch
from trainers.transfer import to_device


class Sized(Protocol):
    """(key, raw batch of one) pairs whose number is known."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, Batch]]: ...


@torch.no_grad()
def translate_all(
    gan: GAN,
    conditions: Sized,
    out: Path,
    precision: torch.dtype | None,
    progress: Callable[[int, int], None],
) -> None:
    """Write OUT/KEY.png for every condition, each file whole or not at all."""
    gan.eval()
    device = next(gan.parameters()).device
    for done, (key, raw) in enumerate(conditions):
        progress(done, len(conditions))
        with torch.autocast(device.type, precision, enabled=precision is not None):
            image = gan.translate(gan.prepare(to_device(raw, device)))
        write_png(out / f"{key}.png", denormalise(image)[0])
    progress(len(conditions), len(conditions))


def write_png(path: Path, picture: Tensor) -> None:
    """picture: uint8 [3, H, W]."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".writing")
    with open(draft, "wb") as file:
        Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(file, format="PNG")
    os.replace(draft, path)
