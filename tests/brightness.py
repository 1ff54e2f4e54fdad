"""A network of known answers, with images on both sides of its boundary."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Brightness(nn.Module):
    """Class 1 where the mean of an image is above a half: one pixel more or less moves it."""

    def forward(self, images: Tensor) -> Tensor:
        score = 40 * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-score, score], 1)


def draw_images() -> tuple[Tensor, Tensor]:
    """Six images of 4x4 pixels, half of them above a half by the least that can be seen."""
    levels = torch.tensor([0.49, 0.48, 0.47, 0.51, 0.52, 0.53])
    values = levels.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    return values, (levels > 0.5).long()
