"""Published ImageNet weights by name, from the caches of timm and torchvision on this machine.

Nothing is downloaded unless it is asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import Missing, reason
from bench.models.networks import TIMM

SOURCES = ("timm", "torchvision")
FIRST = "IMAGENET1K_V1"
"""What torchvision alone means: the weights of ``pretrained=True`` when the paper was written."""


def is_name(text: str) -> bool:
    """Whether a text names published weights, as ``timm`` and ``torchvision:IMAGENET1K_V2`` do."""
    return text.partition(":")[0] in SOURCES


def tagged(model: str) -> bool:
    """Whether the name of a network says which weights of timm it starts from.

    >>> tagged("timm:resnet18.a1_in1k"), tagged("timm:resnet18"), tagged("resnet18")
    (True, False, False)
    """
    return model.startswith("timm:") and "." in model


def usual(model: str) -> str:
    """The full name of the weights that ``torchvision`` alone means, without a look at torchvision.

    >>> usual("resnet18")
    'torchvision:resnet18.IMAGENET1K_V1'
    """
    return f"torchvision:{TIMM[model]}.{FIRST}"


def resolve(text: str, model: str) -> str:
    """The full name of published weights of a network.

    Args:
        text: ``timm`` (its default weights) or ``torchvision`` (``IMAGENET1K_V1``), or one of both
            with a tag, as ``timm:tv_in1k`` or ``timm:resnet18.tv_in1k``.
        model: The name of the network.

    Returns:
        ``SOURCE:ARCHITECTURE.TAG``.

    Raises:
        ValueError: There are no such weights, or they are those of another network.

    >>> resolve("torchvision", "wide-resnet50-2")
    'torchvision:wide_resnet50_2.IMAGENET1K_V1'
    """
    source, _, tag = text.partition(":")
    if model not in TIMM and not model.startswith("timm:"):
        raise ValueError(
            f"{source} has no weights of {model}: it has those of {', '.join(TIMM)} and timm:NAME; "
            "for others give a safetensors file"
        )
    own = TIMM.get(model, model.removeprefix("timm:").partition(".")[0])
    of, dot, short = tag.rpartition(".")
    if dot and of != own:
        raise ValueError(f"{text} are weights of {of}, not of {model}")
    known = _tags(source, own)
    if not tag and known:
        short = FIRST if FIRST in known else known[0]
    if short not in known:
        raise ValueError(
            f"{source} has no weights {short} of {own}: it has {', '.join(known)}"
            if known
            else f"{source} has no weights of {own}: give a safetensors file"
        )
    return f"{source}:{own}.{short}"


def _tags(source: str, architecture: str) -> list[str]:
    """The weights of an architecture, the default ones first."""
    if source == "timm":
        import timm

        # the first one is the default
        names = timm.list_pretrained(f"{architecture}.*")
        card = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
        tags = [name.partition(".")[2] for name in names]
        return sorted(tags, key=lambda tag: card is None or tag != card.tag)
    from torchvision import models

    if architecture not in models.list_models():
        return []
    return [weights.name for weights in models.get_model_weights(architecture)]


def locate(name: str, *, download: bool = False) -> Path:
    """The file of published weights on this machine.

    Looked for are the hub's cache of ``huggingface_hub``, then the cache of ``torch.hub``.

    Args:
        name: The full name, as `resolve` gives it.
        download: Fetch a missing file from its publisher.

    Raises:
        Missing: It is not there, or could not be downloaded.
    """
    import torch

    repository, files, url = _origin(name)
    if repository is not None and (found := _cached(repository, files)) is not None:
        return found
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    file = checkpoints / Path(url).name if url else None
    if file is not None and file.is_file():
        return file
    if download:
        return _download(name, repository, files, url)
    places = [f"{repository} in {_cache_folder()}"] if repository is not None else []
    places += [str(file)] if file is not None else []
    raise Missing(
        f"the weights {name} are not on this machine (looked for {' and '.join(places)}): add "
        "--download, or give a safetensors file"
    )


def read(path: Path) -> dict[str, Tensor]:
    """The weights of a file of torchvision; nothing in it is executed.

    Raises:
        ValueError: It is damaged.
    """
    import torch

    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return {name: each.detach() for name, each in weights.items()}
    except Exception as error:  # a damaged file raises what its bytes happen to mean
        raise ValueError(f"{path} is not a file of weights: {reason(error)}") from error


def _origin(name: str) -> tuple[str | None, list[str], str | None]:
    """The repository of the hub and its possible files, and the address of a file."""
    source, _, full = name.partition(":")
    architecture, _, tag = full.partition(".")
    if source == "torchvision":
        from torchvision import models

        return None, [], models.get_model_weights(architecture)[tag].url
    import timm

    card: Any = timm.get_pretrained_cfg(full, allow_unregistered=False)
    files = ["model.safetensors", "pytorch_model.bin"]
    return card.hf_hub_id, [card.hf_hub_filename] if card.hf_hub_filename else files, card.url


def _cache_folder() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _cached(repository: str, files: list[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    identity, _, revision = repository.partition("@")
    for file in files:
        found = try_to_load_from_cache(identity, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(name: str, repository: str | None, files: list[str], url: str | None) -> Path:
    try:
        if repository is not None:
            from huggingface_hub import hf_hub_download

            identity, _, revision = repository.partition("@")
            return Path(hf_hub_download(identity, files[0], revision=revision or None))
        import torch

        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(url)).name
        place.parent.mkdir(parents=True, exist_ok=True)
        checksum = re.search(r"-([0-9a-f]{8,})\.", place.name)
        # nothing is loaded: loading from here would unpickle whatever the file holds
        torch.hub.download_url_to_file(str(url), str(place), checksum and checksum[1])
        return place
    except Exception as error:  # whatever the network and its libraries make of it
        raise Missing(f"could not download the weights {name}: {reason(error)}") from error
