"""Multilayer perceptrons that judge images.

Goodfellow et al., Generative Adversarial Networks, NeurIPS 2014 (arXiv:1406.2661). The defaults are
those of the Machine-Learning-Collection; PyTorch-GAN has widths 512 and 256, and slope 0.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from nets.layers.blocks import LinearBlock


class MlpDiscriminator(nn.Module):
    """Images [N, ...] of `num_inputs` values each -> scores [N], which are logits.

    `dropout` is a rate, applied in all hidden layers but the first.
    """

    def __init__(
        self,
        num_inputs: int,
        widths: Sequence[int] = (128,),
        slope: float = 0.01,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.layers = nn.Sequential(
            *(
                LinearBlock(
                    nn.Linear(before, width),
                    nn.LeakyReLU(slope),
                    dropout=dropout if number else 0.0,
                )
                for number, (before, width) in enumerate(pairwise([num_inputs, *widths]))
            )
        )
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.layers(image.flatten(1)))[:, 0]
