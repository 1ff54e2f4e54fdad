"""What MLflow shows of a record (a child run) and of the records of a job (their parent run)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.records.record import SHARED, Curve, Number, Record
from bench.records.tracking.text import flat_fields, interval_metrics, mlflow_name

TAKEN = 6000  # characters that MLflow takes as a value


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run was trained on, beyond what its record says.

    Attributes:
        digest: Checksum of the dataset.
        images: Number of training and test images.
        shape: Shape of an image: channels, height, width.
        classes: Number of classes.
    """

    digest: str
    images: tuple[int, int]
    shape: tuple[int, ...]
    classes: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A parent run: a job with its seeds, or all attacks on one victim model at one eps.

    Attributes:
        records: Its records, one per child; at least one.
        intervals: What `bench.reporting` says of it: one mapping for each metric.
        curve: Returns, for each epoch, mean and interval over the seeds; see `band`.
        files: Returns contents by name, such as ``table.tex``.
        note: What a page shows as its description.
    """

    records: Sequence[Record]
    intervals: Sequence[Mapping[str, Any]] = ()
    curve: Callable[[], Curve] = field(default=tuple, compare=False)
    files: Callable[[], Mapping[str, str | bytes]] = field(default=dict, compare=False)
    note: str = ""

    @property
    def first(self) -> Record:
        """A record that stands for what all have in common."""
        return self.records[0]

    @property
    def key(self) -> str:
        """The name that its children share."""
        return self.first.cell

    @property
    def finished(self) -> int:
        """Number of finished records."""
        return sum(record.status == "finished" for record in self.records)

    @property
    def status(self) -> str:
        """MLflow's status once no child runs any more."""
        return "FINISHED" if self.finished == len(self.records) else "FAILED"

    @property
    def digest(self) -> str:
        """Identifies all that the parent shows."""
        shown = [sorted(map(digest, self.records)), list(map(dict, self.intervals)), self.note]
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()

    @property
    def metrics(self) -> dict[str, float]:
        """The intervals over seeds as metrics."""
        return {
            name: value
            for interval in self.intervals
            for name, value in interval_metrics(interval).items()
        }


def digest(record: Record) -> str:
    """Identifies all that a child shows of its record."""
    return hashlib.sha256(_text(record).encode()).hexdigest()


def files(record: Record) -> dict[str, str]:
    """The artifacts of a child."""
    machine = json.dumps(dict(record.machine), indent=2)
    return {"record.json": _text(record), "environment.json": machine}


def cell_files(cell: Cell) -> dict[str, str | bytes]:
    """The artifacts of a parent."""
    found = list(map(dict, cell.intervals))
    stats = json.dumps(found[0] if len(found) == 1 else found, indent=2)
    return {"stats.json": stats, **cell.files()}


def status(record: Record) -> str:
    """MLflow's status of a child that has this record."""
    return "FINISHED" if record.status == "finished" else "FAILED"


def title(record: Record) -> str:
    """What was run, without the seed: distinct for different jobs.

    >>> title(Record(kind="run", key="0a1b2c3d4e5f", seed=0, metrics={}, job={"epochs": 3},
    ...              labels={"augmentation": "cutout", "model": "resnet8", "mix": "cutmix"}))
    'cutout, cutmix, resnet8, 3 epochs [0a1b2c]'
    """
    labels = record.labels
    method = labels.get("augmentation") or labels.get("attack") or record.kind
    extras = [labels[name] for name in ("guide", "policy", "mix") if name in labels]
    words = [method, *extras, labels.get("model", "")]
    if "epochs" in record.job:
        words.append(f"{record.job['epochs']} epochs")
    if "eps" in labels:
        words.append(f"eps {labels['eps']}")
    return f"{', '.join(filter(None, words))} [{record.key[:6]}]"


def parent_title(record: Record) -> str:
    """The name of the parent of a record's child."""
    labels = record.labels
    if record.kind == "run":
        return title(record)
    return (
        f"attacks on {labels.get('model', '')}, eps {labels.get('eps', '')}, "
        f"{labels.get('goal', '')} [{record.cell[:6]}]"
    )


