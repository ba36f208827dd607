"""Looks of objects: features of instances, gathered by label into clusters, and chosen from them.

Wang et al., CVPR 2018 (arXiv:1711.11585), section 3.4: the encoder's features of all instances of a
set are clustered by K-means for each label; in translation a centre steers each instance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainers.parts.pretrained import read_weights

LEAST_SHARE = 1 / 64
"""Of a picture's pixels: smaller instances are left out where a label has larger ones, as the
authors do."""
MOST_ROUNDS = 100
"""Of K-means, which mostly ends far earlier."""


@dataclass(frozen=True)
class Looks:
    """The instances of pictures, one row each."""

    features: Tensor
    """[K, C] in float64."""
    labels: Tensor
    """[K] label ids."""
    shares: Tensor
    """[K] of their picture's pixels."""


def looks_of(features: Tensor, groups: Tensor, label: Tensor) -> Looks:
    """Those of one picture: features [1, C, H, W], equal over each of `groups` [1, 1, H, W] (ids of
    instances, or labels), whose label is that of its first pixel in `label` [1, 1, H, W]."""
    pixels = features[0].flatten(1).T.double()
    firsts, sizes, _ = _numbered(groups)
    return Looks(pixels[firsts], label.flatten()[firsts].long(), sizes / groups.numel())


def _numbered(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(place of the first pixel, number of pixels) of each id, the ids in order; and which of them
    each pixel has."""
    _, inverse, sizes = groups.flatten().unique(return_inverse=True, return_counts=True)
    places = torch.arange(inverse.numel(), device=inverse.device)
    firsts = torch.full_like(sizes, inverse.numel()).scatter_reduce(0, inverse, places, "amin")
    return firsts, sizes.double(), inverse


def k_means(points: Tensor, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """(centres [k, C], points of each [k]) of points [N, C] on the CPU; k is `count`, or the number
    of different points if they are fewer.

    Lloyd's algorithm from seeds drawn in proportion to the squared distance from those before
    (Arthur and Vassilvitskii, k-means++, SODA 2007)."""
    count = min(count, len(points.unique(dim=0)))
    seeds = [int(torch.randint(len(points), (1,), generator=draws))]
    for _ in range(count - 1):
        nearest = torch.cdist(points, points[seeds]).min(1).values.square()
        seeds.append(int(torch.multinomial(nearest, 1, generator=draws)))
    centres, before = points[seeds], None
    for _ in range(MOST_ROUNDS):
        own = torch.cdist(points, centres).argmin(1)
        if before is not None and torch.equal(own, before):
            break
        sums = torch.zeros_like(centres).index_add_(0, own, points)
        sizes = torch.bincount(own, minlength=count)[:, None]
        centres, before = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres), own
    return centres, torch.bincount(torch.cdist(points, centres).argmin(1), minlength=count)


@dataclass(frozen=True)
class Clusters:
    """The centres of each label, the one of most instances first."""

    centres: dict[int, Tensor]
    """By label id: [k, C] in float32."""

    @classmethod
    def of(cls, looks: Iterable[Looks], count: int, seed: int) -> Clusters:
        """At most `count` for each label that some instance has."""
        several = list(looks)
        features = torch.cat([each.features for each in several]).cpu()
        labels = torch.cat([each.labels for each in several]).cpu()
        large = torch.cat([each.shares for each in several]).cpu() > LEAST_SHARE
        centres = {}
        for label in labels.unique().tolist():
            own = labels == label
            chosen = own & large if (own & large).any() else own
            draws = torch.Generator().manual_seed(seed)
            found, sizes = k_means(features[chosen], count, draws)
            centres[label] = found[sizes.argsort(descending=True, stable=True)].float()
        return cls(centres)

    def tensors(self) -> dict[str, Tensor]:
        """As a file holds them."""
        return {f"label{label:03d}": centres for label, centres in self.centres.items()}

    @classmethod
    def read(cls, path: Path) -> Clusters:
        """From a file of `tensors`; ValueError, which does not name the file, for another."""
        found = {}
        for name, centres in read_weights(path).items():
            match = re.fullmatch(r"label(\d{3})", name)
            fits = centres.dim() == 2 and len(centres) and centres.dtype == torch.float32
            if match is None or not fits or not centres.isfinite().all():
                raise ValueError(f"holds {name}, which is no clusters of features")
            found[int(match[1])] = centres
        return cls(found)

    def check(self, num_labels: int, channels: int) -> None:
        """ValueError, which does not name the file, if they are of another run."""
        for label, centres in self.centres.items():
            if label >= num_labels:
                raise ValueError(f"holds label {label}, but the run has 0 to {num_labels - 1}")
            if centres.shape[1] != channels:
                raise ValueError(
                    f"holds features of {centres.shape[1]} channels, but the run's have {channels}"
                )

    def choose(self, groups: Tensor, label: Tensor, channels: int, seed: int | None) -> Tensor:
        """A centre for each of `groups` [1, 1, H, W] by its label: features [1, C, H, W], 0 for a
        label without. seed: draws, the same for the same groups; None: the commonest."""
        firsts, _, inverse = _numbered(groups)
        draws = torch.rand(len(firsts), generator=torch.Generator().manual_seed(seed or 0))
        table = torch.zeros(len(firsts), channels)
        labels = label.flatten()[firsts].long()
        for each, centres in self.centres.items():
            own = labels == each
            rows = (draws[own] * len(centres)).long() if seed is not None else 0
            table[own] = centres[rows]
        return table[inverse].T.reshape(1, channels, *groups.shape[-2:])
