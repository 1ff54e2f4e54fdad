"""Every table of AdvMask (Yang et al., Pattern Recognition 2023) as an experiment.

`EXPERIMENTS` also names its figures, and the questions that it leaves open; they have modules of
their own.

What the paper leaves open, and what is chosen here, is part of each experiment.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from bench.data.catalog import facts
from bench.errors import suggest
from bench.paper import published
from bench.paper.attack_settings import AttackSettings
from bench.paper.experiments import Experiment, first_columns, stand_in
from bench.paper.figure_experiments import (
    figure2,
    figure3,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
)
from bench.paper.grids import (
    EPOCH_NOTE,
    FLOWERS_NOTE,
    TINY,
    TINY_NOTE,
    combinations,
    deletions,
)
from bench.paper.published import read_numbers
from bench.paper.scales import (
    BEYOND,
    COVERED,
    DATA,
    DELETION,
    OTHERS,
    SCALES,
    OtherData,
    Scale,
    places,
)
from bench.paper.where import where as where_to_delete
from bench.training.victims import usual_victim


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
        chosen=FLOWERS_NOTE,
    )


PRINTED_ATTACKS = tuple(dict.fromkeys(name for name, _ in published.TABLE6))
"""The rows of Table 6: C&W-l0 and SAPF exceed eps there, so they have no bound."""
OTHER_ATTACKS = ("jsma", "cw-l0", "sapf", "advmask.published")
"""Rows beside them: the same attacks within eps, and the constants that were published later."""


def table6(scale: Scale) -> Experiment:
    """Sparse attacks: success and number of changes."""
    victim = scale.recipe("cifar10", "resnet18", validation=0.0)
    images, attacks = 1000, (*PRINTED_ATTACKS, *OTHER_ATTACKS)
    if scale.name != "paper":
        images, attacks = 100, ()
    if scale.name == "smoke":  # attacks hardly change the embedded digits
        other = scale.other or OtherData("photos", facts("photos").side)
        victim = usual_victim(other.name, other.digest, other.side)
        images = 4
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
        "much on CIFAR-10 (32.8 %; AdvMask on the released points: 31.7 %) are controls "
        "that the paper lacks.",
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
