"""Random Erasing's law, against the published loop of attempts."""

import math
import random

import pytest
import torch

from augmentations import RandomErasing
from augmentations.base import Mask


def boxes(mask: Mask) -> tuple[torch.Tensor, torch.Tensor]:
    """Height and width of each rectangle, once seen that it is one."""
    rows, columns = mask[:, 0].any(2), mask[:, 0].any(1)
    height, width = rows.sum(1), columns.sum(1)
    assert torch.equal(mask.sum((1, 2, 3)), height * width)
    return height, width


def reference(draws: random.Random, h: int, w: int) -> tuple[int, int]:
    while True:
        area = draws.uniform(0.02, 0.4) * h * w
        aspect = draws.uniform(0.3, 1 / 0.3)
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height < h and width < w:
            return height, width


@pytest.mark.parametrize(("h", "w"), [(32, 32), (20, 48)])
def test_heights_and_widths_follow_the_published_loop(h: int, w: int) -> None:
    mask = RandomErasing().mask(torch.zeros(20_000, 1, h, w), torch.Generator().manual_seed(0))
    height, width = boxes(mask)
    draws = random.Random(0)
    known = torch.tensor([reference(draws, h, w) for _ in range(20_000)])
    for mine, theirs, size in ((height, known[:, 0], h), (width, known[:, 1], w)):
        counts = [torch.bincount(v, minlength=size + 1).cumsum(0) / 20_000 for v in (mine, theirs)]
        assert (counts[0] - counts[1]).abs().max() < 0.02  # two-sample Kolmogorov-Smirnov, p=0.0007


def test_measured_facts_at_32_pixels() -> None:
    mask = RandomErasing().mask(torch.zeros(30_000, 1, 32, 32), torch.Generator().manual_seed(0))
    height, width = boxes(mask)
    assert mask.float().mean().item() == pytest.approx(0.201, abs=0.004)
    assert (height > width).float().mean().item() == pytest.approx(0.748, abs=0.01)
    # inside, and uniform there: of rectangles of height 10, the top row is 0..22
    top = mask[height == 10, 0].any(2).int().argmax(1)
    assert torch.equal(top.unique(), torch.arange(23))


def test_half_of_the_images_get_noise() -> None:
    assert RandomErasing().share.at(0.1) == 0.5
    assert RandomErasing().fill == "noise"
