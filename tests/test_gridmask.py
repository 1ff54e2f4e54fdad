"""GridMask's lattice, against a plain reference and a turned square."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from augmentations import GridMask


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def lattice(period: int, ratio: float, down: int, across: int, size: int) -> np.ndarray:
    """The published loop: kept everywhere, then zero where both strips are deleted."""
    kept = math.ceil(period * ratio - 1e-9)
    place = np.arange(size)
    rows = (place - down) % period >= kept
    columns = (place - across) % period >= kept
    return rows[:, None] & columns[None]


def candidates(method: GridMask, h: int, w: int, angle: int) -> set[bytes]:
    """Every mask the method can give at one angle, by turning images with PIL."""
    canvas = math.ceil(math.hypot(h, w))
    top, left = (canvas - h) // 2, (canvas - w) // 2
    found = set()
    for period in range(method.period[0], method.period[1] + 1):
        for down in range(period):
            for across in range(period):
                square = Image.fromarray(
                    lattice(period, method.ratio, down, across, canvas).astype(np.uint8)
                )
                turned = np.asarray(square.rotate(angle))
                found.add((turned[top : top + h, left : left + w] > 0).tobytes())
    return found


def test_every_mask_without_rotation_is_one_of_the_published() -> None:
    method = GridMask(period=(4, 6))
    known = candidates(method, 10, 13, 0)
    mask = method.mask(torch.zeros(2000, 1, 10, 13), stream()).numpy()
    drawn = {one.tobytes() for one in mask}
    assert drawn == known


def test_rotated_lattices_agree_with_turned_images() -> None:
    method = GridMask(period=(7, 7), rotation=360)
    h, w, canvas = 24, 20, math.ceil(math.hypot(24, 20))
    mask = method.mask(torch.zeros(60, 1, h, w), stream())[:, 0].numpy()
    draws = stream()
    torch.randint(7, 8, (60, 1), generator=draws)
    phases = (torch.rand(2, 60, 1, generator=draws, dtype=torch.float64) * 7).long()
    angles = torch.randint(360, (60, 1, 1), generator=draws)
    wrong = 0
    for i in range(60):
        square = Image.fromarray(
            lattice(7, 0.4, int(phases[0, i]), int(phases[1, i]), canvas).astype(np.uint8)
        )
        turned = np.asarray(square.rotate(int(angles[i]))) > 0
        top, left = (canvas - h) // 2, (canvas - w) // 2
        wrong += (turned[top : top + h, left : left + w] != mask[i]).sum()
    assert wrong / mask.size < 2e-3


def test_the_deleted_fraction_is_the_published_one() -> None:
    mask = GridMask().mask(torch.zeros(5000, 1, 32, 32), stream())
    assert mask.float().mean().item() == pytest.approx(0.35, abs=0.01)
    mask = GridMask(period=(10, 10), ratio=0.6).mask(torch.zeros(500, 1, 100, 100), stream())
    assert torch.equal(mask.float().mean((1, 2, 3)), torch.full((500,), 0.16))


@pytest.mark.parametrize("rotation", [1, 360])
def test_lines_are_what_squares_leave(rotation: int) -> None:
    images = torch.zeros(20, 3, 32, 40)
    squares = GridMask(rotation=rotation).mask(images, stream())
    lines = GridMask(rotation=rotation, mode="lines").mask(images, stream())
    assert torch.equal(squares, ~lines)


def test_the_ramp_ends_at_epoch_280_of_300() -> None:
    share = GridMask().share
    assert share.at(0.0) == 0
    assert share.at(140 / 300) == pytest.approx(0.4)
    assert share.at(280 / 300) == pytest.approx(0.8)
    assert share.at(1.0) == 0.8


@pytest.mark.parametrize("ratio", [0.3, 0.4, 0.6])
def test_every_period_keeps_the_published_number_of_rows(ratio: float) -> None:
    """In float32 products such as 100 * 0.6 end above the whole number that they mean."""
    for period in range(2, 301):
        images = torch.zeros(1, 1, period, period)
        mask = GridMask((period, period), ratio=ratio).mask(images, stream())
        kept = min(math.ceil(period * ratio - 1e-9), period - 1)
        assert mask[0, 0].any(1).sum() == mask[0, 0].any(0).sum() == period - kept
