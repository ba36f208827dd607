"""What keeps the ranks' networks one and the same, beside the gradients."""

from __future__ import annotations

import torch

from trainers.backends.base import Backend
from trainers.errors import TrainingError
from trainers.gan import GAN


@torch.no_grad()
def average_buffers(backend: Backend, gan: GAN) -> None:
    """Running statistics, which each rank gathers from its own samples -> their mean over ranks.

    They are linear in what was seen, so it changes nothing how often this is done."""
    buffers = [buffer for buffer in gan.nets.buffers() if buffer.is_floating_point()]
    if backend.world == 1 or not buffers:
        return
    mean = backend.mean(torch.cat([buffer.flatten() for buffer in buffers]))
    parts = mean.split([buffer.numel() for buffer in buffers])
    views = [part.view_as(buffer) for buffer, part in zip(buffers, parts, strict=True)]
    torch._foreach_copy_(buffers, views)


@torch.no_grad()
def check_replicas(backend: Backend, gan: GAN) -> None:
    """Raise when any rank's networks differ from rank 0's, naming the worst tensor."""
    if backend.world == 1:
        return
    tensors = {n: t for n, t in gan.nets.state_dict().items() if t.is_floating_point()}
    worst = []
    for tensor in tensors.values():
        reference = backend.broadcast(tensor.detach().clone())
        # NaN compares as no difference, so that it is counted as an infinite one.
        gap = (tensor - reference).abs().nan_to_num(nan=float("inf")).max()
        worst.append(gap.double())
    gaps = dict(zip(tensors, backend.maximum(torch.stack(worst)).tolist(), strict=True))
    name = max(gaps, key=gaps.__getitem__)
    if gaps[name] > 0:
        raise TrainingError(
            f"The replicas have drifted apart: {name} differs by {gaps[name]:.3g} between ranks. "
            "Nothing was saved; resume from the last checkpoint and report this as a bug."
        )
