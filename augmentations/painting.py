"""Rectangles in masks, compiled."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
@no_type_check  # the compiler checks, and sees through no checking wrapper
def paint(
    mask: NDArray[np.bool_],
    top: NDArray[np.int64],
    left: NDArray[np.int64],
    height: NDArray[np.int64],
    width: NDArray[np.int64],
) -> None:
    """Make each image of ``mask``, shape (b, h, w), one rectangle, clipped at the border."""
    for i in range(len(mask)):
        mask[i] = False
        right = left[i] + width[i]
        for y in range(max(top[i], 0), min(top[i] + height[i], mask.shape[1])):
            for x in range(max(left[i], 0), min(right, mask.shape[2])):
                mask[i, y, x] = True
