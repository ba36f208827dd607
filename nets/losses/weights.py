"""Regularisation of weights by gradients that are added to theirs before a step.

Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR 2019
(arXiv:1809.11096), section 3.1, equation 3; the form with the diagonal is of Neural Photo Editing
(arXiv:1609.07093).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonal_gradient(weight: Tensor, diagonal: bool = False) -> Tensor:
    """2 (W W' * (1 - I)) W, or with the diagonal 2 (W W' - I) W, for W [out, rest]; like weight."""
    matrix = weight.detach().flatten(1)
    product, eye = matrix @ matrix.t(), torch.eye(len(matrix)).to(matrix)
    penalised = product - eye if diagonal else product * (1 - eye)
    return (2 * penalised @ matrix).view_as(weight)


@torch.no_grad()
def add_orthogonal_gradients(
    parameters: Iterable[nn.Parameter], strength: float, diagonal: bool = False
) -> None:
    """Adds strength * orthogonal_gradient to the gradient of each parameter of two axes and more.

    Those without a gradient are left out. Whoever calls leaves the shared embedding out."""
    for parameter in parameters:
        if parameter.ndim > 1 and parameter.grad is not None:
            parameter.grad.add_(orthogonal_gradient(parameter, diagonal), alpha=strength)
