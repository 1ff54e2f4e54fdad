"""The results that a folder holds, as the studies that they came from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.records.record import Record
from bench.records.store import Store
from bench.studies.attack_study import AttackStudy
from bench.studies.comparison import Study


@dataclass(frozen=True)
class Results:
    """What a results folder holds.

    Attributes:
        records: Every readable record, the newest of each job and seed.
    """

    records: tuple[Record, ...]

    @property
    def runs(self) -> Study:
        """The trainings, as `bench.compare` gives them."""
        return Study(tuple(record for record in self.records if record.kind == "run"))

    @property
    def attacks(self) -> AttackStudy:
        """The evaluations of attacks, as `bench.evaluate_attacks` gives them, without images."""
        return AttackStudy(tuple(record for record in self.records if record.kind == "attack"))

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        return str(self.runs if self.runs.records else self.attacks)

    def _repr_html_(self) -> str:
        parts = [study._repr_html_() for study in (self.runs, self.attacks) if study.records]
        return "".join(parts)


def load_results(results: str | Path | None = None) -> Results:
    """Read the records of a results folder.

    Args:
        results: The folder; None: ``$BENCH_RESULTS``, else ``./results``.

    Raises:
        FileNotFoundError: There is no such folder.

    Example:
        >>> from tempfile import mkdtemp
        >>> len(load_results(mkdtemp()))
        0
    """
    folder = Path(results or os.environ.get("BENCH_RESULTS") or "results")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no results folder {folder}: bench run and bench.compare make one"
        )
    return Results(tuple(Store(folder).all()))
