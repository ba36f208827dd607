"""Random numbers as a pure function of seed, position and name."""

from __future__ import annotations

import numpy as np
import pytest

from shards.read.noise import Noise

PINNED = {
    "uniform": [
        [0.7405717968940735, 0.8309091329574585, 0.703056812286377],
        [0.6809364557266235, 0.10527360439300537, 0.5129845142364502],
    ],
    "normal": [[-1.0954094, 1.0831145, -0.4310074], [2.0373771, 0.44321, 1.0620906]],
}
UNIFORM, NORMAL = Noise("share", (2, 3), "uniform"), Noise("z", (2, 3), "normal")


def test_they_are_what_they_always_were():
    """A run goes on with them on another machine and with another version of numpy."""
    assert UNIFORM.at(7, 3).tolist() == PINNED["uniform"]
    assert np.abs(NORMAL.at(7, 3) - PINNED["normal"]).max() < 1e-6
    assert UNIFORM.at(7, 3).dtype == NORMAL.at(7, 3).dtype == np.float32


@pytest.mark.parametrize("noise", [UNIFORM, NORMAL])
def test_seed_position_and_name_tell_them_apart(noise):
    renamed = Noise("another", noise.shape, noise.distribution)
    for other in (noise.at(8, 3), noise.at(7, 4), renamed.at(7, 3)):
        assert not np.isclose(noise.at(7, 3), other).any()


def test_their_distributions():
    uniform = np.stack([Noise("u", (50,), "uniform").at(0, n) for n in range(400)])
    normal = np.stack([Noise("n", (50,), "normal").at(0, n) for n in range(400)])
    assert uniform.min() >= 0 and uniform.max() < 1
    for drawn, mean, deviation in ((uniform, 0.5, 12**-0.5), (normal, 0, 1)):
        assert abs(drawn.mean() - mean) < 0.02 and abs(drawn.std() - deviation) < 0.02
        assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.15
        assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.03
    assert np.abs(normal).max() > 3.5 and abs((normal**4).mean() - 3) < 0.3
