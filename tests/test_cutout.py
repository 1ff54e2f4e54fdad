"""Cutout's law, against its closed form."""

import pytest
import torch

from augmentations import Cutout
from augmentations.base import _band, cross, rectangles


@pytest.mark.parametrize(("length", "ratio"), [(16, 0.191), (8, 0.055)])
def test_the_deleted_fraction_is_the_closed_form(length: int, ratio: float) -> None:
    covered = [min(c + length // 2, 32) - max(c - length // 2, 0) for c in range(32)]
    exact = (sum(covered) / 32 / 32) ** 2
    assert exact == pytest.approx(ratio, abs=5e-4)
    mask = Cutout(length).mask(torch.zeros(20_000, 1, 32, 32), torch.Generator().manual_seed(0))
    assert mask.float().mean().item() == pytest.approx(exact, rel=0.02)
    full = mask.flatten(1).sum(1) == length**2
    inside = ((32 - length + 1) / 32) ** 2
    assert full.float().mean().item() == pytest.approx(inside, abs=0.01)


def test_an_odd_length_acts_as_the_even_one_below() -> None:
    images = torch.zeros(50, 1, 20, 30)
    odd, even = (Cutout(length).mask(images, torch.Generator().manual_seed(0)) for length in (9, 8))
    assert torch.equal(odd, even)


def test_published_lengths() -> None:
    lengths = [
        Cutout.preset(data, side).length
        for data, side in (("cifar10", 32), ("cifar100", 32), ("svhn", 32), ("digits", 8))
    ]
    assert lengths == [16, 8, 20, 4]


def test_rectangles_equal_slices() -> None:
    draws = torch.Generator().manual_seed(0)
    top, left = (torch.randint(-9, 25, (200,), generator=draws) for _ in range(2))
    height, width = (torch.randint(0, 30, (200,), generator=draws) for _ in range(2))
    mask = rectangles(top, left, height, width, torch.zeros(200, 3, 20, 24))
    for i in range(200):
        expected = torch.zeros(20, 24, dtype=torch.bool)
        bottom, right = top[i] + height[i], left[i] + width[i]
        expected[max(0, top[i]) : max(0, bottom), max(0, left[i]) : max(0, right)] = True
        assert torch.equal(mask[i, 0], expected)
    on_other_devices = cross(_band(top, height, 20), _band(left, width, 24))
    assert torch.equal(mask, on_other_devices)
