"""``bench figures``: the records as figures for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import SOME_FAILED, options, sections, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.execution.options import ExecutionOptions
    from bench.reporting.panels import Unit

PAPER = ("figure2", "figure3", "figure4", "figure5", "figure6", "figure7", "figure8")
USED: dict[str, set[str]] = {
    "differences": {"model", "baseline"},
    "quality": {"model", "baseline"},
    "attacks": {"model", "unit"},
    "passes": {"model", "unit"},
    "occlusion": {"model"},
    "coverage": set(),
}
"""Figures of the records themselves, with the options that only they use."""


@click.command(cls=sections.Command, short_help="Draw figures of results or of the paper.")
@click.argument("what", metavar="WHAT", type=types.Word("figure", [*PAPER, *USED, "all"]))
@sections.compared(
    "--scale",
    type=click.Choice(["smoke", "reduced", "paper"]),
    default="smoke",
    show_default=True,
    help="Scale of a figure of the paper.",
)
@sections.compared(
    "--unit",
    type=click.Choice(["pixels", "elements"]),
    default="pixels",
    show_default=True,
    help="Unit in which the changes of attacks are counted.",
)
@sections.compared(
    "--model", help="Only this network, in all figures but those of the paper and of coverage."
)
@sections.compared(
    "--baseline", default="none", show_default=True, help="Baseline method for comparisons."
)
@sections.output(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to.  [default: figures in the results folder]",
)
@options.data("every dataset with records")
@options.compute
def figures(
    what: str,
    scale: str,
    unit: Unit,
    model: str | None,
    baseline: str,
    output: Path | None,
    place: DataOptions,
    where: ExecutionOptions,
) -> None:
    """Draw figures of the paper, or of the results of runs, attacks and occlusion.

    WHAT is figure2 to figure8 of the paper, one of the following, or all.

    differences: the gain of each method over the baseline, paired by seed. quality: the same on
    clean, occluded and corrupted images. attacks: their success against the number of changes.
    passes: the fewest changes that they have found against the passes spent. occlusion: the
    accuracy of trained networks under occlusion. coverage: how much of an image the masks of each
    augmentation delete on --data, or on the datasets of the runs.

    Each is written as PDF and PNG, with its caption and its numbers in files beside it. What is
    missing is drawn as a gap and named, and the exit code is then 3.

    \b
    Example: bench figures figure8 --scale reduced
    Example: bench figures differences
    Example: bench figures attacks --unit elements
    Example: bench figures passes
    """
    from bench.paper.figure_requests import FigureRequest, make_figures
    from bench.paper.figures import PANELS
    from bench.reporting.grouping import Selection

    if what != "all":
        used = USED.get(what, {"scale"})
        sections.refuse(what, *({"scale"}.union(*USED.values()) - used))
    # masks and activation maps need no record; for others a mistyped folder is not made
    records_alone = what in {*USED, *PANELS} - {"coverage"}
    workspace = place.open(where, create=not records_alone)
    request = FigureRequest(
        name=what,
        scale=scale,
        unit=unit,
        baseline=baseline,
        selection=Selection(data=place.chosen(), model=model),
    )
    missing: list[str] = []
    for found in make_figures(request, workspace):
        lines = [found] if isinstance(found, str) else found.missing
        if not isinstance(found, str):
            for path in found.write(output or workspace.results / "figures"):
                echo(path)
        for line in lines:
            echo(line, err=True)
        missing += lines
    if missing:
        raise click.exceptions.Exit(SOME_FAILED)
