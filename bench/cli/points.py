"""``bench points``: find, show, export and import the adversarial points of a training set."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.data.dataset import Dataset
    from bench.execution.options import ExecutionOptions
    from bench.execution.workspace import Workspace
    from bench.points.find import Search
    from bench.points.store import Points
    from bench.training.victims import Victim


@click.group()
def points() -> None:
    """Find, show, export and import the adversarial points of a training set."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Which points are meant: the victim model and the attack.

    Attributes:
        victim: Safetensors file of the victim model's weights, or ``timm:NAME``; None: it is
            trained on the dataset.
        model: Architecture of the victim model; None: the default.
        mean: Per-channel mean subtracted by a victim model that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.
        attack: Attack by name with options; None: the dataset's own.
        fast: Whether one network predicts the points of that attack.
        refine: Steps of the attack from the prediction; None: none.
        examples: Images that are attacked for the network to learn from; None: the default.
        exact_images: Images that are attacked in full to check it; None: the default.
        gradients: Gradients of the victim model that it sees of each image; None: the default.
        estimator: File of a network that was trained elsewhere.
    """

    victim: str | None = None
    model: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    attack: str | None = None
    fast: bool = False
    refine: int | None = None
    examples: int | None = None
    exact_images: int | None = None
    gradients: int | None = None
    estimator: Path | None = None

    def attack_text(self) -> str | None:
        """Return how the points are found, as `bench.points.find.chosen_attack` takes it."""
        from bench import registry
        from bench.points.predicting import Fast

        attack = None if self.attack is None else registry.admit("attacks", self.attack)
        if not self.fast:
            options.refuse("points without --fast", *FAST)
            return attack
        if self.estimator is not None:
            options.refuse("--estimator, which is trained", "examples", "exact_images", "gradients")
        given = {
            "attack": attack,
            "refine": self.refine,
            "examples": self.examples,
            "check": self.exact_images,
            "gradients": self.gradients,
        }
        return str(Fast(**{name: value for name, value in given.items() if value is not None}))

    def planned(self, data: Dataset, workspace: Workspace) -> Search:
        """Describe the search; an estimator that was trained elsewhere is taken over first.

        Raises:
            ValueError: The estimator belongs to another dataset, victim model or image size.
        """
        from bench.points import fast
        from bench.points.find import Search

        search = Search.of(data, workspace, self.victim_for(data), self.attack_text())
        if self.estimator is None or search.fast is None:
            return search
        how = fast.give(self.estimator, workspace, data, search.identity, search.fast)
        return Search.of(data, workspace, self.victim_for(data), str(how))

    def victim_for(self, data: Dataset) -> Victim:
        """Return the victim model; see `bench.points.find.points_victim`."""
        from bench.points import find

        return find.points_victim(
            data, victim=self.victim, model=self.model, mean=self.mean, std=self.std
        )


FAST = ("refine", "examples", "exact_images", "gradients", "estimator")
"""Options that need --fast."""

search = options.gathered(
    "search",
    lambda: SearchOptions,
    options.victim("resnet8 for at most 10,000 training images, else resnet20"),
    options.attacked(
        "--attack",
        type=types.Name(types.attack_names),
        help="Attack that finds the points.  [default: the dataset's, usually advmask.published]",
    ),
    options.attacked(
        "--fast",
        is_flag=True,
        help="Predict the attack's points with one network, trained once on a few images.",
    ),
    options.attacked(
        "--refine",
        type=click.IntRange(1),
        help="With --fast: steps of the attack from the prediction.  [default: none]",
    ),
    options.attacked(
        "--examples",
        type=click.IntRange(1),
        help="With --fast: images that are attacked to learn from.  [default: 128]",
    ),
    options.attacked(
        "--exact-images",
        type=click.IntRange(1),
        help="With --fast: images that are attacked in full to check with.  [default: 16]",
    ),
    options.attacked(
        "--gradients",
        type=click.IntRange(1),
        help="With --fast: gradients that the network sees of each image.  [default: 3]",
    ),
    options.attacked(
        "--estimator",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="With --fast: a network of that kind that was trained elsewhere.",
    ),
)


def find_or_load(
    place: DataOptions, search: SearchOptions, where: ExecutionOptions, quiet: bool
) -> tuple[Workspace, Dataset, Points]:
    """Return the workspace, the dataset and its points, which are found if they are missing."""
    from bench.execution import signals
    from bench.execution.progress import open_progress
    from bench.points import find
    from bench.studies.comparison import place as locate

    workspace, name = locate(place.open(where), place.dataset("digits"))
    data, progress = workspace.dataset(name), open_progress(quiet)
    with signals.listen(progress.say) as stop:
        return (
            workspace,
            data,
            find.adversarial(
                data,
                workspace,
                progress,
                victim=search.victim_for(data),
                attack_text=search.planned(data, workspace).attack,
                executor=where.build(workspace.device),
                stop=stop,
            ),
        )


@points.command(cls=options.Command)
@options.data
@search
@options.spread
@options.output("--dry-run", is_flag=True, help="Show what the search would cost, and stop.")
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


@points.command(cls=options.Command)
@options.output(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG file to write.  [default: in figures of the results folder]",
)
@options.output(
    "--count", type=click.IntRange(1, 64), default=8, show_default=True, help="Number of images."
)
@options.data
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
    the attacked network.

    \b
    Example: bench points show --data photos --output points.png
    """
    from bench.execution import signals
    from bench.execution.progress import open_progress
    from bench.files import atomic
    from bench.registry import whole
    from bench.reporting import image_grid

    workspace, data, built = find_or_load(place, search, where, quiet)
    progress = open_progress(quiet)
    with signals.listen(progress.say) as stop:  # trains it if only its points are stored
        network = search.victim_for(data).load(workspace, progress, stop)
    columns = image_grid.advmask_images(data, built, count)
    columns["advmask"] = columns.pop("masked")
    columns |= image_grid.deletion_images(data, built, count, network)
    path = output or workspace.results / "figures" / f"points-{whole(data.name)}.png"
    atomic.write(path, image_grid.png(image_grid.grid(columns)))
    report(built, data, as_json)
    echo(f"Wrote {path}", err=True)


