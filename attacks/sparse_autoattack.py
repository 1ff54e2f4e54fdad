"""Sparse-AutoAttack: Sparse-PGD with either gradient and Sparse-RS, the worst case per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape, Streams, Unit, streams
from attacks.goal import as_goal
from attacks.norms import l0_pixels
from attacks.sparse_pgd import SparsePGD
from attacks.sparse_rs import SparseRS


class WorstCase(NamedTuple):
    """What a cascade found, and which member found it.

    Attributes:
        images: Adversarial images of shape (b, c, h, w); unchanged where no member succeeded.
        winner: Index of the member whose image this is, of shape (b,); -1 where there is none.
        shares: Share of all images that each member contributes, from 0 to 1.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> worst = SparseAutoAttack(eps=0.1, steps=20).report(model, images, labels)
    >>> worst.images.shape, len(worst.winner)
    (torch.Size([2, 1, 8, 8]), 2)
    """

    images: Images
    winner: Int[Tensor, " b"]
    shares: dict[str, float]


@dataclass(frozen=True)
class SparseAutoAttack(BaseAttack):
    """Let several attacks try, and keep for each image the one that needs the fewest pixels.

    Zhong et al., "Towards Efficient Training and Evaluation of Robust Models against l0 Bounded
    Adversarial Perturbations", ICML 2024, section 4 (sAA): Sparse-PGD with the unprojected
    gradient, with the projected one, then Sparse-RS. With ``k``, as published, each attacks the
    images that those before it have left. Without it all attack all images, and the sparsest
    success stays; of equally sparse ones the earlier member's.

    Deviations: without ``k``, an addition, the members' own deviations hold. The defaults are
    cheaper than the paper's 10000 steps and queries, which ``published`` takes.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        k: Most pixels that may change; None for the fewest.
        steps: Steps of an attempt of Sparse-PGD.
        queries: Queries of Sparse-RS.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> worst = SparseAutoAttack(eps=0.1, steps=20).report(model, images, labels)
    >>> sorted(worst.shares)
    ['sparse-pgd, projected', 'sparse-pgd, unprojected', 'sparse-rs']
    """

    unit: ClassVar[Unit] = "pixels"
    combined: ClassVar[bool] = True
    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = None
    k: int | None = None
    steps: int = 50
    queries: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.members  # refuses what a member refuses

    @classmethod
    def published(cls, eps: float | None = None, k: int = 20) -> SparseAutoAttack:
        """The paper's evaluation on CIFAR-10: 20 pixels, 10000 steps and 10000 queries.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
            k: Most pixels that may change.
        """
        return cls(eps, k, steps=10_000, queries=10_000)

    @property
    def members(self) -> dict[str, BaseAttack]:
        """The attacks in their order, by the names that `WorstCase.shares` uses."""
        return {
            "sparse-pgd, unprojected": SparsePGD(self.eps, self.k, "unprojected", self.steps),
            "sparse-pgd, projected": SparsePGD(self.eps, self.k, "projected", self.steps),
            "sparse-rs": SparseRS(self.eps, self.k, self.queries),
        }

    def passes(self, shape: Shape) -> int:
        """Those of all members."""
        return sum(member.passes(shape) for member in self.members.values())

    def report(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal | Tensor,
        generator: Streams | None = None,
    ) -> WorstCase:
        """Attack as a call does, and say which member contributed what.

        Args:
            model: Maps images in [0, 1] to logits of shape (b, classes).
            images: Batch of shape (b, c, h, w) in [0, 1], before normalisation.
            goal: A `Goal`, or labels of shape (b,), the classes to leave.
            generator: Source of every random draw: one, or one per image; None: seed 0.

        Raises:
            ValueError: See `BaseAttack.__call__`.
        """
        generator = Generator().manual_seed(0) if generator is None else generator
        goal = as_goal(goal, images)
        found, winner = self._cascade(model, images, goal, streams(generator, len(images)))
        shares = {
            name: float((winner == index).double().mean()) if len(winner) else 0.0
            for index, name in enumerate(self.members)
        }
        return WorstCase(found, winner, shares)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        return self._cascade(model, images, goal, generators)[0]

    def _cascade(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> tuple[Images, Int[Tensor, " b"]]:
        """The sparsest success of each image and the index of its member."""
        best = images.detach().clone()
        winner = torch.full((len(images),), -1, dtype=torch.long, device=images.device)
        fewest = torch.full_like(winner, images[0].numel() + 1) if len(images) else winner
        rows = torch.arange(len(images), device=images.device)
        for index, member in enumerate(self.members.values()):
            if self.k is not None:
                rows = (winner < 0).nonzero()[:, 0]
            chosen = [generators[row] for row in rows.tolist()]
            found = member(model, images[rows], goal[rows], chosen)
            count = l0_pixels(found - images[rows]) if len(rows) else rows
            better = (count > 0) & (count < fewest[rows])
            there = rows[better]
            best[there], winner[there], fewest[there] = found[better], index, count[better]
        return best, winner
