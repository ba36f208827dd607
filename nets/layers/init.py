"""Initialisation of DCGAN, which CycleGAN, pix2pix and pix2pixHD use unchanged."""

from __future__ import annotations

from torch import nn


def init_normal(module: nn.Module, std: float = 0.02, zero_bias: bool = False) -> None:
    """Convolution weights N(0, std), batch norm weights N(1, std) and biases 0.

    Convolution biases keep torch's default, as in the original pix2pixHD; `zero_bias` makes them
    0, as in the originals of CycleGAN and pix2pix.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, std)
            if zero_bias and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
            nn.init.zeros_(layer.bias)
