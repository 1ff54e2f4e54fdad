"""Convolutions in full float32 on CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Let the convolutions of a CUDA device compute in float32; also a decorator.

    PyTorch rounds their inputs to the 10 bits of TF32 unless it is told otherwise. The fewest
    changes that fool a network lie on its decision boundary, so an image that succeeds in TF32 may
    fail on another device. The setting of the process is restored at the end.

    >>> with full_float32():
    ...     torch.backends.cudnn.allow_tf32
    False
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
