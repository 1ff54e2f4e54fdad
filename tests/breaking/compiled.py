"""Numba, ready to compile: importing this takes the second that its first function takes."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit
def first(values: np.ndarray, draws: np.random.Generator) -> float:
    """Use what the methods use: arrays and a generator."""
    total = 0.0
    for value in values:
        total += value * draws.random()
    return total


first(np.ones(2), np.random.default_rng(0))
