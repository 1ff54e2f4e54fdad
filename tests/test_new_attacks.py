"""FMN-l0, VFGA, Sparse-RS, Sparse-PGD, PGDTrim, GSE and the cascade: what is their own."""

from __future__ import annotations

import math

import pytest
import torch
from planes import fewest, plane, some_images, two_classes
from torch import Generator, Tensor, nn

from attacks import FMNL0, GSE, VFGA, Goal, PGDTrim, SparseAutoAttack, SparsePGD, SparseRS
from attacks.gse import THRESHOLD, shrink
from attacks.norms import l0_elements, l0_pixels


def known(fewest_pixels: int, eps: float) -> tuple[nn.Module, Tensor, Tensor]:
    """A grey image that needs just so many pixels, the last one for a part of its reach."""
    weight = torch.randn(3, 6, 6, generator=Generator().manual_seed(4), dtype=torch.float64)
    images = torch.full((1, 3, 6, 6), 0.5, dtype=torch.float64)
    reach = eps * weight.abs().sum(0).flatten().sort(descending=True).values.cumsum(0)
    margin = float(0.4 * reach[fewest_pixels - 2] + 0.6 * reach[fewest_pixels - 1])
    model = two_classes(weight, margin - float((images[0] * weight).sum()))
    return model, images, torch.zeros(1, dtype=torch.long)


