"""``bench plan``: how many seeds a difference needs, and what adding seeds until decided risks."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bench.cli import options, sections, types
from bench.cli.output import echo


@click.command(cls=sections.Command, short_help="Say how many seeds a difference needs.")
@sections.compared(
    "--difference",
    type=types.Points(),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="True difference in accuracy that is to be shown, in percentage points.",
)
@sections.compared(
    "--baseline",
    default="none",
    show_default=True,
    help="Method with which the others are compared.",
)
@sections.compared("--data", help="Records of this dataset only.")
@sections.compared(
    "--model", type=types.Name(types.model_names), help="Records of this network only."
)
@sections.execution(
    "--calibrate",
    is_flag=True,
    help="Simulate --until decided instead: false claims and power, beside a fixed number of "
    "seeds. Needs no records.",
)
@sections.execution(
    "--methods",
    type=types.Whole(1, 50),
    default=6,
    show_default=True,
    help="Number of methods in a simulated study.",
)
@sections.execution(
    "--max-seeds",
    type=types.SEEDS,
    default=30,
    show_default=True,
    help="Largest number of seeds of a simulated study.",
)
@sections.execution(
    "--studies",
    type=types.Whole(100),
    default=2000,
    show_default=True,
    help="Number of simulated studies for each difference.",
)
@sections.output(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the simulation into this file (.png, .pdf or .svg).",
)
@options.results
@options.as_json
def plan(
    difference: float,
    baseline: str,
    data: str | None,
    model: str | None,
    calibrate: bool,
    methods: int,
    max_seeds: int,
    studies: int,
    output: Path | None,
    results: str | None,
    as_json: bool,
) -> None:
    """Say how many seeds a difference needs, from the records of a pilot.

    With --calibrate, simulate studies instead and say how often --until decided claims a difference
    where there is none, and where there is one.

    \b
    Example: bench plan --difference 1.0 --results results
    Example: bench plan --calibrate --methods 11 --output power.png
    """
    if calibrate:
        sections.refuse("--calibrate, which needs no records", "difference", "baseline", "data",
                       "model", "results")  # fmt: skip
        simulated(methods, max_seeds, studies, output, as_json)
        return
    sections.need("--calibrate", "methods", "max_seeds", "studies", "output")
    from bench.execution.folders import existing_results
    from bench.records.store import Store
    from bench.reporting import run_tables
    from bench.reporting.grouping import Selection
    from bench.studies import seeds_needed

    folder = existing_results(results)
    every = Store(folder).all()
    records = Selection(data=data, model=model).runs(every)
    if not records:
        asked = " / ".join(filter(None, (data, model)))
        others = run_tables.where(every)
        lack = f"no runs of {asked}: there are {others}" if asked and others else "no runs"
        raise ValueError(f"{folder} has {lack}; start a pilot with bench run --seeds 5")
    found = seeds_needed.needed(records, difference / 100, baseline)
    if as_json:
        echo(json.dumps({"difference": difference / 100, "needed": [
            each.to_json() for each in found
        ]}))  # fmt: skip
        return
    points = f"{difference:g} point{'s' * (difference != 1)}"
    echo(
        f"To show a true difference of {points} to {baseline} with 80 % probability "
        "(paired t-test, 5 % error over the methods of a table):"
    )
    for each in found:
        echo(f"  {each}")


def simulated(
    methods: int, max_seeds: int, studies: int, output: Path | None, as_json: bool
) -> None:
    """Print or draw how the sequential design behaves in simulated studies."""
    from bench.files import atomic
    from bench.records.sequential import SequentialDesign, simulate
    from bench.records.statistics import wilson
    from bench.reporting import plots, power

    style = "png" if output is None else plots.style_of(output)  # rejected before anything slow
    differences = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
    design = SequentialDesign(methods=methods, most=max_seeds)
    found = simulate(design, differences, spread=design.margin, studies=studies)
    if output is not None:
        atomic.write(output, plots.draw(power.panels(found, design), style))
    if as_json:
        echo(json.dumps({
            "methods": methods, "looks": design.looks, "alpha": design.alpha, "studies": studies,
            "outcomes": [vars(each) for each in found],
        }))  # fmt: skip
        return
    echo(
        f"{studies} simulated studies of {methods} methods with looks at "
        f"{', '.join(map(str, design.looks))} seeds. Differences and the margin (1.0) are in "
        "standard deviations of the paired differences."
    )
    claims = found[0].any_claim
    low, high = wilson(round(claims * studies), studies)
    echo(
        f"False claims of any difference, where there is none: {claims:.1%} "
        f"({low:.1%} to {high:.1%}, the 95 % interval of {studies} studies)"
    )
    echo("difference  shown  shown with all seeds  equivalent  mean seeds")
    for each in found:
        echo(
            f"{each.difference:>10.2f}  {each.claim:>5.1%}  {each.fixed:>20.1%}  "
            f"{each.equivalent:>10.1%}  {each.seeds:>10.1f}"
        )
