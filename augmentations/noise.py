"""Normal noise in the place of deleted pixels, a quarter of a random word for each value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

LEVELS = 2**16


@functools.cache
def normal() -> Float[Tensor, " levels"]:
    """The standard normal law in 65,536 equally likely values: the medians of as many slices."""
    places = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    quantiles: Tensor = torch.special.ndtri(places).float()
    return quantiles


@functools.cache
def _kernel() -> Callable[..., None]:
    """The compiled loop over images on the CPU."""
    import numba

    @numba.njit(nogil=True, cache=True)
    @no_type_check
    def put(out, mask, codes, normal, mean, std):
        b, c, n = out.shape
        places = np.empty(n, np.uint32)
        code = 0
        for i in range(b):
            count = 0
            for k in range(n):
                if mask[i, k]:
                    places[count] = k
                    count += 1
            for j in range(c):
                row, some = out[i, j], codes[code : code + count]
                for k in range(count):
                    row[places[k]] = normal[some[k]] * std[j] + mean[j]
                code += count

    compiled: Callable[..., None] = put
    return compiled


def put(
    images: Float[Tensor, "b c h w"],
    mask: Bool[Tensor, "b 1 h w"],
    mean: Float[Tensor, " c"],
    std: Float[Tensor, " c"],
    generator: Generator,
) -> Float[Tensor, "b c h w"]:
    """The images with ``mean + std · z`` at the deleted pixels, z standard normal per value.

    z takes the 65,536 values of `normal`, each drawn with 16 of a word's bits: image by image,
    channel by channel, the deleted pixels in reading order. Its largest size is 4.3.
    """
    b, c, h, w = images.shape
    here = images.device.type == "cpu"
    deleted = np.count_nonzero(mask.numpy()) if here else mask.sum()
    count = int(deleted) * c
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    codes = words.random_(-(2**63), None, generator=generator).view(torch.uint16)[:count]
    if here and images.dtype == torch.float32 and not images.requires_grad:
        out = images.clone(memory_format=torch.contiguous_format)
        _kernel()(
            out.view(b, c, h * w).numpy(),
            mask.reshape(b, h * w).numpy(),
            codes.cpu().numpy(),
            normal().numpy(),
            mean.float().cpu().numpy(),
            std.float().cpu().numpy(),
        )
        return out
    values = normal().to(std.device, torch.float32) * std[:, None] + mean[:, None]
    at = mask.expand(b, c, h, w)
    channel = torch.arange(c, device=images.device).view(1, c, 1, 1).expand(b, c, h, w)[at]
    found = values.to(images)[channel, codes.to(images.device).to(torch.int64)]
    return images.masked_scatter(at, found)
