"""A network of one's own, for the command line.

bench run --aug none --model examples/net.py:make
"""

from torch import nn


def make(classes: int, channels: int = 3) -> nn.Module:
    """A network for images in [0, 1]."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, classes),
    )  # fmt: skip
