"""Counting what lives and what moves, on fake tensors."""

from __future__ import annotations

import torch
from torch import nn

from trainers.engine.tracing import Kernels, fake_gpu


def test_memory_is_counted_while_it_lives() -> None:
    with fake_gpu() as live:
        kept = torch.empty(1000)
        view = kept[10:]
        torch.empty(2000)
        assert (live.live, live.peak) == (4000, 12000)
        del kept
        assert live.live == 4000 and view.numel() == 990
        del view
        assert live.live == 0


def test_autocast_follows_cudas_policy() -> None:
    """Padding must not turn activations into float32, which would double what is counted."""
    pad = nn.functional.pad
    with fake_gpu(), torch.autocast("cpu", torch.bfloat16):
        conv, image = nn.Conv2d(3, 3, 3), torch.empty(1, 3, 8, 8)
        padded = nn.functional.pad(conv(image), (1, 1, 1, 1), mode="reflect")
        assert padded.dtype == torch.bfloat16 and padded.shape[-1] == 8
    assert nn.functional.pad is pad


def test_an_operator_moves_what_it_reads_and_writes() -> None:
    x, y = torch.zeros(10, 10), torch.zeros(10, 10)
    moved = {
        (lambda: x + y): 1200,
        (lambda: x + x): 800,
        (lambda: x[:5] + 1): 400,
        (lambda: x.add_(y)): 1200,  # reads both, writes one
        (lambda: x.copy_(y)): 800,
        (lambda: x.zero_()): 400,
        (lambda: torch.cat([x, y])): 1600,
        (lambda: x + torch.zeros(1).expand(10, 10)): 4 + 804,
        (lambda: x.view(100)[3:].detach()): 0,
        (lambda: torch.empty(10, 10)): 0,
    }
    for work, num_bytes in moved.items():
        with Kernels() as kernels:
            work()
        assert sum(b for part in kernels.parts() for _, b in part.kernels) == num_bytes


def test_arithmetic_is_that_of_the_matrices() -> None:
    with Kernels() as kernels:
        kernels.now = ("G", "forward")
        torch.zeros(4, 3) @ torch.zeros(3, 5)
    (part,) = kernels.parts()
    assert (part.phase, part.stage) == ("G", "forward")
    assert part.kernels[-1] == (2 * 4 * 3 * 5, 4 * (12 + 15 + 20))
