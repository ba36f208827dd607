"""Regularisation of weights, as losses.

Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR 2019
(arXiv:1809.11096), section 3.1, equation 3; the form with the diagonal is of Neural Photo Editing
(arXiv:1609.07093).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nets.layers.precise import at_least_float32, without_autocast


def orthogonality(parameters: Iterable[nn.Parameter], diagonal: bool = False) -> Tensor:
    """Half of |W W' * (1 - I)|^2, or with the diagonal of |W W' - I|^2, summed over the weights
    W [out, rest] of two axes and more; the rest are left out, and so are those not trained now.

    Its gradient is 2 (W W' * (1 - I)) W. Whoever calls leaves the shared embedding out."""
    weights = [p for p in parameters if p.ndim > 1 and p.requires_grad]
    with without_autocast(weights[0].device):
        return torch.stack(
            [_off_by(at_least_float32(w.flatten(1)), diagonal) for w in weights]
        ).sum()


def _off_by(matrix: Tensor, diagonal: bool) -> Tensor:
    rows, columns = matrix.shape
    # W W' and W'W have the same norm; the smaller one is made.
    product = matrix @ matrix.t() if rows <= columns else matrix.t() @ matrix
    norms = matrix.square().sum(1)
    known = 2 * norms.sum() - rows if diagonal else norms.square().sum()
    return (product.square().sum() - known) / 2
