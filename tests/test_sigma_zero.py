"""sigma-zero: elements and pixels, with and without eps."""

from __future__ import annotations

import pytest
import torch
from planes import two_classes
from smooth import draw_images, network, predicted
from torch import Tensor, nn

from attacks import BUILTIN, Goal
from attacks.norms import l0_elements, l0_pixels
from attacks.sigma_zero import SigmaZero
from attacks.sparsest import Sparsest

pytestmark = pytest.mark.slow


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Counted(nn.Module):
    """Counts the forward passes of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        logits: Tensor = self.model(images)
        return logits


ATTACKS = {
    "free elements": SigmaZero(),
    "free pixels": SigmaZero(unit="pixels"),
    "bounded elements": SigmaZero(eps=0.3),
    "bounded pixels": SigmaZero(eps=0.3, unit="pixels"),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("targeted", [False, True])
def test_sigma_zero_keeps_its_promises(name: str, targeted: bool) -> None:
    model, images, attack = network(), draw_images(6), ATTACKS[name]
    labels = predicted(model, images)
    goal = Goal((labels + 1) % 5 if targeted else labels, targeted)
    model.train()
    model[1].weight.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    before = images.clone()
    adversarial = attack(model, images, goal, generator())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all((v == state[k]).all() for k, v in model.state_dict().items())
    assert (images == before).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (adversarial - images).abs().max() <= (attack.eps or 1.0) + 1e-12
    assert (adversarial == attack(model.eval(), images, goal, generator())).all()
    reached = goal.reached(model(adversarial))
    assert (reached == (l0_pixels(adversarial - images) > 0)).all()
    assert reached.all()


@pytest.mark.parametrize("name", ATTACKS)
def test_the_batch_size_changes_nothing(name: str) -> None:
    model, images = network(), draw_images(8)
    goal = Goal(predicted(model, images))
    whole = ATTACKS[name](model, images, goal, generator())
    for size in (1, 3):
        rows = torch.arange(8).split(size)
        parts = [ATTACKS[name](model, images[r], goal[r], generator()) for r in rows]
        torch.testing.assert_close(torch.cat(parts), whole)


def test_images_that_reach_the_goal_or_cannot_come_back_unchanged() -> None:
    model, images = network(), draw_images(4)
    labels = predicted(model, images)
    there = SigmaZero()(model, images, Goal(labels, targeted=True), generator())
    assert (there == images).all()
    stuck = two_classes(torch.zeros(3, 6, 7, dtype=torch.float64), 1.0)
    goal = Goal(torch.zeros(4, dtype=torch.long))
    assert (SigmaZero()(stuck, images, goal, generator()) == images).all()
    assert SigmaZero()(model, images[:0], Goal(labels[:0]), generator()).shape == (0, 3, 6, 7)


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 2), (1, 100)])
def test_any_number_of_channels_and_classes_will_do(channels: int, classes: int) -> None:
    model, images = network(channels, classes), draw_images(3, channels)
    goal = Goal(predicted(model, images))
    assert goal.reached(model(SigmaZero()(model, images, goal, generator()))).all()


@pytest.mark.parametrize("unit", ["elements", "pixels"])
@pytest.mark.parametrize("eps", [0.02, 0.1, None])
@pytest.mark.parametrize("targeted", [False, True])
def test_sigma_zero_is_near_the_fewest_changes_on_a_plane(
    unit: str, eps: float | None, targeted: bool
) -> None:
    weight = torch.randn(3, 8, 8, generator=generator(4), dtype=torch.float64)
    images = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    room = weight.abs().sum(0) if unit == "pixels" else weight.abs()
    reach = (eps or 0.5) * room.flatten().sort(descending=True).values.cumsum(0)
    for fewest in (1, 5, 12):
        margin = reach[fewest - 1].item() * (1 - 1e-3)
        model = two_classes(weight, margin - (images[0] * weight).sum().item())
        goal = Goal(torch.tensor([int(targeted)]), targeted)
        attack = SigmaZero(eps, "pixels" if unit == "pixels" else "elements", steps=300)
        adversarial = attack(model, images, goal, generator())
        assert goal.reached(model(adversarial)).all()
        count = l0_pixels if unit == "pixels" else l0_elements
        changes = count(adversarial - images).item()
        assert fewest <= changes <= fewest + 1 + 0.2 * fewest


def test_the_last_iterate_counts_and_nothing_more_is_asked_of_the_model() -> None:
    weight = torch.ones(1, 2, 2, dtype=torch.float64)
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    model = Counted(two_classes(weight, -1.9))
    goal = Goal(torch.zeros(1, dtype=torch.long))
    adversarial = SigmaZero(steps=1, threshold=0.0)(model, images, goal, generator())
    assert model.passes == 2
    assert goal.reached(model(adversarial)).all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eps is 0.0: it must be above 0 and at most 1"):
        SigmaZero(eps=0.0)
    with pytest.raises(ValueError, match=r"eps is 8.0: it must be above 0"):
        SigmaZero(eps=8.0)
    with pytest.raises(ValueError, match=r"steps is 0: give at least 1"):
        SigmaZero(steps=0)
    with pytest.raises(ValueError, match=r"sigma is 0.0: it must be positive"):
        SigmaZero(sigma=0.0)
    with pytest.raises(ValueError, match=r"threshold is 2.0: it must be a fraction"):
        SigmaZero(threshold=2.0)
    images = draw_images(1)
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        SigmaZero()(network(), images, Goal(torch.zeros(1, dtype=torch.long)), generator())


def test_sigma_zero_is_built_in() -> None:
    assert isinstance(BUILTIN["sigma-zero"](), SigmaZero)


def test_of_all_attempts_the_sparsest_success_is_kept() -> None:
    images = torch.zeros(3, 1, 1, 4)
    best = Sparsest(images, l0_pixels)
    attempts = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    reached = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]]).bool()
    for attempt, success in zip(attempts.float(), reached, strict=True):
        best.keep(attempt.view(1, 1, 1, 4).expand(3, -1, -1, -1), success)
    expected = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    assert (best.images == expected.view(3, 1, 1, 4)).all()
