"""The goal of an attack: which predictions count as a success, and where images may change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "b c h w"]  # in [0, 1], not normalised
Labels = Int[Tensor, " b"]
Logits = Float[Tensor, "b k"]
Shape = tuple[int, int, int]
"""Channels, height and width of an image."""
Region = Bool[Tensor, "b 1 h w"]
"""True where an image may change."""


@dataclass(frozen=True)
class Goal:
    """Which predictions count as a success, and where the images may change.

    Attributes:
        labels: Integer classes of shape (b,): those to leave or, when ``targeted``, to reach; each
            image has its own.
        targeted: Whether ``labels`` are to be reached instead of left.
        region: Pixels that may change, bool of shape (b, 1, h, w); None: all.

    >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    >>> Goal(torch.tensor([0, 0])).reached(logits)
    tensor([False,  True])
    >>> Goal(torch.tensor([0, 2]), targeted=True).reached(logits)
    tensor([True, True])
    """

    labels: Labels
    targeted: bool = False
    region: Tensor | None = None

    def margin(self, logits: Logits) -> Float[Tensor, " b"]:
        """The distance to the goal, in logits: negative once it is reached.

        Untargeted, the label's logit minus the largest other; targeted, the largest other minus the
        target's.

        Args:
            logits: Outputs of the model, of shape (b, classes).
        """
        own = logits.gather(1, self.labels[:, None])[:, 0]
        others = logits.scatter(1, self.labels[:, None], -torch.inf).amax(1)
        return others - own if self.targeted else own - others

    def soft_margin(self, logits: Logits) -> Float[Tensor, " b"]:
        """The margin with the largest other logit made smooth by log-sum-exp: the log-odds.

        Its gradient has the direction of the cross-entropy's, but doesn't vanish on images of which
        the model is certain.

        Args:
            logits: Outputs of the model, of shape (b, classes).
        """
        own = logits.gather(1, self.labels[:, None])[:, 0]
        others = logits.scatter(1, self.labels[:, None], -torch.inf).logsumexp(1)
        return others - own if self.targeted else own - others

    def reached(self, logits: Logits) -> Bool[Tensor, " b"]:
        """Whether the goal is reached; never for logits that are not numbers.

        Args:
            logits: Outputs of the model, of shape (b, classes).
        """
        return self.margin(logits) < 0

    def __getitem__(self, index: Tensor) -> Goal:
        """The goal of some of the images."""
        region = None if self.region is None else self.region[index]
        return Goal(self.labels[index], self.targeted, region)


def as_goal(goal: Goal | Tensor, images: Tensor) -> Goal:
    """The goal of ``images``, from labels too, with 64-bit labels on their device."""
    labels, targeted = (goal.labels, goal.targeted) if isinstance(goal, Goal) else (goal, False)
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels are a {type(labels).__name__}: give a tensor of integers")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are of type {labels.dtype}: give integers, one class per image")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} for {len(images)} images: give one per image"
        )
    region = goal.region if isinstance(goal, Goal) else None
    if region is not None:
        wanted = (len(images), 1, *images.shape[2:])
        if region.dtype != torch.bool or region.shape != wanted:
            raise ValueError(
                f"the region is {region.dtype} of shape {tuple(region.shape)}: give torch.bool of "
                f"shape {wanted}, True where an image may change"
            )
        region = differentiable(region.to(images.device))
    return Goal(differentiable(labels.to(images.device, torch.long)), targeted, region)


def differentiable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one of ``torch.inference_mode``, which autograd does not take."""
    return tensor.clone() if tensor.is_inference() else tensor
