"""The networks of finished runs, loaded from their records and weights."""

from __future__ import annotations

from pathlib import Path

from bench.data.dataset import Dataset
from bench.files import tensor_files
from bench.models import weight_files
from bench.models.networks import Normalised
from bench.records.record import Record
from bench.training.recipes import Recipe


def path(record: Record, results: Path) -> Path:
    """Return the path of a run's weights."""
    return results / "weights" / f"{record.name}.safetensors"


def load(record: Record, data: Dataset, results: Path, device: str = "cpu") -> Normalised:
    """Load the network of a finished run, in eval mode.

    Args:
        record: The record of the run.
        data: The dataset that it was trained on.
        results: The results folder.
        device: Device of the network.

    Raises:
        FileNotFoundError: The weights are missing.
        ValueError: Weights, record and dataset do not belong together.
    """
    where = path(record, results)
    recipe = Recipe.from_json(dict(record.job))
    try:
        digest = tensor_files.read(where)[1].get("data", data.digest)
    except ValueError as error:
        raise ValueError(f"{error}; train the network again with: bench run --fresh") from None
    if digest != data.digest:
        raise ValueError(f"{where} was trained on {digest}, but {data.name} is now {data.digest}")
    network = weight_files.load_network(data, recipe.model, where, record.seed)
    return network.to(device).eval()
