"""``bench points compare``: what ways to make points cost, and how far they agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options, sections, types
from bench.cli.output import echo
from bench.cli.points_search import SearchOptions, search

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.execution.options import ExecutionOptions

SHOWN = 8  # images of the gallery


@click.command(cls=sections.Command, short_help="Compare ways to find points.")
@sections.output(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PDF, PNG or SVG file to draw.  [default: none]",
)
@sections.output(
    "--gallery",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG file with eight of the images and the points of each way.  [default: none]",
)
@sections.output(
    "--images",
    type=types.Whole(1),
    default=48,
    show_default=True,
    help="Number of training images, none of which the network has seen.",
)
@options.data("digits")
@search
@options.spread
@options.as_json
@options.quiet
def compare(
    output: Path | None,
    gallery: Path | None,
    images: int,
    place: DataOptions,
    search: SearchOptions,
    where: ExecutionOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare exact, shortened, refined and predicted points, and other pixels, image by image.

    Passes, seconds, the share of the exact points that each finds, and the share of the images that
    a dense step confined to them breaks. An interrupted comparison continues.

    \b
    Example: bench points compare --data photos --images 48 --output front.png
    """
    from dataclasses import replace

    from bench.execution import signals
    from bench.execution.progress import open_progress
    from bench.files import atomic
    from bench.points import front
    from bench.reporting import image_grid, plots, points_front
    from bench.studies.comparison import place as locate

    style = None if output is None else plots.style_of(output)
    workspace, name = locate(place.open(where), place.dataset("digits"))
    data, progress = workspace.dataset(name), open_progress(quiet)
    executor = where.build(workspace.device)
    planned = replace(search, fast=True).planned(data, workspace)
    with signals.listen(progress.say) as stop:
        found = front.measure(planned, data, workspace, progress, images, executor, stop)
    if output is not None and style is not None:
        atomic.write(output, plots.draw([points_front.panel(found)], style))
        echo(f"Wrote {output}", err=True)
    if gallery is not None:
        shown = image_grid.front_images(data, found, SHOWN)
        atomic.write(gallery, image_grid.png(image_grid.grid(shown)))
        echo(f"Wrote {gallery}", err=True)
    echo(json.dumps(found.to_json()) if as_json else points_front.table(found))
