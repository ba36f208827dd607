"""The module that DDP or DeepSpeed wraps: one per phase, its forward *is* the phase's loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainers.gan import GAN, Batch, Phase, Terms


def phase_parameters(gan: GAN, phase: Phase) -> dict[str, nn.Parameter]:
    """Parameters that `phase` trains, by their name below `gan.nets` (the checkpoint's names)."""
    named = {}
    for path in phase.nets:
        for name, parameter in gan.nets.get_submodule(path).named_parameters(prefix=path):
            named[name] = parameter
    return named


@contextmanager
def only(gan: GAN, phase: Phase) -> Iterator[None]:
    """Freeze everything but the parameters of `phase`, so that no other gradient is computed."""
    own = {id(parameter) for parameter in phase_parameters(gan, phase).values()}
    before = [(parameter, parameter.requires_grad) for parameter in gan.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in own)
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def generates(gan: GAN, phase: Phase) -> bool:
    """Whether a phase trains what translates, which is also what is averaged."""
    return any(path.split(".")[0] in gan.ema for path in phase.nets)


class Player(nn.Module):
    """Owns exactly the parameters of one optimizer.

    The GAN itself is kept out of the module tree: its other networks are used raw and frozen, and
    must be neither broadcast nor reduced by the wrapper.
    """

    gan: GAN

    def __init__(self, gan: GAN, phase: Phase, autocast: torch.dtype | None = None):
        super().__init__()
        self.phase = phase
        self.autocast = autocast
        self.trained = nn.ModuleList(gan.nets.get_submodule(path) for path in phase.nets)
        self.__dict__["gan"] = gan

    def forward(self, raw: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        """(total, detached terms, out) of the phase on a raw batch that lies on the device."""
        device = next(self.parameters()).device.type
        with torch.autocast(device, self.autocast, enabled=self.autocast is not None):
            needed = self.gan.needs_batch(self.phase.name, carry)
            batch = self.gan.prepare(raw) if needed else {}
            total, terms, out = self.gan.losses(self.phase.name, batch, carry)
        return total, {name: term.detach() for name, term in terms.items()}, out
