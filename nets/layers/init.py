"""Initialisation: DCGAN's, which most have used unchanged, and BigGAN's."""

from __future__ import annotations

from torch import nn


def init_normal(
    module: nn.Module, std: float = 0.02, zero_bias: bool = False, linear: bool = False
) -> None:
    """Convolution weights N(0, std), batch norm weights N(1, std) and biases 0.

    Convolution biases keep torch's default, as in the original pix2pixHD; `zero_bias` makes them
    0, as in the originals of CycleGAN and pix2pix. `linear`: linear layers as convolutions.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) or (
            linear and isinstance(layer, nn.Linear)
        ):
            nn.init.normal_(layer.weight, 0.0, std)
            if zero_bias and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.normal_(layer.weight, 1.0, std)
            nn.init.zeros_(layer.bias)


def init_orthogonal(module: nn.Module) -> None:
    """Orthogonal weights of convolutions, linear layers and embeddings, the last two also within
    conditional norms; biases keep torch's default. Saxe et al., ICLR 2014 (arXiv:1312.6120), as
    BigGAN has it."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)):
            nn.init.orthogonal_(layer.weight)
