"""The one map between our parameter names and those of the original pix2pixHD.

The original numbers the layers of flat `nn.Sequential`s, padding and activations included. A VGG
needs no entry: its names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from nets.blocks import ConvBlock, ResidualBlock
from nets.discriminators import MultiscaleDiscriminator
from nets.encoders import Encoder
from nets.generators import GlobalGenerator, LocalEnhancer

Named = Iterable[tuple[str, nn.Module]]


def original_keys(network: nn.Module) -> dict[str, str]:
    """Own state-dict key -> key in the original implementation, for every parameter."""
    if isinstance(network, LocalEnhancer):
        layers = _local_enhancer(network)
    elif isinstance(network, (GlobalGenerator, Encoder)):
        layers = _numbered([*_stages(network, "trunk"), ("head", network.head)], "model")
    elif isinstance(network, MultiscaleDiscriminator):
        layers = _discriminator(network)
    else:
        raise ValueError(f"pix2pixHD has no counterpart of {type(network).__name__}")
    return {
        f"{own}.conv.{kind}": f"{original}.{kind}"
        for own, original in layers.items()
        for kind in ("weight", "bias")
    }


def _local_enhancer(network: LocalEnhancer) -> dict[str, str]:
    layers = _numbered(_stages(network, "trunk"), "model")
    last = len(network.enhancers.levels)
    for number in range(1, last + 1):
        path = f"enhancers.levels.{number - 1}"
        after = [*_stages(network, path, "blocks"), *_stages(network, path, "up")]
        if number == last:
            after.append(("enhancers.head", network.enhancers.head))
        layers |= _numbered(_stages(network, path, "down"), f"model{number}_1")
        layers |= _numbered(after, f"model{number}_2")
    return layers


def _discriminator(network: MultiscaleDiscriminator) -> dict[str, str]:
    return {
        f"scales.{scale}.layers.{layer}": f"scale{scale}_layer{layer}.0"
        for scale, patch in enumerate(network.scales)
        for layer in range(len(patch.layers))
    }


def _stages(network: nn.Module, path: str, *parts: str) -> list[tuple[str, nn.Module]]:
    """Named stages of the hourglass at `path`, in the order in which they run."""
    return [
        (f"{path}.{part}.{name}", stage)
        for part in parts or ("down", "blocks", "up")
        for name, stage in network.get_submodule(f"{path}.{part}").named_children()
    ]


def _numbered(stages: Named, prefix: str) -> dict[str, str]:
    """Own name of a ConvBlock -> name of its convolution in the original's flat sequence."""
    layers: dict[str, str] = {}
    index = 0
    for name, stage in stages:
        if isinstance(stage, ResidualBlock):
            layers[f"{name}.first"] = f"{prefix}.{index}.conv_block.1"
            layers[f"{name}.second"] = f"{prefix}.{index}.conv_block.5"
            index += 1
        else:
            assert isinstance(stage, ConvBlock)
            padding = int(stage.reflect > 0)
            layers[name] = f"{prefix}.{index + padding}"
            index += padding + 3
    return layers
