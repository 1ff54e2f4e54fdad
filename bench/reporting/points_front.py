"""Ways to make adversarial points as a table and a figure: what they cost, and what they find."""

from __future__ import annotations

from bench.points.front import Entry, Front
from bench.reporting.cells import Cell, Column, Key, Row, three_digits
from bench.reporting.panels import Line, Panel
from bench.reporting.table import Table

COLUMNS = tuple(
    map(Column, ("passes", "epochs", "ms", "points", "found", "near", "4/255", "8/255", "front"))
)


def table(front: Front) -> Table:
    """A row for each way to make points."""
    cells: dict[Key, Cell] = {}
    for each in front.entries:
        cells |= {
            (each.label, column.label): cell
            for column, cell in zip(COLUMNS, _cells(each), strict=True)
        }
    about = front.about
    note = (
        f"{about['images']} images of {about['data']} that the estimator has not seen. Passes: "
        "forward and backward passes per image, the training of the estimator included, for "
        f"{about['training_images']:,} images; epochs: as many. ms: milliseconds per image, "
        "without that training. Found: percent of the exact points among these; near: within one "
        "pixel. 4/255, 8/255: percent of the images that one such step breaks at these points "
        "alone. *: on the Pareto front of passes and found."
    )
    return Table(
        title="Ways to make adversarial points",
        rows=[Row(each.label) for each in front.entries],
        columns=COLUMNS,
        cells=cells,
        corner="points",
        note=note,
    )


def _cells(entry: Entry) -> list[str]:
    return [
        f"{entry.passes:.1f}" if entry.passes % 1 else f"{entry.passes:.0f}",
        three_digits(entry.passes / 2),
        three_digits(1000 * entry.seconds),
        f"{entry.points:.0f}",
        *(f"{100 * share:.1f}" for share in (entry.found, entry.near, *entry.broken.values())),
        "*" * entry.best,
    ]


def panel(front: Front) -> Panel:
    """Found points against passes; what takes no pass is drawn at one."""
    entries = [each for each in front.entries if each.label != "exact"]
    best = sorted((max(each.passes, 1.0), each.found) for each in entries if each.best)
    lines = [Line("Pareto front", best)]
    lines += [Line(each.label, [(max(each.passes, 1.0), each.found)]) for each in entries]
    return Panel(
        title="Share of the exact points found",
        x="passes per image",
        y="share found",
        lines=lines,
        logarithmic=True,
    )
