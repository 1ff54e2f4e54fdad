"""What every attack is: something that turns images into images that reach a goal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

Images = Float[Tensor, "b c h w"]  # in [0, 1], not normalised
Logits = Float[Tensor, "b k"]
Streams = Generator | Sequence[Generator]
"""One generator for the batch, or one per image, which makes results independent of the batch."""


@dataclass(frozen=True)
class Goal:
    """Which predictions count as a success.

    ``labels``, shape (b,), are the classes to leave or, when ``targeted``, to reach.
    """

    labels: Int[Tensor, " b"]
    targeted: bool = False

    def margin(self, logits: Logits) -> Float[Tensor, " b"]:
        """How far the goal is, in logits: negative once reached.

        Untargeted, the label's logit minus the largest other; targeted, the largest other minus the
        target's.
        """
        own = logits.gather(1, self.labels[:, None])[:, 0]
        others = logits.scatter(1, self.labels[:, None], -torch.inf).amax(1)
        return others - own if self.targeted else own - others

    def soft_margin(self, logits: Logits) -> Float[Tensor, " b"]:
        """The margin with the largest other logit made smooth by log-sum-exp: the log-odds.

        Its gradient has the direction of the cross-entropy's, but doesn't vanish on images of which
        the model is certain.
        """
        own = logits.gather(1, self.labels[:, None])[:, 0]
        others = logits.scatter(1, self.labels[:, None], -torch.inf).logsumexp(1)
        return others - own if self.targeted else own - others

    def reached(self, logits: Logits) -> Bool[Tensor, " b"]:
        """Whether the goal is reached; never for logits that are not numbers."""
        return self.margin(logits) < 0

    def __getitem__(self, index: Tensor) -> Goal:
        """The goal of some of the images."""
        return Goal(self.labels[index], self.targeted)


@runtime_checkable
class Attack(Protocol):
    """Turns images into images of the same shape, in [0, 1], that reach the goal with few changes.

    Implementations are frozen dataclasses whose fields are the hyperparameters. They return images
    and nothing else: success, norms and passes are the judge's to measure.
    """

    def __call__(self, model: nn.Module, images: Images, goal: Goal, generator: Streams) -> Images:
        """Attack ``images``; ``model`` maps images in [0, 1] to logits.

        Images that already reach the goal come back unchanged; so do images for which nothing was
        found. The arguments, the model's mode and its ``requires_grad`` flags stay as they were.
        """
        ...


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with constant parameters; mode and flags are restored at the end."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def streams(generator: Streams, count: int) -> Sequence[Generator]:
    """One CPU generator per image.

    A sequence is returned as it is. A single generator is asked for one seed per image, in order,
    so that splitting a batch leaves every image's stream the same.
    """
    if not isinstance(generator, Generator):
        if len(generator) != count:
            raise ValueError(f"{len(generator)} generators for {count} images: give one per image")
        return generator
    seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device)
    return [Generator().manual_seed(seed) for seed in seeds.tolist()]


def check(images: Images, eps: float | None) -> None:
    """Refuse an eps outside (0, 1] and images that leave [0, 1] or are not finite."""
    if eps is not None and not 0 < eps <= 1:
        raise ValueError(f"eps is {eps}: it must lie above 0 and at most 1, such as 8/255")
    if not torch.isfinite(images).all():
        raise ValueError("images hold values that are not finite (NaN or infinity)")
    if images.numel() and (images.min() < 0 or images.max() > 1):
        raise ValueError(
            f"images lie in [{images.min():.3g}, {images.max():.3g}]: attacks take [0, 1], "
            "before normalisation"
        )
