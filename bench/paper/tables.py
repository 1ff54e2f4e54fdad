"""Every table and figure of AdvMask (Yang et al., Pattern Recognition 2023) as an experiment.

`EXPERIMENTS` also names the questions that the paper leaves open, which have modules of their own.

What the paper leaves open, and what is chosen here, is part of each experiment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from bench.data.catalog import facts
from bench.paper import published
from bench.paper.attack_settings import AttackSettings
from bench.paper.experiments import Cell, Experiment, first_columns, stand_in
from bench.paper.published import read_numbers
from bench.paper.scales import (
    BEYOND,
    COVERED,
    DATA,
    DELETION,
    OTHERS,
    SCALES,
    OtherData,
    Places,
    Scale,
    places,
)
from bench.paper.where import where as where_to_delete
from bench.registry import build, suggest
from bench.reporting.cells import Column
from bench.training.recipes import Recipe
from bench.training.victims import usual_victim

Cells = dict[Cell, Recipe]

EPOCH_NOTE = (
    "The paper says neither how many seeds its accuracies are of nor at which epoch they were "
    "taken: ours are of the last epoch. Its starred numbers come from other papers and protocols."
)


def table1(scale: Scale) -> Experiment:
    """Deletion augmentations on CIFAR-10 and CIFAR-100."""
    models = ["ResNet-18", "ResNet-44", "ResNet-50", "WRN-28-10", "Shake-26-32"]
    columns = places(list(DATA)[:2], models)
    numbers = read_numbers(published.TABLE1, list(DELETION), list(columns))
    return Experiment(
        name="table1",
        title="Deletion augmentations",
        source="Table 1 of Yang et al. 2023",
        scale=scale,
        cells=first_columns(deletions(scale, columns), scale.columns),
        baseline="Baseline",
        published=numbers,
        chosen=EPOCH_NOTE
        + " ResNet-44 is that of He et al.; the paper's code has a bottleneck network of that name "
        "(resnet44-bottleneck).",
    )


def deletions(scale: Scale, columns: Places, **fields: Any) -> Cells:
    """One recipe per deletion augmentation and column."""
    return {
        (row, column): scale.recipe(data, model, augmentation, **fields)
        for column, (data, model) in columns.items()
        for row, augmentation in DELETION.items()
    }


def combinations(scale: Scale, columns: Places) -> Cells:
    """One recipe per other augmentation, alone and followed by AdvMask."""
    return {
        (f"AdvMask-{row}" if masked else row, column): scale.recipe(
            data, model, "advmask" if masked else "none", **fields
        )
        for column, (data, model) in columns.items()
        for row, fields in OTHERS.items()
        for masked in (False, True)
    }


def combined(name: str, data: str, models: list[str], text: str, scale: Scale) -> Experiment:
    """Tables 2 and 3: other augmentations alone and with AdvMask, KeepAugment, and newer ones."""
    columns = places([data], models)
    cells = combinations(scale, columns)
    for column, (where, model) in columns.items():
        cells["KeepCutout", column] = scale.recipe(where, model, "keepaugment")
        cells["KeepAutoAugment", column] = scale.recipe(where, model, policy="keep-autoaugment")
    rows = list(dict.fromkeys(row for row, _ in cells))
    numbers = read_numbers(text, rows, list(columns))
    for column, place in columns.items():
        cells |= {(row, column): scale.recipe(*place, **fields) for row, fields in BEYOND.items()}
    return Experiment(
        name=name,
        title="AdvMask after other augmentations",
        source=f"Table {name[-1]} of Yang et al. 2023",
        scale=scale,
        cells=first_columns(cells, scale.columns),
        against={f"AdvMask-{row}": row for row in OTHERS},
        published=numbers,
        chosen=EPOCH_NOTE
        + " Policy, crop, flip, then AdvMask; Mixup with alpha 1 always, CutMix in half of the "
        "batches; points are not moved by the policies' geometry. Rows of AutoAugment and "
        "TrivialAugment have no Cutout, with which their own papers train; those that say so have "
        "it. The rows after KeepAutoAugment are not in the paper; AugMix is without its "
        "Jensen-Shannon loss.",
    )


def table2(scale: Scale) -> Experiment:
    """Other augmentations with AdvMask on CIFAR-10."""
    return combined(
        "table2",
        "CIFAR-10",
        ["ResNet-18", "ResNet-44", "WRN-28-10"],
        published.TABLE2,
        scale,
    )


def table3(scale: Scale) -> Experiment:
    """Other augmentations with AdvMask on CIFAR-100."""
    return combined(
        "table3",
        "CIFAR-100",
        ["ResNet-44", "ResNet-50", "WRN-28-10"],
        published.TABLE3,
        scale,
    )


TINY_NOTE = (
    "The paper fine-tunes ImageNet weights 'for some epochs' at 64x64, and gives neither weights "
    "nor learning rate, batch size or parameters of AdvMask: these rows cannot be replicated, only "
    "designed again. Ours start from torchvision's IMAGENET1K_V1, with a tenth of the epochs and "
    "of the learning rate of section 4.1, and AdvMask's CIFAR-10 parameters scaled to the side."
)


TINY = places(["Tiny-ImageNet"], ["ResNet-18", "ResNet-50", "WRN-50-2"])


def table4(scale: Scale) -> Experiment:
    """Other augmentations on Tiny-ImageNet."""
    cells = {
        (row, column): scale.recipe(data, model, **fields)
        for column, (data, model) in TINY.items()
        for row, fields in OTHERS.items()
    }
    numbers = read_numbers(published.TABLE4, list(OTHERS), list(TINY))
    return Experiment(
        name="table4",
        title="Other augmentations",
        source="Table 4 of Yang et al. 2023",
        scale=scale,
        cells=first_columns(cells, scale.columns),
        published=numbers,
        replicable=False,
        chosen=TINY_NOTE,
    )


def table5(scale: Scale) -> Experiment:
    """Deletion augmentations on the Oxford flowers."""
    columns = places(["Flowers"], ["ResNet-50"])
    rows = list(DELETION)
    numbers = read_numbers(published.TABLE5, rows, list(columns))
    return Experiment(
        name="table5",
        title="Deletion augmentations",
        source="Table 5 of Yang et al. 2023",
        scale=scale,
        cells=deletions(scale, columns),
        baseline="Baseline",
        published=numbers,
        replicable=False,
        chosen="Split, image size, weights and recipe are not given; ours is the official split "
        "(1,020 training images). Accuracies of 80 to 92 percent suggest that the paper starts "
        "from ImageNet weights or swaps the parts: ours are fine-tuned at 224x224 as in Table 4.",
    )


PRINTED_ATTACKS: tuple[str, ...] = (
    *("jsma.official", "pgd-l0", "greedyfool", "cw-l0.official", "sapf.official", "advmask"),
    *("jsma", "cw-l0", "sapf"),  # within eps, and with our settings
)


def table6(scale: Scale) -> Experiment:
    """Sparse attacks: success and number of changes."""
    victim = scale.recipe("cifar10", "resnet18", validation=0.0)
    images, attacks = 1000, PRINTED_ATTACKS if scale.name == "paper" else ()
    if scale.name == "smoke":  # attacks hardly change the embedded digits
        other = scale.other or OtherData("photos", facts("photos").side)
        victim = usual_victim(other.name, other.digest, other.side)
        images = 4
    elif scale.name == "reduced":
        images = 100
    return Experiment(
        name="table6",
        title="Targeted sparse attacks",
        source="Table 6 of Yang et al. 2023",
        scale=scale,
        attacks=AttackSettings(
            victim=victim,
            eps=(Fraction(8, 255), Fraction(16, 255)),
            images=images,
            aim="random",
            attacks=attacks,
            published=published.TABLE6,
        ),
        chosen="The network, the number of images, the targets and most settings of the attacks. "
        "Ours: the ResNet-18 of Table 1 without deletion; 1,000 test images that it classifies "
        "correctly; for each image one target class, drawn by the seed; changes counted in "
        "elements, since the paper's 1199.7 exceeds 1,024 pixels; JSMA, C&W-l0 and SAPF as their "
        "papers have them (official), the last two without a bound, and again within eps.",
    )


POINTS = places(["CIFAR-10"], ["ResNet-18", "ResNet-50"])
PRINTED_GUIDES = ("Baseline", "Random Points", "Corner Points", "Salient Points", "AdvMask")


def table7(scale: Scale) -> Experiment:
    """Where the squares are placed."""
    guides = {
        "Random Points": "random",
        "Corner Points": "corners",
        "Salient Points": "saliency",
        "AdvMask": None,
        "Corner Points, number matched": "corners-matched",
        "Squares everywhere": "everywhere",
    }
    cells = {("Baseline", column): scale.recipe(*where) for column, where in POINTS.items()}
    cells |= {
        (row, column): scale.recipe(*where, "advmask", guide=guide)
        for column, where in POINTS.items()
        for row, guide in guides.items()
    }
    cells |= {
        ("GridMask at AdvMask's coverage", column): scale.recipe(*where, COVERED)
        for column, where in POINTS.items()
    }
    numbers = read_numbers(published.TABLE7, PRINTED_GUIDES, list(POINTS))
    return Experiment(
        name="table7",
        title="The choice of the points",
        source="Table 7 of Yang et al. 2023",
        scale=scale,
        cells=first_columns(cells, scale.columns),
        baseline="Baseline",
        published=numbers,
        chosen="The number of points of the controls is not given: ours match the adversarial "
        "points of each image, except for the corners, which come both as the detector finds "
        "them and matched. Squares at random places and a GridMask that deletes as "
        "much are controls that the paper lacks.",
    )


def table8(scale: Scale) -> Experiment:
    """The points alone against squares on them."""
    rows = {
        "AAPM": "advmask(length=(1, 1), ratio=(1.0, 1.0))",
        "Baseline": "none",
        "AdvMask": "advmask",
    }
    cells = {
        (row, column): scale.recipe(*where, augmentation)
        for column, where in POINTS.items()
        for row, augmentation in rows.items()
    }
    numbers = read_numbers(published.TABLE8, list(rows), list(POINTS))
    return Experiment(
        name="table8",
        title="The points alone (AAPM) against squares on them",
        source="Table 8 of Yang et al. 2023",
        scale=scale,
        cells=first_columns(cells, scale.columns),
        baseline="Baseline",
        published=numbers,
        chosen="The schedule of AAPM is not given; ours is AdvMask's.",
    )


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
    shown = scale.place("cifar10")[0] if scale.data else IMAGENET
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
    return figure("figure5", "Class activation maps", scale, cells, baseline="Baseline")


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


EXPERIMENTS: dict[str, Callable[[Scale], Experiment]] = {
    function.__name__: function
    for function in (
        *(table1, table2, table3, table4, table5, table6, table7, table8),
        *(figure2, figure3, figure4, figure5, figure6, figure7, figure8),
        where_to_delete,
    )
}


def experiment(name: str, scale: str, data: OtherData | None = None) -> Experiment:
    """One table or figure of the paper, or a question that it leaves open.

    Args:
        name: Such as ``table1``, ``figure8`` or ``where``.
        scale: A key of `SCALES`.
        data: The dataset on which it is run; None for that of the scale.

    Returns:
        The experiment; columns that are not the paper's have the names of what is run.

    Raises:
        ValueError: There is no experiment or no scale of that name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {name!r}: {suggest(name, EXPERIMENTS)}")
    if scale not in SCALES:
        raise ValueError(f"there is no scale {scale!r}: {suggest(scale, SCALES)}")
    make, chosen = EXPERIMENTS[name], SCALES[scale]
    if data is not None:
        chosen = chosen.on(data)
    return stand_in(make(chosen), make(SCALES["paper"]))
