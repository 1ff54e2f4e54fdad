"""``bench search``: search the hyperparameters of augmentations, each with the same budget."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bench.cli import options, sections, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.execution.options import ExecutionOptions
    from bench.studies.designs import TrainingOptions
    from bench.studies.tracking import TrackingOptions


@click.command(cls=sections.Command, short_help="Search the hyperparameters of augmentations.")
@sections.compared(
    "--aug",
    "augmentations",
    type=types.Name(types.augmentation_names),
    multiple=True,
    default=["advmask"],
    show_default=True,
    help="Augmentation whose hyperparameters are searched; repeat for several.",
)
@sections.compared(
    "--budget",
    type=types.Real(min=0, min_open=True),
    default=9,
    show_default=True,
    metavar="TRAININGS",
    help="Budget of each augmentation's search, in trainings with all epochs.",
)
@sections.compared(
    "--model",
    type=types.Name(types.model_names),
    default="resnet18",
    show_default=True,
    help="Network.",
)
@options.number_of_seeds(5, "Number of seeds of the comparison with the published values: 0, 1, …")
@options.data("digits")
@options.training
@sections.execution("--fresh", is_flag=True, help="Rerun jobs that already have results.")
@options.spread
@options.tracked_training
@options.as_json
@options.quiet
def search(
    augmentations: tuple[str, ...],
    budget: float,
    model: str,
    seeds: int,
    place: DataOptions,
    training: TrainingOptions,
    fresh: bool,
    where: ExecutionOptions,
    tracking: TrackingOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Search the hyperparameters of augmentations, each with the same budget.

    Candidates are the published values and random ones. They are trained for a ninth of the
    epochs; the best third for a third of them, and the best of these in full (successive halving),
    and chosen by their accuracy on validation images. The best values are then compared with the
    published ones on the test images, on other seeds. An interrupted search continues.

    \b
    Example: bench search --aug advmask --budget 9 --model resnet8
    Example: bench search --aug advmask --aug cutout --aug gridmask --budget 27
    """
    from bench.execution.progress import open_progress
    from bench.studies import comparison, designs
    from bench.studies import search as searches

    workspace, data = comparison.place(place.open(where), place.dataset("digits"))
    design = designs.Design(
        augmentations=augmentations,
        data=data,
        models=(model,),
        seeds=tuple(range(seeds)),
        training=training,
        fresh=fresh,
    )
    searches.check(design, budget)
    found = searches.run(design, budget, workspace, where, tracking, open_progress(quiet))
    if as_json:
        echo(json.dumps({"budget": budget, "searches": [each.to_json() for each in found]}))
        return
    for each in found:
        echo(each)
