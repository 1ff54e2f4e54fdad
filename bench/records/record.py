"""The record: what one job with one seed gave, and how it becomes a line of JSON and back.

A line holds labels, metrics, the job and the machine; the curve, the trace and the images of a
record are not in it. `bench.records.store` keeps both.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.records.validation import VERSION, check

FIELDS = ("kind", "key", "seed", "status", "message", "job", "machine")
OWN = {"version", *FIELDS}
SHARED = {"victim", "data", "eps", "aim", "images", "query_cap"}  # by attacks that are compared
Number = int | float
Curve = Sequence[Mapping[str, Number]]
"""One entry for each epoch of a training, or for each number of changes or passes of an attack."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one job with one seed gave.

    ``kind`` is ``"run"`` (a training) or ``"attack"``; ``key`` names the job without its seed.
    ``labels`` are what tables group by (augmentation, model, data, …), ``metrics`` fractions in
    [0, 1], seconds and counts, never percent. ``curve`` has one entry an epoch, or for each number
    of changes at which an attack's success rises; ``trace`` has what an attack had reached after so
    many passes, ``images`` what it did to each image. A job that failed (``status``) says why in
    ``message``.

    >>> labels = {"augmentation": "none", "model": "resnet8", "data": "digits"}
    >>> record = Record(
    ...     kind="run", key="k", seed=0, labels=labels, metrics={"accuracy": 0.9}
    ... )
    >>> Record.from_json(record.to_json()) == record
    True
    """

    kind: Literal["run", "attack"]
    key: str
    seed: int
    labels: Mapping[str, str]
    metrics: Mapping[str, Number]
    job: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    status: Literal["finished", "failed"] = "finished"
    message: str = ""
    curve: Sequence[Mapping[str, Number]] = ()
    trace: Sequence[Mapping[str, Number]] = ()
    images: Sequence[Mapping[str, Number]] = ()

    def __post_init__(self) -> None:
        names = [*self.labels, *self.metrics]
        if twice := {name for name in names if name in OWN or names.count(name) > 1}:
            raise ValueError(
                f"the label or metric {min(twice)!r} is taken in a record: give it another name"
            )

    @property
    def name(self) -> str:
        """The record's own name: the job's key and the seed."""
        return f"{self.key}-{self.seed}"

    @property
    def cell(self) -> str:
        """Names what the record shares with others: its job; for attacks, their victim and eps."""
        if self.kind == "run":
            return self.key
        shared = {name: value for name, value in self.job.items() if name in SHARED}
        text = json.dumps(shared, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """A flat object of labels (texts) and metrics (numbers), without what files hold."""
        return {
            "version": VERSION,
            "kind": self.kind,
            "key": self.key,
            "seed": self.seed,
            "status": self.status,
            "message": self.message,
            **self.labels,
            **self.metrics,
            "job": dict(self.job),
            "machine": dict(self.machine),
        }

    @classmethod
    def from_json(cls, line: Any) -> Record:
        """The record that `to_json` wrote; raises ``ValueError`` for anything else."""
        check(line)
        rest = {sys.intern(name): value for name, value in line.items() if name not in OWN}
        return cls(
            **{name: line[name] for name in FIELDS},
            labels=_told_apart(
                {name: value for name, value in rest.items() if isinstance(value, str)}
            ),
            metrics={name: value for name, value in rest.items() if not isinstance(value, str)},
        )

    def sharing(self, other: Record) -> Record:
        """The same record, with what is equal in another one kept in memory once."""
        parts = ("labels", "job", "machine")
        equal = {name: getattr(other, name) for name in parts}
        return replace(self, **{n: v for n, v in equal.items() if v == getattr(self, n)})


def _told_apart(labels: dict[str, str]) -> dict[str, str]:
    """The labels of a record, where a name of version 0.1 has another meaning now.

    The squares of ``keepaugment`` were clipped at the border; records that were made so say it.

    >>> _told_apart({"augmentation": "keepaugment", "hyperparameters": "keepaugment(length=4)"})
    {'augmentation': "keepaugment(squares='clipped')", 'hyperparameters': 'keepaugment(length=4)'}
    """
    name = labels.get("augmentation", "")
    base, _, options = name.partition("(")
    if base != "keepaugment" or "squares=" in name + labels.get("hyperparameters", ""):
        return labels
    given = ["squares='clipped'", *filter(None, [options.removesuffix(")")])]
    return labels | {"augmentation": f"{base}({', '.join(reversed(given))})"}
