"""AugMix: several chains of image operations, blended with each other and with the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.data import seeds
from bench.data.image_operations import Bytes, Policy, grey_or_rgb


@dataclass(frozen=True)
class AugMix(Policy):
    """Blend ``width`` chains of operations with weights of their own (Hendrycks et al. 2020).

    Algorithm 1 with the published values: 3 chains of 1 to 3 operations each (``depth``); the
    weights of the chains follow Dirichlet(1, 1, 1), the weight of the image in the whole Beta(1,
    1). The sequences are single steps: the 9 operations that do not occur among the corruptions of
    ImageNet-C, at the levels of severity 3. Operations and ranges are torchvision's
    (``AugMix(all_ops=False)``).

    Deviations: without the Jensen-Shannon loss between the image and two blends, as the released
    code with ``--no-jsd`` and as torchvision; blends are rounded to whole bytes; uncovered pixels
    are black.
    """

    interpolation: Literal["nearest", "bilinear"] = "bilinear"
    width: int = 3
    depth: int = 3

    def apply(self, images: Bytes, seed: int, epoch: int, ids: Int[Tensor, " b"]) -> Bytes:
        """Return the blends; what happens to an image depends on seed, epoch and id only.

        The images have 1 or 3 channels; raises ``ValueError`` for others.
        """
        grey_or_rgb(images)
        draws = torch.stack([self._draws(seed, epoch, id_) for id_ in ids.tolist()])
        own, weights, chains = draws[:, 0], draws[:, 1 : 1 + self.width], draws[:, 1 + self.width :]
        weights = -torch.log1p(-weights)  # exponential draws, in proportion, follow Dirichlet
        weights = (1 - own[:, None]) * weights / weights.sum(1, keepdim=True)
        blend = _times(own, images)
        ((_, variants),) = self._plan.steps
        nowhere = draws.new_zeros(len(draws), 2)  # no operation here has a place
        for chain, weight in zip(chains.chunk(self.width, 1), weights.unbind(1), strict=True):
            changed = images.clone()
            length = (chain[:, 0] * self.depth).long() + 1
            for place, pair in enumerate(chain[:, 1:].split(2, 1)):
                which, sign = pair.unbind(1)
                step = (which * len(self.sequences)).long()
                variant = variants[step, (sign < 0.5).long()]
                self._operate(changed, torch.where(place < length, variant, -1), nowhere)
            blend += _times(weight, changed)
        return blend.round().clamp(0, 255).to(torch.uint8)

    def _draws(self, seed: int, epoch: int, id_: int) -> Float[Tensor, " k"]:
        """The image's weight and the chains'; for each chain its length and for each step two."""
        stream = seeds.generator(seed, "policy", epoch, id_)
        count = 1 + self.width + self.width * (1 + 2 * self.depth)
        return torch.rand(count, generator=stream, dtype=torch.float64)


def _times(weight: Float[Tensor, " b"], images: Bytes) -> Float[Tensor, "b c h w"]:
    return weight.to(images.device, torch.float32)[:, None, None, None] * images
