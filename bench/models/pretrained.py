"""Networks that were trained elsewhere: weights in a file, and networks of timm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from bench.data.dataset import Dataset
from bench.errors import Missing
from bench.files import checksums
from bench.models import networks, published, weight_files
from bench.models.resnet import fold


def check(path: Path) -> str:
    """The first twelve hexadecimal digits of a weights file's sha256, once its header is read.

    Raises:
        Missing: There is no such file.
        ValueError: It is a folder, empty, or no file of weights.
    """
    if not path.exists():
        raise Missing(
            f"there is no file of weights {path}: give a safetensors or .pt file; --pretrained "
            "also takes timm or torchvision, and --victim FILE.py:FACTORY or timm:NAME"
        )
    if not path.is_file() or not path.stat().st_size:
        what = "a folder" if path.is_dir() else "empty" if path.is_file() else "no regular file"
        raise ValueError(f"{path} is {what}: give a safetensors or .pt file of weights")
    weight_files.check(path)
    return checksums.of_file(path)[:12]


def from_file(
    path: Path,
    model: str,
    data: Dataset,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A network with the weights of a file, for the classes and images of a dataset.

    Args:
        path: A safetensors file, or a state dict that torch has saved (.pt or .pth).
        model: The name of its network, as `networks.build` takes it.
        data: The dataset it tells the classes of.
        mean: What the weights were trained with, per channel in [0, 1]; by default the dataset's.
        std: Likewise.

    Raises:
        ValueError: The file is damaged, or some of its keys do not fit; they are named.
    """
    given = {"mean": mean, "std": std}
    known = {name: each for name, each in given.items() if each is not None}
    network = weight_files.load_network(data, model, path, seed=0, **known)
    fold(network.eval())
    return network


def from_factory(name: str, data: Dataset, digest: str = "") -> nn.Module:
    """A network of a user's own with the weights that its factory gives.

    Args:
        name: What `networks.admit` returned.
        data: The dataset it tells the classes of.
        digest: What `weights_digest` must be; empty: anything.

    Raises:
        ValueError: The factory fails, gives no such network, or other weights than before.
    """
    network = networks.build_for(data, name, seed=0).eval()
    if digest and weights_digest(network) != digest:
        raise ValueError(
            f"{name} gives other weights each time: let it load them from a file, or seed them"
        )
    return network


def weights_digest(network: nn.Module) -> str:
    """The first twelve hexadecimal digits of the checksum of a network's weights."""
    return checksums.of_tensors(network.state_dict())[:12]


def from_timm(
    name: str,
    data: Dataset,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    download: bool = False,
) -> nn.Module:
    """A network of timm with its published weights.

    Args:
        name: ``timm:NAME`` or ``timm:NAME.TAG``.
        data: The dataset it tells the classes of.
        mean: Per channel in [0, 1]; by default that of the weights.
        std: Likewise.
        download: Fetch the weights if they are not on this machine.

    Raises:
        ValueError: There are no such weights, or their classes cannot be those of the dataset.
        Missing: The weights are not on this machine.
    """
    import timm

    networks.check(name)
    full = published.resolve(name if published.tagged(name) else "timm", name)
    card = timm.get_pretrained_cfg(full.removeprefix("timm:"), allow_unregistered=False)
    if card.num_classes != len(data.classes):
        raise ValueError(
            f"{name} tells {card.num_classes} classes apart, {data.name} has {len(data.classes)}: "
            "choose a dataset (--data) with the same classes in the same order"
        )
    network = networks.build_for(
        data,
        full,
        seed=0,
        mean=list(card.mean) if mean is None else mean,
        std=list(card.std) if std is None else std,
        weights=published.locate(full, download=download),
    )
    return network.eval()
