"""Random numbers of which each image gets its own, whatever batch it is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor


def draw(
    law: Callable[..., Tensor],
    generators: Sequence[Generator],
    shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One draw of ``shape`` per generator, stacked.

    Args:
        law: ``torch.rand`` or ``torch.randn``.
        generators: One per image, at least one; each draws on its own device.
        shape: Shape of a draw.
        device: Where the draws go.
        dtype: Their type; None for PyTorch's default.

    Returns:
        Shape (b, ...).

    >>> draws = draw(torch.rand, [Generator(), Generator()], (3, 4), torch.device("cpu"))
    >>> draws.shape, torch.equal(draws[0], draws[1])
    (torch.Size([2, 3, 4]), True)
    """
    draws = [law(*shape, generator=g, device=g.device, dtype=dtype) for g in generators]
    return torch.stack(draws).to(device)
