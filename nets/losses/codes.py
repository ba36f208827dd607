"""Losses of what a network says about an image: its class, its codes, its turn.

Classes: Odena et al.'s and Lucic et al.'s (High-Fidelity Image Generation With Fewer Labels, ICML
2019, arXiv:1903.02271); codes: Chen et al., InfoGAN, NeurIPS 2016 (arXiv:1606.03657), equation 5;
coupled networks: Liu and Tuzel, CoGAN, NeurIPS 2016 (arXiv:1606.07536). Taken in float32 at least.
"""

from __future__ import annotations

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from nets.layers.precise import at_least_float32

UNLABELLED = -1
"""The class id of an image without label."""


def normal_nll(code: Tensor, mean: Tensor, variance: Tensor, eps: float = 1e-6) -> Tensor:
    """-log N(code; mean, variance), all [N, codes]: the sum over the codes, the mean over N.

    `eps` is added to 2 pi variance in the logarithm, and to 2 variance below the square."""
    code, mean, variance = (at_least_float32(each.flatten(1)) for each in (code, mean, variance))
    logarithm = 0.5 * (2 * pi * variance + eps).log()
    return (logarithm + (code - mean).square() / (2 * variance + eps)).sum(1).mean()


def category_loss(logits: Tensor, categories: Tensor) -> Tensor:
    """Cross-entropy of several categorical codes, summed over them, the mean over the batch.

    logits [N, codes * classes], the classes of each code side by side; categories [N, codes] or
    [N], ids."""
    categories = categories.flatten(1) if categories.ndim > 1 else categories[:, None]
    num_codes = categories.shape[1]
    logits = at_least_float32(logits.flatten(1)).unflatten(1, (num_codes, -1))
    return num_codes * F.cross_entropy(logits.flatten(0, 1), categories.flatten())


def two_class_loss(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of logits [N, 2] with class 1 for real images, 0 for generated ones."""
    wanted = torch.full((len(logits),), int(real), device=logits.device)
    return F.cross_entropy(at_least_float32(logits), wanted)


def feature_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of features [N, ...], summed over a sample, the mean over N."""
    return (at_least_float32(a) - at_least_float32(b)).square().flatten(1).sum(1).mean()


def labelled_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of logits [N, classes], the mean over those of which the class is known.

    label: ids [N], UNLABELLED for the others; 0 where none is known."""
    known = label != UNLABELLED
    losses = F.cross_entropy(
        at_least_float32(logits), label.long(), ignore_index=UNLABELLED, reduction="none"
    )
    return losses.sum() / known.sum().clamp(min=1)


def inferred(label: Tensor, logits: Tensor, soft: bool = False) -> Tensor:
    """Shares of the classes [N, classes]: all for the known one, for the others what logits say.

    label: ids [N], UNLABELLED where unknown; there the likeliest class has all, or, `soft`, each
    its probability. A constant."""
    with torch.no_grad():
        logits = at_least_float32(logits)
        classes = logits.shape[1]
        guess = logits.softmax(1) if soft else F.one_hot(logits.argmax(1), classes).to(logits)
        known = F.one_hot(label.clamp(min=0).long(), classes).to(logits)
        return torch.where((label == UNLABELLED)[:, None], guess, known)


def with_turned(images: Tensor, count: int) -> Tensor:
    """[N, C, S, S] -> [N + 3 count, C, S, S]: behind them the last `count` ones, turned by 90, then
    all by 180, then by 270 degrees, counter-clockwise."""
    last = images[len(images) - count :]
    return torch.cat([images, *(last.rot90(turns, (2, 3)) for turns in (1, 2, 3))])


def turn_loss(logits: Tensor, count: int, eps: float = 1e-10) -> Tensor:
    """Cross-entropy of the turns of the last 4 `count` images of `with_turned`, whose logits [N, 4]
    are those of 0, 90, 180 and 270 degrees; `eps` is added to the probability in the logarithm."""
    turns = torch.arange(4, device=logits.device).repeat_interleave(count)
    probability = at_least_float32(logits[len(logits) - 4 * count :]).softmax(1)
    return -(probability.gather(1, turns[:, None]) + eps).log().mean()
