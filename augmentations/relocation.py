"""Deletion towards the points or away from them, at equal coverage.

An eraser draws its mask by its own law; the mask is then moved to a place where there are many
points, or few, and never changes its area. So what is deleted of an image is the same number of
pixels whether points are sought, avoided or ignored, draw by draw, and only the place differs.

Places are ordered by the points that a mask would delete there. One is drawn among the quarter with
the most or the fewest, ties included, so that masks stay random. An image without points gets any
place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn.functional import pad

from augmentations.base import Fill, Guide, Images, Mask, exact, rectangles, required
from augmentations.checks import choice
from augmentations.squares import at_draw, draws, slack

Rule = Literal["ignore", "seek", "avoid"]
"""What an eraser does about the points: nothing, delete where there are many, or where few."""

FRACTION = 0.25  # of the places, those with the most or the fewest points

AT_ONCE = 2**21
"""Places of which a better one is chosen at a time; each takes some 60 bytes meanwhile."""


class Movable:
    """An eraser with the options ``fill`` and ``points``: what it checks and which guide it wants.

    A ``__post_init__`` of a subclass ends with ``super().__post_init__()``.
    """

    fill: Fill
    points: Rule

    def __post_init__(self) -> None:
        choice("fill", self.fill, Fill)
        choice("points", self.points, Rule)

    @property
    def wants(self) -> str | None:
        """Points, unless they are ignored."""
        return None if self.points == "ignore" else "attack"


def demanded(guide: Guide | None, images: Images, who: str) -> Guide:
    """The guide of an eraser that seeks or avoids points; raises ``ValueError`` without it."""
    return required(guide, images, who, "positive where a point is")


def preferred(
    scores: Float[Tensor, "b n"], possible: Bool[Tensor, "b n"], points: Rule
) -> Bool[Tensor, "b n"]:
    """The quarter of the possible places with the highest or the lowest scores, ties included.

    Args:
        scores: How much each place would delete of the guide.
        possible: Which places there are; at least one for each image.
        points: ``"seek"`` for the highest, ``"avoid"`` for the lowest.
    """
    cost = torch.where(possible, -scores if points == "seek" else scores, torch.inf)
    rank = (FRACTION * (possible.sum(1, keepdim=True) - 1)).long()
    limit = cost.sort(1).values.gather(1, rank)
    return possible & (cost <= limit + slack(scores))


def better(
    score: Callable[[slice], tuple[Float[Tensor, "_ n"], Bool[Tensor, "_ n"]]],
    count: int,
    places: int,
    points: Rule,
    generator: Generator,
) -> Int[Tensor, " count"]:
    """Draw a preferred place for each image; images are taken a few at a time, to save memory.

    Args:
        score: Gives ``scores`` and ``possible`` of `preferred` for a slice of the images.
        count: Number of images.
        places: Number of places of an image.
        points: ``"seek"`` or ``"avoid"``.
        generator: One number per image is drawn.
    """
    drawn = draws(count, generator)
    step = max(1, AT_ONCE // places)
    slices = [slice(start, start + step) for start in range(0, max(count, 1), step)]
    return torch.cat([at_draw(preferred(*score(some), points), drawn[some]) for some in slices])


def relocate(mask: Mask, guide: Guide, images: Images, points: Rule, generator: Generator) -> Mask:
    """Any masks, moved as wholes: rectangles within the image, all others around its borders.

    Args:
        mask: True where deleted, shape (b, 1, h, w).
        guide: Values of at least 0, shape (b, 1, h, w).
        images: Only shape and device count.
        points: ``"seek"`` or ``"avoid"``.
        generator: One number per image is drawn, for either kind.

    Returns:
        Masks that delete as many pixels of each image. A mask that is no rectangle leaves at one
        border and enters at the opposite one.
    """
    height, width = mask[:, 0].any(2).sum(1), mask[:, 0].any(1).sum(1)
    rectangular = mask.flatten(1).sum(1) == height * width
    state = generator.get_state()
    moved = move_rectangles(mask, guide, images, points, generator)
    if rectangular.all():
        return moved
    generator.set_state(state)
    wrapped = wrap_around(mask, guide, points, generator)
    return torch.where(rectangular[:, None, None, None], moved, wrapped)


def move_rectangles(
    mask: Mask, guide: Guide, images: Images, points: Rule, generator: Generator
) -> Mask:
    """Masks of one rectangle each, moved to another place inside the image; see `relocate`."""
    b, _, h, w = images.shape
    height, width = mask[:, 0].any(2).sum(1), mask[:, 0].any(1).sum(1)
    top, left = torch.arange(h, device=mask.device), torch.arange(w, device=mask.device)

    def score(some: slice) -> tuple[Tensor, Tensor]:
        tall, wide = height[some, None], width[some, None]
        table = pad(exact(guide[some, 0]).cumsum(1).cumsum(2), (1, 0, 1, 0))
        bottom = (top + tall).clamp(max=h)[:, :, None].expand(-1, h, w + 1)
        right = (left + wide).clamp(max=w)[:, None].expand(-1, h, w)
        bands = table.gather(1, bottom) - table[:, :h]
        sums = bands.gather(2, right) - bands[..., :w]
        possible = (top <= h - tall)[:, :, None] & (left <= w - wide)[:, None]
        return sums.flatten(1), possible.flatten(1)

    place = better(score, b, h * w, points, generator)
    return rectangles(torch.div(place, w, rounding_mode="floor"), place % w, height, width, images)


def wrap_around(mask: Mask, guide: Guide, points: Rule, generator: Generator) -> Mask:
    """Masks shifted cyclically in both directions; see `relocate`."""
    b, _, h, w = mask.shape

    def score(some: slice) -> tuple[Tensor, Tensor]:
        # what a mask deletes at every shift is the correlation of guide and mask
        spectrum = torch.fft.rfft2(exact(guide[some, 0]))
        spectrum = spectrum * torch.fft.rfft2(exact(mask[some, 0])).conj()
        scores = torch.fft.irfft2(spectrum, s=(h, w)).flatten(1)
        return scores, torch.ones_like(scores, dtype=torch.bool)

    shift = better(score, b, h * w, points, generator)
    down, right = torch.div(shift, w, rounding_mode="floor"), shift % w
    rows = (torch.arange(h, device=mask.device) - down[:, None]) % h
    columns = (torch.arange(w, device=mask.device) - right[:, None]) % w
    source = rows[:, :, None] * w + columns[:, None]
    return mask.flatten(1).gather(1, source.flatten(1)).view(b, 1, h, w)


def exchange_cells(
    hidden: Bool[Tensor, "b rows columns"],
    guide: Guide,
    side: int,
    points: Rule,
    generator: Generator,
) -> Bool[Tensor, "b rows columns"]:
    """Hide as many cells of a grid as before, others: those with many points, or with few.

    Args:
        hidden: Which cells of each image are hidden. Cells are squares of ``side`` pixels from the
            upper left; the last row and column may be cut by the border.
        guide: Values of at least 0, shape (b, 1, h, w).
        side: Of a cell, in pixels.
        points: ``"seek"`` or ``"avoid"``.
        generator: Two numbers per cell are drawn.

    Returns:
        Of k hidden among m cells, the k new ones are drawn from those k + a quarter of the other
        m - k (rounded up) that have the most points, or the fewest. Whole and cut cells are
        exchanged among their equals only, so the hidden area stays the same.
    """
    b, rows, columns = hidden.shape
    h, w = guide.shape[-2:]
    device = generator.device
    padded = pad(exact(guide[:, 0]), (0, columns * side - w, 0, rows * side - h))
    sums = padded.view(b, rows, side, columns, side).sum((2, 4))
    cost = -sums if points == "seek" else sums
    draws = torch.rand(2, b, rows, columns, generator=generator, device=device).to(guide.device)
    found = torch.zeros_like(hidden)
    whole_rows, whole_columns = h // side, w // side
    for some_rows in (slice(0, whole_rows), slice(whole_rows, rows)):
        for some_columns in (slice(0, whole_columns), slice(whole_columns, columns)):
            part = (slice(None), some_rows, some_columns)
            count = hidden[part].flatten(1).sum(1, keepdim=True)
            tie, key = (draw[part].flatten(1) for draw in draws)
            pool = count + torch.ceil(FRACTION * (tie.shape[1] - count)).long()
            at_random = tie.argsort(1)
            ordered = cost[part].flatten(1).gather(1, at_random).argsort(dim=1, stable=True)
            order = at_random.gather(1, ordered).argsort(1)
            key = torch.where(order < pool, key, 2.0)
            found[part] = (key.argsort(1).argsort(1) < count).view_as(found[part])
    return found
