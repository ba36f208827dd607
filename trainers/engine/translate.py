"""A trained generator over a folder of conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from nets.layers.conditioning import denormalise
from nets.layers.norms import untracked
from trainers.engine.to_device import to_device
from trainers.gan import GAN, Batch


class Sized(Protocol):
    """(key, raw batch of one) pairs whose number is known."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, Batch]]: ...


@torch.no_grad()
def translate_all(
    gan: GAN,
    conditions: Sized,
    write: Callable[[str, Tensor], None],
    precision: torch.dtype | None,
    progress: Callable[[int, int], None],
) -> None:
    """Call write(key, picture) for every condition; picture: uint8 [C, H, W]."""

    def use(key: str, batch: Batch, image: Tensor) -> None:
        write(key, denormalise(image)[0])

    run_all(gan, conditions, gan.translate, use, precision, progress)


@torch.no_grad()
def run_all(
    gan: GAN,
    conditions: Sized,
    network: Callable[[Batch], Tensor],
    use: Callable[[str, Batch, Tensor], None],
    precision: torch.dtype | None,
    progress: Callable[[int, int], None],
) -> None:
    """Call use(key, batch, network(batch)) for every condition, prepared by `gan`."""
    gan.eval()
    device = next(gan.parameters()).device
    for done, (key, raw) in enumerate(conditions):
        progress(done, len(conditions))
        autocast = torch.autocast(device.type, precision, enabled=precision is not None)
        with untracked(gan), autocast:  # no picture changes the next one
            batch = gan.prepare(to_device(raw, device))
            found = network(batch)
        use(key, batch, found)
    progress(len(conditions), len(conditions))
