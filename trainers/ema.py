"""Moving average of the generator's weights, with a half-life in images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainers.gan import GAN


class Ema:
    """Averages every floating-point tensor of the networks that `gan.ema` names.

    shadow: average by name below `gan.nets`; other tensors (counters) are copied.
    """

    def __init__(self, gan: GAN, halflife: int, start: int = 0):
        """halflife: images after which an old weight counts half; start: images of the run before
        which the average is a copy."""
        self.halflife = halflife
        self.start = start
        self.restart(gan)

    def restart(self, gan: GAN) -> None:
        """Average from these weights on."""
        self.shadow = {name: tensor.detach().clone() for name, tensor in averaged(gan).items()}

    @torch.no_grad()
    def update(self, gan: GAN, images: int, seen: int) -> None:
        """Account for `images` further images; seen: all that the run has seen."""
        keep = 0.5 ** (images / self.halflife) if seen >= self.start else 0.0
        old, new = [], []
        for name, tensor in averaged(gan).items():
            if tensor.is_floating_point():
                old.append(self.shadow[name])
                new.append(tensor.detach())
            else:
                self.shadow[name].copy_(tensor)
        torch._foreach_lerp_(old, new, 1.0 - keep)

    @contextmanager
    @torch.no_grad()
    def swapped(self, gan: GAN) -> Iterator[None]:
        """Within the block the GAN's networks hold the averages. No copy is made."""
        tensors = averaged(gan)
        live = {name: tensor.data for name, tensor in tensors.items()}
        try:
            for name, tensor in tensors.items():
                tensor.data = self.shadow[name]
            yield
        finally:
            for name, tensor in tensors.items():
                tensor.data = live[name]


def averaged(gan: GAN) -> dict[str, Tensor]:
    """Parameters and buffers of the averaged networks by name."""
    prefixes = tuple(path + "." for path in gan.ema)
    return {
        name: tensor
        for name, tensor in gan.nets.state_dict(keep_vars=True).items()
        if name.startswith(prefixes)
    }
