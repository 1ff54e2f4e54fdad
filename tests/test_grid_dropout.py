"""GridDropout, held against albumentations' own."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from augmentations import GridDropout

albumentations = pytest.importorskip("albumentations")


def ours(method: GridDropout, count: int, h: int, w: int) -> Tensor:
    return method.mask(torch.zeros(count, 3, h, w), Generator().manual_seed(0))[:, 0]


def theirs(count: int, h: int, w: int, **options: Any) -> Tensor:
    eraser = albumentations.GridDropout(p=1.0, **options)
    eraser.set_random_state(np.random.default_rng(0), random.Random(0))
    image = np.full((h, w, 3), 0.5, np.float32)
    masks = [eraser(image=image)["image"][..., 0] != 0.5 for _ in range(count)]
    return torch.from_numpy(np.stack(masks))


@pytest.mark.parametrize(
    ("h", "w", "unit", "ratio"),
    [(32, 32, 3, 0.5), (30, 20, 8, 0.5), (24, 24, 8, 0.3), (16, 16, 4, 0.9)],
)
def test_every_pixel_is_deleted_as_often_as_by_albumentations(
    h: int, w: int, unit: int, ratio: float
) -> None:
    n = 4000
    grid = {"holes_number_xy": (h // unit, w // unit)}  # its two numbers are rows and columns
    found, wanted = ours(GridDropout(unit, ratio), n, h, w), theirs(n, h, w, ratio=ratio, **grid)
    torch.testing.assert_close(found.float().mean(0), wanted.float().mean(0), atol=0.05, rtol=0)
    for axis in (1, 2):  # and lines of pixels together
        shares = [each.float().mean(axis).mean() for each in (found, wanted)]
        spread = [each.float().mean(axis).std() for each in (found, wanted)]
        torch.testing.assert_close(shares[0], shares[1], atol=0.005, rtol=0)
        torch.testing.assert_close(spread[0], spread[1], atol=0.01, rtol=0)


def test_the_preset_is_albumentations_default() -> None:
    assert [GridDropout.preset("cifar10", side).unit for side in (8, 32, 64, 224)] == [2, 3, 6, 22]
    assert GridDropout.preset("cifar10", 32) == GridDropout()
    n = 3000
    found, wanted = ours(GridDropout(), n, 32, 32), theirs(n, 32, 32)
    torch.testing.assert_close(found.float().mean(), wanted.float().mean(), atol=0.003, rtol=0)


def test_every_cell_has_one_hole_of_its_size_at_any_place() -> None:
    mask = ours(GridDropout(unit=8, ratio=0.5), 3000, 32, 24)
    cells = mask.unfold(1, 8, 8).unfold(2, 8, 8).flatten(0, 2)
    assert (cells.any(2).sum(1) == 4).all()
    assert (cells.any(1).sum(1) == 4).all()
    assert (cells.sum((1, 2)) == 16).all()
    corner = cells.flatten(1).byte().argmax(1)
    counts = torch.bincount(corner, minlength=64).view(8, 8)[:5, :5] / len(cells)
    torch.testing.assert_close(counts, torch.full((5, 5), 0.04), atol=0.005, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": 1}, "unit is 1: it must be at least 2"),
        ({"ratio": 0.0}, r"ratio is 0\.0: it must be above 0"),
        ({"ratio": 1.5}, r"ratio is 1\.5: it must be above 0 and at most 1"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridDropout(**options)


@pytest.mark.parametrize("ratio", [0.3, 0.55, 0.7])
def test_a_hole_has_the_length_that_albumentations_computes(ratio: float) -> None:
    """In float32 a product such as 170 * 0.7 ends at the whole number that it does not reach."""
    for unit in range(2, 300):
        hole = ours(GridDropout(unit, ratio=ratio), 1, unit, unit)[0]
        assert hole.any(0).sum() == min(max(1, int(unit * ratio)), unit - 1)
