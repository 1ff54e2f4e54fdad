"""Records and curves from files that anyone may have written: those that can be shown.

Texts become printable and short, numbers finite; malformed records are skipped and counted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.records.record import Curve, Record
from bench.records.store import Store

LONGEST = 300  # characters of a name or message
NEEDED = {
    "run": {"model", "data", "augmentation"},
    "attack": {"attack", "victim", "data", "goal", "eps", "bounded", "role", "model"},
}
"""The labels that a record of each kind needs to be shown in a table."""


def read_records(store: Store) -> tuple[list[Record], list[str]]:
    """The records that can be shown, and warnings that count what was skipped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        every = store.all()
    said = [printable(str(each.message)) for each in caught]
    found = [sound for record in every if (sound := clean_record(record)) is not None]
    if lost := len(every) - len(found):
        said.append(f"skipped {lost} malformed record{'' if lost == 1 else 's'}")
    return found, said


def printable(text: str, longest: int = LONGEST) -> str:
    """A text without what cannot be printed, and not too long.

    >>> printable("a\\x00b\\ud800")
    'a\\ufffdb\\ufffd'
    """
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[: longest + 1])
    return shown if len(shown) <= longest else shown[:longest] + "…"


def clean_record(record: Record) -> Record | None:
    """The record with printable texts and finite numbers; None if it is malformed."""
    labels = {printable(name): printable(value) for name, value in record.labels.items()}
    metrics = {printable(name): value for name, value in record.metrics.items() if _finite(value)}
    job = {
        printable(name): value if isinstance(value, int | float) else printable(str(value))
        for name, value in record.job.items()
        if value is not None
    }
    if record.kind not in NEEDED or not NEEDED[record.kind] <= set(labels):
        return None
    if record.kind == "attack" and (
        "images" not in job or labels["role"] not in ("sparse", "ceiling", "floor")
    ):
        return None
    return replace(
        record,
        labels=labels,
        metrics=metrics,
        job=job,
        machine={printable(str(n)): printable(str(value)) for n, value in record.machine.items()},
        message=printable(record.message),
        curve=(),
        trace=(),
    )


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (OverflowError, TypeError, ValueError):
        return False


def finite(read: Callable[[Record], Curve]) -> Callable[[Record], Curve]:
    """A reader of curves or traces to which one with a number that is not finite is empty.

    Args:
        read: Such as `Store.curve`.
    """

    def finite_entries(record: Record) -> Curve:
        entries = read(record)
        try:
            sound = all(math.isfinite(value) for each in entries for value in each.values())
        except OverflowError:
            sound = False
        return entries if sound else []

    return finite_entries
