"""The one map between our state-dict keys and those of the original implementations.

pix2pixHD and CycleGAN (with pix2pix) number the layers of flat `nn.Sequential`s, padding,
activations and norms without parameters included; their U-Net nests a Sequential in each level. A
VGG needs no entry: its names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from nets.discriminators.patch import (
    MultiscaleDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
)
from nets.generators.encoders import Encoder
from nets.generators.pix2pixhd import LocalEnhancer, ResnetGenerator
from nets.generators.unet import UnetGenerator
from nets.layers.blocks import ConvBlock, ResidualBlock

Named = Iterable[tuple[str, nn.Module]]


def original_keys(network: nn.Module) -> dict[str, str]:
    """Own state-dict key -> key in the original implementation, for parameters and buffers.

    Raises ValueError where the originals have no such network."""
    blocks = _blocks(network)
    keys = {}
    for own in network.state_dict():
        block, part, kind = own.rsplit(".", 2)
        conv = blocks[block]
        keys[own] = f"{conv if part == 'conv' else _next(conv)}.{kind}"
    return keys


def _blocks(network: nn.Module) -> dict[str, str]:
    """Own name of each ConvBlock -> name of its convolution in the original."""
    if any(isinstance(block, ConvBlock) and block.enlarge for block in network.modules()):
        raise ValueError("the originals have no upsampling by resize and convolution")
    if isinstance(network, LocalEnhancer):
        return _local_enhancer(network)
    if isinstance(network, (ResnetGenerator, Encoder)):
        return _numbered([*_stages(network, "trunk"), ("head", network.head)], "model")
    if isinstance(network, UnetGenerator):
        return _unet(network)
    if isinstance(network, MultiscaleDiscriminator):
        return _multiscale(network)
    if isinstance(network, (PatchDiscriminator, PixelDiscriminator)):
        return _single(network)
    raise ValueError(f"the originals have no counterpart of {type(network).__name__}")


def _next(layer: str) -> str:
    """The layer after `layer`, which a norm is to its convolution."""
    parent, _, index = layer.rpartition(".")
    return f"{parent}.{int(index) + 1}"


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


def _unet(network: UnetGenerator) -> dict[str, str]:
    """A level: [LeakyReLU, conv, norm, next level, ReLU, conv, norm]; at the ends some lack."""
    layers = {}
    level, deepest = "model.model", len(network.downs) - 1
    for depth in range(deepest + 1):
        outermost, innermost = depth == 0, depth == deepest
        layers[f"downs.{depth}"] = f"{level}.{0 if outermost else 1}"
        layers[f"ups.{deepest - depth}"] = f"{level}.{3 if outermost or innermost else 5}"
        level += f".{1 if outermost else 3}.model"
    return layers


def _multiscale(network: MultiscaleDiscriminator) -> dict[str, str]:
    return {
        f"scales.{scale}.layers.{layer}": f"scale{scale}_layer{layer}.0"
        for scale, patch in enumerate(network.scales)
        for layer, _ in patch.get_submodule("layers").named_children()
    }


def _single(network: PatchDiscriminator | PixelDiscriminator) -> dict[str, str]:
    """conv, LeakyReLU, then (conv, norm, LeakyReLU) as often as needed, then conv."""
    model = "model" if isinstance(network, PatchDiscriminator) else "net"
    return {
        f"layers.{layer}": f"{model}.{max(3 * layer - 1, 0)}"
        for layer in range(len(network.layers))
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
            dropout = isinstance(stage.first.dropout, nn.Dropout)
            layers[f"{name}.first"] = f"{prefix}.{index}.conv_block.1"
            layers[f"{name}.second"] = f"{prefix}.{index}.conv_block.{5 + dropout}"
            index += 1
        else:
            assert isinstance(stage, ConvBlock)
            padding = int(stage.reflect > 0)
            layers[name] = f"{prefix}.{index + padding}"
            index += padding + 3
    return layers
