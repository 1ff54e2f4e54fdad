"""Shake-Shake regularised networks (Gastaldi 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

Features = Float[Tensor, "b _ _ _"]
Weights = Float[Tensor, "b 1 1 1"]


def branch(before: int, after: int, stride: int) -> nn.Sequential:
    """Rectify, convolve and normalise, twice."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(before, after, 3, stride, 1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, 1, 1, bias=False),
        nn.BatchNorm2d(after),
    )


class Shortcut(nn.Module):
    """Halve the image along two paths, one of them shifted by a pixel, and join them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.straight = nn.Conv2d(before, after // 2, 1, bias=False)
        self.shifted = nn.Conv2d(before, after // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, features: Features) -> Features:
        """Return features of the new width and size."""
        active = F.relu(features)
        moved = F.pad(active[:, :, 1:, 1:], (0, 1, 0, 1))
        paths = (
            self.straight(active[:, :, :: self.stride, :: self.stride]),
            self.shifted(moved[:, :, :: self.stride, :: self.stride]),
        )
        joined: Tensor = self.bn(torch.cat(paths, 1))
        return joined


class Block(nn.Module):
    """Two branches, mixed by one random weight forward and by another one backward."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = branch(before, after, stride)
        self.second = branch(before, after, stride)
        self.shortcut = nn.Identity() if before == after else Shortcut(before, after, stride)

    def forward(self, features: Features, forward: Weights, backward: Weights) -> Features:
        """Mix the branches: the value follows ``forward``, the gradient ``backward``."""
        first, second = self.first(features), self.second(features)
        forward, backward = forward.to(first), backward.to(first)  # which may be in bfloat16
        mixed = torch.lerp(second, first, backward)
        mixed = mixed + (torch.lerp(second, first, forward) - mixed).detach()
        total: Tensor = self.shortcut(features) + mixed
        return total


class ShakeShake(nn.Module):
    """Shake-Shake-26 2 x ``width`` d, "shake-shake-image": weights drawn per image, 1/2 at test.

    In training the weights come from ``draws``, a generator on the CPU that is never torch's global
    one. A training loop that wants a step to depend on nothing before it reseeds ``draws`` ahead of
    each step (``bench.models.networks.reseed``).

    With ``width`` 32 and ten classes there are 2,923,146 parameters. Released code has 2,989,002:
    it also makes projections for the nine blocks whose shape stays, and never uses them.
    """

    def __init__(self, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.draws = Generator()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1)
        blocks, before = [], 16
        for stage in range(3):
            for index in range(4):
                after = width * 2**stage
                blocks.append(Block(before, after, 2 if stage and index == 0 else 1))
                before = after
        self.blocks = nn.ModuleList(blocks)
        self.linear = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Features) -> Float[Tensor, "b k"]:
        """Return the logits."""
        shape = (2, len(self.blocks), len(images), 1, 1, 1)
        if self.training:
            weights = torch.rand(shape, generator=self.draws).to(images)
        else:
            weights = images.new_full(shape, 0.5)
        features = self.stem(images)
        for block, forward, backward in zip(self.blocks, *weights, strict=True):
            features = block(features, forward, backward)
        logits: Tensor = self.linear(F.relu(features).mean((2, 3)))
        return logits
