"""The options that say which points are meant, and finding them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import options, sections, types

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.data.dataset import Dataset
    from bench.execution.options import ExecutionOptions
    from bench.execution.workspace import Workspace
    from bench.points.find import Search
    from bench.points.store import Points
    from bench.training.victims import Victim


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
            sections.refuse("points without --fast", *FAST)
            return attack
        if self.estimator is not None:
            sections.refuse(
                "--estimator, which is trained", "examples", "exact_images", "gradients"
            )
        given: dict[str, Any] = {
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

search = sections.gathered(
    "search",
    lambda: SearchOptions,
    options.victim("resnet8 for at most 10,000 training images, else resnet20"),
    sections.attacked(
        "--attack",
        type=types.Name(types.attack_names),
        help="Attack that finds the points.  [default: the dataset's, usually advmask.published]",
    ),
    sections.attacked(
        "--fast",
        is_flag=True,
        help="Predict the attack's points with one network, trained once on a few images.",
    ),
    sections.attacked(
        "--refine",
        type=types.Whole(1),
        help="With --fast: steps of the attack from the prediction.  [default: none]",
    ),
    sections.attacked(
        "--examples",
        type=types.Whole(1),
        help="With --fast: images that are attacked to learn from.  [default: 128]",
    ),
    sections.attacked(
        "--exact-images",
        type=types.Whole(1),
        help="With --fast: images that are attacked in full to check with.  [default: 16]",
    ),
    sections.attacked(
        "--gradients",
        type=types.Whole(1),
        help="With --fast: gradients that the network sees of each image.  [default: 3]",
    ),
    sections.attacked(
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
