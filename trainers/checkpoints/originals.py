"""Weights as the authors of pix2pix, CycleGAN and pix2pixHD publish and save them: a .pth for each
network, `EPOCH_net_NAME.pth`, under the names of their code (nets/originals.py has the map)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from nets.originals import original_keys
from trainers.checkpoints.checkpoint import find
from trainers.gan import GAN
from trainers.parts.pretrained import read_weights

NAMED = re.compile(r"(?P<epoch>\w+)_net_(?P<net>\w+)\.pth")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Instance norms had them, unused, in old versions of torch."""


def holds_originals(path: Path) -> bool:
    """Whether `path` is a file, or a folder of the authors' files and no run."""
    return path.is_file() or (path.is_dir() and bool(files_in(path)) and find(path) is None)


def files_in(folder: Path) -> dict[str, Path]:
    """The newest file of each network, by its name there."""
    named = [(NAMED.fullmatch(path.name), path) for path in sorted(folder.glob("*_net_*.pth"))]
    found = [(match["epoch"], match["net"], path) for match, path in named if match]

    def age(epoch: str) -> tuple[bool, int]:
        return (epoch == "latest", int(epoch) if epoch.isdecimal() else -1)

    return {net: path for _, net, path in sorted(found, key=lambda each: age(each[0]))}


def adopt_originals(gan: GAN, path: Path, net: str | None = None) -> list[str]:
    """Fill the networks that a file (of `net`, unless its name says which) or a folder of them
    holds; the names of those filled. ValueError, naming the file, for what does not fit."""
    known = ", ".join(gan.nets)
    if path.is_dir():
        files = {name: file for name, file in files_in(path).items() if name in gan.nets}
        if "G" not in files and not any(name.startswith("G_") for name in files):
            raise ValueError(f"{path} holds no generator of this GAN ({known})")
    else:
        match = NAMED.fullmatch(path.name)
        name = match["net"] if match else (net or gan.ema[0])
        if name not in gan.nets:
            raise ValueError(f"{path.name} is of a network {name}, but there are {known}")
        files = {name: path}
    for name, file in files.items():
        gan.nets[name].load_state_dict(fitted(gan.nets[name], name, file))
    return list(files)


def fitted(network: nn.Module, name: str, file: Path) -> dict[str, Tensor]:
    """The file's weights under our names, all of them."""
    try:
        given = {key.removeprefix("module."): w for key, w in read_weights(file).items()}
    except ValueError as error:
        raise ValueError(f"{file.name} {error}") from error
    own, theirs = network.state_dict(), original_keys(network)
    unused = {k for k in given.keys() - {*theirs.values()} if k.endswith(STATISTICS)}
    reason = misfit(own, theirs, {k: w for k, w in given.items() if k not in unused})
    if reason:
        raise ValueError(
            f"{file.name} does not fit {name} as this recipe builds it: {reason}. The file holds "
            f"{described(given)}; give the options of the model that build it"
        )
    return {ours: given.get(key, own[ours]) for ours, key in theirs.items()}


def misfit(
    own: Mapping[str, Tensor], theirs: Mapping[str, str], given: Mapping[str, Tensor]
) -> str:
    """The first difference, in words; "" if there is none."""
    for ours, key in theirs.items():
        if key not in given and not key.endswith("num_batches_tracked"):
            return f"it lacks {key}"
        if key in given and given[key].shape != own[ours].shape:
            return f"{key} is {list(given[key].shape)} there and {list(own[ours].shape)} here"
    surplus = sorted(given.keys() - {*theirs.values()})
    return f"it has {surplus[0]} too" if surplus else ""


def described(given: Mapping[str, Tensor]) -> str:
    """What network a file seems to be of."""
    convs = [weight for weight in given.values() if weight.ndim == 4]
    width = len(convs[0]) if convs else 0
    if any(key.startswith("scale") for key in given):
        return f"a discriminator of pix2pixHD (ndf={width})"
    if any(key.startswith("model1_1.") for key in given):
        return "pix2pixHD's generator with a local enhancer (stage=full)"
    if any(key.startswith("model.model.") for key in given):
        return f"a U-Net (kind=unet, ngf={width}, num_downsamples={len(convs) // 2})"
    blocks = {key.split(".conv_block.")[0] for key in given if ".conv_block." in key}
    if blocks or "model.1.weight" in given:
        return f"a resnet (kind=resnet, ngf={width}, num_blocks={len(blocks)})"
    return f"{len(given)} tensors" + (f", the first of them {min(given)}" if given else "")
