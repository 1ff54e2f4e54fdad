"""Image operations such as shear or solarize, drawn anew for every image.

They act on the stored bytes, ahead of the crop, the flip, the mixing and the deletion. The
operations are torchvision's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from augmentations.keep_augment import Saliency
from augmentations.squares import Squares
from bench.data import seeds

Bytes = UInt8[Tensor, "b c h w"]

TINT = (125, 123, 114)  # what the operation Cutout of Fast AutoAugment paints


class Step(NamedTuple):
    """An operation by torchvision's name, applied with a probability; its sign may be drawn."""

    operation: str
    probability: float
    magnitude: float = 0.0
    signed: bool = False


@dataclass(frozen=True)
class Policy:
    """Draws one of its sequences of steps for every image, each as probable as the others.

    Attributes:
        sequences: The steps, as many in each.
        fill: The byte that a geometric operation uncovers.
        cutout: Side in pixels of the Cutout that follows, if any.
        keep: What the square that is pasted back is chosen by: a saliency of the network in
            training (``"full"``, ``"low"``, ``"early"``, ``"early-low"``) or the ``"points"``; None
            where nothing is pasted back.
        length: Side of that square in pixels.
        squares: Where that square may lie, for a saliency: ``"inside"`` the image, or ``"clipped"``
            at its border.
        interpolation: How geometric operations take pixels: ``"nearest"`` or ``"bilinear"``.
    """

    sequences: tuple[tuple[Step, ...], ...] = field(repr=False)
    fill: int
    cutout: int | None = None
    keep: Saliency | Literal["points"] | None = None
    length: int = 16
    squares: Squares = "clipped"
    interpolation: Literal["nearest", "bilinear"] = "nearest"

    @property
    def points(self) -> bool:
        """Whether it needs the points of the images."""
        return self.keep == "points"

    def apply(self, images: Bytes, seed: int, epoch: int, ids: Int[Tensor, " b"]) -> Bytes:
        """Return the transformed images; what happens to one depends on seed, epoch and id only.

        The images have 1 or 3 channels; raises ``ValueError`` for others.
        """
        grey_or_rgb(images)
        draws = torch.stack([self._draws(seed, epoch, id_) for id_ in ids.tolist()])
        sequence = (draws[:, 0] * len(self.sequences)).long()
        images = images.clone()
        for i, (probability, variants) in enumerate(self._plan.steps):
            applied, sign, *place = draws[:, 1 + 4 * i : 5 + 4 * i].unbind(1)
            variant = variants[sequence, (sign < 0.5).long()]
            variant = torch.where(applied < probability[sequence], variant, -1)
            self._operate(images, variant, torch.stack(place, 1))
        return images

    def _operate(
        self, images: Bytes, variant: Int[Tensor, " b"], place: Float[Tensor, "b 2"]
    ) -> None:
        """Apply to each image, in place, the operation of that number in the plan; -1 for none."""
        for j in variant.unique().tolist():
            operation, magnitude = self._plan.operations[j]
            if j < 0 or operation == "Identity":
                continue
            rows = (variant == j).nonzero()[:, 0]
            where = place[rows]
            rows = rows.to(images.device)
            images[rows] = self._changed(images[rows], operation, magnitude, where)

    def _changed(
        self, images: Bytes, operation: str, magnitude: float, place: Float[Tensor, "b 2"]
    ) -> Bytes:
        """One operation at one magnitude on a batch, each image by itself."""
        if operation == "Cutout":
            return _cutout(images, magnitude, place)
        done: Tensor = _torchvision()(
            images,
            operation,
            magnitude,
            interpolation=self.interpolation,
            fill={Tensor: [self.fill]},
        )
        return done

    def _draws(self, seed: int, epoch: int, id_: int) -> Float[Tensor, " k"]:
        """One number for the sequence; for each step whether, its sign, and two for its place."""
        stream = seeds.generator(seed, "policy", epoch, id_)
        return torch.rand(1 + 4 * len(self._plan.steps), generator=stream, dtype=torch.float64)

    @functools.cached_property
    def _plan(self) -> _Plan:
        return _Plan.of(self.sequences)


def grey_or_rgb(images: Bytes) -> None:
    """Refuse images that have neither 1 nor 3 channels."""
    if images.shape[1] not in (1, 3):
        raise ValueError(
            f"the images have {images.shape[1]} channels: a policy needs grey or RGB ones"
        )


class _Plan(NamedTuple):
    """The sequences as tables, so that images with the same operation can go together.

    ``operations`` are the different ones with their magnitudes; for every place in a sequence
    there are the probabilities, shape (n), and the number of the operation, shape (n, 2), whose
    second axis is the sign.
    """

    operations: list[tuple[str, float]]
    steps: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, sequences: tuple[tuple[Step, ...], ...]) -> _Plan:
        number: dict[tuple[str, float], int] = {}
        steps = []
        for place in zip(*sequences, strict=True):
            variants = [
                [number.setdefault((step.operation, sign * step.magnitude), len(number))]
                for step in place
                for sign in (1, -1 if step.signed else 1)
            ]
            probability = torch.tensor([step.probability for step in place], dtype=torch.float64)
            steps.append((probability, torch.tensor(variants).reshape(-1, 2)))
        return cls(list(number), steps)


@functools.cache
def _torchvision() -> Any:
    from torchvision.transforms import v2

    return v2.AutoAugment()._apply_image_or_video_transform


def _cutout(images: Bytes, length: float, place: Float[Tensor, "b 2"]) -> Bytes:
    """Fast AutoAugment's own Cutout: a tinted square around a point, clipped at the border."""
    inside = torch.ones_like(images[:, :1], dtype=torch.bool)
    for axis, size in ((2, images.shape[2]), (3, images.shape[3])):
        shape = [-1 if i == axis else 1 for i in range(4)]
        first = (place[:, axis - 2] * size - length / 2).clamp(min=0).floor()
        last = (first + length).clamp(max=size).floor()  # still painted
        pixels = torch.arange(size, device=images.device).reshape(shape)
        first, last = (end.to(images.device)[:, None, None, None] for end in (first, last))
        inside &= (pixels >= first) & (pixels <= last)
    tint = torch.tensor(TINT, dtype=torch.uint8, device=images.device).reshape(1, 3, 1, 1)
    if images.shape[1] == 1:
        tint = tint.float().mean(1, keepdim=True).to(torch.uint8)
    return torch.where(inside, tint, images)
