"""Checksums of files and tensors, and keys made from contents: equal on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def of_bytes(content: bytes) -> str:
    """The sha256 of some bytes, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def of_file(path: Path) -> str:
    """The sha256 of a file, read piece by piece; raises ``FileNotFoundError`` without it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_tensors(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """A sha256 over a text and then names and values of tensors, whatever their order in a file."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def of_arrays(tensors: Iterable[Tensor]) -> str:
    """A sha256 over the shapes and values of tensors, in the order in which they are given."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(json.dumps(list(tensor.shape)).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def key(content: Any) -> str:
    """Twelve hexadecimal digits that name a JSON value, whatever the order of its keys.

    >>> key({"seed": 0, "data": "digits"}) == key({"data": "digits", "seed": 0})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return of_bytes(text.encode())[:12]


def _bytes(tensor: Tensor) -> memoryview:
    import torch  # who names files only does without it

    found: memoryview = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return found
