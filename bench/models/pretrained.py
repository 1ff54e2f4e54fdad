"""Networks that were trained elsewhere: weights in a file, and networks of timm."""

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
    """The first twelve hexadecimal digits of a weights file's sha256.

    Raises:
        Missing: There is no such file.
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
    """A network with the weights of a file, for the classes and images of a dataset.

    Args:
        path: A safetensors file.
        model: The name of its network, as in `networks.names`.
        data: The dataset it tells the classes of.
        mean: What the weights were trained with, per channel in [0, 1]; by default the dataset's.
        std: Likewise.

    Raises:
        ValueError: The file is damaged, or some of its keys do not fit; they are named.
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

    Args:
        name: ``timm:NAME``.
        data: The dataset it tells the classes of.
        mean: Per channel in [0, 1]; by default that of the weights.
        std: Likewise.

    Raises:
        ValueError: There are no such weights, or their classes cannot be those of the dataset.
    """
    import timm

    card = timm.get_pretrained_cfg(name.removeprefix("timm:"), allow_unregistered=False)
    if card is None:
        raise ValueError(f"timm has no published weights for {name.removeprefix('timm:')!r}")
    if card.num_classes != len(data.classes):
        raise ValueError(
            f"{name} tells {card.num_classes} classes apart, {data.name} has {len(data.classes)}: "
            "choose a dataset (--data) with the same classes in the same order"
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
