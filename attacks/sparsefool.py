"""SparseFool: a few large changes across a straightened decision boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Region, Shape, Unit
from attacks.norms import interval

ACROSS = 1e-3  # how far past the boundary the solver goes
LEAST = 1e-4  # the smallest step towards it


@dataclass(frozen=True)
class SparseFool(BaseAttack):
    """Find the boundary with DeepFool, replace it by a plane, and cross it along few elements.

    Modas et al., "SparseFool: a few pixels make a big difference", CVPR 2019, algorithms 1 and 2.
    A round takes DeepFool from the current image to the nearest boundary among ``classes`` classes,
    goes ``stretch`` (the paper's λ) times as far, lays a plane with the boundary's normal through
    that point and moves the elements of the largest weights until the plane is crossed; the result,
    ``overshoot`` further, is judged. There are up to ``steps`` rounds. It draws nothing.

    Deviations: the solver takes one sort and one cumulative sum instead of a loop, with the same
    result; an image is given up, and comes back unchanged, where DeepFool finds no boundary or
    where the plane lies behind it, for there the published solver drives every element to its
    bound. DeepFool compares logits with the label's, which is the prediction of every image that
    is attacked.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        stretch: How far beyond the boundary the plane lies, at least 1 (λ in the paper).
        overshoot: Share of the change that is added when a result is judged, at least 0.
        steps: Most rounds.
        boundary_steps: Most steps of DeepFool per round.
        classes: Classes among which the boundary is sought, at least 2: the most likely ones.

    Raises:
        ValueError: For a value out of its range, naming it, and in a call with a targeted goal.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = SparseFool(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "elements"
    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = 8 / 255
    stretch: float = 3.0
    overshoot: float = 0.02
    steps: int = 20
    boundary_steps: int = 50
    classes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stretch >= 1:
            raise ValueError(f"stretch is {self.stretch}: it must be at least 1")
        if not self.overshoot >= 0:
            raise ValueError(f"overshoot is {self.overshoot}: it must be at least 0")
        for name in ("steps", "boundary_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.classes < 2:
            raise ValueError(f"classes is {self.classes}: a boundary needs at least 2")

    @classmethod
    def published(cls, eps: float | None = 8 / 255) -> SparseFool:
        """The 50 rounds of the authors' example.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, steps=50)

    def passes(self, shape: Shape) -> int:
        """One on the image; in each round those of every step of DeepFool, and three more.

        A step takes two forward passes, and a backward pass for every class but the label's.
        """
        step = 2 + self.classes - 1
        return 1 + self.steps * (self.boundary_steps * step + 3)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        if goal.targeted:
            raise ValueError("it is untargeted: leave SparseFool or the target out")
        found = images.clone()
        rows = (~goal.reached(model(images))).nonzero()[:, 0]
        low, high = interval(images, self.eps, goal.region)
        points = images.clone()
        for _ in range(self.steps):
            if not len(rows):
                break
            start = points[rows]
            beyond, normal = self._boundary(model, goal[rows], start)
            moved, crossed = cross(start, normal, beyond, low[rows], high[rows])
            points[rows] = moved
            rows, moved = rows[crossed], moved[crossed]
            if not len(rows):
                break
            image = images[rows]
            further = image + (1 + self.overshoot) * (moved - image)
            further = further.clamp(low[rows], high[rows])
            reached = goal[rows].reached(model(further))
            found[rows[reached]] = further[reached]
            rows = rows[~reached]
        return found

    def _boundary(self, model: nn.Module, goal: Goal, images: Images) -> tuple[Images, Images]:
        """A point ``stretch`` times as far as the boundary, and the boundary's unit normal.

        The normal points away from the label; it is NaN for images without a boundary in reach.
        """
        total = torch.zeros_like(images)
        normal = torch.full_like(images, torch.nan)
        rows = torch.arange(len(images), device=images.device)
        rivals: Int[Tensor, "b r"] | None = None
        for _ in range(self.boundary_steps):
            if not len(rows):
                break
            label = goal.labels[rows, None]
            with torch.enable_grad():
                point = (images[rows] + total[rows]).requires_grad_()
                logits = model(point)
                if rivals is None:
                    others = logits.detach().scatter(1, label, -torch.inf)
                    rivals = others.topk(min(self.classes, logits.shape[1]) - 1).indices
                leads = logits.gather(1, rivals[rows]) - logits.gather(1, label)
                step = _nearest(leads, point, goal[rows].region)
            finite = step.flatten(1).isfinite().all(1)
            rows, step = rows[finite], step[finite]
            if not len(rows):
                break
            total[rows] += step
            logits = model(images[rows] + (1 + self.overshoot) * total[rows])
            left = goal[rows].reached(logits)
            over, winners = rows[left], logits[left].argmax(1, keepdim=True)
            rows = rows[~left]
            if len(over):
                with torch.enable_grad():
                    point = (images[over] + total[over]).requires_grad_()
                    logits = model(point)
                    lead = logits.gather(1, winners) - logits.gather(1, goal.labels[over, None])
                    (slope,) = torch.autograd.grad(lead.sum(), point)
                slope = slope if goal.region is None else slope * goal.region[over]
                normal[over] = slope / _length(slope)
        return images + self.stretch * total, normal


def _nearest(leads: Float[Tensor, "b r"], point: Images, region: Region | None) -> Images:
    """The shortest step to where, by its tangent, one of the ``leads`` over the label becomes 0."""
    best = torch.full_like(point, torch.nan)
    shortest = torch.full_like(leads[:, :1, None, None], torch.inf)
    for index, lead in enumerate(leads.unbind(1)):
        last = index == leads.shape[1] - 1
        (slope,) = torch.autograd.grad(lead.sum(), point, retain_graph=not last)
        slope = slope if region is None else slope * region
        length = _length(slope)
        distance = lead.detach().abs()[:, None, None, None] / length
        nearer = distance < shortest
        shortest = torch.where(nearer, distance, shortest)
        best = torch.where(nearer, distance.clamp(min=LEAST) / length * slope, best)
    return best


def _length(slope: Images) -> Float[Tensor, "b 1 1 1"]:
    return slope.flatten(1).square().sum(1).sqrt()[:, None, None, None]


def cross(
    points: Images, normal: Images, beyond: Images, low: Images, high: Images
) -> tuple[Images, Bool[Tensor, " b"]]:
    """Move each point to the plane through ``beyond`` along the largest weights of ``normal``.

    One element after the other goes as far as needed or as ``low`` and ``high`` let it (all of them
    where that does not suffice), whose sequential form is algorithm 1 of the paper. Returns the
    points and whether there was something to do: a point that already lies past the plane, or whose
    normal is not finite, stays.
    """
    weight = normal.flatten(1)
    signed = (weight * (points - beyond).flatten(1)).sum(1, keepdim=True)
    before = (signed <= 0) & weight.isfinite().all(1, keepdim=True)
    size, order = weight.abs().sort(dim=1, descending=True, stable=True)
    up = (high - points).flatten(1)
    down = (points - low).flatten(1)
    room = torch.where(weight > 0, up, torch.where(weight < 0, down, 0)).gather(1, order)
    gain = size * room
    reached = signed + gain.cumsum(1) - gain
    move = ((ACROSS - reached) / size).minimum(room)
    there = reached + size * move >= 0
    first = there.cumsum(1) - there.long() == 0  # up to and including the first that crosses
    move = torch.where(first & before & (size > 0), move, 0)
    change = torch.zeros_like(weight).scatter(1, order, move) * weight.sign().nan_to_num()
    moved = (points + change.view_as(points)).clamp(low, high)
    return moved, before[:, 0]
