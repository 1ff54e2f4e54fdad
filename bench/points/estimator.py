"""One small network that predicts the adversarial points of any image in one pass.

AdvMask's attack trains a network of its own for each image, over hundreds of passes. This one is
trained once for a dataset and a victim model, on the points of a few hundred images, and then gives
each pixel of an image a score: the log-odds that the attack would choose it. What tells most about
it is what the attack follows itself: how much the victim model loses at each pixel under a dense
perturbation. The network sees that for a few steps, and the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from attacks.base import Goal, Images
from attacks.norms import box, largest
from bench.data import seeds
from bench.errors import Stopped
from bench.execution.progress import Progress
from bench.models.networks import check_logits

WIDTH = 8
"""Channels of the finest level."""

DECAY = 0.7
"""Weight of the earlier gradients in the direction of the perturbation: low enough that it keeps
turning, since gradients at unlike places say more together."""

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 20, 16, 3e-3, 1e-2
"""How `fit` trains."""

Gains = Float[Tensor, "b g h w"]


class Walk(NamedTuple):
    """What a few gradients of a victim model say about images.

    Attributes:
        gains: The decrease of the margin that ``delta`` promises at each pixel by each of the
            gradients, which are divided by their l1 norms.
        delta: A dense perturbation.
        labels: The classes that the victim model predicts.
    """

    gains: Gains
    delta: Images
    labels: Int[Tensor, " b"]


def walk(network: nn.Module, images: Images, steps: int, eps: float) -> Walk:
    """Follow a dense perturbation for a few steps and keep what it gains at each pixel.

    Each step goes to the corner of the box of ``eps`` that the running mean of the gradients points
    to. Each gradient is taken half way to the perturbation, where AdvMask's attack starts with its
    undecided mask. A call makes ``steps`` forward and ``steps`` backward passes.

    Args:
        network: The victim model, frozen.
        images: In [0, 1].
        steps: Number of gradients, g.
        eps: Largest change of a value.
    """
    low, high = box(images, eps)
    delta, velocity = torch.zeros_like(images), torch.zeros_like(images)
    slopes: list[Tensor] = []
    goal: Goal | None = None
    for _ in range(steps):
        with torch.enable_grad():
            attacked = (images + delta / 2).requires_grad_(True)
            logits = network(attacked)
            if goal is None:
                check_logits(logits, len(images))
                goal = Goal(logits.detach().argmax(1))
            (slope,) = torch.autograd.grad(goal.soft_margin(logits).sum(), attacked)
        length = slope.flatten(1).abs().sum(1).clamp(min=torch.finfo(slope.dtype).tiny)
        slope = slope / length[:, None, None, None]
        slopes.append(slope)
        velocity = DECAY * velocity + slope
        delta = (-eps * velocity.sign()).clamp(low, high)
    assert goal is not None
    found = torch.stack([-(delta * slope).sum(1) for slope in slopes], dim=1)
    return Walk(found, delta, goal.labels)


class Estimator(nn.Module):
    """A U-Net from an image and the gains of `walk` on it to one score per pixel.

    The score starts as the logarithm of the summed gains, and the network learns what to add to it.
    Two levels down by average pooling and up again, of 3x3 convolutions with batch normalisation
    and ReLU, with skips; ``width``, 2 and 4 times ``width`` channels. It takes images of any size.

    Args:
        channels: Channels of an image.
        steps: Number of gains of an image.
        width: Channels of the finest level.
    """

    def __init__(self, channels: int, steps: int, width: int = WIDTH) -> None:
        super().__init__()
        fine, middle, coarse = width, 2 * width, 4 * width
        self.down = nn.ModuleList(
            [_double(channels + steps + 1, fine), _double(fine, middle), _double(middle, coarse)]
        )
        self.up = nn.ModuleList([_double(coarse + middle, middle), _double(middle + fine, fine)])
        self.added = nn.Conv2d(fine, 1, 1)
        nn.init.zeros_(self.added.weight)
        nn.init.zeros_(self.added.bias)  # type: ignore[arg-type]
        self.slope = nn.Parameter(torch.tensor(1.0))
        self.level = nn.Parameter(torch.tensor(-1.8))  # log-odds of a seventh

    def forward(self, images: Images, gains: Gains) -> Float[Tensor, "b 1 h w"]:
        """Return the log-odds of each pixel.

        Args:
            images: In [0, 1].
            gains: Those of `walk`.
        """
        scale = gains.abs().mean(dim=(1, 2, 3), keepdim=True)
        gains = gains / scale.clamp(min=torch.finfo(gains.dtype).tiny)
        whole = _compressed(2 * gains.mean(1, keepdim=True))
        maps = torch.cat([4 * images - 2, _compressed(gains), whole], dim=1)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            maps = block(functional.avg_pool2d(maps, 2, ceil_mode=True) if level else maps)
            skips.append(maps)
        maps = skips.pop()
        for block in self.up:
            skip = skips.pop()
            above = functional.interpolate(maps, size=skip.shape[-2:], mode="nearest")
            maps = block(torch.cat([above, skip], dim=1))
        added: Tensor = self.added(maps)
        return added + self.slope * whole + self.level


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (inputs, outputs):
        layers += [
            nn.Conv2d(before, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def _compressed(values: Tensor) -> Tensor:
    """Large values made small, with their sign."""
    return values.sign() * values.abs().log1p()


def fit(
    images: Images,
    gains: Gains,
    masks: Bool[Tensor, "b h w"],
    flip: bool,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Estimator:
    """Train an estimator on images whose points are known; the same arguments give the same one.

    It learns, by cross-entropy, which pixels are points. Batches of 16, 20 epochs of AdamW with the
    learning rate rising to 0.003 and falling to 0 in one cycle.

    Args:
        images: In [0, 1].
        gains: Those of `walk`.
        masks: True at their points.
        flip: Whether a mirrored image is as good an example.
        progress: Shows the training.
        stop: Whether to stop soon.

    Returns:
        The estimator, in eval mode on the device of the images.

    Raises:
        Stopped: ``stop()`` returned True.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.derive(0, "estimator"))
        network = Estimator(images.shape[1], gains.shape[1]).to(images.device)
    draws = seeds.generator(0, "estimator", "order")
    rounds = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * rounds
    )
    whole = torch.cat([images, gains, masks[:, None].to(images)], dim=1)
    channels = images.shape[1]
    with progress.task("training of the estimator", EPOCHS) as advance, torch.enable_grad():
        for _ in range(EPOCHS):
            if stop():
                raise Stopped("stopped in the training of the estimator, which starts anew")
            order = torch.randperm(len(images), generator=draws)
            for rows in order.tensor_split(rounds):
                batch = whole[rows]
                if flip:
                    turned = torch.rand(len(rows), generator=draws) < 0.5
                    batch = torch.where(
                        turned[:, None, None, None].to(batch.device), batch.flip(-1), batch
                    )
                scores = network(batch[:, :channels], batch[:, channels:-1])
                loss = functional.binary_cross_entropy_with_logits(scores, batch[:, -1:])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            advance()
    return network.eval().requires_grad_(False)


def expected(scores: Float[Tensor, "b 1 h w"], density: float) -> Int[Tensor, " b"]:
    """Return how many points scores promise: ``density`` times their probabilities' sum, or one."""
    sums = scores.sigmoid().flatten(1).sum(1) * density
    return sums.round().long().clamp(1, scores[0].numel())


def chosen(scores: Float[Tensor, "b 1 h w"], counts: Int[Tensor, " b"]) -> Bool[Tensor, "b h w"]:
    """Return the pixels of the highest scores, as many as ``counts`` of each image."""
    return largest(scores.flatten(1), counts).reshape(len(scores), *scores.shape[-2:])
