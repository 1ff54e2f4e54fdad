"""Shift and mirror a batch of stored images into floats, in one pass."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

compiled = numba.njit(nogil=True, cache=True)


def crop(
    stored: Shaped[Tensor, "n c h w"],
    places: Int[Tensor, " b"],
    shifts: Int[Tensor, "b 2"],
    flips: Bool[Tensor, " b"],
    scale: float = 1.0,
) -> Float[Tensor, "b c h w"]:
    """Take images out of a store, moved, then mirrored, divided by ``scale``.

    Pixel (y, x) of an image comes from (y + shift[0], x + shift[1]) of the stored one; zero comes
    from outside, as from a frame of black. Nothing is written into the store.

    Args:
        stored: All images, of bytes, floats or booleans; all tensors are on one device.
        places: Which of them to take.
        shifts: How far the frame of each is moved, in pixels: down and right.
        flips: Where left and right change sides.
        scale: What values are divided by, 255 for bytes that become floats in [0, 1].
    """
    if stored.device.type != "cpu":
        return _gather(stored, places, shifts, flips, scale)
    images = torch.empty((len(places), *stored.shape[1:]))
    if stored.dtype == torch.bool:
        stored = stored.view(torch.uint8)
    arrays = (t.numpy() for t in (stored, places, shifts, flips, images))
    _copy(*arrays, np.float32(scale))
    return images


def _gather(
    stored: Tensor, places: Tensor, shifts: Tensor, flips: Tensor, scale: float
) -> Float[Tensor, "b c h w"]:
    """The same by indexing, for accelerators."""
    _, c, h, w = stored.shape
    rows = torch.arange(h, device=stored.device) + shifts[:, :1]
    columns = torch.arange(w, device=stored.device)
    columns = torch.where(flips[:, None], w - 1 - columns, columns) + shifts[:, 1:]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    images = stored[
        places[:, None, None, None],
        torch.arange(c, device=stored.device)[None, :, None, None],
        rows.clamp(0, h - 1)[:, None, :, None],
        columns.clamp(0, w - 1)[:, None, None, :],
    ]
    return (images.float() / scale) * inside[:, None]


@compiled
@no_type_check  # the compiler checks, and sees through no checking wrapper
def _copy(
    stored: NDArray[np.uint8],
    places: NDArray[np.int64],
    shifts: NDArray[np.int64],
    flips: NDArray[np.bool_],
    images: NDArray[np.float32],
    scale: np.float32,
) -> None:
    b, c, h, w = images.shape
    for i in range(b):
        down, right = shifts[i]
        left, end = max(0, -right), min(w, w - right)
        for k in range(c):
            source = stored[places[i], k]
            target = images[i, k]
            for y in range(h):
                row = target[y]
                row[:] = 0
                if 0 <= y + down < h and left < end:
                    # slices and indices from 0: the compiler then handles many pixels at once
                    line = source[y + down, left + right : end + right]
                    if flips[i]:
                        line = line[::-1]
                        row = row[w - end : w - left]
                    else:
                        row = row[left:end]
                    for x in range(len(row)):
                        row[x] = np.float32(line[x]) / scale
