"""Bytes of images as floats, the same on every device."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from augmentations.base import Images


def as_floats(images: UInt8[Tensor, "b c h w"], device: str | torch.device = "cpu") -> Images:
    """Return bytes / 255 in float32 on a device, rounded once as on the CPU.

    A CUDA device divides by a constant by multiplying with its inverse, which differs in the last
    bit for some bytes. An attacked image that is judged against originals of another device would
    then count as changed almost everywhere.

    >>> as_floats(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
    tensor([[[[0.0000, 0.2000, 1.0000]]]])
    """
    return (images.cpu().float() / 255).to(device)