@points.command(cls=options.Command)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@options.data
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
    from bench.points.exchange import to_numpy

    built = find_or_load(place, search, where, quiet)[2]
    atomic.write(path, to_numpy(built))
    echo(f"Wrote {len(built.places)} points of {len(built)} images to {path}")


@points.command("import", cls=options.Command)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@options.output("--name", required=True, help="Name of the points for --guide of bench run.")
@options.output(
    "--xy",
    is_flag=True,
    help="The lists of a folder hold (x, y), column first.  [default: (row, column)]",
)
@options.data
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

    from bench.execution.options import ExecutionOptions
    from bench.points.exchange import from_folder, from_numpy
    from bench.points.guides import FIXED
    from bench.studies.comparison import place as locate

    if name in FIXED or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise ValueError(
            f"--name {name!r} is a built-in guide or has characters besides A-Z a-z 0-9 - _ ."
        )
    if not path.is_dir():
        options.refuse(f"{path.name}, which is no folder", "xy")
    workspace, known = locate(place.open(ExecutionOptions(device="cpu")), place.dataset("digits"))
    data = workspace.dataset(known)
    taken = from_folder(path, data, xy=xy) if path.is_dir() else from_numpy(path, data)
    taken.save(workspace.results / "points" / f"{name}.safetensors")
    report(taken, data, as_json=False)
    shown = shlex.quote(place.dataset("digits"))
    echo(f"Next: bench run --aug advmask --guide {name} --data {shown}")


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
            f"{summary['pictures']:.0f} images, {summary['points_mean']:.1f} points each "
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
