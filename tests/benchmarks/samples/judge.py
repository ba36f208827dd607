"""A small classifier of real pictures, which judges generated ones: their class, how sure it is,
and how far their features lie from real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from shards.pixels.images import decode_sample
from shards.sets.annotations import read_annotations
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_shards

EPOCHS, BATCH = 5, 64


class Judge(nn.Module):
    """Images [N, channels, side, side] in [-1, 1] -> logits [N, num_classes]."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        widths = (channels, 32, 64, 128)
        self.layers = nn.Sequential(
            *(
                layer
                for before, after in zip(widths, widths[1:], strict=False)
                for layer in (
                    nn.Conv2d(before, after, 3, padding=1),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
            )
        )
        self.output = nn.Linear(widths[-1], num_classes)

    def features(self, image: Tensor) -> Tensor:
        """[N, 128]."""
        return self.layers(image).mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.features(image))


def labelled(location: Path, channels: int) -> tuple[Tensor, Tensor]:
    """All pictures of a labelled set, [N, channels, side, side] in [-1, 1], and their classes."""
    shard_set = open_shards(location)
    reader = Reader(shard_set)
    pixels, classes = zip(
        *(one(shard_set, reader, number, channels) for number in range(shard_set.num_samples)),
        strict=True,
    )
    return as_images(list(pixels)), torch.tensor(classes)


def one(shard_set: ShardSet, reader: Reader, number: int, channels: int) -> tuple[np.ndarray, int]:
    files, names = reader.read(number), shard_set.names(number)
    label = read_annotations(files, names, shard_set.manifest.num_names)["cls"]
    pictures = {"image": files["image"]}
    return decode_sample(pictures, names, {"image": channels})["image"], int(label)


def pictures(folder: Path, channels: int) -> Tensor:
    """What `sample` wrote, as images."""
    paths = sorted(folder.glob("0*.png"))
    mode = "L" if channels == 1 else "RGB"
    pixels = [np.asarray(Image.open(path).convert(mode)) for path in paths]
    return as_images([each.reshape(*each.shape[:2], channels) for each in pixels])


def as_images(pixels: list[np.ndarray]) -> Tensor:
    """N x uint8 [H, W, C] -> [N, C, H, W] in [-1, 1]."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def trained(images: Tensor, classes: Tensor, seed: int = 0) -> Judge:
    """A judge that has learnt these."""
    torch.manual_seed(seed)
    judge = Judge(images.shape[1], int(classes.max()) + 1)
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            optimizer.zero_grad()
            F.cross_entropy(judge(images[chosen]), classes[chosen]).backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


@torch.no_grad()
def opinion(judge: Judge, images: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image: the likeliest class [N], and its probability [N]."""
    probability = torch.cat([judge(part).softmax(1) for part in images.split(256)])
    confidence, classes = probability.max(1)
    return classes, confidence


@torch.no_grad()
def distance(judge: Judge, some: Tensor, others: Tensor) -> float:
    """Squared distance of their features by a cubic kernel, unbiased, as the kernel inception
    distance is: Binkowski et al., Demystifying MMD GANs, ICLR 2018 (arXiv:1801.01401)."""
    x, y = (
        torch.cat([judge.features(part) for part in images.split(256)]).double()
        for images in (some, others)
    )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.t() / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def information(a: Tensor, b: Tensor) -> float:
    """Normalised mutual information of two labellings [N]: 2 I(a; b) / (H(a) + H(b))."""
    joint = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    joint.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    joint /= len(a)

    def entropy(p: Tensor) -> Tensor:
        p = p[p > 0]
        return -(p * p.log()).sum()

    own, other = entropy(joint.sum(1)), entropy(joint.sum(0))
    return float(2 * (own + other - entropy(joint.flatten())) / (own + other))
