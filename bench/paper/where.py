"""A question that the paper leaves open: where should one delete?

AdvMask deletes adversarial points. Its authors later spare them (IPF-RDA, arXiv 2509.16678).
Neither work compares the two at equal coverage.
"""

from __future__ import annotations

from bench.paper.contrasts import Contrasts
from bench.paper.experiments import Experiment, first_columns
from bench.paper.scales import Scale, places

ERASERS = {
    "Cutout": "cutout",
    "Random Erasing": "random-erasing",
    "HaS": "has",
    "GridMask": "gridmask",
}
VARIANTS = {
    "": ("{}", None),
    ", seek points": ("{}(points='seek')", None),
    ", avoid points": ("{}(points='avoid')", None),
    ", seek random points": ("{}(points='seek')", "random"),
    ", avoid random points": ("{}(points='avoid')", "random"),
}
"""What is added to the name of an eraser: its augmentation and its guide."""

EQUAL = (
    "Equal coverage: all variants of an eraser delete equally many pixels of every image, draw by "
    "draw, and differ in the place alone."
)


def where(scale: Scale) -> Experiment:
    """Where to delete: at adversarial points, away from them, or anywhere (not in the paper)."""
    columns = places(["CIFAR-10", "CIFAR-100"], ["ResNet-18"])
    rows: dict[str, tuple[str, str | None]] = {"None": ("none", None)}
    for name, eraser in ERASERS.items():
        rows |= {
            name + suffix: (text.format(eraser), guide)
            for suffix, (text, guide) in VARIANTS.items()
        }
    rows |= {f"IPF-{name}": (f"ipf-{eraser}", None) for name, eraser in ERASERS.items()}
    rows["AdvMask"] = ("advmask", None)
    cells = {
        (row, column): scale.recipe(data, model, augmentation, guide=guide)
        for column, (data, model) in columns.items()
        for row, (augmentation, guide) in rows.items()
    }
    return Experiment(
        name="where",
        title="Where should one delete?",
        source="A question that Yang et al. 2023 leave open",
        scale=scale,
        cells=first_columns(cells, scale.columns),
        baseline="None",
        contrasts=(
            Contrasts(
                title="Seek, avoid or ignore the adversarial points:",
                groups={
                    name: {
                        "ignore": name,
                        "seek": f"{name}, seek points",
                        "avoid": f"{name}, avoid points",
                    }
                    for name in ERASERS
                },
                pairs=[("seek", "ignore"), ("avoid", "ignore"), ("seek", "avoid")],
                note=EQUAL,
            ),
            Contrasts(
                title="Adversarial points against as many random points:",
                groups={
                    name: {
                        "seek": f"{name}, seek points",
                        "seek random": f"{name}, seek random points",
                        "avoid": f"{name}, avoid points",
                        "avoid random": f"{name}, avoid random points",
                    }
                    for name in ERASERS
                },
                pairs=[("seek", "seek random"), ("avoid", "avoid random")],
                note=f"{EQUAL} Random: as many points at random places of each image.",
            ),
        ),
        chosen="Each eraser has the values published for the dataset. Of the places that its mask "
        "could take, one is drawn among the quarter with the most adversarial points (seek) or the "
        "fewest (avoid). Control: as many points at random places. The IPF methods spare the "
        "points as their authors do and AdvMask deletes them as its authors do; these five "
        "delete other amounts. All rows share the seeds.",
    )
