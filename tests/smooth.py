"""A small victim that is not linear, with its images."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


def network(channels: int = 3, classes: int = 5) -> nn.Module:
    """A small smooth network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(channels, 8, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(classes)]
        model = nn.Sequential(nn.BatchNorm2d(channels), *layers, nn.Dropout(0.5)).double().eval()
        model(torch.rand(2, channels, 6, 7, dtype=torch.float64))
    return model


def draw_images(count: int, channels: int = 3) -> Tensor:
    generator = Generator().manual_seed(1)
    return torch.rand(count, channels, 6, 7, dtype=torch.float64, generator=generator)


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)
