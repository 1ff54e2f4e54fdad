"""``bench tables``: the records as a table for a paper."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import click

from bench.cli import SOME_FAILED, options, sections, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.paper.requests import Style
    from bench.reporting.latex import Layout
    from bench.reporting.panels import Unit

USED = {
    "runs": {"metric", "baseline", "data", "model", "methods"},
    "differences": {"metric", "baseline", "data", "model", "methods"},
    "quality": {"baseline", "data", "model", "methods"},
    "attacks": {"metric", "data", "model", "eps", "methods"},
    "changes": {"data", "model", "eps", "unit", "methods"},
    "passes": {"data", "model", "eps", "unit", "passes", "methods"},
    "coverage": {"data", "model"},
    "table6": {"scale", "metric", "data", "eps"},
}
"""The options that each kind of table uses."""
USED_BY_EXPERIMENTS = {"scale", "metric", "data"}


def table_names() -> list[str]:
    """Every table that can be asked for."""
    from bench.paper.requests import TABLES
    from bench.paper.tables import EXPERIMENTS

    return [*TABLES, *EXPERIMENTS]


def metric_names() -> list[str]:
    """The metrics that are most asked for."""
    from bench.reporting.run_tables import METRICS

    return [*METRICS, "success", "l0_pixels_mean", "l0_elements_mean"]


@click.command(cls=sections.Command, short_help="Print tables of runs, of attacks or of the paper.")
@click.argument("what", type=types.Name(table_names), default="runs")
@sections.compared(
    "--scale",
    type=click.Choice(["smoke", "reduced", "paper"]),
    default="smoke",
    show_default=True,
    help="Scale of the experiment.",
)
@sections.output(
    "--format",
    "style",
    type=click.Choice(["text", "latex", "markdown", "csv", "json"]),
    default="text",
    show_default=True,
    help="Format of the output.",
)
@sections.output(
    "--layout",
    type=click.Choice(["one-column", "two-column"]),
    default="one-column",
    show_default=True,
    help="Page that a LaTeX table is for; a wider table is divided.",
)
@sections.output(
    "--columns",
    multiple=True,
    metavar="PATTERN",
    help='Only these columns, by a heading of theirs, as in "CIFAR-10" or "resnet*"; repeat for '
    "several.",
)
@sections.compared(
    "--metric",
    type=types.Name(metric_names),
    help="Metric to show. Runs: accuracy, accuracy_median10, accuracy_best_validation, "
    "accuracy_occlusion, accuracy_corruption, ece or nll.  "
    "[default: accuracy]  Attacks: any metric of their records, over all victim models.",
)
@sections.compared(
    "--baseline",
    default="none",
    show_default=True,
    help="Baseline method for comparisons, as tables name it.",
)
@sections.compared(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help='Only this method or attack, as tables name it, such as "advmask + random"; repeat for '
    "several. The baseline is always shown, and tests are corrected over the methods that are; "
    "the worst case is over the attacks that are.",
)
@sections.compared("--data", help="Only this dataset; of an experiment: run on this one instead.")
@sections.compared("--model", help="Only this network.")
@sections.compared("--eps", type=types.Eps(), help="Only attacks at this eps.")
@sections.compared(
    "--unit",
    type=click.Choice(["pixels", "elements"]),
    default="pixels",
    show_default=True,
    help="Unit in which the changes of attacks are counted.",
)
@sections.compared(
    "--passes",
    type=types.Whole(1),
    metavar="N",
    help="One table of all attacks and victim models at this number of passes.",
)
@options.results
def tables(
    what: str,
    scale: str,
    style: Style,
    layout: Layout,
    columns: tuple[str, ...],
    metric: str | None,
    baseline: str,
    methods: tuple[str, ...],
    data: str | None,
    model: str | None,
    eps: Fraction | None,
    unit: Unit,
    passes: int | None,
    results: str | None,
) -> None:
    """Print a table of all finished runs, of attacks or of the paper, with intervals.

    WHAT is runs, differences (of runs, paired by seed, from the baseline), quality, attacks,
    changes, passes, coverage, or an experiment (see bench list experiments). The paper's tables
    have its published numbers beside ours; where adds differences between methods and tests of
    equivalence. Missing cells are named; an experiment's exit code is then 3.

    changes is the success of attacks with at most 1, 2, 5, … changed pixels; passes is the fewest
    pixels that they have found after 50, 100, 300, … forward and backward passes.

    quality is what deletion buys: accuracy on clean, occluded and corrupted images, and
    calibration.

    coverage is how much of an image the masks of runs delete; with --data also those of every
    augmentation on the dataset and its stored points, without a training.

    \b
    Example: bench tables --format markdown
    Example: bench tables differences --baseline cutout
    Example: bench tables differences --method cutout --method has
    Example: bench tables attacks
    Example: bench tables attacks --metric l0_pixels_mean --eps 8/255 --format markdown
    Example: bench tables attacks --method advmask --method sigma-zero
    Example: bench tables changes --unit elements --format markdown
    Example: bench tables passes --passes 300 --format text
    Example: bench tables coverage --data digits --format json
    Example: bench tables table1 --scale reduced
    Example: bench tables table1 --scale paper --format latex --layout two-column
    """
    from bench.execution.options import ExecutionOptions
    from bench.paper.requests import TableRequest, make_tables
    from bench.reporting.grouping import Selection

    if style != "latex":
        sections.refuse(f"--format {style}", "layout")
    if style == "json":
        sections.refuse("--format json, which has them all", "columns")
    every = USED_BY_EXPERIMENTS.union(*USED.values())
    sections.refuse(what, *(every - USED.get(what, USED_BY_EXPERIMENTS)))
    bound = None if eps is None else str(eps)
    selection = Selection(data=data, model=model, eps=bound, methods=methods)
    request = TableRequest(
        name=what, scale=scale, metric=metric, baseline=baseline, selection=selection,
        unit=unit, passes=passes,
        columns=columns,
    )  # fmt: skip
    computes = what == "coverage"  # which may train a victim model; other tables only read
    place = ExecutionOptions(device="cpu").workspace(results, create=computes)
    made = make_tables(request, place)
    if made.tables:
        echo(made.render(style, layout))
    for line in made.missing:
        echo(line, err=True)
    if not made.complete:
        raise click.exceptions.Exit(SOME_FAILED)