def params(record: Record) -> dict[str, str]:
    """The settings of a child."""
    return _short({**flat_fields(record.job), **record.labels})


def parent_params(record: Record) -> dict[str, str]:
    """The settings that all children of a parent have in common."""
    if record.kind == "run":
        return params(record)
    job = {name: value for name, value in record.job.items() if name in SHARED}
    labels = {name: record.labels[name] for name in ("model", "goal") if name in record.labels}
    return _short({**flat_fields(job), **labels})


def source_tags(record: Record) -> dict[str, str]:
    """Which program and commit made the record, as MLflow's page expects to find it."""
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "bench run" if record.kind == "run" else "bench attack-eval",
    }
    if commit := str(record.machine.get("commit", "")).removesuffix("+"):
        tags["mlflow.source.git.commit"] = commit
    return tags


def label_tags(record: Record) -> dict[str, str]:
    """What children and parents can be filtered and grouped by in MLflow's page."""
    names = ("augmentation", "model", "data", "goal", "eps")
    return _short({name: record.labels[name] for name in names if name in record.labels})


def result_tags(record: Record) -> dict[str, str]:
    """Where a record was made, and why it failed."""
    tags = {f"machine.{name}": value for name, value in record.machine.items()}
    return _short(tags | ({"bench.message": record.message} if record.message else {}))


def curve_metrics(curve: Curve) -> list[tuple[str, float, int]]:
    """Name, value and step of each finite number of a curve."""
    return [
        (f"epoch/{mlflow_name(name)}", float(value), int(entry.get("epoch", place)))
        for place, entry in enumerate(curve)
        for name, value in entry.items()
        if name != "epoch" and math.isfinite(value)
    ]


def band(curves: Sequence[Curve], names: Sequence[str]) -> list[dict[str, Number]]:
    """Mean and 95 % t-interval over several curves, for each epoch that all of them have.

    Args:
        curves: One per seed.
        names: The entries of the curves that are wanted.

    Returns:
        One entry for each epoch: ``epoch``; for each name the mean under it, and the ends of the
        interval under ``NAME_low`` and ``NAME_high``. A single curve has no interval.

    >>> band([[{"epoch": 1, "loss": 2.0}], [{"epoch": 1, "loss": 2.0}]], ["loss"])
    [{'epoch': 1, 'loss': 2.0, 'loss_low': 2.0, 'loss_high': 2.0}]
    """
    from bench.records.statistics import mean_interval

    found: list[dict[str, Number]] = []
    for entries in zip(*curves, strict=False):
        if len({entry.get("epoch") for entry in entries}) > 1:
            break
        shown: dict[str, Number] = {"epoch": entries[0].get("epoch", len(found))}
        for name in names:
            values = [entry[name] for entry in entries if name in entry]
            if len(values) < len(entries) or not all(map(math.isfinite, values)):
                continue
            interval = mean_interval(values)
            shown[name] = interval.mean
            if interval.low is not None and interval.high is not None:
                shown |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
        found.append(shown)
    return found


def weights_name(weights: Path, folder: Path) -> str:
    """The file of weights, relative to the results folder if it is inside."""
    whole = weights.resolve()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(weights)


def model_name(record: Record) -> str:
    """The name of a trained network; MLflow takes no ``/ : . % \" '`` in it.

    >>> model_name(Record(kind="run", key="0a1b2c3d4e5f", seed=3, metrics={},
    ...                   labels={"augmentation": "cutout", "model": "wide_resnet_28.10"}))
    'wide_resnet_28_10-0a1b2c-seed-3'
    """
    network = re.sub(r"[^\w-]", "_", record.labels.get("model", "network"), flags=re.ASCII)
    return f"{network}-{record.key[:6]}-seed-{record.seed}"


def _text(record: Record) -> str:
    return json.dumps(record.to_json(), indent=2)


def _short(texts: Mapping[str, Any]) -> dict[str, str]:
    return {mlflow_name(name): str(value)[:TAKEN] for name, value in texts.items()}
