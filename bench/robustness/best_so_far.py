"""What an attack has found after so many passes: the fewest changes with which it succeeds."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attacks import Goal
from attacks.base import Images
from attacks.norms import l0_elements, l0_pixels, linf
from bench.robustness.judge import ROUNDING

BUDGETS = (10, 20, 50, 100, 200, 300, 500, 1000, 2000, 3000, 10_000)
"""Numbers of forward and backward passes of an image, added up, at which the best is noted."""

NEVER = torch.iinfo(torch.int32).max
"""Stands for the number of changes where no image has succeeded yet."""


class BestSoFar:
    """Watches the images that an attack shows to the victim model, as AttackBench does.

    An image counts from the pass on in which the victim model saw it, if it reaches the goal within
    [0, 1] and eps. What an attack returns without having shown it is not seen here; `settle` adds
    it at the attack's last pass.

    Args:
        originals: The images under attack in [0, 1], shape (b, c, h, w).
        goal: What the attack should reach.
        eps: Largest change of a value; None: only [0, 1] is required.

    Attributes:
        fewest: The fewest changed pixels and elements of a success that was seen within each of
            `BUDGETS`, but not within the one before; `NEVER` without any. Shape (b, budgets, 2).
    """

    def __init__(self, originals: Images, goal: Goal, eps: float | None) -> None:
        self.originals, self.goal = originals, goal
        self.largest = torch.inf if eps is None else eps + ROUNDING
        self.limits = torch.tensor(BUDGETS, device=originals.device)
        shape = len(originals), len(BUDGETS), 2
        self.fewest = torch.full(shape, NEVER, dtype=torch.int32, device=originals.device)

    @torch.no_grad()
    def see(
        self,
        images: Images,
        logits: Float[Tensor, "b k"],
        owner: Int[Tensor, " b"],
        passes: Int[Tensor, " b"],
    ) -> None:
        """Note the successes of one forward pass.

        Args:
            images: What the victim model was shown.
            logits: Its answers.
            owner: The original that each row belongs to.
            passes: The passes that this original has used, this one included.
        """
        won = self.goal[owner].reached(logits).nonzero()[:, 0]
        if not len(won):
            return
        images, owner = images[won], owner[won]
        delta = images - self.originals[owner]
        valid = ((images >= 0) & (images <= 1)).flatten(1).all(1) & (linf(delta) <= self.largest)
        if self.goal.region is not None:
            outside = (delta != 0) & ~self.goal.region[owner]
            valid &= ~outside.flatten(1).any(1)
        place = torch.searchsorted(self.limits, passes[won])
        valid &= place < len(BUDGETS)
        changes = torch.stack([l0_pixels(delta), l0_elements(delta)], 1).int()
        row = owner[valid] * len(BUDGETS) + place[valid]
        self.fewest.view(-1, 2).scatter_reduce_(
            0, row[:, None].expand(-1, 2), changes[valid], "amin"
        )


def settle(
    fewest: Int[Tensor, "b g 2"],
    passes: Int[Tensor, " b"],
    changes: Int[Tensor, "b 2"],
) -> Int[Tensor, "b g 2"]:
    """Return the fewest changes within each of `BUDGETS`, with what the attack returned.

    Args:
        fewest: As `BestSoFar` has noted it.
        passes: All passes of each image.
        changes: Changed pixels and elements of the returned image; `NEVER` for a failure.
    """
    done = passes[:, None] <= torch.tensor(BUDGETS)
    returned = torch.where(done[:, :, None], changes[:, None, :].int(), NEVER)
    return torch.minimum(fewest.cummin(1).values, returned)
