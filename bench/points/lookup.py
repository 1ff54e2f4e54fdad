"""Stored points of a user's dataset, found again by its content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from augmentations.samples import fingerprint
from bench.data.dataset import Dataset, from_split, read_split
from bench.data.file_images import FileImages
from bench.errors import Missing
from bench.execution.folders import existing_results
from bench.execution.workspace import Workspace
from bench.points import store
from bench.points.store import Points


def opened(dataset: Any, workspace: Workspace) -> tuple[Workspace, Dataset]:
    """Return a dataset that a user gave, in a workspace that knows it.

    Args:
        dataset: Name or path of a dataset, a `bench.Dataset`, or any torch ``Dataset`` of (image,
            label), with images as PIL, uint8 or float in [0, 1], all of one size.
        workspace: The workspace.

    Raises:
        ValueError, Missing: As `bench.find_points`.
    """
    if isinstance(dataset, str | Path):
        workspace, name = workspace.locate(str(dataset))
        return workspace, workspace.dataset(name)
    data = dataset if isinstance(dataset, Dataset) else from_split(read_split(dataset))
    workspace.adopt(data)
    return workspace, data


def knowing(points: Points, data: Dataset) -> Points:
    """Return points that know the images they belong to, so that a changed one is noticed."""
    images = data.train.images
    if isinstance(images, FileImages):  # another pass over all files; the search reads them once
        return points
    contents = [fingerprint(image.float() / 255) for image in images]
    return replace(points, contents=torch.tensor(contents, dtype=torch.int64))


def load_points(
    dataset: Any,
    *,
    name: str | None = None,
    results: str | Path | None = None,
    data_root: str | Path | None = None,
) -> Points:
    """Load the points of a dataset that `bench.find_points` or ``bench points`` has stored.

    They are found by the content of the images, whatever the dataset is called and wherever it
    lies. The model that they were found with is not needed.

    Args:
        dataset: As for `bench.find_points`.
        name: Which, if there are several: the attack that found them, or the name under which they
            were imported.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
        data_root: Folder searched first for named datasets.

    Raises:
        Missing: No points of these images are stored: they were never found, or the dataset has
            changed since.
        FileNotFoundError: There is no such results folder.
        ValueError: There are several and no name, or none of this name.

    Example:
        >>> from tempfile import mkdtemp
        >>> import torch
        >>> images, labels = torch.eye(4).reshape(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
        >>> dataset = torch.utils.data.TensorDataset(images, labels)
        >>> load_points(dataset, results=mkdtemp())
        Traceback (most recent call last):
        bench.errors.Missing: ...points has no points of these 4 images...
    """
    folder = existing_results(results)
    root = None if data_root is None else Path(data_root)
    _, data = opened(dataset, Workspace(results=folder, data_root=root))
    found = store.stored(folder, data)
    if not found:
        raise Missing(
            f"{folder / 'points'} has no points of these {len(data.train.labels)} images: find "
            "them with bench.find_points(model, dataset); a dataset that has changed since needs "
            "them anew"
        )
    if name is None and len(found) > 1:
        raise ValueError(f"there are several points of these images, give a name: {listed(found)}")
    if name is not None and name not in found:
        raise ValueError(
            f"there are no points {name!r} of these images; there are: {listed(found)}"
        )
    return knowing(found[name] if name is not None else next(iter(found.values())), data)


def listed(found: dict[str, Points]) -> str:
    """The names of points, quoted."""
    return ", ".join(map(repr, found))
