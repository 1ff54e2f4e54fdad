"""The networks that runs have left behind, built again from their records and weights."""

from __future__ import annotations

from pathlib import Path

from bench.data.dataset import Dataset
from bench.files import tensor_files
from bench.models import networks, weight_files
from bench.models.networks import Normalised
from bench.records.record import Record
from bench.training.recipes import Recipe


def path(record: Record, results: Path) -> Path:
    """Where the weights of a run lie."""
    return results / "weights" / f"{record.name}.safetensors"


def load(record: Record, data: Dataset, results: Path, device: str = "cpu") -> Normalised:
    """The network of a finished run, in eval mode.

    Raises ``FileNotFoundError`` without its weights, ``ValueError`` when they, the record or the
    data set do not belong together.
    """
    where = path(record, results)
    recipe = Recipe.from_json(dict(record.job))
    try:
        digest = tensor_files.read(where)[1].get("data", data.digest)
    except ValueError as error:
        raise ValueError(f"{error}; bench run --fresh trains it again") from None
    if digest != data.digest:
        raise ValueError(f"{where} was trained on {digest}, which {data.name} is not any more")
    network = networks.build_for(data, recipe.model, seed=record.seed)
    weight_files.load_weights(network, where)
    return network.to(device).eval()
