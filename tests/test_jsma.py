"""What only JSMA promises."""

from __future__ import annotations

import pytest
import torch
from planes import Plane, fewest, ladder, plane, some_images
from torch import Generator, Tensor, nn

from attacks import Goal
from attacks.jsma import JSMA, best_pair
from attacks.norms import l0_elements

SIZE = (3, 5, 4)
EPS = 0.1


def run(attack: JSMA, model: nn.Module, images: Tensor, goal: Goal) -> Tensor:
    return attack(model, images, goal, Generator())


def away(victim: Plane, images: Tensor) -> Goal:
    return Goal(victim(images).argmax(1).detach())


@pytest.mark.parametrize("correlation", [0.9, 0.0, -0.9, -0.999])
@pytest.mark.parametrize("n", [2, 3, 40, 300])
def test_the_best_pair_is_that_of_an_exhaustive_search(n: int, correlation: float) -> None:
    generator = Generator().manual_seed(n)
    gain, noise = torch.randn(2, 20, n, generator=generator, dtype=torch.float64)
    drop = correlation * gain + (1 - correlation**2) ** 0.5 * noise
    out = torch.rand(20, n, generator=generator) < 0.2
    gain, drop = gain.masked_fill(out, -torch.inf), drop.masked_fill(out, -torch.inf)
    pair, found = best_pair(gain, drop)
    p, q = torch.triu_indices(n, n, offset=1)
    rise, fall = gain[:, p] + gain[:, q], drop[:, p] + drop[:, q]
    score = torch.where((rise > 0) & (fall > 0), rise * fall, 0).amax(1)
    assert torch.equal(found, score > 0)
    rise, fall = gain.gather(1, pair).sum(1), drop.gather(1, pair).sum(1)
    torch.testing.assert_close((rise * fall)[found], score[found])
    assert (pair[:, 0] != pair[:, 1]).all()


def test_the_best_pair_is_found_when_no_point_beats_another() -> None:
    gain = torch.linspace(0.01, 1, 700, dtype=torch.float64)[None]
    drop = (1.01 - gain).square()
    pair, found = best_pair(gain, drop)
    table = (gain.T + gain) * (drop.T + drop)
    table.fill_diagonal_(0)
    p, q = pair[0]
    assert found.all()
    assert table[p, q] == table.max()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("direction", ["increase", "decrease", "both"])
def test_probabilities_as_logits_give_the_changes_of_log_probabilities(
    direction: str, targeted: bool
) -> None:
    victim, images = plane(SIZE, 4), some_images(SIZE, 6, seed=1)
    victim.weight.data *= 0.3
    victim.bias.data *= 0.3
    order = victim(images).argsort(1, descending=True)
    goal = Goal(order[:, 1] if targeted else order[:, 0], targeted)
    on_logits = run(JSMA(EPS, "log-probabilities", direction), victim, images, goal)
    softmax = nn.Sequential(victim, nn.Softmax(1))
    on_probabilities = run(JSMA(EPS, "logits", direction), softmax, images, goal)
    log_softmax = nn.Sequential(victim, nn.LogSoftmax(1))
    on_logs = run(JSMA(EPS, "log-probabilities", direction), log_softmax, images, goal)
    assert goal.reached(victim(on_logits)).any()
    torch.testing.assert_close(on_probabilities, on_logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(on_logs, on_logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("targeted", [False, True])
def test_on_logits_the_first_pair_is_that_of_the_jacobian(targeted: bool) -> None:
    victim, images = plane(SIZE, 5), some_images(SIZE, 12, seed=7, spread=0.1)
    order = victim(images).argsort(1, descending=True)
    goal = Goal(order[:, 4] if targeted else order[:, 0], targeted)
    attack = JSMA(EPS, "logits", "increase")
    asked: list[Tensor] = []
    victim.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].detach().clone()))
    run(attack, victim, images, goal)
    jacobian = victim.weight.detach().flatten(1)
    p, q = torch.triu_indices(60, 60, offset=1)
    for row, label in enumerate(goal.labels.tolist()):
        room = (1 - images[row]).clamp(max=EPS).flatten()
        sign = 1 if targeted else -1
        gain = sign * jacobian[label] * room
        drop = -sign * (jacobian.sum(0) - jacobian[label]) * room
        rise, fall = gain[p] + gain[q], drop[p] + drop[q]
        best = torch.where((rise > 0) & (fall > 0), rise * fall, 0).argmax()
        changed = (asked[1] != images)[row].flatten().nonzero()[:, 0]
        assert changed.tolist() == [int(p[best]), int(q[best])]


