"""CycleGAN against five training steps of the original implementation, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets.rule import arrays, image, recorded
from tests.trainers.trajectory import filled, walk
from trainers.gan import Batch
from trainers.gans.from_images.cyclegan import Config, CycleGAN


class Recorded(CycleGAN):
    """The trajectory's images are floats, not uint8."""

    def prepare(self, batch: Batch) -> Batch:
        return batch


@pytest.mark.parametrize("memory", ["none", "directions", "directions+blocks"])
def test_five_steps_of_the_original(memory: str) -> None:
    generator = {"num_blocks": 6, "ngf": 6}
    gan = Recorded(Config(generator=generator, discriminator={"ndf": 8}, memory=memory))
    keys = filled(gan, "cg")
    walk(gan, keys, recorded("cyclegan"), lambda step: pair(100 + step), NAMES)
    probe = gan.translate(pair(0))
    assert np.abs(probe.numpy() - arrays("cyclegan")["probe"][:1]).max() < 1e-6


def pair(number: int) -> Batch:
    return {side.lower(): image(f"cg/{side}/{number}", (1, 3, 64, 64)).double() for side in "AB"}


NAMES = {
    **{f"D_{side}": {f"D/real_{side}": 0.5, f"D/fake_{side}": 0.5} for side in "AB"},
    **{f"G_{side}": {f"G/gan_{side}": 1} for side in "AB"},
    **{f"cycle_{side}": {f"G/cycle_{side}": 10} for side in "AB"},
    **{f"idt_{side}": {f"G/idt_{side}": 5} for side in "AB"},
    **{name: {name: 1} for name in ("loss_G", "gradnorm_G", "gradnorm_D")},
}
