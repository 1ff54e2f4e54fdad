"""``bench points``: find, show, export and import the adversarial points of a training set."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options, sections, types
from bench.cli.output import echo
from bench.cli.points_compare import compare
from bench.cli.points_search import SearchOptions, find_or_load, search

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.data.dataset import Dataset
    from bench.execution.options import ExecutionOptions
    from bench.points.store import Points


@click.group(short_help="Find, show and exchange adversarial points.")
def points() -> None:
    """Find, show, export and import the adversarial points of a training set."""


points.add_command(compare)


@points.command(cls=sections.Command, short_help="Find the points of every training image.")
@options.data("digits")
@search
@options.spread
@sections.output("--dry-run", is_flag=True, help="Show what the search would cost, and stop.")
@options.as_json
@options.quiet
def build(
    place: DataOptions,
    search: SearchOptions,
    where: ExecutionOptions,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the points by attacking every training image once; an interrupted search continues.

    What the search costs is shown before it starts, in forward and backward passes and in epochs of
    training with as many. With --fast, one network predicts the points: it is trained once for the
    dataset and the victim model, and its agreement with the attack is measured on images that it
    has not seen.

    \b
    Example: bench points build --data photos
    Example: bench points build --data cifar10 --dry-run
    Example: bench points build --data cifar10 --victim resnet20.safetensors --model resnet20
    Example: bench points build --data photos --fast
    """
    if dry_run:
        estimate(place, search, where, as_json)
        return
    _, data, built = find_or_load(place, search, where, quiet)
    report(built, data, as_json)


def estimate(
    place: DataOptions, search: SearchOptions, where: ExecutionOptions, as_json: bool
) -> None:
    """Print the cost of a search."""
    from bench.studies.comparison import place as locate

    workspace, name = locate(place.open(where), place.dataset("digits"))
    data = workspace.dataset(name)
    where.build(workspace.device)  # sets the threads of a worker
    cost = search.planned(data, workspace).cost(data, workspace)
    echo(json.dumps(cost.to_json()) if as_json else str(cost))


