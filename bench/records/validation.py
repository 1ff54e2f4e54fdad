"""Records and curves as files that anyone may have written: what can be shown of them.

Texts become printable and short, numbers finite; what no table can hold is skipped and counted.
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
"""Kind → the labels without which a record stands in no table."""


def read(store: Store) -> tuple[list[Record], list[str]]:
    """The records that can be shown, and warnings that count what was skipped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        every = store.all()
    said = [clean(str(each.message)) for each in caught]
    found = [sound for record in every if (sound := cleaned(record)) is not None]
    if lost := len(every) - len(found):
        said.append(f"skipped {lost} record(s) that no table can hold")
    return found, said


def clean(text: str, longest: int = LONGEST) -> str:
    """A text that may be shown: printable and not too long.

    >>> clean("a\\x00b\\ud800")
    'a\\ufffdb\\ufffd'
    """
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[: longest + 1])
    return shown if len(shown) <= longest else shown[:longest] + "…"


def cleaned(record: Record) -> Record | None:
    """The record with texts that may be shown and finite numbers; None if no table can hold it."""
    labels = {clean(name): clean(value) for name, value in record.labels.items()}
    metrics = {clean(name): value for name, value in record.metrics.items() if _finite(value)}
    job = {
        clean(name): value if isinstance(value, int | float) else clean(str(value))
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
        machine={clean(str(n)): clean(str(value)) for n, value in record.machine.items()},
        message=clean(record.message),
        curve=(),
    )


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (OverflowError, TypeError, ValueError):
        return False


def reader(store: Store) -> Callable[[Record], Curve]:
    """Reads curves; one with a number that is not finite counts as none."""

    def curve(record: Record) -> Curve:
        entries = store.curve(record)
        try:
            finite = all(math.isfinite(value) for each in entries for value in each.values())
        except OverflowError:
            finite = False
        return entries if finite else []

    return curve
