"""The optimizer of a training, and its learning rate in each epoch."""

from __future__ import annotations

import math

import torch
from torch import nn

from bench.training.recipes import Recipe

STEPS = (0.2, 0.4, 160 / 300, 220 / 300, 280 / 300)  # shares of the epochs; Figure 7 of the paper


def build(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe for all parameters of a network.

    Args:
        recipe: The recipe.
        network: The network.
    """
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )


def rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch: a cosine to zero, or times 0.2 at each of `STEPS`.

    In the first ``recipe.warmup`` epochs it is 1, 2, … times the share 1 / (warmup + 1) of that.

    Args:
        recipe: The recipe.
        epoch: Number of the epoch, from 0.

    >>> rate(Recipe(epochs=300, learning_rate=0.1), 150)
    0.05
    """
    done = epoch / recipe.epochs
    peak = recipe.learning_rate
    if epoch < recipe.warmup:
        peak = peak * (epoch + 1) / (recipe.warmup + 1)
    if recipe.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak * 0.2 ** sum(done >= step for step in STEPS)
