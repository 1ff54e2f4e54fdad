"""The sparsest success that an attack has come across, per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attacks.base import Images


class Sparsest:
    """Keeps for each image the success with the fewest changes; the image itself without one.

    ``count`` gives the changes that differences of images hold, such as ``norms.l0_pixels``.
    """

    def __init__(self, images: Images, count: Callable[[Images], Int[Tensor, " b"]]) -> None:
        self._clean = images
        self._count = count
        self.images = images.clone()
        self.fewest = torch.full((len(images),), images[0].numel() + 1, device=images.device)

    def keep(
        self, attacked: Images, reached: Bool[Tensor, " m"], rows: Int[Tensor, " m"] | None = None
    ) -> None:
        """Offer one attempt for each image, or for those of some rows, and whether it succeeded."""
        where = slice(None) if rows is None else rows
        changes = self._count(attacked - self._clean[where])
        better = reached & (changes < self.fewest[where])
        self.fewest[where] = torch.where(better, changes, self.fewest[where])
        self.images[where] = torch.where(better[:, None, None, None], attacked, self.images[where])
