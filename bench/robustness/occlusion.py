"""Accuracy under occlusion, as a growing share of each image is hidden.

Networks that are trained with deletions should lose less; the paper does not test it. Either random
cells of an image are hidden, or the pixels that are most important to the tested network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks.norms import largest
from augmentations import delete
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.data.loader import batches
from bench.data.splits import Split
from bench.errors import Missing, no_space
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import atomic, checksums, json_text, plain
from bench.models.arithmetic import full_float32
from bench.models.networks import check_logits
from bench.models.saliency import saliency
from bench.records.method import Method
from bench.records.record import Curve, Number, Record
from bench.training import trained

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CELLS = 8
"""Cells along a side: of 4x4 pixels where the side is 32."""
VERSION = 1  # of the stored files; those of another version are computed again


def cells(
    ids: Int[Tensor, " b"], share: float | Float[Tensor, " b"], h: int, w: int
) -> Bool[Tensor, "b 1 h w"]:
    """Return random cells of a regular 8x8 grid that cover a share of each image.

    They depend on the index of the image in its dataset alone, so every network is tested with the
    same masks; the cells of a smaller share are among those of a larger one.

    Args:
        ids: Indices of the images in the dataset.
        share: Share of each image to hide, from 0 to 1.
        h: Height in pixels.
        w: Width in pixels.

    Returns:
        Masks, True at hidden pixels.
    """
    order = torch.stack(
        [torch.randperm(CELLS**2, generator=seeds.generator(0, "occlusion", int(i))) for i in ids]
    )
    counts = torch.as_tensor(share).mul(CELLS**2).round().view(-1, 1)
    hidden = (order < counts).view(-1, 1, CELLS, CELLS)
    rows, columns = (torch.arange(size) * CELLS // size for size in (h, w))
    return hidden[:, :, rows][:, :, :, columns]


def most_important(scores: Float[Tensor, "b 1 h w"], share: float) -> Bool[Tensor, "b 1 h w"]:
    """Return the pixels of the highest scores that make up a share of each image.

    Args:
        scores: Score of each pixel.
        share: Share of the image to hide, from 0 to 1.
    """
    flat = scores.flatten(1)
    counts = torch.full((len(flat),), round(share * flat.shape[1]), device=flat.device)
    return largest(flat, counts).reshape(scores.shape)


@full_float32()
def curve(
    network: nn.Module,
    split: Split,
    *,
    mean: Float[Tensor, " c"],
    device: str = "cpu",
    batch_size: int = 500,
) -> list[dict[str, Number]]:
    """Measure the accuracy of a network under each of `SHARES` of occlusion.

    Hidden pixels get the mean colour. ``random`` hides random cells, ``important`` the pixels of
    the largest gradient of the true label's logit, computed once on the whole image.

    Args:
        network: The network, in eval mode.
        split: The images and labels.
        mean: Per-channel mean, the colour of hidden pixels.
        device: Device of the network.
        batch_size: Images per batch.

    Returns:
        One entry per share: ``share``, and the accuracies ``random`` and ``important``.
    """
    right = {kind: [0] * len(SHARES) for kind in ("random", "important")}
    places = torch.arange(len(split)).split(batch_size)
    for where, (images, labels) in zip(places, batches(split, batch_size, device), strict=True):
        h, w = images.shape[-2:]
        scores = saliency(network, images, labels)
        for number, share in enumerate(SHARES):
            masks = {
                "random": cells(split.ids[where], share, h, w).to(device),
                "important": most_important(scores, share),
            }
            for kind, mask in masks.items():
                with torch.inference_mode():
                    logits = network(delete(images, mask, mean=mean))
                check_logits(logits, len(images))
                right[kind][number] += int((logits.argmax(1) == labels).sum())
    return [
        {"share": share, **{kind: count[i] / len(split) for kind, count in right.items()}}
        for i, share in enumerate(SHARES)
    ]


def area(curve: Curve, kind: str) -> float:
    """Return the mean accuracy over the shares.

    >>> area([{"share": 0.0, "random": 1.0}, {"share": 0.4, "random": 0.5}], "random")
    0.75
    """
    values = [float(entry[kind]) for entry in curve]
    return sum(values) / len(values)


def stored_curve(record: Record, results: Path) -> list[dict[str, Number]]:
    """Return the stored curve of a run; empty if the file is missing or damaged."""
    try:
        whole: dict[str, Any] = json_text.parse(plain.read(_file(record, results), results))
        entries = [
            {name: float(entry[name]) for name in ("share", "random", "important")}
            for entry in whole["curve"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    fractions = all(0 <= value <= 1 for entry in entries for value in entry.values())
    return list(entries) if fractions and whole.get("version") == VERSION else []


def evaluate(
    record: Record, data: Dataset, results: Path, device: str = "cpu"
) -> tuple[list[dict[str, Number]], bool]:
    """Return the occlusion curve of a run's network on the test images.

    The curve is stored beside the weights and computed again when these have changed.

    Args:
        record: The record of the run.
        data: The dataset that it was trained on.
        results: The results folder.
        device: Device of the network.

    Returns:
        The curve, and whether it was stored before.

    Raises:
        FileNotFoundError, ValueError: As `bench.training.trained.load`.
    """
    weights = checksums.of_file(trained.path(record, results))
    about = {"version": VERSION, "weights": weights, "data": data.digest}
    if found := stored_curve(record, results):
        whole = json_text.parse(plain.read(_file(record, results), results))
        if about == {name: whole.get(name) for name in about}:
            return found, True
    network = trained.load(record, data, results, device)
    found = curve(network, data.test, mean=data.mean, device=device)
    atomic.write(_file(record, results), json.dumps(about | {"curve": found}))
    return found, False


def _file(record: Record, results: Path) -> Path:
    return trained.path(record, results).with_suffix(".occlusion.json")


@dataclass(frozen=True)
class Occlusion:
    """The result of one run under occlusion.

    Attributes:
        record: The record of the run.
        curve: Accuracy under each share of occlusion, as `evaluate` returns it.
    """

    record: Record
    curve: list[dict[str, Number]]

    def to_json(self) -> dict[str, Any]:
        """Return the labels, the mean accuracy of each kind of occlusion, and the curve."""
        labels = {n: self.record.labels.get(n, "") for n in ("augmentation", "model", "data")}
        return {
            "name": self.record.name,
            "method": Method.of(self.record).name,
            **labels,
            "seed": self.record.seed,
            "random": area(self.curve, "random"),
            "important": area(self.curve, "important"),
            "curve": self.curve,
        }

    def __str__(self) -> str:
        found = self.to_json()
        return (
            f"{found['method']}, {found['model']}, {found['data']}, seed {found['seed']}: "
            f"mean accuracy {found['random']:.2%} with random cells hidden, "
            f"{found['important']:.2%} with the most important pixels hidden"
        )


def with_weights(records: Iterable[Record], results: Path) -> list[Record]:
    """Return the finished runs whose weights are in the results folder."""
    return [
        record
        for record in records
        if record.kind == "run"
        and record.status == "finished"
        and trained.path(record, results).exists()
    ]


def evaluate_runs(
    runs: Iterable[Record], workspace: Workspace, progress: Progress
) -> tuple[list[Occlusion], list[str]]:
    """Test the network of each run under occlusion, unless its curve is stored.

    Args:
        runs: Records of finished runs with weights.
        workspace: Folders of weights, curves and datasets, and the device.
        progress: Shows the runs.

    Returns:
        One result per tested network, and one line per network that could not be tested.
    """
    ordered = sorted(runs, key=lambda run: run.labels.get("data", ""))
    found: list[Occlusion] = []
    problems: list[str] = []
    results, device = workspace.results, workspace.device
    with progress.task("occlusion", len(ordered)) as advance:
        for run in ordered:
            name = run.labels.get("data", "")
            try:
                found.append(
                    Occlusion(run, evaluate(run, workspace.dataset(name), results, device)[0])
                )
            except (Missing, ValueError, OSError) as error:
                if no_space(error):  # the next one would end in the same way
                    raise
                problems.append(f"{run.name} on {name}: {error}")
            advance()
    return found, problems
