"""Which records belong together: the seeds of one recipe, and the attacks of one evaluation.

Tables, figures and the report all group by these functions, so that a cell, a line and a section
with the same name are of the same records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bench.errors import suggest
from bench.records.method import Method
from bench.records.record import Record
from bench.reporting.cells import Column, Row

POINTS = "points"
"""The setting of a job that says which attack finds its adversarial points."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which records a table or figure shows.

    Attributes:
        data: The name of a dataset; None for all.
        model: The name of a network; None for all.
        eps: The bound of attacks, as it is typed; None for all.
        methods: Methods of runs, as tables name them without settings, or attacks; none are all.
    """

    data: str | None = None
    model: str | None = None
    eps: str | None = None
    methods: Sequence[str] = ()

    def runs(self, records: Iterable[Record]) -> list[Record]:
        """The runs among the records that are selected; eps selects nothing among them.

        Raises:
            ValueError: No run has one of the methods.
        """
        found = [r for r in records if r.kind == "run" and self._has(r, "data", "model")]
        return self._named(found, "run", lambda record: Method.of(record).name)

    def attacks(self, records: Iterable[Record]) -> list[Record]:
        """The evaluations of attacks among the records that are selected.

        Raises:
            ValueError: No attack is called like one of the methods.
        """
        wanted = ("data", "model", "eps")
        found = [r for r in records if r.kind == "attack" and self._has(r, *wanted)]
        return self._named(found, "attack", lambda record: record.labels["attack"])

    def _named(
        self, records: list[Record], kind: str, name: Callable[[Record], str]
    ) -> list[Record]:
        if not self.methods or not records:
            return records
        named = [(name(each), each) for each in records]
        known = dict.fromkeys(text for text, _ in named)
        for method in self.methods:
            if method not in known:
                hint = suggest(method, known)
                raise ValueError(f"no {kind} is called {method!r}: {hint}")
        return [each for text, each in named if text in self.methods]

    def _has(self, record: Record, *names: str) -> bool:
        wanted = {name: getattr(self, name) for name in names}
        return all(v is None or record.labels.get(name) == v for name, v in wanted.items())


@dataclass(frozen=True)
class RunGroup:
    """The runs of one recipe with its seeds: one cell of a table, one line of a plot.

    Attributes:
        row: The method, and the settings in which it differs from others of its column.
        column: The dataset and the network.
        records: One for each seed.
        shared: The settings in which a baseline must agree: those of the row without the attack
            that finds adversarial points, since other methods have none.
    """

    row: Row
    column: Column
    records: list[Record]
    shared: str = ""

    def values(self, metric: str) -> dict[int, float]:
        """The metric of each seed that finished with a finite one."""
        return {
            record.seed: float(record.metrics[metric])
            for record in self.records
            if record.status == "finished" and math.isfinite(record.metrics.get(metric, math.nan))
        }


def group_runs(records: Iterable[Record]) -> list[RunGroup]:
    """Group runs by recipe, ordered by column; other records are left out.

    A setting in which the recipes of one dataset and network differ becomes part of the row; the
    attack that finds adversarial points does where methods that use points differ in it. Where
    neither labels nor settings tell two recipes apart, the row has the recipe's key.
    """
    columns: dict[Column, list[Record]] = {}
    for record in records:
        if record.kind == "run":
            columns.setdefault(_column(record), []).append(record)
    groups: dict[tuple[Row, Column], RunGroup] = {}
    for column, members in columns.items():
        named = {name for record in members for name in record.job}
        guided = {Method.of(record) for record in members if record.job.get(POINTS) is not None}
        among = {POINTS: [record for record in members if Method.of(record) in guided]}
        varying = sorted(
            name
            for name in named - set(Method.__dataclass_fields__)
            if len({repr(record.job.get(name)) for record in among.get(name, members)}) > 1
        )
        keys: dict[Row, str] = {}
        for record in members:
            given = {name: f"{name}={record.job[name]}" for name in varying if name in record.job}
            row = Row(Method.of(record).name, settings=", ".join(given.values()))
            shared = ", ".join(text for name, text in given.items() if name != POINTS)
            if keys.setdefault(row, record.key) != record.key:
                row = Row(row.name, row.settings, key=record.key[:6])
            group = groups.setdefault((row, column), RunGroup(row, column, [], shared))
            group.records.append(record)
    return list(groups.values())


def _column(record: Record) -> Column:
    """Dataset and network with the weights it starts from, as far as the record has them."""
    data, model = record.labels.get("data", ""), record.labels.get("model", "")
    if weights := record.labels.get("pretrained"):
        model = f"{model} from {weights}"
    return Column(model, group=data) if model else Column(data)


def rows_by_column(groups: Iterable[RunGroup]) -> dict[Column, dict[Row, list[Record]]]:
    """The records of each row, column by column."""
    found: dict[Column, dict[Row, list[Record]]] = {}
    for group in groups:
        found.setdefault(group.column, {})[group.row] = group.records
    return found


@dataclass(frozen=True)
class AttackSetting:
    """What attacks have in common that may be compared in one table.

    Attributes:
        victim: The network under attack, with the content of its weights.
        data: The dataset of its images.
        goal: ``untargeted``, or how targets are chosen.
        images: How many images were attacked.
        query_cap: The most forward and backward passes of an image; empty without a limit.
    """

    victim: str
    data: str
    goal: str
    images: str
    query_cap: str = ""

    @classmethod
    def of(cls, record: Record) -> AttackSetting:
        """The setting of an attack's record."""
        labels, job = record.labels, record.job
        cap = str(job["query_cap"]) if job.get("query_cap") else ""
        return cls(labels["victim"], labels["data"], labels["goal"], str(job["images"]), cap)

    @property
    def victim_name(self) -> str:
        """The network and its weights, without the normalisation that a long name goes on with."""
        return self.victim.partition(" mean=")[0]

    @property
    def weights(self) -> str:
        """The file of the weights, without its ending; empty for a network that is trained here."""
        words = self.victim_name.split()
        return words[1].removesuffix(".safetensors") if len(words) == 3 else ""

    @property
    def goal_in_words(self) -> str:
        """``untargeted``, or ``targeted`` and how targets are chosen."""
        return self.goal if self.goal == "untargeted" else f"targeted ({self.goal})"

    @property
    def size(self) -> str:
        """The number of images with its noun."""
        return plural(int(self.images), "image")

    @property
    def limit(self) -> str:
        """The limit on passes in words; empty without one."""
        return f"at most {self.query_cap} passes" if self.query_cap else ""


