"""pix2pixHD against five training steps of the original implementation, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nets.memory.remat import Memory
from tests.nets.rule import arrays, recorded
from tests.trainers.trajectory import filled, walk
from trainers.gan import Batch
from trainers.gans.from_images.pix2pixhd import Config, Pix2PixHD


class Recorded(Pix2PixHD):
    """The trajectories' images are floats, not uint8."""

    def prepare(self, batch: Batch) -> Batch:
        prepared = super().prepare({k: v for k, v in batch.items() if k != "image"})
        return prepared | {"image": batch["image"]}


@pytest.mark.parametrize(("num_scales", "memory"), [(2, "none"), (3, "none"), (3, "whole+strips")])
def test_five_steps_of_the_original(num_scales: int, memory: Memory, vgg_file: Path) -> None:
    expected, stored = recorded(f"pix2pixhd_numD{num_scales}"), arrays("pix2pixhd")
    sizes = dict(ngf=8, num_downsamples=3, num_blocks=3, ndf=8, num_scales=num_scales)
    gan = Recorded(Config(**sizes, vgg_weights=vgg_file, memory=memory))
    keys = filled(gan, "hd")
    first = {2: 160, 3: 0}[num_scales]
    walk(gan, keys, expected, lambda step: sample(stored, first + step), NAMES)
    probe = gan.translate(gan.prepare(sample(stored, 0))).numpy()
    assert np.abs(probe - stored[f"probe_numD{num_scales}"]).max() < 1e-6


NAMES = {
    "G_GAN": {"G/gan": 1},
    "G_GAN_Feat": {"G/feat": 10},
    "G_VGG": {"G/vgg": 10},
    "D_real": {"D/real": 1},
    "D_fake": {"D/fake": 1},
    **{name: {name: 1} for name in ("loss_G", "loss_D", "gradnorm_G", "gradnorm_D")},
}


def sample(stored: dict[str, np.ndarray], number: int) -> Batch:
    row = list(stored["ids"]).index(number)
    batch = {key: torch.from_numpy(stored[key][row : row + 1]) for key in ("label", "inst")}
    return batch | {"image": torch.from_numpy(stored["image"][row : row + 1]).double()}
