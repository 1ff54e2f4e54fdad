"""The results of a comparison of attacks: what a terminal and a notebook show of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attacks.base import Images
from bench.records.record import Record
from bench.reporting import attack_tables, formats
from bench.reporting.table import Table
from bench.reporting.worst_case import WorstCase


@dataclass(frozen=True)
class AttackRow:
    """The result of one attack.

    Attributes:
        metrics: Every metric of its record, by name.
        adversarial: The images after the attack, in the order of the given ones, in [0, 1]; images
            on which it failed and those that the model misclassifies are unchanged. None if they
            were not stored.

    >>> AttackRow({"success": 0.5, "l0_pixels_mean": 3.0}).l0_pixels_mean
    3.0
    """

    metrics: Mapping[str, float]
    adversarial: Images | None = field(default=None, repr=False)

    @property
    def success(self) -> float:
        """Share of the correctly classified images on which the goal was reached."""
        return self.metrics["success"]

    @property
    def l0_pixels_mean(self) -> float | None:
        """Mean number of changed pixels over the successes; None without any."""
        return self.metrics.get("l0_pixels_mean")

    @property
    def l0_elements_mean(self) -> float | None:
        """Mean number of changed elements (channels counted) over the successes."""
        return self.metrics.get("l0_elements_mean")


@dataclass(frozen=True)
class AttackStudy:
    """The results of several attacks; a terminal shows a table, a notebook HTML.

    Attributes:
        records: One record per attack, eps and seed.
        rows: Result of each attack by its name, at the first eps and with the first seed.
        pairs: Wilcoxon's test of every two sparse attacks on the same images, Holm-corrected.
        worst: The worst case over the sparse attacks for each eps and seed; none for a single one.

    >>> import bench, torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = nn.init.eye_(network[1].weight)
    >>> images, labels = torch.eye(4).reshape(4, 1, 2, 2)[:2], torch.tensor([0, 1])
    >>> study = bench.evaluate_attacks(
    ...     "pgd", model=network, images=images, labels=labels, eps=1.0, quiet=True
    ... )
    >>> list(study.rows), study.rows["pgd"].adversarial.shape
    (['pgd'], torch.Size([2, 1, 2, 2]))
    """

    records: tuple[Record, ...]
    rows: Mapping[str, AttackRow] = field(default_factory=dict, repr=False)
    pairs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    worst: tuple[WorstCase, ...] = field(default=(), repr=False)

    def table(self, eps: str | None = None) -> Table:
        """Return all metrics of the attacks at one eps; the last row is their worst case.

        Args:
            eps: The eps as it was typed; None: the first.

        Raises:
            ValueError: There are no attacks, as in a new results folder.
        """
        if not self.records:
            raise ValueError("there are no attacks: bench attack-eval makes them")
        eps = self.records[0].labels["eps"] if eps is None else eps
        worst = [each.record for each in self.worst]
        return attack_tables.attack_metrics(
            [record for record in (*self.records, *worst) if record.labels["eps"] == eps]
        )

    def to_latex(self) -> str:
        """Return the table as LaTeX; it needs the packages adjustbox, booktabs and siunitx."""
        return formats.latex(self.table())

    def __str__(self) -> str:
        return formats.text(self.table())

    def _repr_html_(self) -> str:
        return formats.html(self.table())
