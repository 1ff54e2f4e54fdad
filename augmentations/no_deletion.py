"""Nothing is deleted: the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp


@dataclass(frozen=True)
class NoDeletion:
    """Delete nothing: the baseline that every other augmentation is compared with.

    >>> import torch
    >>> NoDeletion().mask(torch.zeros(2, 3, 8, 8), torch.Generator()).any()
    tensor(False)
    """

    share: ClassVar[Ramp] = Ramp(0.0)
    fill: ClassVar[Fill] = "mean"
    wants: ClassVar[str | None] = None

    @classmethod
    def preset(cls, data: str, side: int) -> NoDeletion:
        """The same for every dataset."""
        return cls()

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Return empty masks; nothing is drawn."""
        b, _, h, w = images.shape
        return torch.zeros(b, 1, h, w, dtype=torch.bool, device=images.device)
