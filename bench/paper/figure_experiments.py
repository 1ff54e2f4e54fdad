"""Every figure of AdvMask (Yang et al., Pattern Recognition 2023) as an experiment.

How they are drawn is in `figures` and `image_figures`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.paper import published
from bench.paper.experiments import Experiment, first_columns
from bench.paper.grids import FLOWERS_NOTE, TINY, TINY_NOTE, Cells, combinations, deletions
from bench.paper.published import read_numbers
from bench.paper.scales import OTHERS, Scale, places
from bench.registry import build
from bench.reporting.cells import Column


def figure(name: str, title: str, scale: Scale, cells: Cells, **fields: Any) -> Experiment:
    """An experiment that is drawn as a figure."""
    return Experiment(
        name=name,
        title=title,
        source=f"Figure {name.removeprefix('figure')} of Yang et al. 2023",
        scale=scale,
        cells=first_columns(cells, scale.columns),
        kind="figure",
        **fields,
    )


IMAGENET = "imagenet"
RESNET18 = Column("ResNet-18", group="CIFAR-10")


def figure2(scale: Scale) -> Experiment:
    """Images, their adversarial points and the masks drawn from them."""
    # the images of the paper are of ImageNet, which a user has to give
    own = scale.name == "paper" and scale.other is None
    shown = IMAGENET if own else scale.place("cifar10")[0]
    return figure("figure2", "Adversarial points and masks", scale, {}, points=shown)


def figure3(scale: Scale) -> Experiment:
    """Gain over the baseline of each deletion augmentation on Tiny-ImageNet."""
    return figure(
        "figure3",
        "Accuracy above the baseline",
        scale,
        deletions(scale, TINY),
        baseline="Baseline",
        published=read_numbers(published.FIGURE3, ["Baseline"], list(TINY)),
        replicable=False,
        chosen=TINY_NOTE,
    )


def figure4(scale: Scale) -> Experiment:
    """Gain of AdvMask after each other augmentation on Tiny-ImageNet."""
    return figure(
        "figure4",
        "What AdvMask adds to other augmentations",
        scale,
        combinations(scale, TINY),
        against={f"AdvMask-{row}": row for row in OTHERS},
        chosen=TINY_NOTE,
    )


def figure5(scale: Scale) -> Experiment:
    """Class activation maps of networks trained with each augmentation."""
    cells = deletions(scale, places(["Flowers"], ["ResNet-50"]))
    cells = {cell: recipe for cell, recipe in cells.items() if cell[0] != "HaS"}
    return figure(
        "figure5",
        "Class activation maps",
        scale,
        cells,
        baseline="Baseline",
        chosen=FLOWERS_NOTE,
    )


def figure6(scale: Scale) -> Experiment:
    """Seconds per epoch and epochs until convergence."""
    if scale.name == "paper":
        scale = replace(scale, seeds=3)  # section 4.5
    cells = deletions(scale, {RESNET18: ("cifar10", "resnet18")})
    cells["AdvMask", RESNET18] = scale.recipe("cifar10", "resnet18", "advmask(share=1.0)")
    for row, fields in OTHERS.items():
        cells[row, RESNET18] = scale.recipe("cifar10", "resnet18", **fields)
    return figure(
        "figure6",
        "Training time",
        scale,
        cells,
        metric="seconds_per_epoch",
        baseline="Baseline",
        chosen="AdvMask masks every image here, as in the paper. Convergence is the first epoch "
        "whose test accuracy is within 0.1 points of the last epoch's and stays there.",
    )


def figure7(scale: Scale) -> Experiment:
    """Test error over epochs with the stepwise learning rate."""
    where = {RESNET18: ("cifar10", "resnet18")}
    return figure(
        "figure7",
        "Test error under a stepwise learning rate",
        scale,
        deletions(scale, where, schedule="steps"),
        baseline="Baseline",
    )


def figure8(scale: Scale) -> Experiment:
    """AdvMask's parameters, one at a time: square length l, deleted share p, overlap o."""
    name, side = scale.place("cifar100")
    usual = build("augmentations", "advmask", data=name, side=side)
    lengths = []
    for i in range(8):
        low, high = 1 + 4 * i, 4 + 4 * i  # of a side of 32 pixels
        own = max(1, low * side // 32), max(1, high * side // 32)
        cap = max(usual.ratio[1], (own[1] / side) ** 2)  # else no large square would be placed
        ratio = f"ratio=({usual.ratio[0]}, {min(cap, 1.0):.4g})"
        lengths.append((f"{low}-{high}", f"length={own}, {ratio}"))
    sweeps = {
        "l": lengths,
        "p": [
            (f"{20 * i}-{20 * i + 20}%", f"ratio=({0.2 * i:.1f}, {0.2 * i + 0.2:.1f})")
            for i in range(5)
        ],
        "o": [(f"{20 * i}%", f"overlap={0.2 * i:.1f}") for i in range(6)],
    }
    cells = {
        (label, Column(parameter, group="CIFAR-100 / ResNet-18")): scale.recipe(
            "cifar100", "resnet18", f"advmask({option})"
        )
        for parameter, points in sweeps.items()
        for label, option in points
    }
    return figure(
        "figure8",
        "The parameters of AdvMask",
        replace(scale, columns=None),
        cells,
        chosen="The network (ours: ResNet-18), and the eight disjoint intervals of l: ours are "
        "1-4, 5-8, … 29-32 pixels of 32. Squares above the dataset's p_max, 50 % for CIFAR-100, "
        "would never be placed: where they are larger, p_max is their area. Apart from that, the "
        "other parameters keep the dataset's values.",
    )
