"""Rows of an experiment that are compared with each other: how they differ, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bench.records.statistics import (
    MARGIN,
    Comparison,
    Equivalence,
    Interval,
    compare_pairs,
    equivalence,
    mean_interval,
)
from bench.reporting.cells import Cell, Column, Key, Row
from bench.reporting.run_tables import metric_of_runs
from bench.reporting.table import Table


@dataclass(frozen=True, kw_only=True)
class Contrasts:
    """Groups of rows in which the same differences are asked for: one family of tests.

    Attributes:
        title: What is asked.
        groups: The rows of the experiment by group and by variant, as ``{"Cutout": {"seek":
            "Cutout, seek points"}}``; every group has the same variants.
        pairs: The differences: the first variant minus the second.
        note: What the caption says about the variants, as whole sentences.
        margin: The largest difference that counts as none, as a fraction.
    """

    title: str
    groups: Mapping[str, Mapping[str, str]]
    pairs: Sequence[tuple[str, str]]
    note: str = ""
    margin: float = MARGIN

    def table(
        self,
        values: Mapping[str, Mapping[int, float]],
        failed: Mapping[str, int],
        where: str,
        metric: str = "accuracy",
        coverage: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> Table:
        """The values of each variant, the paired differences, and whether they are none.

        Args:
            values: The metric by row of the experiment and by seed.
            failed: How many seeds of a row failed.
            where: The dataset and the network.
            metric: The metric of runs that the values are.
            coverage: What the masks of a row delete, by metric.
        """
        shown = metric_of_runs(metric)
        variants = list(dict.fromkeys(name for rows in self.groups.values() for name in rows))
        columns = [Column(name, group=shown.title, percent=shown.percent) for name in variants]
        cells: dict[Key, Cell] = {}
        lost: dict[Key, int] = {}
        covered: dict[Key, Mapping[str, float]] = {}
        for group, rows in self.groups.items():
            for column in columns:
                row = rows[column.name]
                seeds = values.get(row)
                key = group, column.label
                cells[key] = mean_interval(list(seeds.values())) if seeds else None
                if row in failed:
                    lost[key] = failed[row]
                if row in coverage:
                    covered[key] = coverage[row]
        pairs = {
            (group, pair): (values.get(rows[pair[0]], {}), values.get(rows[pair[1]], {}))
            for group, rows in self.groups.items()
            for pair in self.pairs
        }
        compared = compare_pairs(pairs)
        comparisons: dict[Key, Comparison] = {}
        equivalences: dict[Key, Equivalence] = {}
        scale = 100 if shown.percent else 1
        for pair in self.pairs:
            heading = f"{pair[0]} - {pair[1]}"
            gain = Column("difference", group=heading, percent=shown.percent)
            same = Column("equivalent", group=heading)
            columns += [gain, same]
            for group in self.groups:
                each = compared[group, pair]
                difference, equal = (group, gain.label), (group, same.label)
                cells[difference] = cells[equal] = None
                if each.difference is None:
                    continue
                half = None if each.high is None else each.high - each.difference
                cells[difference] = Interval(each.difference, None, half, each.n)
                comparisons[difference] = each
                equivalences[equal] = equivalence(*pairs[group, pair], self.margin)
                cells[equal] = equivalences[equal].verdict
        unit = "points" if shown.percent else "the same unit"
        return Table(
            title=f"{self.title} {where}",
            rows=[Row(group) for group in self.groups],
            columns=columns,
            corner=where,
            cells=cells,
            comparisons=comparisons,
            equivalences=equivalences,
            failed=lost,
            coverage=covered,
            measure=f"{shown.measure()}, and differences in {unit} paired by seed",
            note=self._meaning(scale, unit),
        )

    def _meaning(self, scale: int, unit: str) -> str:
        """What the caption says about the variants and about equivalence."""
        return (
            f"{self.note} Equivalent: yes, the two differ by less than {scale * self.margin:g} "
            f"{unit} (two one-sided paired t-tests, each p < 0.05); no, they differ by more (the "
            "95 % interval is beyond); undecided, the seeds show neither, or there are too few, "
            "or all differ by the same. Not corrected for the number of tests."
        ).strip()
