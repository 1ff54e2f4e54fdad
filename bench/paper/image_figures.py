"""Figures 2 and 5 of the paper: points and masks, and where trained networks look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.data.splits import part
from bench.errors import Missing
from bench.models import gradcam
from bench.paper.experiments import Cell, Experiment
from bench.points.store import Points
from bench.records.record import Record
from bench.records.statistics import mean_interval
from bench.reporting import image_grid
from bench.training import trained

SHOWN, MEASURED = 5, 200
"""Images that a figure shows, and test images that its numbers are taken over."""


@dataclass(frozen=True)
class ImageFigure:
    """Images side by side before they are drawn.

    Attributes:
        name: The name of its files.
        columns: Titles and images in [0, 1].
        caption: What it shows, and over how many images and seeds its numbers are.
        numbers: One object for each method.
        missing: The seeds that each incomplete cell lacks.
    """

    name: str
    columns: Mapping[str, Float[Tensor, "n _ h w"]]
    caption: str
    numbers: Sequence[Mapping[str, Any]]
    missing: Mapping[Cell, Sequence[int]]


def stored_points(data: Dataset, results: Path) -> Points:
    """The adversarial points of a dataset that were found before; raises `Missing` without any."""
    for path in sorted((results / "points").glob("*.safetensors")):
        try:
            points = Points.load(path)
            points.fits(data)
        except ValueError:
            continue
        if "attack" in points.about:
            return points
    raise Missing(
        f"there are no adversarial points of {data.name} yet: bench points build --data {data.name}"
    )


def masks(experiment: Experiment, data: Dataset, results: Path) -> ImageFigure:
    """Figure 2: training images, their adversarial points and the masks drawn from them."""
    points = stored_points(data, results)
    summary = points.summary()
    return ImageFigure(
        f"{experiment.name}-{experiment.scale.name}",
        image_grid.advmask_images(data, points, SHOWN),
        f"Adversarial points and masks on {data.name}: image, the pixels that "
        f"{points.about['attack']} changes, AdvMask's mask, and what is left. "
        f"n = {summary['images']:.0f} images with "
        f"{summary['points_mean']:.1f} points each on average; "
        f"{summary['inside']:.0%} of the points lie in the central half of the area.",
        [summary],
        {},
    )


def activation_maps(
    experiment: Experiment,
    records: Sequence[Record],
    data: Dataset,
    results: Path,
    device: str = "cpu",
) -> ImageFigure:
    """Figure 5: class activation maps of the networks trained with each method, and two numbers."""
    pool = part(data.test, min(MEASURED, len(data.test)))
    images = as_floats(pool.images[:], device)
    labels = pool.labels.to(device)
    places = torch.linspace(0, len(pool) - 1, SHOWN).long()
    columns: dict[str, Tensor] = {"image": images[places]}
    numbers, missing = [], dict(experiment.missing(records))
    for (row, column), recipe in experiment.cells.items():
        found: dict[str, list[float]] = {"spread": [], "central": []}
        shown: Tensor | None = None
        for record in records:
            if record.key != recipe.key or record.seed >= experiment.scale.seeds:
                continue
            if not trained.path(record, results).exists():
                lost = missing.get((row, column), [])
                missing[row, column] = sorted({*lost, record.seed})
                continue
            network = trained.load(record, data, results, device)
            seen = torch.cat(
                [
                    gradcam.maps(network, images[some], labels[some])
                    for some in torch.arange(len(pool)).split(50)
                ]
            )
            shown = gradcam.overlay(images[places].cpu(), seen[places]) if shown is None else shown
            found["spread"].append(float(gradcam.spread(seen).nanmean()))
            found["central"].append(float(gradcam.central(seen).nanmean()))
        if shown is None:
            continue
        entry: dict[str, Any] = {"method": row, "column": column.label}
        for name, values in found.items():
            interval = mean_interval(values)
            entry |= {name: interval.mean, f"{name}_half": interval.half, "n": interval.n}
        numbers.append(entry)
        title = f"{row}\nspread {entry['spread']:.2f}\ncentre {entry['central']:.0%}"
        columns[title] = shown
    caption = (
        f"Class activation maps (Grad-CAM) for the true class on test images of {data.name}, "
        "first seed; bright where the network looks. Numbers: mean over "
        f"{len(pool)} test images and n = {max((e['n'] for e in numbers), default=0)} seeds of "
        "the spread of a map (1: even) and of the share of its mass in the central half of the "
        "area, which stands for the object: these datasets have no outlines of objects."
    )
    name = f"{experiment.name}-{experiment.scale.name}"
    return ImageFigure(name, columns, caption, numbers, missing)
