"""Safetensors files, with a checksum inside: nothing in them is ever executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.errors import reason


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """A sha256 over names and values, which does not depend on their order in a file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The contents of a file with these tensors, this metadata and their checksum."""
    from safetensors.torch import save

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content: bytes = save(whole, metadata={**metadata, "sha256": checksum(whole)})
    return content


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file; what it takes is bounded by the size of the file.

    Raises ``FileNotFoundError`` where there is none and ``ValueError`` for one that is damaged. A
    file that was made elsewhere has no checksum to compare.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: {reason(error)}") from error
    if metadata.get("sha256", expected := checksum(tensors)) != expected:
        raise ValueError(f"{path} is damaged: its checksum differs")
    return tensors, metadata
