"""The hyperparameters per dataset are those that were published."""

import pytest
import torch
from torch import Generator

from augmentations import (
    BUILTIN,
    Augmentation,
    Cutout,
    GridMask,
    HideAndSeek,
    KeepAugment,
    Ramp,
    RandomErasing,
)

IMAGENET_GRID = GridMask(
    period=(96, 223), ratio=0.6, rotation=360, share=Ramp(0.0, 0.8, until=240 / 300)
)
CIFAR_GRID = GridMask(period=(24, 32), ratio=0.4, rotation=1, share=Ramp(0.0, 0.8, until=280 / 300))
ERASING = RandomErasing(area=(0.02, 0.4), aspect=0.3, share=Ramp(0.5), fill="noise")
PUBLISHED: list[tuple[str, str, int, Augmentation]] = [
    ("cutout", "cifar10", 32, Cutout(16)),
    ("cutout", "cifar100", 32, Cutout(8)),
    ("cutout", "svhn", 32, Cutout(20)),
    ("has", "imagenet", 224, HideAndSeek((0, 16, 32, 44, 56), probability=0.5)),
    ("gridmask", "imagenet", 224, IMAGENET_GRID),
    ("gridmask", "cifar10", 32, CIFAR_GRID),
    ("gridmask", "cifar100", 32, CIFAR_GRID),
    ("random-erasing", "cifar10", 32, ERASING),
    ("random-erasing", "cifar100", 32, ERASING),
    ("random-erasing", "fashion-mnist", 28, ERASING),
    ("keepaugment", "cifar10", 32, KeepAugment(16, quantile=0.6, squares="inside")),
    ("keepaugment", "cifar100", 32, KeepAugment(16, quantile=0.6, squares="inside")),
]
"""Method, dataset, side of its images, and what the method's authors used there."""


@pytest.mark.parametrize(("name", "data", "side", "published"), PUBLISHED)
def test_a_preset_is_what_the_authors_used(
    name: str, data: str, side: int, published: Augmentation
) -> None:
    assert BUILTIN[name].preset(data, side) == published


@pytest.mark.parametrize(
    ("name", "data", "side", "share"),
    [
        # closed forms of the laws: the mean deleted part of an image that is masked
        ("cutout", "cifar10", 32, 0.191),  # (12 / 32) of each side and more, clipped
        ("cutout", "cifar100", 32, 0.055),
        ("has", "imagenet", 224, 0.4),  # half of four of five sizes
        ("gridmask", "imagenet", 224, 0.16),  # (1 - r)^2, sides rounded down
        ("random-erasing", "cifar10", 32, 0.201),
        ("keepaugment", "cifar10", 32, 0.25),  # (16 / 32)^2
    ],
)
def test_a_preset_deletes_as_much_as_its_law_says(
    name: str, data: str, side: int, share: float
) -> None:
    method = BUILTIN[name].preset(data, side)
    n = 3000 if side == 32 else 400
    images = torch.zeros(1, 1, 1, 1).expand(n, 1, side, side)
    generator = Generator().manual_seed(0)
    guide = torch.rand(n, 1, side, side, generator=generator) if method.wants else None
    found = method.mask(images, generator, guide).float().mean()
    assert float(found) == pytest.approx(share, abs=0.02 if side == 224 else 0.006)


@pytest.mark.parametrize("name", ["cutout", "has", "gridmask", "keepaugment"])
def test_lengths_that_nobody_published_grow_with_the_side(name: str) -> None:
    def lengths(side: int) -> list[int]:
        method = BUILTIN[name].preset("photos", side)
        found = [getattr(method, field, 0) for field in ("length", "sizes", "period")]
        return [n for each in found for n in (each if isinstance(each, tuple) else (each,))]

    assert lengths(64) == [2 * length for length in lengths(32)]