class Watched(nn.Module):
    """Keeps what a model was shown, and whether gradients were asked for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shown: list[Tensor] = []
        self.differentiated = False

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach().clone())
        self.differentiated |= images.requires_grad
        logits: Tensor = self.model(images)
        return logits


@pytest.mark.parametrize("unit", ["elements", "pixels"])
def test_fmn_searches_within_the_number_that_it_has_reached(unit: str) -> None:
    model, images, labels = known(4, 0.2)
    watched = Watched(model)
    attack = FMNL0(eps=0.2, unit=unit, steps=60)  # type: ignore[arg-type]
    found = attack(watched, images, labels)
    count = l0_pixels if unit == "pixels" else l0_elements
    sizes = [int(count(shown - images)) for shown in watched.shown]
    assert sizes[:4] == [0, 2, 3, 4]  # k starts at 1 and grows by at least 1
    assert int(count(found - images)) == min(
        size
        for size, shown in zip(sizes, watched.shown, strict=True)
        if Goal(labels).reached(model(shown))
    )
    if unit == "pixels":
        assert int(l0_pixels(found - images)) == 4


def test_vfga_touches_one_more_element_per_step_and_takes_the_best_draw() -> None:
    model, images, labels = known(3, 0.2)
    watched = Watched(model)
    found = VFGA(eps=0.2, samples=20)(watched, images, labels)
    votes = [shown for shown in watched.shown if len(shown) > 1]
    changed = l0_elements(found - images)
    assert len(votes) == int(changed)
    for step, vote in enumerate(votes, 1):
        assert (l0_elements(vote - images) <= step).all()
        assert 20 < len(vote) <= 40
        assert len(vote.flatten(1).unique(dim=0)) == len(vote)  # draws beyond the bound are one
    last = Goal(labels.repeat(len(votes[-1]))).margin(model(votes[-1]))
    assert torch.equal(found[0], votes[-1][last.argmin()])
    best = fewest(model, images, Goal(labels), 0.2)  # type: ignore[arg-type]
    assert int(best) <= int(changed) <= int(best) + 3


class Repetitive(VFGA):
    """Shows the model every draw, equal ones too."""

    def _vote(
        self, model: nn.Module, goal: Goal, tried: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        every = torch.arange(tried.shape[1]).expand(len(tried), -1)
        return super()._vote(model, goal, tried, every)


@pytest.mark.parametrize("eps", [0.05, None])
def test_vfga_finds_the_same_when_equal_draws_are_shown_once(eps: float | None) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).double()  # in single precision, the size of a batch changes the last bits
    images = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    labels = model(images).argmax(1)
    labels[4] = (labels[4] + 1) % 5  # reached already
    saving, repetitive = Watched(model), Watched(model)
    found = VFGA(eps=eps)(saving, images, labels)
    assert torch.equal(found, Repetitive(eps=eps)(repetitive, images, labels))
    assert Goal(labels).reached(model(found)).sum() >= 5
    shown = [sum(map(len, watched.shown)) for watched in (saving, repetitive)]
    assert shown[0] < 0.9 * shown[1]


@pytest.mark.parametrize("k", [None, 4])
def test_sparse_rs_asks_for_no_gradient_and_finds_the_fewest(k: int | None) -> None:
    model, images, labels = known(4, 0.2)
    watched = Watched(model)
    attack = SparseRS(eps=0.2, k=k, queries=3000)
    found = attack(watched, images, labels, [Generator().manual_seed(1)])
    assert not watched.differentiated
    assert sum(map(len, watched.shown)) <= attack.passes((3, 6, 6))
    assert int(l0_pixels(found - images)) == 4
    moved = (found - images)[(found - images) != 0].abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.2))  # corners alone
    if k is not None:
        assert all(int(l0_pixels(shown - images)) == 4 for shown in watched.shown[1:])
        assert Goal(labels).reached(model(watched.shown[-1]))  # it ends with the goal


@pytest.mark.parametrize("gradient", ["unprojected", "projected", "both"])
def test_sparse_pgd_succeeds_at_the_fewest_pixels_and_fails_below(gradient: str) -> None:
    model, images, labels = known(4, 0.2)
    options = {"eps": 0.2, "gradient": gradient, "steps": 300}
    enough = SparsePGD(k=4, **options)(model, images, labels)  # type: ignore[arg-type]
    assert int(l0_pixels(enough - images)) == 4
    short = SparsePGD(k=3, **options)(model, images, labels)  # type: ignore[arg-type]
    assert torch.equal(short, images)


def test_pgd_trim_halves_and_then_bisects() -> None:
    model, images, labels = known(4, 0.2)
    watched = Watched(model)
    attack = PGDTrim(eps=0.2, steps=10, samples=200)
    found = attack(watched, images, labels)
    assert 4 <= int(l0_pixels(found - images)) <= 5
    sizes = [int(l0_pixels(shown - images)) for shown in watched.shown]
    per_level = 2 + 10 - 1  # the judged start and ten steps
    assert sizes[1 : 1 + per_level] == [36] * per_level
    assert max(sizes[1 + per_level :]) == 18
    assert int(l0_pixels(PGDTrim(eps=0.2, k=9)(model, images, labels) - images)) == 9


@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("logit", [1.0, -torch.inf, 1e30])
def test_pgd_trim_keeps_some_of_the_pixels_that_it_holds(logit: float, samples: int) -> None:
    """Whatever the subsets are worth, even where margins are infinite."""

    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[0.0, logit]]).expand(len(images), 2)

    generators = [Generator().manual_seed(seed) for seed in range(6)]
    held = torch.zeros(6, 36, dtype=torch.bool)
    held[:, 20:] = True  # ties would go to the first pixels
    count = torch.tensor([1, 2, 5, 8, 10, 15])
    chosen = PGDTrim(samples=samples)._choose(
        Constant(), torch.full((6, 3, 6, 6), 0.5), Goal(torch.zeros(6, dtype=torch.long)),
        torch.rand(6, 3, 6, 6, generator=generators[0]), held, count, generators,
    )  # fmt: skip
    assert torch.equal(chosen.sum(1), count)
    assert not (chosen & ~held).any()


def test_sparse_rs_shows_no_image_that_cannot_change() -> None:
    model, images, labels = known(4, 0.2)
    images, labels = images.repeat(3, 1, 1, 1), labels.repeat(3)
    region = torch.ones(3, 1, 6, 6, dtype=torch.bool)
    region[1] = False
    for k in (None, 4):
        watched = Watched(model)
        found = SparseRS(eps=0.2, k=k, queries=300)(
            watched,
            images,
            Goal(labels, region=region),
            [Generator().manual_seed(s) for s in (1, 2, 3)],
        )
        assert [len(shown) for shown in watched.shown[:2]] == [3, 2]
        assert torch.equal(found[1], images[1])
        nowhere = Watched(model)
        SparseRS(eps=0.2, k=k, queries=300)(
            nowhere, images, Goal(labels, region=torch.zeros_like(region))
        )
        assert len(nowhere.shown) == 1


def test_sparse_rs_stops_at_a_single_pixel() -> None:
    """No fewer pixels are possible, so nothing is left to ask for."""
    weight = torch.full((3, 6, 6), 0.01, dtype=torch.float64)
    weight[:, 2, 3] = 1.0
    images = torch.full((1, 3, 6, 6), 0.5, dtype=torch.float64)
    model = two_classes(weight, 0.1 - float((images[0] * weight).sum()))
    labels = torch.zeros(1, dtype=torch.long)
    watched = Watched(model)
    found = SparseRS(eps=0.2, queries=3000)(watched, images, labels, [Generator().manual_seed(1)])
    assert int(l0_pixels(found - images)) == 1
    last = watched.shown[-1]
    assert torch.equal(last, found)  # the success, and no query after it
    assert sum(map(len, watched.shown)) < 3000


def test_gse_runs_once_where_its_first_price_succeeds() -> None:
    """At a higher price not even the first step would change anything."""
    model = plane((3, 6, 6), 3)
    images = some_images((3, 6, 6), 4, seed=3, spread=0.1)
    labels = model(images).argmax(1)
    found, shown = [], []
    for searches in (1, 10):
        watched = Watched(model)
        found.append(GSE(searches=searches)(watched, images, labels))
        shown.append(sum(map(len, watched.shown)))
    assert Goal(labels).reached(model(found[0])).all()
    assert torch.equal(*found)
    assert shown[0] == shown[1]


def test_the_proximal_operator_is_the_minimiser_of_a_grid() -> None:
    points = torch.linspace(-2, 2, 41, dtype=torch.float64).view(1, 1, 1, -1)
    grid = torch.linspace(-2.5, 2.5, 200_001, dtype=torch.float64)
    for price in (0.05, 0.5, 1.0):
        found = shrink(points, torch.full_like(points, price)).flatten()
        for point, value in zip(points.flatten(), found, strict=True):
            cost = (grid - point).square() + price * grid.abs().sqrt()
            near = abs(abs(float(point)) - THRESHOLD * price ** (2 / 3)) < 1e-3
            assert near or math.isclose(float(value), float(grid[cost.argmin()]), abs_tol=1e-4)


def test_gse_prefers_neighbours() -> None:
    weight = torch.zeros(1, 12, 12, dtype=torch.float64)
    weight[0, 2:4, 2:4] = 1.0  # a group, and as much strength spread over single pixels
    weight[0, [0, 0, 11, 11], [11, 7, 0, 5]] = 1.0
    images = torch.full((1, 1, 12, 12), 0.5, dtype=torch.float64)
    model = two_classes(weight, 0.35 - float((images[0] * weight).sum()))
    found = GSE(eps=0.1, weight=0.0)(model, images, torch.zeros(1, dtype=torch.long))
    changed = (found != images)[0, 0]
    assert changed.sum() >= 4
    assert changed[2:4, 2:4].all()


def test_the_cascade_says_which_member_contributes_what() -> None:
    model = plane((3, 5, 6), 4)
    images = some_images((3, 5, 6), 6, seed=5, spread=0.15)
    labels = model(images).argmax(1)
    streams = [Generator().manual_seed(seed) for seed in range(6)]
    attack = SparseAutoAttack(eps=0.1, steps=20, queries=200)
    worst = attack.report(model, images, labels, streams)
    sizes = torch.stack(
        [
            l0_pixels(
                member(model, images, labels, [Generator().manual_seed(s) for s in range(6)])
                - images
            )
            for member in attack.members.values()
        ]
    )
    assert math.isclose(sum(worst.shares.values()), 1.0)
    assert (worst.winner >= 0).all()
    assert Goal(labels).reached(model(worst.images)).all()
    # the first member starts from the same draws, so it is never beaten by the cascade's first
    assert (l0_pixels(worst.images - images) <= sizes[0]).all()
    again = attack(model, images, labels, [Generator().manual_seed(seed) for seed in range(6)])
    assert torch.equal(again, worst.images)


def test_with_a_budget_the_cascade_stops_at_the_first_success() -> None:
    model, images, labels = known(2, 0.2)
    watched = Watched(model)
    attack = SparseAutoAttack(eps=0.2, k=4, steps=100, queries=500)
    worst = attack.report(watched, images, labels)
    assert worst.shares == {
        "sparse-pgd, unprojected": 1.0,
        "sparse-pgd, projected": 0.0,
        "sparse-rs": 0.0,
    }
    assert len(watched.shown) <= 102
    hopeless = SparseAutoAttack(eps=0.2, k=1, steps=5, queries=5).report(model, images, labels)
    assert hopeless.winner.tolist() == [-1]
    assert torch.equal(hopeless.images, images)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (FMNL0, {"gamma": 2.0}, r"gamma falls from 2.0 to 0.001: both must be in \[0, 1\)"),
        (VFGA, {"samples": 0}, "samples is 0: draw at least 1"),
        (SparseRS, {"queries": 1}, "queries is 1: give at least 2"),
        (SparseRS, {"k": 0}, "k is 0: change at least 1 pixel, or None for few"),
        (SparsePGD, {"patience": 0}, "patience is 0: give at least 1"),
        (PGDTrim, {"step": 0.0}, "step is 0.0: it must be positive"),
        (GSE, {"first_steps": 200}, "first_steps is 200 of 200 steps: it must be at least 1"),
        (SparseAutoAttack, {"queries": 0}, "queries is 0: give at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused(
    attack: type, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attack(**options)
