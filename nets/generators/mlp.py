"""Multilayer perceptrons that make images from noise.

Goodfellow et al., Generative Adversarial Networks, NeurIPS 2014 (arXiv:1406.2661). The defaults are
those of the Machine-Learning-Collection; PyTorch-GAN has widths 128, 256, 512, 1024, slope 0.2 and
batch norms with eps 0.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from nets.layers.blocks import LinearBlock
from nets.layers.norms import Norm


class MlpGenerator(nn.Module):
    """Noise [N, num_noise], also [N, num_noise, 1, 1] -> images [N, *shape] in [-1, 1].

    `shape` is (channels, height, width). All hidden layers but the first have a `norm` with `eps`.
    """

    def __init__(
        self,
        num_noise: int,
        shape: tuple[int, int, int],
        widths: Sequence[int] = (256,),
        slope: float = 0.01,
        norm: Norm = "none",
        eps: float = 1e-5,
    ):
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(
            *(
                LinearBlock(
                    nn.Linear(before, width),
                    nn.LeakyReLU(slope, inplace=True),
                    norm if number else "none",
                    eps,
                )
                for number, (before, width) in enumerate(pairwise([num_noise, *widths]))
            )
        )
        self.output = nn.Linear(widths[-1], prod(shape))

    def forward(self, noise: Tensor) -> Tensor:
        return self.output(self.layers(noise.flatten(1))).tanh().unflatten(1, self.shape)
