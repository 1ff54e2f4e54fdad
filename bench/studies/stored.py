"""Read a results folder as studies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.execution.folders import existing_results
from bench.records.record import Record
from bench.records.store import Store
from bench.studies.attack_results import AttackStudy
from bench.studies.comparison import Study


@dataclass(frozen=True)
class Results:
    """The records of a results folder.

    Attributes:
        records: All readable records, the newest of each job and seed.

    >>> labels = {"augmentation": "none", "model": "resnet8", "data": "digits"}
    >>> record = Record(
    ...     kind="run", key="k", seed=0, labels=labels, metrics={"accuracy": 0.9}
    ... )
    >>> results = Results((record,))
    >>> len(results), len(results.runs.records), len(results.attacks.records)
    (1, 1, 0)
    """

    records: tuple[Record, ...]

    @property
    def runs(self) -> Study:
        """The trainings, as `bench.compare` returns them."""
        return Study(tuple(record for record in self.records if record.kind == "run"))

    @property
    def attacks(self) -> AttackStudy:
        """The attack evaluations, as `bench.evaluate_attacks` returns them, without images."""
        return AttackStudy(tuple(record for record in self.records if record.kind == "attack"))

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        if not self.records:
            return "There are no records yet."
        return str(self.runs if self.runs.records else self.attacks)

    def _repr_html_(self) -> str:
        parts = [study._repr_html_() for study in (self.runs, self.attacks) if study.records]
        return "".join(parts)


def load_results(results: str | Path | None = None) -> Results:
    """Read the records of a results folder.

    Args:
        results: The folder; None: ``$BENCH_RESULTS``, else ``./results``.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: It is a file, or has links, pipes or devices among its files.

    Example:
        >>> from tempfile import mkdtemp
        >>> len(load_results(mkdtemp()))
        0
    """
    return Results(tuple(Store(existing_results(results)).all()))
