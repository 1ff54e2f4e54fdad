"""The networks that runs have left behind, built again from their records and weights."""

from __future__ import annotations

from pathlib import Path

from bench import models, tensorfiles
from bench.datasets import Dataset
from bench.models import Normalised
from bench.recipes import Recipe
from bench.records import Record


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
        digest = tensorfiles.read(where)[1].get("data", data.digest)
    except ValueError as error:
        raise ValueError(f"{error}; bench run --fresh trains it again") from None
    if digest != data.digest:
        raise ValueError(f"{where} was trained on {digest}, which {data.name} is not any more")
    network = models.build_for(data, recipe.model, seed=record.seed)
    models.load_weights(network, where)
    return network.to(device).eval()
