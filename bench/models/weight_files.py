"""Weights of networks as safetensors files, and state dicts that torch has saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.data.dataset import Dataset
from bench.files import atomic, tensor_files
from bench.models import networks
from bench.models.networks import Normalised

TORCH = (".pt", ".pth")
"""Endings of the files that ``torch.save`` writes."""
WRAPPED = ("state_dict", "model", "model_state_dict")
"""Entries of a checkpoint in which training programs keep the weights."""
SHOWN = 8  # of the entries of a weights file that do not fit


def save_weights(model: Normalised, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights of the inner network as safetensors; the file appears whole or not at all.

    Args:
        model: Only its inner network is written, without the normalisation.
        path: The file; its folder is made.
        metadata: Texts for the header of the file, beside a checksum of the weights.
    """
    content = tensor_files.pack(model.network.state_dict(), metadata or {})
    atomic.write(path, content)


def load_network(data: Dataset, name: str, path: Path, seed: int, **others: Any) -> Normalised:
    """Build a network for a dataset with the stem that a file of weights has, and load the weights.

    Args:
        data: As in `networks.build_for`.
        name: Likewise.
        path: A safetensors file, or a state dict that torch has saved.
        seed: Draws what the network draws in training.
        **others: As in `networks.build_for`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or does not fit; see `take`.
    """
    weights = read(path)
    network = networks.build_for(data, name, seed=seed, stem=stem(weights), **others)
    take(network, weights, path)
    return network


def stem(weights: Mapping[str, Tensor]) -> int | None:
    """The side of the first convolution of a network with weights of such a name, else None."""
    first = weights.get("conv1.weight")
    return None if first is None or first.ndim != 4 else first.shape[-1]


def read(path: Path) -> dict[str, Tensor]:
    """Read the weights of a safetensors file, or of a state dict that torch has saved."""
    return state_dict(path) if path.suffix in TORCH else tensor_files.read(path)[0]


def check(path: Path) -> None:
    """Raise ``ValueError`` unless a file is one of weights; of safetensors the header is read."""
    if path.suffix in TORCH:
        state_dict(path)
    else:
        tensor_files.check(path)


def state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict that ``torch.save`` has written; nothing in it is executed.

    Args:
        path: A file of tensors by name, alone or as an entry of a checkpoint (`WRAPPED`). The
            prefix ``module.`` of a network that was trained in parallel is removed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds more than tensors, or no weights.
    """
    refusal = f"{path} holds no plain weights: save them with torch.save(model.state_dict(), FILE)"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds, with advice to load whatever it is
        raise ValueError(refusal) from error
    if isinstance(found, Mapping):
        found = next((found[name] for name in WRAPPED if isinstance(found.get(name), dict)), found)
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in found.items()
    ):
        raise ValueError(refusal)
    return {name.removeprefix("module."): each for name, each in found.items()}


def take(model: Normalised, weights: Mapping[str, Tensor], path: Path) -> None:
    """Take weights over into the inner network, which keeps its device.

    The counters of batch normalisation may be absent (older files lack them).

    Args:
        model: The network.
        weights: Its weights by their names.
        path: Where they are from, for messages.

    Raises:
        ValueError: Some weights are missing, unexpected, of another shape or type or not finite;
            they are named, and the network is unchanged.
    """
    own = model.network.state_dict()
    needed = {key for key in own if not key.endswith(".num_batches_tracked")}
    both = sorted(own.keys() & weights.keys())
    troubles = {
        "missing": sorted(needed - weights.keys()),
        "unexpected": sorted(weights.keys() - own.keys()),
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
            for key in both
            if own[key].shape != weights[key].shape
        ],
        "of another type": [
            f"{key} {weights[key].dtype}"
            for key in both
            if weights[key].is_complex()
            or own[key].is_floating_point() != weights[key].is_floating_point()
        ],
        "not finite": [key for key in both if not weights[key].isfinite().all()],
    }
    if any(troubles.values()):
        listed = "; ".join(
            f"{what}: {', '.join(keys[:SHOWN])}{' …' * (len(keys) > SHOWN)}"
            for what, keys in troubles.items()
            if keys
        )
        raise ValueError(f"{path} does not fit this network: {listed}")
    model.network.load_state_dict(weights, strict=False)
