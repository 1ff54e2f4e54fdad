"""Named streams of random numbers, one per purpose."""

from __future__ import annotations

import hashlib

from torch import Generator


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose of a run, such as ``derive(0, "masks", epoch, block)``."""
    name = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> Generator:
    """A stream of its own for each purpose, so that changing one draw never shifts another."""
    return Generator().manual_seed(derive(seed, *purpose))
