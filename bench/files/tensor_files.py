"""Safetensors files, with a checksum inside: nothing in them is ever executed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import reason
from bench.files import atomic, checksums


def pack(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], covered: str | None = None
) -> bytes:
    """The contents of a file with these tensors, this metadata and a checksum.

    Args:
        tensors: What is kept, on any device, contiguous or not.
        metadata: Texts for the header of the file; ``sha256`` is added to them.
        covered: The entry of the metadata that the checksum covers beside the tensors, if any.
    """
    from safetensors.torch import save

    whole, texts = _checked(tensors, metadata, covered)
    content: bytes = save(whole, metadata=texts)
    return content


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    covered: str | None = None,
) -> None:
    """Write what `pack` gives, whole or not at all, without a copy of it in memory.

    Raises:
        OSError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole, texts = _checked(tensors, metadata, covered)
    with atomic.neighbour(path) as place:
        try:
            save_file(whole, place, metadata=texts)
        except SafetensorError as error:  # its own for a full disk
            if f"os error {errno.ENOSPC}" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise OSError(f"cannot write {path}: {reason(error)}") from error


def _checked(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], covered: str | None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    checksum = checksums.of_tensors(whole, metadata[covered] if covered else "")
    return whole, {**metadata, "sha256": checksum}


def read(path: Path, covered: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file; what it takes is bounded by the size of the file.

    Args:
        path: The file.
        covered: As in `pack`. With it the checksum is required; without it a file may lack one,
            as those of other programs do.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or not a safetensors file.
    """
    with _opened(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if covered is not None and not {covered, "sha256"} <= metadata.keys():
        raise ValueError(f"{path} has no {covered} with a checksum")
    expected = checksums.of_tensors(tensors, metadata[covered] if covered else "")
    if metadata.get("sha256", expected) != expected:
        raise ValueError(f"{path} is damaged: its checksum differs")
    return tensors, metadata


def check(path: Path) -> None:
    """Read the header of a file only; raises as `read` does where that is damaged."""
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file; what goes wrong with it is a ``ValueError``, except that it is not there."""
    from safetensors import SafetensorError, safe_open

    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is not a safetensors file: it is not a regular file")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a safetensors file: {reason(error)}") from error


def unpack(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file that was read before.

    Args:
        content: What the file holds.
        name: What an error calls it.

    Raises:
        ValueError: It is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found: dict[str, Tensor] = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} is not a safetensors file: {reason(error)}") from error
    return found
