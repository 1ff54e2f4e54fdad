"""Weights of networks as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.data.dataset import Dataset
from bench.files import atomic, tensor_files
from bench.models import networks
from bench.models.networks import Normalised

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
        path: A safetensors file.
        seed: Draws what the network draws in training.
        **others: As in `networks.build_for`.

    Raises:
        FileNotFoundError, ValueError: As `load_weights`.
    """
    weights, _ = tensor_files.read(path)
    network = networks.build_for(data, name, seed=seed, stem=stem(weights), **others)
    take(network, weights, path)
    return network


def stem(weights: Mapping[str, Tensor]) -> int | None:
    """The side of the first convolution of a network with weights of such a name, else None."""
    first = weights.get("conv1.weight")
    return None if first is None or first.ndim != 4 else first.shape[-1]


def load_weights(model: Normalised, path: Path) -> None:
    """Load safetensors into the inner network, which keeps its device.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or does not fit; see `take`.
    """
    take(model, tensor_files.read(path)[0], path)


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
