"""What a search for adversarial points costs, told before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks import Attack, passes
from attacks.base import Shape, frozen
from bench.data.floats import as_floats
from bench.errors import Stopped
from bench.execution.progress import clock

SECONDS = 2.0
"""Most seconds that measuring a pass shall take, roughly."""


@dataclass(frozen=True)
class Cost:
    """The cost of attacking training images.

    Attributes:
        images: Number of training images.
        left: Number of those that are not attacked yet.
        usual: Forward and backward passes of an image on which the attack repeats nothing.
        most: Most forward and backward passes of an image; 0 if the attack does not declare them.
        seconds: Measured seconds of one forward and backward pass of one image.
    """

    images: int
    left: int
    usual: int
    most: int
    seconds: float

    @property
    def epochs(self) -> tuple[float, float]:
        """Epochs of training on the images with as many passes: usually, and at most.

        An epoch makes a forward and a backward pass of each image.
        """
        return self.usual / 2, self.most / 2

    def to_json(self) -> dict[str, int | float]:
        """Return the cost as JSON values; ``seconds`` are those of the images that are left."""
        usual, most = self.epochs
        return {
            "images": self.images,
            "left": self.left,
            "passes": self.usual,
            "most_passes": self.most,
            "epochs": usual,
            "most_epochs": most,
            "seconds": self.left * usual * self.seconds,
            "most_seconds": self.left * most * self.seconds,
        }

    def __str__(self) -> str:
        """Say it in two sentences.

        >>> print(Cost(64, 64, 883, 1604, 0.004))  # doctest: +NORMALIZE_WHITESPACE
        64 images, 883 to 1,604 forward and backward passes each: as many as in about 440 to 800
        epochs of training on these images. Estimated time: 1 min 53 s to 3 min 25 s with one job at
        a time.
        """
        left = f", of which {self.left:,} are left" if self.left < self.images else ""
        if not self.most:
            return f"{self.images:,} images{left}; the attack does not declare its passes."
        text = " to ".join(dict.fromkeys(f"{count:,}" for count in (self.usual, self.most)))
        epochs = " to ".join(dict.fromkeys(f"{rounded(each):,}" for each in self.epochs))
        times = (clock(self.left * each * self.seconds) for each in self.epochs)
        return (
            f"{self.images:,} images{left}, {text} forward and backward passes each: as many as in "
            f"about {epochs} epochs of training on these images. Estimated time: "
            f"{' to '.join(dict.fromkeys(times))} with one job at a time."
        )


def rounded(number: int | float) -> int:
    """Round to two significant digits.

    >>> rounded(441.5), rounded(802), rounded(41)
    (440, 800, 41)
    """
    return int(float(f"{number:.2g}"))


def estimate(
    network: nn.Module, images: Tensor, count: int, left: int, attack: Attack, device: str
) -> Cost:
    """Estimate the cost of a search by measuring a pass.

    Args:
        network: The victim model, or an untrained network of its architecture.
        images: As many training images as are attacked as one batch, shape (b, c, h, w), uint8.
        count: Number of training images.
        left: Number of those that are not attacked yet.
        attack: The attack.
        device: Device of the network.
    """
    _, c, h, w = images.shape
    most, usual = passes(attack, (c, h, w)), usual_passes(attack, (c, h, w))
    seconds = measured(network, as_floats(images, device)) if left and most else 0.0
    return Cost(count, left, usual, most, seconds)


def usual_passes(attack: Attack, shape: Shape) -> int:
    """Return the passes for an image on which an attack repeats nothing, 0 if it declares none.

    Args:
        attack: The attack.
        shape: Channels, height and width of the image.
    """
    declared = getattr(attack, "usual_passes", None)
    return passes(attack, shape) if declared is None else int(declared(shape))


def measured(network: nn.Module, images: Tensor) -> float:
    """Measure the seconds of a forward and backward pass of one image in a batch.

    Args:
        network: Any network for images in [0, 1].
        images: The batch; a part of it is taken if the whole needs more than `SECONDS`.
    """

    def once(batch: Tensor) -> float:
        start = time.perf_counter()
        batch = batch.detach().requires_grad_(True)
        torch.autograd.grad(network(batch).sum(), batch)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        return time.perf_counter() - start

    with frozen(network), torch.enable_grad():
        once(images[:8])  # the first pass allocates memory
        few = once(images[:8]) / len(images[:8])
        size = max(8, min(len(images), int(SECONDS / 2 / few)))
        return min(once(images[:size]) for _ in range(2)) / len(images[:size])


class Counted(nn.Module):
    """A network that counts the passes of single images through it.

    A backward pass is counted where a gradient reaches the outputs. `bench.robustness` counts for
    each image, at the cost of finding out whose pass each is.

    Args:
        network: Any network.
        stop: Whether to stop soon.

    Attributes:
        passes: Forward and backward passes so far, one for each image of a batch.
    """

    def __init__(self, network: nn.Module, stop: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.network = network
        self.stop = stop
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network does; raise `Stopped` if asked to stop."""
        if self.stop():
            raise Stopped("stopped in the middle of an attack")
        self.passes += len(images)
        outputs: Tensor = self.network(images)
        if outputs.requires_grad:
            outputs.register_hook(self._backward)
        return outputs

    def _backward(self, gradient: Tensor) -> None:
        self.passes += len(gradient)


def forward_operations(network: nn.Module, *inputs: Tensor) -> int:
    """Return the floating-point operations of a forward pass, as PyTorch counts them.

    >>> forward_operations(nn.Linear(5, 3), torch.zeros(2, 5))
    60
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return int(counter.get_total_flops())
