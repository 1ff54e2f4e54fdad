"""GridDropout: one hole in each cell of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from augmentations.base import Fill, Guide, Images, Mask, Ramp, extent, on_device_of
from augmentations.checks import choice, number, pixels


@dataclass(frozen=True)
class GridDropout:
    """Delete one rectangle in each cell of a grid, each at a place of its own.

    There is no paper: this is the law of ``GridDropout`` in albumentations 2.0.8 with
    ``random_offset=True``, which its readers take for GridMask. The grid has as many rows and
    columns as ``unit`` fits into the image; where it does not fit exactly, cells that are a pixel
    longer come in random order. A hole takes ``ratio`` of each side of its cell, rounded down but
    at least one pixel, and leaves one.

    Deviations: all images are masked, by default; ``unit`` is one number for both directions, where
    albumentations also draws it from a range.

    Args:
        unit: Side of a cell in pixels, 2 to 1,000,000.
        ratio: The deleted part of a cell's side, above 0 and at most 1.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> images = torch.zeros(1, 3, 8, 8)
    >>> GridDropout(unit=4).mask(images, torch.Generator()).unfold(2, 4, 4).unfold(3, 4, 4).sum(
    ...     (4, 5)
    ... ).tolist()
    [[[[4, 4], [4, 4]]]]
    """

    unit: int = 3
    ratio: float = 0.5
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        pixels("unit", self.unit, least=2)
        number("ratio", self.ratio)
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio is {self.ratio}: it must be above 0 and at most 1")
        choice("fill", self.fill, Fill)

    @classmethod
    def preset(cls, data: str, side: int) -> GridDropout:
        """The default of albumentations: cells of a tenth of the side."""
        return cls(unit=max(2, side // 10))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw, for every image, which rows and columns are longer, then the place of each hole."""
        b, h, w = extent(images)
        here = on_device_of(images)
        cell_row, *row = (here(x) for x in self._cells(b, h, generator))
        cell_column, *column = (here(x) for x in self._cells(b, w, generator))
        places = torch.rand(
            2, b, row[0].shape[1], column[0].shape[1], generator=generator, device=generator.device
        )
        down, right = here(places)
        top, height, hole = (each[:, :, None] for each in row)
        rows = self._inside(top, height, hole, down, cell_row, cell_column, 1)
        left, width, hole = (each[:, None, :] for each in column)
        columns = self._inside(left, width, hole, right, cell_row, cell_column, 2)
        return (rows & columns)[:, None]

    def _cells(
        self, count: int, size: int, generator: Generator
    ) -> tuple[Int[Tensor, "b size"], Int[Tensor, "b n"], Int[Tensor, "b n"], Int[Tensor, "b n"]]:
        """For each image the cell of every place; where a cell begins, its length, its hole's."""
        number = max(1, size // self.unit)
        length, longer = divmod(size, number)
        order = torch.rand(count, number, generator=generator, device=generator.device).argsort(1)
        lengths = length + (order < longer).long()
        ends = lengths.cumsum(1)
        place = torch.arange(size, device=generator.device).expand(count, size).contiguous()
        # in float64, as albumentations does: float32 rounds some products to the next pixel
        hole = torch.minimum((lengths.double() * self.ratio).long().clamp(min=1), lengths - 1)
        cell = torch.searchsorted(ends, place, right=True)
        return cell, ends - lengths, lengths, hole.clamp(min=1)

    def _inside(
        self,
        start: Int[Tensor, "b _n _m"],
        length: Int[Tensor, "b _n _m"],
        hole: Int[Tensor, "b _n _m"],
        place: Tensor,
        cell_row: Int[Tensor, "b h"],
        cell_column: Int[Tensor, "b w"],
        axis: int,
    ) -> Tensor:
        """Which pixels lie within their cell's hole along an axis, shape (b, h, w)."""
        first = start + (place * (length - hole + 1)).long()
        last = first + hole
        b, h, w = len(cell_row), cell_row.shape[1], cell_column.shape[1]
        cell = (cell_row * place.shape[2])[:, :, None] + cell_column[:, None]
        cell = cell.flatten(1)
        pixel = torch.arange((h, w)[axis - 1], device=cell.device)
        pixel = pixel[:, None] if axis == 1 else pixel
        first, last = (edge.flatten(1).gather(1, cell).view(b, h, w) for edge in (first, last))
        return (pixel >= first) & (pixel < last)
