"""SparseFool: its solver, its boundary, its bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from planes import fewest, plane, some_images
from torch import Generator, Tensor, nn

from attacks import Goal
from attacks.norms import interval, l0_elements
from attacks.sparsefool import ACROSS, LEAST, SparseFool, cross

SIZE = (3, 5, 4)


def one_by_one(point: Tensor, normal: Tensor, beyond: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The solver as the paper has it: one element after the other, by descending weight."""
    moved, weight = point.clone(), normal
    for index in weight.abs().argsort(descending=True).tolist():
        signed = float((weight * (moved - beyond)).sum())
        if signed >= 0 or weight[index] == 0:
            break
        up = bool(weight[index] > 0)
        room = float(high[index] - moved[index]) if up else float(moved[index] - low[index])
        need = (ACROSS - signed) / float(weight[index].abs())
        moved[index] += math.copysign(min(max(need, LEAST), room), float(weight[index]))
    return moved


def test_the_solver_of_one_sort_is_the_loop_of_the_paper() -> None:
    size, count = (1, 4, 5), 300
    generator = Generator().manual_seed(3)
    images = some_images(size, count, seed=1, spread=0.3)
    low, high = interval(images, 0.1)
    points = low + (high - low) * torch.rand(images.shape, generator=generator).double()
    normal = torch.randn(images.shape, generator=generator, dtype=torch.double)
    normal[::7, :, 1] = 0
    normal = normal / normal.flatten(1).norm(dim=1)[:, None, None, None]
    reach = 0.3 * torch.rand(count, generator=generator).double()[:, None, None, None]
    moved, before = cross(points, normal, points + reach * normal, low, high)
    assert before.all()
    for row in range(count):
        beyond = points[row] + reach[row] * normal[row]
        vectors = (points[row], normal[row], beyond, low[row], high[row])
        expected = one_by_one(*(vector.flatten() for vector in vectors))
        torch.testing.assert_close(moved[row].flatten(), expected, rtol=0, atol=1e-12)


def test_a_point_past_the_plane_or_without_a_normal_stays() -> None:
    points = some_images((1, 4, 5), 3, seed=1)
    normal = torch.full_like(points, 20**-0.5)
    normal[2] = torch.nan
    beyond = points + torch.tensor([0.1, -0.1, 0.1])[:, None, None, None] * normal
    moved, before = cross(points, normal, beyond, *interval(points, None))
    assert before.tolist() == [True, False, False]
    assert torch.equal(moved[1:], points[1:])
    assert not torch.equal(moved[0], points[0])


@pytest.mark.parametrize("classes", [2, 4])
def test_unstretched_it_finds_the_fewest_elements_of_a_plane_up_to_its_overshoot(
    classes: int,
) -> None:
    model, images = plane(SIZE, classes, seed=1), some_images(SIZE, 12, seed=2)
    with torch.no_grad():
        goal = Goal(model(images).argmax(1))
    adversarial = SparseFool(eps=0.3, stretch=1.0)(model, images, goal, Generator())
    changes = l0_elements(adversarial - images)
    assert goal.reached(model(adversarial)).all()
    least = fewest(model, images, goal, 0.3)
    # of several classes it takes the one nearest in the Euclidean sense
    assert (changes <= (least + 1 if classes == 2 else 2 * least + 1)).all()


class Passes(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        logits: Tensor = self.model(images)
        return logits


def test_a_plane_takes_one_round_and_nobody_waits() -> None:
    model, images = plane(SIZE, 4, seed=1), some_images(SIZE, 6, seed=2)
    with torch.no_grad():
        goal = Goal(model(images).argmax(1))
    counted = Passes(model)
    SparseFool(eps=None, stretch=1.0)(counted, images, goal, Generator())
    # the clean image; at the start, just past the boundary and on it; the result
    assert counted.images == 5 * len(images)


def test_eps_bounds_every_change_exactly_and_none_leaves_the_box() -> None:
    model, images = plane(SIZE, 3, seed=1).float(), some_images(SIZE, 12, seed=2).float()
    with torch.no_grad():
        goal = Goal(model(images).argmax(1))
    near = SparseFool(eps=0.05)(model, images, goal, Generator())
    wide = SparseFool(eps=None)(model, images, goal, Generator())
    assert (near - images).abs().max() <= 0.05
    assert (wide - images).abs().max() > 0.05
    assert wide.min() >= 0
    assert wide.max() <= 1
    assert SparseFool().bounded
    assert not SparseFool(eps=None).bounded


def test_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="it is untargeted: leave SparseFool or"):
        SparseFool()(
            nn.Flatten(), torch.zeros(1, 1, 2, 2), Goal(torch.zeros(1).long(), True), Generator()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stretch": 0.5}, r"stretch is 0\.5: it must be at least 1"),
        ({"overshoot": -0.1}, r"overshoot is -0\.1: it must be at least 0"),
        ({"steps": 0}, "steps is 0: give at least 1"),
        ({"boundary_steps": 0}, "boundary_steps is 0: give at least 1"),
        ({"classes": 1}, "classes is 1: a boundary needs at least 2"),
    ],
)
def test_a_wrong_setting_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseFool(**options)


class Picky(nn.Module):
    """Refuses empty batches; from one call on its logits are not numbers."""

    def __init__(self, model: nn.Module, until: int) -> None:
        super().__init__()
        self.model, self.left = model, until

    def forward(self, images: Tensor) -> Tensor:
        if not len(images):
            raise RuntimeError("an empty batch")
        self.left -= 1
        logits: Tensor = self.model(images)
        return logits if self.left >= 0 else logits * torch.nan


@pytest.mark.parametrize("until", [1, 2, 3, 4, 5, 1000])
@pytest.mark.parametrize("kind", ["usual", "flat", "nowhere", "one pixel"])
def test_the_model_is_never_called_on_an_empty_batch(kind: str, until: int) -> None:
    size = (2, 1, 1) if kind == "one pixel" else SIZE
    model, images = plane(size, 2), some_images(size, 4, seed=7, spread=0.02)
    if kind == "flat":
        model.weight.data.zero_()
        model.bias.data[0] += 1
    region = torch.full((4, 1, *size[1:]), kind != "nowhere")
    goal = Goal(model(images).argmax(1).detach(), region=region)
    found = SparseFool(eps=0.1)(Picky(model, until), images, goal)
    assert found.shape == images.shape
    if kind in ("flat", "nowhere"):
        assert torch.equal(found, images)
