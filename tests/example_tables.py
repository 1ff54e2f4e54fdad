"""Tables with known contents: usual, wide and long ones, and one with hostile names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.records.record import Record
from bench.records.statistics import mean_interval
from bench.reporting import run_tables
from bench.reporting.cells import Column, Published, Row
from bench.reporting.table import Table

# of five seeds; the differences from the first are (1, 2, 3, 2, 2) points
NONE = [0.90, 0.91, 0.92, 0.93, 0.94]
BETTER = [0.91, 0.93, 0.95, 0.95, 0.96]
SAME = [0.91, 0.90, 0.93, 0.92, 0.94]


def records(
    method: str, values: list[float | None], column: str = "cifar10 / resnet18", **job: Any
) -> list[Record]:
    """One record a seed; None is a seed that failed."""
    data, model = column.split(" / ")
    return [
        Record(
            kind="run",
            key=f"{method}{column}{job}",
            seed=seed,
            labels={"augmentation": method, "data": data, "model": model},
            metrics={} if value is None else {"accuracy": value},
            job={"augmentation": method, **job},
            machine={"bench": "0.1.0", "commit": "abc_1"},
            status="failed" if value is None else "finished",
        )
        for seed, value in enumerate(values)
    ]


def usual() -> Table:
    """Two columns, three methods; one cell is missing, one has a failed seed."""
    table = run_tables.grid(
        [
            *records("cutout(length=8)", BETTER),
            *records("none", NONE),
            *records("has", SAME),
            *records("none", [*NONE[:4], None], "cifar100 / resnet_18"),
            *records("has", [0.5, 0.6], "cifar100 / resnet_18"),
        ]
    )
    return replace(table, published={("none", "cifar10 / resnet18"): Published(95.1, starred=True)})


def labels(parts: Sequence[Row | Column]) -> list[str]:
    return [part.label for part in parts]


def cells_of(line: str, bar: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").removesuffix(r"\\").split(bar)]


def seeds(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


HOSTILE = r"a_b & 50% {x} ~^ $#\ <|> ± †"


def hostile() -> Table:
    table = run_tables.grid(
        [
            *records(HOSTILE, BETTER, f"data {HOSTILE} / model {HOSTILE}"),
            *records("none", [*NONE[:4], None], f"data {HOSTILE} / other"),
            *records("none", NONE, f"data {HOSTILE} / model {HOSTILE}"),
        ]
    )
    return replace(table, published={("none", f"data {HOSTILE} / other"): Published(1.0)})


def wide() -> Table:
    """Twelve columns of five groups, with long names of rows, and published numbers for some."""
    rows = [Row("gridmask(ratio=0.42, share=Ramp(0.0, 0.8))"), *(Row(f"row {i}") for i in range(4))]
    columns = [
        Column(f"network-{i}", f"data {i // 3}", percent=True, best="high") for i in range(12)
    ]
    keys = [(row.label, column.label) for row in rows for column in columns]
    return Table(
        title="Wide",
        rows=rows,
        columns=columns,
        cells={
            key: mean_interval([v + place / 1000 for v in NONE]) for place, key in enumerate(keys)
        },
        published={key: Published(90.5, key[0] == "row 1") for key in keys if "data 1" in key[1]},
        settings={columns[3].label: Column("ResNet-18", "CIFAR-10")},
    )


def long() -> Table:
    """A hundred rows of one column, among them negative numbers and texts."""
    rows = [Row(f"[{place}]") for place in range(100)]
    cells = {
        row.label: mean_interval([place - 50.0, place - 49.0]) for place, row in enumerate(rows)
    }
    texts = {"[3]": "undecided", "[4]": None}
    return Table(
        title="Long",
        rows=rows,
        columns=[Column("number")],
        cells={(label, "number"): texts.get(label, cell) for label, cell in cells.items()},
    )


TABLES = [usual, hostile, wide, long]
