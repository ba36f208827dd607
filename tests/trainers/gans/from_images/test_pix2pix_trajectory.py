"""pix2pix against five training steps of the original implementation, in float64."""

from __future__ import annotations

import numpy as np

from tests.nets.rule import arrays, image, recorded
from tests.trainers.trajectory import filled, walk
from trainers.gan import Batch
from trainers.gans.from_images.pix2pix import Config, Pix2Pix


class Recorded(Pix2Pix):
    """The trajectory's images are floats, not uint8."""

    def prepare(self, batch: Batch) -> Batch:
        return batch


def test_five_steps_of_the_original() -> None:
    generator = {"num_downsamples": 7, "ngf": 4, "dropout": 0}
    config = Config(generator=generator, discriminator={"ndf": 8}, test_statistics="running")
    gan = Recorded(config)
    keys = filled(gan, "p2p")
    walk(gan, keys, recorded("pix2pix"), pair, NAMES)
    probe = gan.eval().translate(pair(0)).numpy()
    assert np.abs(probe - arrays("pix2pix")["probe"]).max() < 1e-6


def pair(number: int) -> Batch:
    shape = (1, 3, 128, 128)
    return {
        "condition": image(f"p2p/A/{number}", shape).double(),
        "image": image(f"p2p/B/{number}", shape).double(),
    }


NAMES = {
    "G_GAN": {"G/gan": 1},
    "G_L1": {"G/L1": 100},
    "D_real": {"D/real": 1},
    "D_fake": {"D/fake": 1},
    **{name: {name: 1} for name in ("loss_G", "loss_D", "gradnorm_G", "gradnorm_D")},
}
