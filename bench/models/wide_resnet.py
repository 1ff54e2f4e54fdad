"""Wide residual networks (Zagoruyko and Komodakis 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Features = Float[Tensor, "b _ _ _"]


class Block(nn.Module):
    """Normalise, rectify, convolve, twice, beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = None if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, features: Features) -> Features:
        """Add what the block learnt; a projection sees the rectified features, an identity not."""
        active = F.relu(self.bn1(features))
        learnt: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return learnt + (features if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-depth-factor: three stages of 16, 32 and 64 times ``factor`` channels.

    Convolutions have no bias and there is no dropout. The released AdvMask code has a (useless)
    bias before each normalisation, which is 10,096 more parameters in WRN-28-10.
    """

    def __init__(self, depth: int, factor: int, classes: int, channels: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        stages, width = [], 16
        for after, stride in ((16 * factor, 1), (32 * factor, 2), (64 * factor, 2)):
            layers = []
            for index in range(blocks):
                layers.append(Block(width, after, stride if index == 0 else 1))
                width = after
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Features) -> Float[Tensor, "b k"]:
        """Return the logits."""
        features = F.relu(self.bn(self.stages(self.conv1(images))))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits
