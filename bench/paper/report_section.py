"""The experiments on the page of ``bench report``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from bench.files import plain
from bench.paper import figures
from bench.paper.asked import asked
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting.page import Page, Part, add_figure, add_table
from bench.reporting.report import CurveReader

PNG, LARGEST, LONGEST = b"\x89PNG", 2**23, 2000
"""How a PNG file begins, the most bytes of one that is shown, and of its caption characters."""


def add_experiments(
    page: Page, records: Sequence[Record], curves: CurveReader, results: Path
) -> None:
    """Add the experiments that were run in the results folder."""
    for experiment in asked(results):
        name, scale = experiment.name, experiment.scale.name
        known = {recipe.key for recipe in experiment.cells.values()}
        own = [record for record in records if record.key in known or record.kind == "attack"]
        note = ""
        if missing := experiment.missing(own):
            note = (
                f"{len(missing)} of {len(experiment.cells)} cells lack seeds; fill them with: "
                f"{experiment.command()}"
            )
        for table in experiment.tables(own, Store(results).images):
            title = f"{name}, scale {scale}: {table.title}"
            add_table(page, "paper", title, table, note, shown=experiment.kind == "table")
            note = ""  # once is enough
        if name in figures.PANELS:
            found = figures.figure_of(experiment, own, curves)
            title = f"{name}, scale {scale}: {experiment.heading}"
            add_figure(page, "paper", title, found.panels, found.caption)
    add_images(page, results)


def add_images(page: Page, results: Path) -> None:
    """Add the masks and activation maps that ``bench figures`` has drawn (Figures 2 and 5)."""
    for name in ("figure2", "figure5"):
        for path in sorted((results / "figures").glob(f"{name}-*.png")):
            try:
                content = plain.read(path, results, LARGEST)
            except ValueError as error:
                page.warnings.append(f"left out: {error}")
                continue
            if not content.startswith(PNG):
                continue
            caption = _caption(path.with_suffix(".txt"), results) or name
            png = base64.b64encode(content).decode()
            part = Part(path.stem, png=png, alt=caption, note=caption)
            page.sections.setdefault("images", []).append(part)


def _caption(path: Path, results: Path) -> str:
    """The text beside an image; empty where there is none."""
    try:
        return plain.read(path, results, LARGEST).decode(errors="replace").strip()[:LONGEST]
    except (OSError, ValueError):
        return ""
