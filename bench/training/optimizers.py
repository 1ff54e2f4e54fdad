"""The optimizer of a training, and its learning rate in each epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.training.recipes import Recipe

STEPS = (0.2, 0.4, 160 / 300, 220 / 300, 280 / 300)  # shares of the epochs; Figure 7 of the paper


def build(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe for all parameters of a network.

    On a CUDA device its learning rate is a tensor, which a recorded step reads anew each time; see
    `bench.training.steps`.

    Args:
        recipe: The recipe.
        network: The network, on its device.
    """
    device = next(network.parameters()).device
    on_cuda = device.type == "cuda"
    rate = torch.tensor(recipe.learning_rate, device=device) if on_cuda else recipe.learning_rate
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(),
            lr=rate,
            weight_decay=recipe.weight_decay,
            fused=on_cuda or None,
            capturable=on_cuda,
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=on_cuda or None,
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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
