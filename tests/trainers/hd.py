"""Small pix2pixHD networks, batches for them, and one step of phase G."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.gan import Batch
from trainers.gans.from_images.pix2pixhd import Pix2PixHD
from trainers.player import Player, only, phase_parameters

SMALL = dict(num_labels=5, ngf=4, num_downsamples=2, num_blocks=2, ndf=4, lambda_vgg=0)
FULL = SMALL | dict(stage="full", ngf=2, num_local_blocks=1, num_scales=3)


def raw_batch(height: int = 32, width: int = 48, count: int = 1, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, channels: int) -> Tensor:
        return torch.randint(0, high, (count, channels, height, width), generator=generator)

    label, inst = draw(5, 1).to(torch.uint8), draw(4, 1).int() * 1000
    return {"label": label, "inst": inst, "image": draw(256, 3).to(torch.uint8), "keys": ["a"]}


def generator_step(
    gan: Pix2PixHD, raw: Batch, scale: float = 1.0, autocast: torch.dtype | None = None
) -> tuple[Tensor, dict, Batch]:
    """Phase G up to its gradients, which are left on the parameters."""
    gan.zero_grad()
    phase = gan.phases(10**9)[0]
    with only(gan, phase):
        total, terms, out = Player(gan, phase, autocast)(raw, {})
        (total * scale).backward()
    return total.detach(), terms, out


def generator_gradients(gan: Pix2PixHD) -> dict[str, Tensor]:
    parameters = phase_parameters(gan, gan.phases(10**9)[0])
    return {name: parameter.grad.clone() for name, parameter in parameters.items()}