@points.command(cls=sections.Command, short_help="Draw images with their points and masks.")
@sections.output(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG file to write.  [default: in figures of the results folder]",
)
@sections.output(
    "--count", type=types.Whole(1, 64), default=8, show_default=True, help="Number of images."
)
@options.data("digits")
@search
@options.compute
@options.as_json
@options.quiet
def show(
    output: Path | None,
    count: int,
    place: DataOptions,
    search: SearchOptions,
    where: ExecutionOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw training images with their points and masks, and print statistics of the points.

    The image shows what each augmentation leaves of the images, KeepAugment with the saliency of
    the attacked network. With --fast, exact points stand beside the predicted ones.

    \b
    Example: bench points show --data photos --output points.png
    """
    from bench.execution import signals
    from bench.execution.progress import open_progress
    from bench.files import atomic
    from bench.points.predicting import Fast, is_fast
    from bench.reporting import image_grid
    from bench.reporting.figures import file_name

    workspace, data, built = find_or_load(place, search, where, quiet)
    progress = open_progress(quiet)
    with signals.listen(progress.say) as stop:  # trains it if only its points are stored
        network = search.victim_for(data).load(workspace, progress, stop)
    columns = image_grid.advmask_images(data, built, count)
    if is_fast(attack := str(built.about["attack"])):
        exact = image_grid.exact_images(data, network, Fast.read(attack).built, count)
        columns = {
            "image": columns.pop("image"),
            "exact": exact,
            "predicted": columns.pop("points"),
        } | columns
    columns["advmask"] = columns.pop("masked")
    columns |= image_grid.deletion_images(data, built, count, network)
    name = f"{file_name('points', data.name, attack)}.png"
    path = output or workspace.results / "figures" / name
    atomic.write(path, image_grid.png(image_grid.grid(columns)))
    report(built, data, as_json)
    echo(f"Wrote {path}", err=True)


@points.command(cls=sections.Command, short_help="Write the points as a NumPy file.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@options.data("digits")
@search
@options.compute
@options.quiet
def export(
    path: Path, place: DataOptions, search: SearchOptions, where: ExecutionOptions, quiet: bool
) -> None:
    """Write the points as a NumPy .npz file.

    \b
    Example: bench points export points.npz --data photos
    """
    from bench.files import atomic
    from bench.points.import_export import to_numpy

    built = find_or_load(place, search, where, quiet)[2]
    atomic.write(path, to_numpy(built))
    echo(f"Wrote {len(built.places)} points of {len(built)} images to {path}")


@points.command("import", cls=sections.Command, short_help="Import points from NumPy files.")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@sections.output("--name", required=True, help="Name of the points for --guide of bench run.")
@sections.output(
    "--xy",
    is_flag=True,
    help="The lists of a folder hold (x, y), column first.  [default: (row, column)]",
)
@options.data("digits")
def import_(path: Path, name: str, xy: bool, place: DataOptions) -> None:
    """Import points, for `bench run --aug advmask --guide NAME`.

    PATH is an .npz file, or a folder with one .npy file per training image: a list of points with
    two columns, row and column, as AdvMask's authors release theirs. The number in the name of a
    file is the index of its image; an image without a file has no points. In a folder with one
    folder per class, the sorted files of a class are those of its images in their order.

    \b
    Example: bench points import points.npz --name mine --data photos
    Example: bench points import point_list --name released --data cifar10
    """
    import re

    from bench.execution.folders import option
    from bench.execution.options import ExecutionOptions
    from bench.points.guides import FIXED
    from bench.points.import_export import files_by_image, from_folder, from_numpy
    from bench.studies.comparison import place as locate

    if name in FIXED:
        raise ValueError(f"--name {name} is a built-in guide: choose another name")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise ValueError(
            f"--name {name!r} is no name: take up to 64 of A-Z a-z 0-9 - _ ., a letter or digit "
            "first"
        )
    if not path.is_dir():
        sections.refuse(f"{path.name}, which is not a folder", "xy")
    workspace, known = locate(place.open(ExecutionOptions(device="cpu")), place.dataset("digits"))
    data = workspace.dataset(known)
    taken = from_folder(path, data, xy=xy) if path.is_dir() else from_numpy(path, data)
    taken.save(workspace.results / "points" / f"{name}.safetensors")
    report(taken, data, as_json=False)
    if path.is_dir() and (lack := len(taken) - len(files_by_image(path, data))):
        echo(f"{lack} of {len(taken)} images have no list in {path}, hence no points", err=True)
    shown = shlex.quote(place.dataset("digits"))
    where = option(workspace.results)
    echo(f"Next: bench run --aug advmask --guide {name} --data {shown}{where}")


def report(built: Points, data: Dataset, as_json: bool) -> None:
    """Print the statistics of points, and what the masks of AdvMask on them delete."""
    from bench.points import coverage

    summary, covered = built.summary(), coverage.of_advmask(built, data)
    if as_json:
        found = {"about": built.about, "summary": summary, "coverage": covered.metrics}
        found |= {name: built.about[name] for name in ("cost", "agreement") if name in built.about}
        echo(json.dumps(found))
    else:
        echo(
            f"{summary['images']:.0f} images, {summary['points_mean']:.1f} points each "
            f"(median {summary['points_median']:.0f}, from {summary['points_least']:.0f} to "
            f"{summary['points_most']:.0f}), attack success {summary['success']:.1%}, "
            f"{summary['without_points']:.1%} without points"
        )
        echo(
            f"{summary['inside']:.0%} of the points are in the central half of the area; "
            f"their spread is {summary['spread']:.2f} of that of uniform points; "
            f"{summary['neighbours']:.1f} of the 8 neighbours of a point are points"
        )
        echo(covered)
        if "victim_accuracy" in summary:
            echo(
                f"the victim model classifies {summary['victim_accuracy']:.1%} of the images "
                "correctly"
            )
        for line in coverage.of_prediction(built.about):
            echo(line)
    if covered.warning:
        echo(covered.warning, err=True)
