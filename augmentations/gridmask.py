"""GridMask: a lattice of squares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from augmentations.base import (
    Fill,
    Guide,
    Images,
    Mask,
    Ramp,
    cross,
    exact,
    extent,
    on_device_of,
    scaled,
)
from augmentations.checks import LONGEST, choice, number, whole, within
from augmentations.relocation import Movable, Rule, better, demanded, relocate

Mode = Literal["squares", "lines"]
"""What of a lattice is deleted."""


@dataclass(frozen=True)
class GridMask(Movable):
    """Delete a lattice of squares with a random period and phase (Chen et al. 2020, section 3).

    Per image: the period d is drawn from ``period`` (both ends included), the two phases from
    0..d-1, and the pixels that lie in the last ``d - ceil(ratio d)`` (at least one) rows *and*
    columns of a period are deleted; ``mode="lines"`` deletes the others instead. With ``rotation``
    the lattice is turned about the image's centre by whole degrees below it, nearest pixel: the
    centres of the pixels are turned back and looked up in the lattice. The released code turns
    an image of the lattice instead, which differs in about one pixel in 7,000 (ties in rounding).

    The share grows to 0.8 at epoch 280 of 300, the author's reading for CIFAR. The released code's
    ``ratio`` is the kept part of a side; the paper's keep ratio of the area is
    ``1 - (1 - ratio)**2``.

    Args:
        period: The smallest and largest d in pixels, both included, from 2.
        ratio: r, the kept part of a period, above 0 and below 1.
        rotation: Degrees, 1 to 360, below which the angle is drawn; 1 does not rotate.
        mode: What is deleted: the ``"squares"`` of the lattice or the ``"lines"`` between them.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.
        points: ``"seek"`` or ``"avoid"`` draw the phases among those of equal area that delete many
            or few points, or shift a rotated lattice around the borders of the image; see
            `augmentations.relocation`. Not in the paper.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> images = torch.zeros(2, 3, 32, 32)
    >>> mask = GridMask(period=(16, 16), ratio=0.5).mask(images, torch.Generator().manual_seed(0))
    >>> mask.float().mean((1, 2, 3)).tolist()
    [0.25, 0.25]
    """

    period: tuple[int, int] = (24, 32)
    ratio: float = 0.4
    rotation: int = 1
    mode: Mode = "squares"
    share: Ramp = Ramp(0.0, 0.8, until=280 / 300)
    fill: Fill = "mean"
    points: Rule = "ignore"

    def __post_init__(self) -> None:
        within("period", self.period, 2, LONGEST)
        whole("period", *self.period)
        whole("rotation", self.rotation)
        number("ratio", self.ratio)
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio is {self.ratio}: it must be above 0 and below 1")
        if not 1 <= self.rotation <= 360:
            raise ValueError(f"rotation is {self.rotation}: it must be in 1..360 degrees")
        choice("mode", self.mode, Mode)
        super().__post_init__()

    @classmethod
    def preset(cls, data: str, side: int) -> GridMask:
        """The published values for ImageNet; the author's for CIFAR in proportion otherwise."""
        if data == "imagenet":
            low, high = (max(2, scaled(period, side, 224)) for period in (96, 223))
            share = Ramp(0.0, 0.8, until=240 / 300)
            return cls(period=(low, high), ratio=0.6, rotation=360, share=share)
        low, high = (max(2, scaled(period, side)) for period in cls.period)
        return cls(period=(low, high))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw the period, the phases of rows and columns, and the angle of every image.

        Where points are sought or avoided one number per image follows; raises ``ValueError`` where
        the guide is missing.
        """
        if self.points != "ignore":
            guide = demanded(guide, images, "GridMask")
        b, h, w = extent(images)
        device = generator.device
        here = on_device_of(images)
        low, high = self.period
        period = torch.randint(low, high + 1, (b, 1), generator=generator, device=device)
        phases = torch.rand(2, b, 1, generator=generator, device=device, dtype=torch.float64)
        row_phase, column_phase = here((phases * period).long())
        angle = here(torch.randint(self.rotation, (b, 1, 1), generator=generator, device=device))
        # in float64, for products that mean a whole number lie further off it in float32
        kept = (period.double() * self.ratio - 1e-9).ceil().long().minimum(period - 1)
        period, kept = here(period), here(kept)
        # the published lattice starts at the corner of a square that holds the turned image
        canvas = math.ceil(math.hypot(h, w))
        top, left = (canvas - h) // 2, (canvas - w) // 2
        rows = torch.arange(top, top + h, device=images.device)
        columns = torch.arange(left, left + w, device=images.device)
        if self.rotation == 1:
            if guide is not None and self.points != "ignore":
                row_phase, column_phase = self._phases(
                    rows, columns, row_phase, column_phase, period, kept, guide, generator
                )
            squares = cross(
                (rows - row_phase) % period >= kept, (columns - column_phase) % period >= kept
            )
        else:
            turn = torch.deg2rad(exact(angle))
            y, x = rows[:, None] + 0.5 - canvas / 2, columns + 0.5 - canvas / 2
            across = torch.floor(turn.cos() * x - turn.sin() * y + canvas / 2).long()
            down = torch.floor(turn.sin() * x + turn.cos() * y + canvas / 2).long()
            period, kept = period[..., None], kept[..., None]
            squares = (down - row_phase[..., None]) % period >= kept
            squares &= (across - column_phase[..., None]) % period >= kept
            squares = squares[:, None]
        mask = squares if self.mode == "squares" else ~squares
        if self.rotation == 1 or guide is None or self.points == "ignore":
            return mask
        return relocate(mask, guide, images, self.points, generator)

    def _phases(
        self,
        rows: Int[Tensor, " h"],
        columns: Int[Tensor, " w"],
        row_phase: Int[Tensor, "b 1"],
        column_phase: Int[Tensor, "b 1"],
        period: Int[Tensor, "b 1"],
        kept: Int[Tensor, "b 1"],
        guide: Guide,
        generator: Generator,
    ) -> tuple[Int[Tensor, "b 1"], Int[Tensor, "b 1"]]:
        """Phases that delete as many pixels as those given, and many or few points."""
        phases = torch.arange(self.period[1], device=guide.device)

        def score(some: slice) -> tuple[Tensor, Tensor]:
            valid = phases < period[some]
            each, own = period[some, :, None], kept[some, :, None]
            down = (rows - phases[:, None]) % each >= own
            across = (columns - phases[:, None]) % each >= own
            heights, widths = down.sum(2), across.sum(2)
            area = heights[:, :, None] * widths[:, None]
            drawn = heights.gather(1, row_phase[some]) * widths.gather(1, column_phase[some])
            possible = (area == drawn[..., None]) & valid[:, :, None] & valid[:, None]
            inside = exact(down) @ exact(guide[some, 0]) @ exact(across).mT
            if self.mode == "lines":
                inside = exact(guide[some, 0]).sum((1, 2))[:, None, None] - inside
            return inside.flatten(1), possible.flatten(1)

        chosen = better(score, len(period), len(phases) ** 2, self.points, generator)[:, None]
        return torch.div(chosen, len(phases), rounding_mode="floor"), chosen % len(phases)
