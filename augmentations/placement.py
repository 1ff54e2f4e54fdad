"""AdvMask's greedy placement of squares, compiled."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from numpy.typing import NDArray

compiled = numba.njit(nogil=True, cache=True)


@compiled
@no_type_check  # the compiler checks, and sees through no checking wrapper
def place(
    guide: NDArray[np.float32],
    mask: NDArray[np.bool_],
    length: NDArray[np.int64],
    common: NDArray[np.int64],
    target: NDArray[np.int64],
    cap: int,
    draws: NDArray[np.float64],
) -> None:
    """Paint squares of one side per image into ``mask``, shape (b, h, w), all False before.

    Points are where ``guide``, shape (b, h, w), is positive. They are visited in a uniform random
    order: the k-th visited of n changes places with one of those not yet visited, chosen by the
    k-th of the image's ``draws`` in [0, 1) (a Fisher-Yates shuffle that stops with the last visit;
    the draws of all images lie one after another, n each, and a choice is uniform up to n / 2**53).

    The square of a point at (y, x) begins at (y - a, x - a), a = (length - 1) // 2. It is skipped
    if it shares more than ``common`` pixels with a single earlier square, both counted without
    clipping, or if more than ``cap`` pixels would be deleted. An image is done once ``target``
    pixels are.

    All squares of an image have one side, so what two of them share depends on the offset of their
    points alone: an accepted square bars the points around its own, and a visit looks one pixel up.
    """
    b, h, w = guide.shape
    barred = np.empty((h, w), np.bool_)
    points = np.empty(h * w, np.int64)
    begin = 0
    for i in range(b):
        n = collect(guide[i], points)
        side = length[i]
        barred[:] = False
        area = 0
        for k in range(n):
            if area >= target[i]:
                break
            other = k + int(draws[begin + k] * (n - k))
            point = points[other]
            points[other] = points[k]
            y, x = point // w, point % w
            if barred[y, x]:
                continue
            top, left = y - (side - 1) // 2, x - (side - 1) // 2
            square = mask[i, max(top, 0) : top + side, max(left, 0) : left + side]
            new = untouched(square)
            if area + new <= cap:
                square[:] = True
                area += new
                bar(barred, y, x, side, common[i])
        begin += n


@compiled
@no_type_check
def collect(guide: NDArray[np.float32], points: NDArray[np.int64]) -> int:
    """Write the places where the guide is positive into ``points``; return how many."""
    h, w = guide.shape
    n = 0
    for y in range(h):
        for x in range(w):
            points[n] = y * w + x
            n += guide[y, x] > 0
    return n


@compiled
@no_type_check
def untouched(square: NDArray[np.bool_]) -> int:
    """How many pixels of the square are not deleted yet."""
    rows, columns = square.shape
    deleted = 0
    for row in range(rows):
        for column in range(columns):
            deleted += square[row, column]
    return rows * columns - deleted


@compiled
@no_type_check
def bar(barred: NDArray[np.bool_], y: int, x: int, side: int, common: int) -> None:
    """Bar the points whose squares share more than ``common`` pixels with that of (y, x)."""
    for dy in range(side):
        # they share (side - dy) * (side - |dx|) pixels
        reach = side - 1 - common // (side - dy)
        if reach < 0:
            break
        left = max(x - reach, 0)
        barred[y + dy : y + dy + 1, left : x + reach + 1] = True
        if y >= dy:
            barred[y - dy, left : x + reach + 1] = True
