"""Tables for a paper, a terminal and a program, all from the same `Table`.

`latex`, `markdown`, `text` and `html` are for readers, in percent and rounded; `csv` and `json`
hold fractions in full.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

from bench.files.text import escaped, flat, for_spreadsheet
from bench.reporting.cells import (
    Cell,
    comparison_entry,
    equivalence_entry,
    interval_entry,
)
from bench.reporting.latex import latex
from bench.reporting.table import Style, Table, caption, html, tabulated, text

__all__ = ["caption", "csv", "html", "json", "latex", "markdown", "text"]

MARKDOWN = Style(
    lambda text: "".join("\\" * (each in "\\|*_`<") + each for each in flat(text)),
    bold="**{}**",
    marks=("\\*", "†", "≈"),
)


def markdown(table: Table) -> str:
    """The table as a pipe table, with its caption below.

    A pipe table has one line of headings: a heading that several columns share stands above it if
    all columns have it, and before the name of each otherwise.
    """
    printed = table.printed()
    groups = {each.group for each in printed}
    above = ""
    if len(printed) > len(groups) == 1 and (shared := groups.pop()):
        above = f"**{MARKDOWN.escape(shared)}**\n\n"
        printed = [dataclasses.replace(each, group="") for each in printed]
    headers = [MARKDOWN.escape(each.heading(" / ")) for each in printed]
    body = tabulated(table, MARKDOWN, printed, headers, "pipe")
    return f"{above}{body}\n\n{MARKDOWN.escape(caption(table))}\n"


def csv(*tables: Table) -> str:
    """One line for each cell, in fractions; of several tables each cell names its own."""
    import csv

    entries = [
        {"table": table.title} | entry if len(tables) > 1 else entry
        for table in tables
        for entry in _entries(table)
    ]
    file = io.StringIO()
    names = list(dict.fromkeys(name for each in entries for name in each))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: for_spreadsheet(value) for name, value in each.items()} for each in entries
    )
    return file.getvalue()


def json(*tables: Table) -> str:
    """The table as an object with a list of cells, in fractions; several tables as a list."""
    from json import dumps

    objects = [
        {
            "title": table.title,
            "caption": caption(table),
            "origin": table.origin,
            "baseline": table.baseline,
            "cells": _entries(table),
        }
        for table in tables
    ]
    whole = objects[0] if len(objects) == 1 else objects
    return escaped(dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def _entries(table: Table) -> list[dict[str, Any]]:
    """One object for each cell, in fractions."""
    found = []
    for row in table.rows:
        for column in table.columns:
            key = row.label, column.label
            cell: Cell = table.cell(row, column)
            entry: dict[str, Any] = {"row": row.label, "column": column.label}
            entry |= {"text": cell} if isinstance(cell, str) else interval_entry(cell)
            entry["failed"] = table.failed.get(key, 0)
            if printed := table.published.get(key):
                scale = 100 if column.percent else 1
                entry["published"] = round(printed.value / scale, 12)
                entry["published_starred"] = printed.starred
                of = table.settings.get(column.label)
                entry["published_of"] = of.label if of else column.label
                entry["published_setting"] = "other" if of else "same"
            if key in table.comparisons:
                entry |= comparison_entry(table.comparisons[key])
            if key in table.equivalences:
                entry |= equivalence_entry(table.equivalences[key])
            found.append(entry | dict(table.coverage.get(key, {})))
    return found