@pytest.mark.parametrize("representation", ["log-probabilities", "logits"])
@pytest.mark.parametrize("targeted", [False, True])
def test_on_two_classes_it_needs_the_fewest_elements_up_to_a_pair(
    representation: str, targeted: bool
) -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 30, seed=2, spread=0.15)
    labels = away(victim, images).labels
    goal = Goal(1 - labels if targeted else labels, targeted)
    victim.weight.data -= victim.weight.data.mean(0)  # as differences, which both sums then are
    adversarial = run(JSMA(EPS, representation), victim, images, goal)
    least = fewest(victim, images, goal, EPS)
    assert goal.reached(victim(adversarial)).all()
    changes = l0_elements(adversarial - images)
    assert ((changes == least) | (changes == least + 1)).all()
    assert (changes == least).any()


@pytest.mark.parametrize(("direction", "sign"), [("increase", 1), ("decrease", -1)])
def test_a_direction_is_kept_and_an_element_changes_once(direction: str, sign: int) -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 10, seed=3)
    goal = away(victim, images)
    delta = run(JSMA(EPS, direction=direction), victim, images, goal) - images
    changed = delta != 0
    assert changed.any()
    room = torch.where(torch.tensor(sign > 0), 1 - images, images).clamp(max=EPS)
    torch.testing.assert_close(delta[changed], sign * room[changed])


@pytest.mark.parametrize("most", [6, 7, 9])
def test_gamma_caps_the_changed_elements(most: int) -> None:
    victim, images = ladder(SIZE, 2), some_images(SIZE, 40, seed=4, spread=0.2)
    goal = away(victim, images)
    least = fewest(victim, images, goal, EPS)
    adversarial = run(JSMA(EPS, gamma=(most + 0.5) / 60), victim, images, goal)
    reached = goal.reached(victim(adversarial))
    assert torch.equal(reached, least <= most)
    assert (l0_elements(adversarial - images) <= most).all()
    if most % 2:  # ends with a single one
        assert (least == most).any()
    assert reached.any()
    assert not reached.all()


def test_the_last_useful_element_is_taken_alone() -> None:
    weight = torch.zeros(2, 1, 1, 4, dtype=torch.float64)
    weight[0, 0, 0, 0] = 1.0
    victim = Plane(weight, torch.tensor([-0.45, 0.0], dtype=torch.float64))
    images = torch.full((1, 1, 1, 4), 0.5, dtype=torch.float64)
    goal = away(victim, images)
    assert goal.labels.item() == 0
    alone = run(JSMA(EPS), victim, images, goal)
    assert l0_elements(alone - images).item() == 1
    assert torch.equal(run(JSMA(EPS, single=False), victim, images, goal), images)


