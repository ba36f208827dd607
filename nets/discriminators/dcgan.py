"""The convolutional discriminator of DCGAN, and the critic of WGAN and WGAN-GP.

Radford et al., Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, ICLR 2016 (arXiv:1511.06434), section 3; Arjovsky et al., Wasserstein GAN, ICML 2017
(arXiv:1701.07875); Gulrajani et al., NeurIPS 2017 (arXiv:1704.00028).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from nets.layers.blocks import ConvBlock, halvings
from nets.layers.norms import Norm, build_norm


class DcganDiscriminator(nn.Module):
    """Images [N, in_channels, side, side] -> scores [N], which are logits.

    Convolutions that halve, from `width` channels on twice as many each, down to the smallest side
    (4 for 64 pixels, 7 for 28). All but the first have a `norm`, with gains and biases of its own
    also where it is `instance`, as critics want. `biased`: the first has a bias (WGAN). Raises
    ValueError where `side` is not 4 to 7, doubled.
    """

    def __init__(
        self,
        in_channels: int = 3,
        width: int = 64,
        side: int = 64,
        norm: Norm = "batch",
        biased: bool = False,
    ):
        super().__init__()
        start, halved = halvings(side)
        widths = [in_channels, *(width << level for level in range(halved))]
        self.layers = nn.Sequential(
            *(
                ConvBlock(
                    nn.Conv2d(before, after, 4, 2, 1, bias=biased and not number),
                    nn.LeakyReLU(0.2, inplace=True),
                    norm=build_norm(norm, after, affine=True) if number else "none",
                )
                for number, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.output = nn.Conv2d(widths[-1], 1, start)

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.layers(image)).flatten()
