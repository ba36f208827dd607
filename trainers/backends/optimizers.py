"""torch's optimizers: one made from its numbers, and what it keeps of each parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from trainers.recipe import OptimizerRecipe


def build_optimizer(
    recipe: OptimizerRecipe, groups: list[dict[str, Any]], device: torch.device
) -> Optimizer:
    """The optimizer of parameter groups that lie on `device`; on a GPU one kernel for all of them,
    where torch has it.

    adam adds weight_decay times the weight to the gradient (L2), adamw shrinks the weight itself
    (Loshchilov and Hutter 2019)."""
    numbers: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    fused = True if device.type == "cuda" else None
    if recipe.kind == "sgd":
        return SGD(groups, momentum=recipe.momentum, fused=fused, **numbers)
    numbers["eps"] = recipe.eps
    if recipe.kind == "rmsprop":
        return RMSprop(groups, alpha=recipe.alpha, momentum=recipe.momentum, **numbers)
    kind = AdamW if recipe.kind == "adamw" else Adam
    return kind(groups, betas=recipe.betas, fused=fused, **numbers)


def moment_names(optimizer: Optimizer) -> tuple[str, ...]:
    """What the optimizer keeps of each number of a parameter, as its state names it."""
    if isinstance(optimizer, Adam):  # AdamW is one
        return "exp_avg", "exp_avg_sq"
    momentum = ("momentum_buffer",) if optimizer.defaults["momentum"] else ()
    return ("square_avg", *momentum) if isinstance(optimizer, RMSprop) else momentum


def counts_steps(optimizer: Optimizer) -> bool:
    """Whether its state has a `step` for each parameter."""
    return not isinstance(optimizer, SGD)