@pytest.mark.parametrize("representation", ["log-probabilities", "logits"])
@pytest.mark.parametrize(("n", "gamma"), [(4, 0.25), (1, 1.0), (5, 0.6)])
def test_an_odd_number_of_elements_ends_with_a_single_one(
    n: int, gamma: float, representation: str
) -> None:
    """Just as many elements as may change suffice; they are one more than pairs can take."""
    most = int(gamma * n)
    weight = torch.zeros(2, 1, 1, n, dtype=torch.float64)
    weight[0] = torch.linspace(1, 2, n, dtype=torch.float64)
    victim = Plane(weight - weight.mean(0), torch.zeros(2, dtype=torch.float64))
    images = torch.full((1, 1, 1, n), 0.5, dtype=torch.float64)
    gains = EPS * weight[0].flatten().sort(descending=True).values
    victim.bias.data[1] = 0.5 * weight[0].sum() - gains[: most - 1].sum() - 0.5 * gains[most - 1]
    goal = away(victim, images)
    assert goal.labels.item() == 0
    for direction in ("decrease", "both"):
        attack = JSMA(EPS, representation, direction, gamma)
        found = run(attack, victim, images, goal)
        assert goal.reached(victim(found)).all()
        assert l0_elements(found - images).item() == most
    pairs = JSMA(EPS, representation, gamma=gamma, single=False)
    assert torch.equal(run(pairs, victim, images, goal), images)


def test_a_step_costs_one_backward_pass_per_active_image_and_logits_cost_two() -> None:
    victim, images = ladder(SIZE, 2), some_images(SIZE, 12, seed=5)
    goal = away(victim, images)
    least = fewest(victim, images, goal, EPS)
    asked = []
    backwards = []

    class Counting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            asked.append(len(images))
            logits: Tensor = victim(images)
            logits.register_hook(lambda gradient: backwards.append(len(gradient)))
            return logits

    run(JSMA(EPS), Counting(), images, goal)
    assert asked == [12] + [int((least > 2 * step).sum()) for step in range(len(asked) - 1)]
    assert backwards == asked[:-1]
    asked.clear()
    backwards.clear()
    run(JSMA(EPS, "logits"), Counting(), images, goal)
    assert backwards == [count for count in asked[: len(backwards) // 2] for _ in range(2)]


@pytest.mark.parametrize("direction", ["increase", "decrease"])
def test_going_both_ways_never_needs_more_on_a_plane(direction: str) -> None:
    victim, images = ladder(SIZE, 2), some_images(SIZE, 10, seed=6)
    goal = away(victim, images)
    one, both = (run(JSMA(EPS, direction=way), victim, images, goal) for way in (direction, "both"))
    reached = goal.reached(victim(one))
    assert reached.any()
    assert (l0_elements(both - images) <= l0_elements(one - images))[reached].all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"representation": "probs"}, "representation is 'probs'"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"gamma": 1.5}, "gamma is 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], text: str) -> None:
    method = JSMA()
    for name, value in options.items():
        object.__setattr__(method, name, value)  # past the type checks of the tests
    with pytest.raises(ValueError, match=text):
        method.__post_init__()


def test_the_official_reading_is_the_papers_algorithm() -> None:
    official = JSMA.official()
    assert (official.direction, official.gamma, official.single) == ("increase", 0.145, False)
    assert official.representation == "log-probabilities"
    assert official.bounded
    victim, images = plane(SIZE, 4), some_images(SIZE, 6, seed=1)
    attacked = run(JSMA.official(EPS), victim, images, away(victim, images))
    changes = attacked - images
    assert changes.amin() >= 0
    assert (l0_elements(changes) <= int(0.145 * 60)).all()
    assert (l0_elements(changes) % 2 == 0).all()


def test_the_runner_up_is_what_an_untargeted_goal_heads_for() -> None:
    """Where it is reached first, the changes are those of the targeted goal."""
    victim, images = plane(SIZE, 5), some_images(SIZE, 12, seed=7, spread=0.1)
    order = victim(images).argsort(1, descending=True).detach()
    attack = JSMA(EPS, untargeted="runner-up")
    untargeted = run(attack, victim, images, Goal(order[:, 0]))
    targeted = run(attack, victim, images, Goal(order[:, 1], targeted=True))
    alike = victim(untargeted).argmax(1) == order[:, 1]
    assert alike.sum() > 6
    assert torch.equal(untargeted[alike], targeted[alike])
    assert (victim(untargeted).argmax(1) != order[:, 0]).all()
    mirrored = run(JSMA(EPS), victim, images, Goal(order[:, 0]))
    assert not torch.equal(mirrored, untargeted)
