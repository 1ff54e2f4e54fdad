"""Which image of a batch each other one meets."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def cyclic(order: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Whom each image meets, where each meets the one before it in a random order."""
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other
