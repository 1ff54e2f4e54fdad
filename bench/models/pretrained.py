"""Victims that were trained elsewhere: weights in a file, and networks of timm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from bench.data.dataset import Dataset
from bench.errors import Missing
from bench.files import checksums
from bench.models import networks, weight_files
from bench.models.resnet import fold


def check(path: Path) -> str:
    """The first twelve hexadecimal digits of a weights file's sha256; refuses one that is absent.

    Raises ``Missing``.
    """
    try:
        return checksums.of_file(path)[:12]
    except FileNotFoundError:
        raise Missing(
            f"there are no weights at {path}: give a safetensors file, or timm:NAME"
        ) from None


def from_file(
    path: Path,
    model: str,
    data: Dataset,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A network with the weights of a file, for the classes and pictures of a data set.

    ``mean`` and ``std`` are those that the weights were trained with, by default the data set's.
    Raises ``ValueError`` naming the keys that do not fit.
    """
    given = {"mean": mean, "std": std}
    network = networks.build_for(
        data, model, seed=0, **{name: each for name, each in given.items() if each is not None}
    )
    weight_files.load_weights(network, path)
    fold(network.eval())
    return network


def from_timm(
    name: str,
    data: Dataset,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A network of timm with its published weights (a download, unless timm has them already).

    ``name`` begins with ``timm:``; ``mean`` and ``std`` are by default those of the weights. Raises
    ``ValueError`` where its classes cannot be those of the data set.
    """
    import timm

    card = timm.get_pretrained_cfg(name.removeprefix("timm:"), allow_unregistered=False)
    if card is None:
        raise ValueError(f"timm has no published weights for {name.removeprefix('timm:')!r}")
    if card.num_classes != len(data.classes):
        raise ValueError(
            f"{name} tells {card.num_classes} classes apart, {data.name} has {len(data.classes)}: "
            "choose a --data set with the same classes in the same order"
        )
    network = networks.build_for(
        data,
        name,
        seed=0,
        mean=list(card.mean) if mean is None else mean,
        std=list(card.std) if std is None else std,
        pretrained=True,
    )
    return network.eval()