def group_attacks(records: Iterable[Record]) -> dict[AttackSetting, list[Record]]:
    """Group the records of attacks by what they must have in common to be compared."""
    found: dict[AttackSetting, list[Record]] = {}
    for record in records:
        if record.kind == "attack":
            found.setdefault(AttackSetting.of(record), []).append(record)
    return found


def rows_of_attacks(records: Iterable[Record]) -> dict[Row, list[Record]]:
    """Group records by attack: sparse ones, dense ones, noise, and last their worst case.

    Sparse ones that ignore eps come after the others. Of submissions with the same name, eps and
    seed only the last counts: they are different images, not several seeds of one attack.
    """
    order = ["sparse", "ceiling", "floor", "worst"]
    found: dict[Row, list[Record]] = {}
    for record in sorted(
        _latest(records), key=lambda r: (order.index(r.labels["role"]), not bounded(r))
    ):
        notes = ["" if bounded(record) else "ignores eps", record.labels.get("source", "")]
        row = Row(record.labels["attack"], note=", ".join(filter(None, notes)))
        found.setdefault(row, []).append(record)
    return found


def _latest(records: Iterable[Record]) -> list[Record]:
    """The records without the submissions that a later one of their name, eps and seed replaces."""
    found: dict[object, Record] = {}
    for place, record in enumerate(records):
        labels = record.labels
        submitted = labels.get("source", ""), labels["attack"], labels["eps"], record.seed
        found[submitted if "source" in labels else place] = record
    return list(found.values())


def bounded(record: Record) -> bool:
    """Whether the attack of a record keeps within eps."""
    return record.labels["bounded"] == "yes"


def plural(count: int, what: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def bound_in_words(eps: str) -> str:
    """The largest change of a value, as in ``eps 8/255``; an eps of 1 is no bound."""
    return "no bound" if Fraction(eps) == 1 else f"eps {eps}"


def eps_values(records: Iterable[Record]) -> list[str]:
    """The eps of the records as they were typed, the smallest first."""
    return sorted({record.labels["eps"] for record in records}, key=Fraction)
