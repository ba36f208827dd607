"""Initialisation of DCGAN, which pix2pixHD uses unchanged."""

from __future__ import annotations

from torch import nn


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Convolution weights N(0, std), batch norm weights N(1, std) and biases 0.

    Convolution biases keep torch's default, as in the original pix2pixHD.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, std)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
            nn.init.zeros_(layer.bias)
