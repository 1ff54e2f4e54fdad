"""The failed attempt that came closest to the goal, per image."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks.goal import Goal, Images, Logits
from attacks.norms import interval
from attacks.originals import Originals

TOLERANCE = 1e-6  # rounding errors of float32 near 1


class Closest(nn.Module):
    """Passes images on to a model and keeps, for each original, the one of the smallest margin.

    A row belongs to the image that it was made from (`Originals`). Rows outside [0, 1], eps or the
    goal's region are not kept, nor are those that reach the goal, such as a dense start: an attack
    that did not return them had a reason, such as a limit on the changed pixels.

    Args:
        model: The model under attack.
        images: The originals, distinct, of shape (b, c, h, w).
        goal: Their goal.
        eps: Largest change of an element; None leaves only [0, 1].

    Attributes:
        images: The closest attempts, of shape (b, c, h, w); an original where there was none.
        margin: Their margins, of shape (b,); infinite where there was none.
        reached: Which originals reach the goal unchanged, of shape (b,).
    """

    def __init__(self, model: nn.Module, images: Images, goal: Goal, eps: float | None) -> None:
        super().__init__()
        self.model, self.goal = model, goal
        self.unchanged, self.originals = images, Originals(images)
        self.low, self.high = interval(images, eps, goal.region)
        self.images = images.clone()
        self.margin = torch.full_like(images[:, 0, 0, 0], torch.inf)
        self.reached = torch.zeros_like(self.margin, dtype=torch.bool)

    def forward(self, attempts: Images) -> Logits:
        """The model's logits."""
        logits: Logits = self.model(attempts)
        with torch.no_grad():
            self._look(attempts.detach(), logits.detach())
        return logits

    def _look(self, attempts: Images, logits: Logits) -> None:
        owner = self.originals.owner(attempts)
        goal = self.goal[owner]
        margin = goal.margin(logits).to(self.margin).nan_to_num(torch.inf)
        done = margin < 0
        same = (attempts == self.unchanged[owner]).flatten(1).all(1)
        self.reached[owner[done & same]] = True
        margin = margin.where(self._allowed(attempts, owner) & ~done, torch.inf)
        least = self.margin.scatter_reduce(0, owner, margin, "amin")
        rows = ((margin == least[owner]) & (margin < self.margin[owner])).nonzero()[:, 0]
        self.images[owner[rows]] = attempts[rows]
        self.margin = least

    def _allowed(self, attempts: Images, owner: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
        beyond = torch.maximum(self.low[owner] - attempts, attempts - self.high[owner])
        return beyond.flatten(1).amax(1) <= TOLERANCE

    def instead_of_failures(self, adversarial: Images) -> Images:
        """``adversarial`` with the closest attempt for each image that came back unchanged."""
        unchanged = (adversarial == self.unchanged).flatten(1).all(1)
        failed: Float[Tensor, "b 1 1 1"] = (unchanged & ~self.reached)[:, None, None, None]
        return torch.where(failed, self.images, adversarial)
