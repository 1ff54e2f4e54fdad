"""Seeking, avoiding and ignoring the points at equal coverage."""

import dataclasses
import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from augmentations import (
    Augmentation,
    Cutout,
    Foreign,
    GridMask,
    HideAndSeek,
    RandomErasing,
    relocation,
)
from augmentations.base import exact
from augmentations.relocation import FRACTION, exchange_cells, preferred
from bench import registry

ERASERS: dict[str, Any] = {
    "cutout": Cutout(8),
    "random-erasing": RandomErasing(),
    "has": HideAndSeek(),
    "has, cut": HideAndSeek(sizes=(5, 7)),
    "gridmask": GridMask(period=(6, 13)),
    "gridmask, cifar": GridMask(),
    "gridmask, lines": GridMask(period=(9, 12), ratio=0.7, mode="lines"),
    "gridmask, rotated": GridMask(period=(9, 12), rotation=360),
    "foreign": Foreign(v2.RandomErasing(p=1.0)),
}
H, W, N = 32, 30, 1000


def stream(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def clusters(n: int) -> Tensor:
    """A cloud of points in each image, at a place of its own, as adversarial points are."""
    places = torch.rand(n, 2, 1, 1, generator=stream(8))
    y, x = torch.arange(H)[:, None] / H, torch.arange(W) / W
    near = ((y - places[:, 0]) ** 2 + (x - places[:, 1]) ** 2) < 0.05
    return ((torch.rand(n, H, W, generator=stream(9)) < 0.5) & near).float()[:, None]


def drawn(eraser: Augmentation, points: str, guide: Tensor, n: int, seed: int = 0) -> Tensor:
    told = dataclasses.replace(eraser, points=points)  # type: ignore[type-var]
    return told.mask(torch.zeros(n, 1, H, W), stream(seed), None if points == "ignore" else guide)


@pytest.mark.parametrize("name", ERASERS)
def test_coverage_is_equal_in_every_draw_and_in_law(name: str) -> None:
    eraser, n = ERASERS[name], 100 if name == "foreign" else N
    guide = clusters(n)
    masks = {points: drawn(eraser, points, guide, n) for points in ("ignore", "seek", "avoid")}
    areas = {points: mask.sum((1, 2, 3)).double() for points, mask in masks.items()}
    assert areas["ignore"].std() > 0 or name == "gridmask, rotated"
    assert torch.equal(areas["seek"], areas["ignore"])  # from the same draws
    assert torch.equal(areas["avoid"], areas["ignore"])
    if name != "foreign":  # and from other draws the same in the mean
        other = drawn(eraser, "seek", guide, n, seed=1).sum((1, 2, 3)).double()
        error = math.sqrt(float(areas["ignore"].var() + other.var()) / n)
        assert abs(float(areas["ignore"].mean() - other.mean())) <= 4 * error
    inside = {points: (mask * guide).sum((1, 2, 3)) for points, mask in masks.items()}
    total = guide.sum((1, 2, 3)).mean()
    least = 0.02 if name == "gridmask, lines" else 0.05
    assert (inside["seek"].mean() - inside["ignore"].mean()) / total > least
    assert (inside["ignore"].mean() - inside["avoid"].mean()) / total > least


@pytest.mark.parametrize("name", ERASERS)
def test_to_ignore_is_the_eraser_s_own_law(name: str) -> None:
    eraser = ERASERS[name]
    assert eraser.wants is None
    assert dataclasses.replace(eraser, points="seek").wants == "attack"
    assert eraser.points == "ignore"
    # a guide makes no difference
    blank = torch.zeros(20, 1, H, W)
    assert torch.equal(
        eraser.mask(blank, stream()), eraser.mask(blank, stream(), torch.ones(20, 1, H, W))
    )


@pytest.mark.parametrize("name", ERASERS)
def test_points_that_are_sought_must_be_there(name: str) -> None:
    told = dataclasses.replace(ERASERS[name], points="avoid")
    with pytest.raises(ValueError, match=f"{type(told).__name__} needs a guide: positive where"):
        told.mask(torch.zeros(2, 1, H, W), stream())


@pytest.mark.parametrize("points", ["seek", "avoid"])
def test_a_square_goes_evenly_to_each_of_the_best_quarter_of_places(points: str) -> None:
    h, w, side = 6, 5, 2
    guide = torch.rand(h, w, generator=stream(3)).mul(4).floor()
    places = [(y, x) for y in range(h - side + 1) for x in range(w - side + 1)]
    sums = torch.tensor([guide[y : y + side, x : x + side].sum() for y, x in places])
    # brute force: the place with exactly floor(q (n - 1)) places before it sets the limit
    ordered = sorted(sums.tolist(), reverse=points == "seek")
    limit = ordered[int(FRACTION * (len(places) - 1))]
    wanted = {
        place
        for place, value in zip(places, sums.tolist(), strict=True)
        if (value >= limit if points == "seek" else value <= limit)
    }
    n = 30_000
    eraser = RandomErasing((4 / 30, 4 / 30), aspect=1.0, points=points)  # type: ignore[arg-type]
    mask = eraser.mask(torch.zeros(n, 1, h, w), stream(), guide.expand(n, 1, h, w).contiguous())
    corner = mask.flatten(1).int().argmax(1)
    found, counts = corner.unique(return_counts=True)
    assert {(int(at) // w, int(at) % w) for at in found} == wanted
    assert 3 < len(wanted) < len(places) / 2
    expected = n / len(wanted)
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_images_without_points_get_any_place() -> None:
    mask = RandomErasing((0.16, 0.16), aspect=1.0, points="avoid").mask(
        torch.zeros(4000, 1, 5, 5), stream(), torch.zeros(4000, 1, 5, 5)
    )
    counts = mask.flatten(1).int().argmax(1).bincount(minlength=25)
    possible = counts[counts > 0]
    assert len(possible) == 16
    assert (possible - 250).abs().max() < 5 * 250**0.5


def test_as_many_cells_are_hidden_and_those_with_the_most_points_first() -> None:
    b, side = 2000, 2
    guide = torch.arange(1.0, 17.0).view(1, 1, 4, 4).kron(torch.ones(1, 1, 2, 2))
    guide = guide.expand(b, 1, 8, 8).contiguous()
    hidden = torch.rand(b, 4, 4, generator=stream()) < 0.5
    for points in ("seek", "avoid"):
        found = exchange_cells(hidden, guide, side, points, stream(1))  # type: ignore[arg-type]
        counts = hidden.flatten(1).sum(1)
        assert torch.equal(found.flatten(1).sum(1), counts)
        pool = counts + ((16 - counts) / 4).ceil().long()
        rank = torch.arange(16) if points == "avoid" else torch.arange(15, -1, -1)
        assert not found.flatten(1)[rank >= pool[:, None]].any()
        # the cells of the pool are hidden equally often
        for count in (6, 8, 10):
            some = found.flatten(1)[counts == count].float().mean(0)
            size = count + math.ceil((16 - count) / 4)
            assert (some[some > 0] - count / size).abs().max() < 0.2
            assert (some > 0).sum() == size


def test_the_lattice_stays_a_lattice_and_takes_phases_of_equal_area() -> None:
    h, w, d, kept = 9, 7, 4, 2
    guide = torch.rand(1, 1, h, w, generator=stream(2))
    ignored, sought = (
        GridMask((d, d), ratio=0.5, points=points).mask(  # type: ignore[arg-type]
            torch.zeros(3000, 1, h, w), stream(), guide.expand(3000, 1, h, w).contiguous()
        )
        for points in ("ignore", "seek")
    )
    lattices = {}
    for r in range(d):
        for c in range(d):
            rows = (torch.arange(h) - r) % d >= kept
            columns = (torch.arange(w) - c) % d >= kept
            lattice = rows[:, None] & columns
            lattices[tuple(lattice.flatten().tolist())] = int(lattice.sum())
    for area in set(lattices.values()):
        equal = torch.tensor([list(one) for one, size in lattices.items() if size == area])
        inside = (equal * guide.flatten()).sum(1)
        limit = inside.sort(descending=True).values[int(FRACTION * (len(inside) - 1))]
        wanted = {tuple(one.tolist()) for one in equal[inside >= limit]}
        due = ignored.sum((1, 2, 3)) == area
        assert {tuple(one.tolist()) for one in sought[due].flatten(1)} == wanted


def test_the_preferred_places_are_a_quarter_with_ties() -> None:
    scores = torch.tensor([[5.0, 1.0, 1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 7.0]]).double()
    possible = scores != 5
    for points, wanted in (("avoid", [1, 2]), ("seek", [5, 6, 7])):
        found = preferred(scores, possible, points)  # type: ignore[arg-type]
        assert found.nonzero()[:, 1].tolist() == wanted


@pytest.mark.parametrize("name", ["cutout", "random-erasing", "has", "gridmask"])
def test_the_rule_is_typed_as_an_option_and_keeps_the_preset(name: str) -> None:
    text = f"{name}(points='avoid')"
    built = registry.build("augmentations", text, data="cifar100", side=32)
    preset = registry.build("augmentations", name, data="cifar100", side=32)
    assert built == dataclasses.replace(preset, points="avoid")
    assert registry.label(built, "cifar100", 32) == text
    with pytest.raises(ValueError, match="option points is 'hunt'"):
        registry.build("augmentations", f"{name}(points='hunt')")


@pytest.mark.parametrize("name", sorted(set(ERASERS) - {"foreign"}))
def test_images_taken_a_few_at_a_time_get_the_same_masks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = clusters(50)
    whole = drawn(ERASERS[name], "seek", guide, 50)
    monkeypatch.setattr(relocation, "AT_ONCE", 7 * H * W)
    assert torch.equal(drawn(ERASERS[name], "seek", guide, 50), whole)


def test_a_large_block_of_images_takes_little_memory_while_masks_are_moved() -> None:
    """As a training on images of side 224 draws them, a thousand at a time."""
    script = """
import resource, torch
from augmentations import Cutout
images = torch.zeros(1, 1, 1, 1).expand(1000, 3, 112, 112)
guide = torch.zeros(1000, 1, 112, 112)
Cutout(50, points="seek").mask(images[:2], torch.Generator(), guide[:2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Cutout(50, points="seek").mask(images, torch.Generator(), guide)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert int(done.stdout) < 20 * 1000 * 112 * 112  # bytes; 50 a pixel if all went at once


@pytest.mark.usefixtures("unchecked")
def test_an_apple_gpu_is_refused_in_one_line() -> None:
    elsewhere = SimpleNamespace(device=torch.device("mps"))
    with pytest.raises(ValueError, match="computes in float64, which mps lacks: use the cpu"):
        exact(elsewhere)  # type: ignore[arg-type]
