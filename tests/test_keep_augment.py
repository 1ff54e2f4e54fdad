"""KeepAugment's choice, against brute force over all squares, and what its saliencies cost."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from augmentations import Cutout, KeepAugment
from augmentations.keep_augment import Saliency
from augmentations.squares import Squares
from bench.data import catalog
from bench.data.dataset import Dataset
from bench.models import networks
from bench.training import live_saliency, loop
from bench.training.recipes import Recipe


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(row: int, column: int, h: int, w: int, half: int) -> torch.Tensor:
    mask = torch.zeros(h, w, dtype=torch.bool)
    mask[max(0, row - half) : row + half, max(0, column - half) : column + half] = True
    return mask


@pytest.mark.parametrize("where", ["inside", "clipped"])
def test_exactly_the_admissible_squares_are_drawn_and_evenly(where: Squares) -> None:
    h, w, half = 9, 12, 2
    guide = torch.rand(1, 1, h, w, generator=stream(1))
    rows, columns = (
        (range(half, size - half + 1) if where == "inside" else range(size)) for size in (h, w)
    )
    regions = torch.stack([square(r, c, h, w, half) for r in rows for c in columns])
    importance = (regions * guide[0, 0].double()).sum((1, 2))
    threshold = importance.sort().values[int(0.6 * (len(regions) - 1))]
    admissible = regions[importance < threshold]
    n = 20_000
    mask = KeepAugment(length=4, squares=where).mask(
        torch.zeros(n, 3, h, w), stream(), guide.expand(n, 1, h, w).contiguous()
    )
    drawn, counts = mask[:, 0].flatten(1).unique(dim=0, return_counts=True)
    expected = admissible.flatten(1).unique(dim=0)
    assert torch.equal(drawn, expected)
    assert len(expected) == len(admissible)
    assert (counts / n * len(expected) - 1).abs().max() < 0.3


@pytest.mark.parametrize("length", [2, 3, 5, 9])
def test_squares_inside_have_their_side_odd_ones_too(length: int) -> None:
    h, w = 9, 12
    guide = torch.rand(500, 1, h, w, generator=stream(2))
    mask = KeepAugment(length, squares="inside").mask(torch.zeros(500, 3, h, w), stream(), guide)
    assert (mask.any(3).sum((1, 2)) == length).all()
    assert (mask.any(2).sum((1, 2)) == length).all()
    assert (mask.sum((1, 2, 3)) == length**2).all()


def test_under_a_constant_guide_squares_inside_are_spread_evenly() -> None:
    """Clipped ones flee to the border there, for their sums are smaller."""
    images = torch.zeros(20_000, 1, 32, 32)
    inside = KeepAugment(squares="inside").mask(images, stream(), torch.ones_like(images))
    assert inside.float().mean() == 0.25
    top = inside[:, 0].any(2).byte().argmax(1)
    counts = torch.bincount(top, minlength=17) / len(top)
    torch.testing.assert_close(counts, torch.full((17,), 1 / 17), atol=0.01, rtol=0)
    clipped = KeepAugment().mask(images, stream(), torch.ones_like(images))
    assert (clipped.sum((1, 2, 3)) == 256).float().mean() < 0.05
    assert clipped.float().mean() < 0.17


def test_commands_take_squares_inside_and_records_of_version_0_1_keep_their_meaning() -> None:
    assert KeepAugment.preset("cifar10", 32) == KeepAugment(16, squares="inside")
    assert KeepAugment.preset("cifar100", 64).length == 32
    old = Recipe.from_json({"augmentation": "keepaugment"}).augmentation
    assert isinstance(old, KeepAugment)
    assert old.squares == "clipped"


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_guide_still_gives_squares(value: float) -> None:
    images = torch.zeros(4000, 1, 32, 32)
    guide = torch.full_like(images, value)
    ratio = KeepAugment().mask(images, stream(), guide).float().mean((1, 2, 3))
    assert ratio.min() > 0
    if value == 0:  # every centre counts: Cutout's law
        cutout = Cutout().mask(images, stream(1)).float().mean()
        assert ratio.mean().item() == pytest.approx(cutout.item(), rel=0.05)


def test_what_matters_most_is_spared() -> None:
    guide = torch.zeros(500, 1, 32, 32)
    guide[:, :, 10:20, 10:20] = 1.0
    mask = KeepAugment(length=8, quantile=0.3).mask(torch.zeros(500, 3, 32, 32), stream(), guide)
    assert not (mask & (guide > 0)).any()


def test_clipped_squares_may_be_larger_than_the_image_and_others_may_not() -> None:
    images, guide = torch.zeros(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    assert KeepAugment(length=40).mask(images, stream(), guide).all()
    with pytest.raises(ValueError, match=r"length is 40: no square of that side fits into .* 8x8"):
        KeepAugment(length=40, squares="inside").mask(images, stream(), guide)


KINDS: tuple[Saliency, ...] = ("full", "low", "early", "early-low")


class Meter:
    """Counts multiplications of convolutions and linear layers, forward and backward alike."""

    def __init__(self, network: nn.Module) -> None:
        self.forward = self.backward = 0
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(self._forward)
                module.register_full_backward_hook(self._backward)

    def _forward(self, module: nn.Module, given: object, made: torch.Tensor) -> None:
        self.forward += self._work(module, made)

    def _backward(self, module: nn.Module, given: object, made: tuple[torch.Tensor, ...]) -> None:
        self.backward += self._work(module, made[0])

    @staticmethod
    def _work(module: nn.Module, made: torch.Tensor) -> int:
        return made.numel() * module.weight[0].numel()  # type: ignore[union-attr,index,operator]


def work(kind: Saliency, model: str) -> int:
    network = networks.build(model, classes=10, mean=[0.5] * 3, std=[0.5] * 3, seed=0)
    images = torch.rand(1, 3, 32, 32)
    live_saliency.EarlyHead(network, 10, images, seed=0)
    meter = Meter(network)
    guide = live_saliency.saliency(kind, network, images, torch.tensor([1]))
    assert guide.shape == (1, 1, 32, 32)
    assert guide.amin() >= 0
    assert (guide.flatten(1).sum(1) > 0).all()
    return meter.forward + meter.backward


@pytest.mark.parametrize(
    "model",
    [
        "resnet20",
        "resnet18",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("resnet50", "wrn-28-10")),
    ],
)
def test_the_cheaper_saliencies_take_the_share_of_the_work_that_is_said(model: str) -> None:
    page = (Path(__file__).parent.parent / "docs/paper.md").read_text()
    (said,) = re.findall(rf"^\| `{model}` \| 1 \| (.+) \|$", page, re.MULTILINE)
    full, *cheaper = (work(kind, model) for kind in KINDS)
    assert [f"{each / full:.2f}" for each in cheaper] == said.split(" | ")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalog.load("digits(train=80)")


@pytest.mark.slow
def test_each_saliency_trains_a_cut_of_its_own(digits: Dataset) -> None:
    losses = {}
    for kind in KINDS:
        cut = KeepAugment(4, squares="inside", saliency=kind)
        recipe = Recipe(
            data="digits(train=80)", model="resnet8", augmentation=cut, epochs=2, batch_size=32,
            padding=1,
        )  # fmt: skip
        trained = loop.train(recipe, 0, digits)
        assert hasattr(trained.network, "early_head") == kind.startswith("early")
        losses[kind] = trained.curve[-1]["loss"]
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("saliency", "late", "saliency is 'late': choose 'full', 'low', 'early' or 'early-low'"),
        ("squares", "outside", "squares is 'outside': choose 'inside' or 'clipped'"),
    ],
)
def test_an_unknown_saliency_or_place_is_refused(option: str, value: str, message: str) -> None:
    method = KeepAugment()
    object.__setattr__(method, option, value)  # past the type checks of the tests
    with pytest.raises(ValueError, match=message):
        method.__post_init__()
