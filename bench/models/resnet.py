"""Residual networks for small images (He, Zhang, Ren and Sun 2016, section 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Features = Float[Tensor, "b _ _ _"]


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A of the paper)."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.padding = width - before

    def forward(self, features: Features) -> Features:
        """Add what the block learnt to every second pixel of what came in."""
        learnt = F.relu(self.bn1(self.conv1(features)))
        learnt = self.bn2(self.conv2(learnt))
        if self.stride > 1 or self.padding:
            # the new channels are zeros, half of them in front, as in the published weights
            features = features[:, :, :: self.stride, :: self.stride]
            front = self.padding // 2
            features = F.pad(features, (0, 0, 0, 0, front, self.padding - front))
        return F.relu(learnt + features)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a projection where the shape changes (option B)."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = self.expansion * width
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = (
            nn.Identity()
            if stride == 1 and before == after
            else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        )

    def forward(self, features: Features) -> Features:
        """Add what the block learnt to the (projected) features."""
        learnt = F.relu(self.bn1(self.conv1(features)))
        learnt = F.relu(self.bn2(self.conv2(learnt)))
        learnt = self.bn3(self.conv3(learnt))
        return F.relu(learnt + self.downsample(features))


class ResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels with ``blocks`` blocks each; 6 * blocks + 2 layers.

    With bottleneck blocks the name keeps the count of the basic network, as in the published code
    of Random Erasing and AdvMask: their "ResNet-44" has three times seven bottlenecks. Module names
    are those of the public CIFAR-10 weights. Any image side from 4 pixels on works.
    """

    def __init__(
        self, blocks: int, classes: int, channels: int, block: type[Basic | Bottleneck] = Basic
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width = 16

        def stage(after: int, stride: int) -> nn.Sequential:
            nonlocal width
            layers = []
            for index in range(blocks):
                layers.append(block(width, after, stride if index == 0 else 1))
                width = after * block.expansion
            return nn.Sequential(*layers)

        self.layer1 = stage(16, 1)
        self.layer2 = stage(32, 2)
        self.layer3 = stage(64, 2)
        self.linear = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Features) -> Float[Tensor, "b k"]:
        """Return the logits."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def fold(network: nn.Module) -> None:
    """Merge the batch normalisation of these networks into their convolutions, in place.

    For networks in eval mode that are trained no more: both are linear then, so that the outputs
    stay the same up to rounding, and a pass takes a quarter less. Other modules are left alone.
    """
    for module in list(network.modules()):
        if not isinstance(module, Basic | Bottleneck | ResNet):
            continue
        for name, conv in list(module.named_children()):
            if isinstance(conv, nn.Conv2d):
                norm = name.replace("conv", "bn")  # here each follows the convolution of its number
                setattr(module, name, fuse_conv_bn_eval(conv, getattr(module, norm)))
                setattr(module, norm, nn.Identity())
        if isinstance(module, Bottleneck) and isinstance(module.downsample, nn.Sequential):
            module.downsample = fuse_conv_bn_eval(*module.downsample)
