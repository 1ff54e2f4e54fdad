"""Sparse-PGD: a dense perturbation times the k largest places of a mask, both learnt by PGD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape, Unit
from attacks.draws import draw
from attacks.fewest import attempts, fewest_changes
from attacks.norms import box, l0_pixels, largest


@dataclass(frozen=True)
class SparsePGD(BaseAttack):
    """Learn magnitudes p and a mask m of pixels; the change is p on the k largest places of m.

    Zhong et al., "Towards Efficient Training and Evaluation of Robust Models against l0 Bounded
    Adversarial Perturbations", ICML 2024, section 3. p starts uniformly in the box and moves by
    ``step`` along the sign of its gradient; m starts normally distributed and moves by
    ``mask_step`` times the root of c·h·w along its gradient over the gradient's Euclidean length,
    which passes through the projection onto k pixels as if that were sigmoid(m) (not if the length
    is below 2e-10). The gradient of p is that of the change times the binary mask (``"projected"``)
    or times sigmoid(m) (``"unprojected"``). Where the k pixels stay the same for ``patience``
    steps, m is drawn anew. ``"both"`` tries the unprojected gradient first and the other where it
    fails.

    Deviations: the paper's k is given; None searches for the smallest of each image, by doubling
    and bisection. The loss is `Goal.soft_margin`, in the direction of the paper's cross-entropy,
    and the margin itself once it is below 0.5, as in the released code. Redrawing replaces the
    whole mask. ``eps`` below 1 bounds p. The last iterate is judged too, so an attempt costs
    ``steps`` + 1 forward and ``steps`` backward passes with each gradient. The default of 100 steps
    per attempt is cheaper than the paper's 10000 for a given k, which ``published`` takes.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        k: Most pixels that may change; None for the smallest k of each image.
        gradient: The gradient of p: ``"both"``, ``"unprojected"`` or ``"projected"``.
        steps: Steps of an attempt.
        step: Change of p per step, as a share of eps (None: of 1).
        mask_step: Length of a step of the mask, as a multiple of the root of c·h·w.
        patience: Steps with the same pixels after which the mask is drawn anew.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = SparsePGD(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "pixels"
    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = None
    k: int | None = None
    gradient: Literal["both", "unprojected", "projected"] = "both"
    steps: int = 100
    step: float = 0.25
    mask_step: float = 0.25
    patience: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and self.k < 1:
            raise ValueError(f"k is {self.k}: allow at least 1 pixel, or None for the fewest")
        if self.gradient not in ("both", "unprojected", "projected"):
            raise ValueError(
                f"gradient is {self.gradient!r}: choose 'both', 'unprojected' or 'projected'"
            )
        for name in ("steps", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("step", "mask_step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")

    @classmethod
    def published(cls, eps: float | None = None, k: int = 20) -> SparsePGD:
        """The paper's evaluation on CIFAR-10: 20 pixels, 10000 steps with each gradient.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
            k: Most pixels that may change.
        """
        return cls(eps, k, steps=10_000)

    def passes(self, shape: Shape) -> int:
        """One on the image, and for every k and gradient that is tried all steps."""
        tried = attempts(math.prod(shape[1:])) if self.k is None else 1
        both = 2 if self.gradient == "both" else 1
        return 1 + tried * both * (2 * self.steps + 1)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        def attempt(
            rows: Int[Tensor, " m"], counts: Int[Tensor, " m"]
        ) -> tuple[Images, Int[Tensor, " m"]]:
            attacked = images[rows].clone()
            failed = torch.arange(len(rows), device=rows.device)
            for kind in ("unprojected", "projected"):
                if self.gradient in (kind, "both") and len(failed):
                    there = rows[failed]
                    chosen = [generators[row] for row in there.tolist()]
                    attacked[failed] = self._attempt(
                        model, images[there], goal[there], chosen, counts[failed], kind
                    )
                    changes = l0_pixels(attacked - images[rows])
                    failed = (changes == 0).nonzero()[:, 0]
            return attacked, l0_pixels(attacked - images[rows])

        pending = ~goal.reached(model(images))
        most = images[0, 0].numel()
        if self.k is None:
            return fewest_changes(attempt, images, pending, most)
        result = images.clone()
        rows = pending.nonzero()[:, 0]
        if len(rows):
            result[rows], _ = attempt(rows, torch.full_like(rows, min(self.k, most)))
        return result

    def _attempt(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        generators: list[Generator],
        counts: Int[Tensor, " b"],
        kind: str,
    ) -> Images:
        """The images that reach the goal within ``counts`` pixels; the others unchanged."""
        result = images.clone()
        eps = self.bound
        low, high = box(images, eps, goal.region)
        rows = torch.arange(len(images), device=images.device)
        place = draw(torch.rand, generators, images.shape[1:], images.device, images.dtype)
        p = low + place * (high - low)
        mask = draw(torch.randn, generators, (1, *images.shape[2:]), images.device, images.dtype)
        same = torch.zeros_like(rows)
        before = torch.zeros_like(mask, dtype=torch.bool)
        for step in range(self.steps + 1):
            chosen = self._project(mask, counts[rows], goal.region, rows)
            with torch.set_grad_enabled(step < self.steps):
                point = (images[rows] + p * chosen).clamp(0, 1).requires_grad_(step < self.steps)
                logits = model(point)
                margin = goal[rows].margin(logits)
            reached = margin.detach() < 0
            result[rows[reached]] = point.detach()[reached]
            if step == self.steps or reached.all():
                break
            with torch.enable_grad():
                loss = torch.where(margin < 0.5, margin, goal[rows].soft_margin(logits))
                (slope,) = torch.autograd.grad(loss.sum(), point)
            keep = ~reached & slope.flatten(1).isfinite().all(1)
            rows, p, mask, chosen, slope = (state[keep] for state in (rows, p, mask, chosen, slope))
            if not len(rows):
                break
            same = torch.where((chosen == before[keep]).flatten(1).all(1), same[keep] + 1, 0)
            soft = mask.sigmoid()
            to_mask = (slope * p).sum(1, keepdim=True) * soft * (1 - soft)
            weight = soft if kind == "unprojected" else chosen
            p = (p - self.step * eps * (slope * weight).sign()).clamp(low[rows], high[rows])
            length = to_mask.flatten(1).square().sum(1).sqrt()
            pace = self.mask_step * math.sqrt(images[0].numel()) * (length >= 2e-10)
            mask = mask - (pace / (length + 1e-10))[:, None, None, None] * to_mask
            mask, same = self._redraw(mask, same, [generators[row] for row in rows.tolist()])
            before = chosen
        return result

    def _project(
        self,
        mask: Float[Tensor, "m 1 h w"],
        counts: Int[Tensor, " m"],
        region: Tensor | None,
        rows: Int[Tensor, " m"],
    ) -> Bool[Tensor, "m 1 h w"]:
        """The ``counts`` largest places of each mask, inside the region first."""
        scores = mask if region is None else mask.where(region[rows], -torch.inf)
        return largest(scores.flatten(1), counts).view_as(mask)

    def _redraw(
        self, mask: Float[Tensor, "m 1 h w"], same: Int[Tensor, " m"], generators: list[Generator]
    ) -> tuple[Float[Tensor, "m 1 h w"], Int[Tensor, " m"]]:
        """New masks for images whose pixels have not changed for too long."""
        stuck = (same >= self.patience).nonzero()[:, 0]
        if not len(stuck):
            return mask, same
        chosen = [generators[i] for i in stuck.tolist()]
        drawn = draw(torch.randn, chosen, mask.shape[1:], mask.device, mask.dtype)
        return mask.index_copy(0, stuck, drawn), same.index_fill(0, stuck, 0)
