"""What only GreedyFool promises."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from planes import fewest, plane, some_images
from torch import Generator, Tensor, nn

from attacks import Goal
from attacks.greedyfool import DistortionMap, GreedyFool
from attacks.norms import l0_pixels

pytestmark = pytest.mark.slow

SIZE = (3, 6, 5)
EPS = 8 / 255


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4)
        )
    return layers.double()


def away(victim: nn.Module, images: Tensor) -> Goal:
    return Goal(victim(images).argmax(1).detach())


def one_at_a_time(victim: nn.Module, image: Tensor, goal: Goal, eps: float, levels: int) -> Tensor:
    """The algorithm for one image, as the source describes it, with loops."""
    lower, upper = (-image).clamp(min=-eps), (1 - image).clamp(max=eps)
    delta, chosen = torch.zeros_like(image), torch.zeros(image[0, 0].numel(), dtype=torch.bool)
    step = 0
    while True:
        inputs = (image + delta).requires_grad_()
        margin = goal.margin(victim(inputs))
        if margin < 0:
            break
        (gradient,) = torch.autograd.grad(margin.sum(), inputs)
        chosen[gradient.abs().mean(1).flatten().topk(step + 1).indices] = True
        move = gradient * chosen.view(image.shape[2:])
        delta = (delta - eps / 2 * move / move.abs().max()).clamp(lower, upper)
        step += 1
    pointer = 0
    while True:
        size = delta.abs().mean(1).flatten()
        support = [int(i) for i in size.argsort() if size[i] > 0]
        if pointer >= len(support) or len(support) == 1:
            return image + delta
        rest = delta.clone().flatten(2)
        rest[:, :, support[pointer]] = 0
        rest = rest.view_as(image) / rest.abs().max()
        for level in range(1, levels + 1):
            trial = (eps * level / levels * rest).clamp(lower, upper)
            if goal.reached(victim(image + trial)):
                delta = trial
                break
        else:
            pointer += 1


def test_a_batch_gives_what_loops_over_single_images_give() -> None:
    victim, images = network(), some_images(SIZE, 12, seed=1, spread=0.25)
    goal = away(victim, images)
    batch = GreedyFool(EPS, scan="all")(victim, images, goal, Generator())
    reached = goal.reached(victim(batch))
    assert reached.sum() > 6
    for row in reached.nonzero()[:, 0].tolist():
        alone = one_at_a_time(victim, images[row : row + 1], goal[torch.tensor([row])], EPS, 8)
        torch.testing.assert_close(batch[row : row + 1], alone, rtol=0, atol=1e-12)


def test_asking_the_largest_first_gives_the_same_where_more_is_better() -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 20, seed=2, spread=0.2)
    goal = away(victim, images)
    asked: dict[str, int] = {}
    scans: tuple[Literal["all", "largest-first"], ...] = ("all", "largest-first")
    found = []
    for scan in scans:
        asked[scan] = 0

        def count(_: nn.Module, inputs: tuple[Tensor], scan: str = scan) -> None:
            asked[scan] += len(inputs[0])

        hook = victim.register_forward_pre_hook(count)
        found.append(GreedyFool(EPS, scan=scan)(victim, images, goal, Generator()))
        hook.remove()
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)
    assert asked["largest-first"] < 0.6 * asked["all"]


@pytest.mark.parametrize("eps", [EPS, 0.6])
@pytest.mark.parametrize("targeted", [False, True])
def test_on_two_classes_it_comes_near_the_fewest_pixels(eps: float, targeted: bool) -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 20, seed=3, spread=0.15)
    labels = away(victim, images).labels
    goal = Goal(1 - labels if targeted else labels, targeted)
    least = fewest(victim, images, goal, eps, "pixels")
    possible = least <= 20
    assert possible.any()
    adversarial = GreedyFool(eps)(victim, images, goal, Generator())
    reached = goal.reached(victim(adversarial))
    changes = l0_pixels(adversarial - images)
    assert (changes[reached] >= least[reached]).all()
    assert reached[possible].all()
    assert (changes[possible] <= 1.25 * least[possible] + 2).all()


def test_no_pixel_of_the_result_can_be_undone() -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 10, seed=4, spread=0.1)
    goal = away(victim, images)
    adversarial = GreedyFool(EPS)(victim, images, goal, Generator())
    for row in goal.reached(victim(adversarial)).nonzero()[:, 0].tolist():
        for y, x in (adversarial[row] != images[row]).any(0).nonzero().tolist():
            without = adversarial[row : row + 1].clone()
            without[:, :, y, x] = images[row, :, y, x]
            assert not goal[torch.tensor([row])].reached(victim(without)).any()


@pytest.mark.parametrize("distortion", ["hill", "sigma"])
def test_a_distortion_prefers_texture_to_flat_places(distortion: Literal["hill", "sigma"]) -> None:
    size = (3, 16, 24)
    images = torch.full((4, *size), 0.5, dtype=torch.float64)
    images[..., 12:] = some_images((3, 16, 12), 4, seed=5, spread=0.2)
    weights = GreedyFool(distortion=distortion)._weights(images).view(4, 16, 24)
    assert weights.min() > 0
    assert weights.max() <= 1 + 1e-5
    assert (weights[..., 15:].mean((1, 2)) > 10 * weights[..., :9].mean((1, 2))).all()

    victim = plane(size, 2, seed=6)
    goal = away(victim, images)
    plain, hidden = (
        GreedyFool(0.1, distortion=d)(victim, images, goal, Generator())
        for d in ("none", distortion)
    )
    assert goal.reached(victim(hidden)).all()
    flat = [(adv != images).any(1)[..., :10].sum() for adv in (plain, hidden)]
    assert flat[1] < flat[0]


class LeftHides(nn.Module):
    """Says that changes hide in the left half only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        visible = torch.ones_like(images[:, :1])
        visible[..., : images.shape[-1] // 2] = 0
        return visible * self.weight


def test_a_network_says_where_changes_hide() -> None:
    size = (3, 16, 24)
    images, victim = some_images(size, 6, seed=5, spread=0.2), plane(size, 2, seed=6)
    goal = away(victim, images)
    network = LeftHides().train()
    for distortion in (network, lambda given: network(given).detach()):
        attacked = GreedyFool(0.1, distortion=distortion)(victim, images, goal, Generator())
        assert goal.reached(victim(attacked)).all()
        changed = (attacked != images).any(1)
        assert changed[..., :12].any()
        assert not changed[..., 13:].any()  # the smoothing reaches one column further
    assert network.training
    assert network.weight.requires_grad
    plain = GreedyFool(0.1)(victim, images, goal, Generator())
    assert (plain != images)[..., 13:].any()


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (lambda images: images, r"the distortion has shape \(2, 3, 16, 24\): it must be one value"),
        (lambda images: 2 * torch.ones_like(images[:, :1]), "the distortion spans 2 to 2: it must"),
        (lambda images: torch.nan * images[:, :1], "the distortion spans nan to nan: it must lie"),
    ],
)
def test_a_network_that_gives_no_distortion_is_refused(network: DistortionMap, text: str) -> None:
    size = (3, 16, 24)
    images, victim = some_images(size, 2, seed=5), plane(size, 2, seed=6)
    with pytest.raises(ValueError, match=text):
        GreedyFool(0.1, distortion=network)(victim, images, away(victim, images), Generator())


@pytest.mark.parametrize(
    ("eps", "expected"), [(8 / 255, 8), (16 / 255, 16), (4 / 255, 4), (1 / 255, 1), (1.0, 11)]
)
def test_the_scales_are_those_of_the_source_without_the_clean_image(
    eps: float, expected: int
) -> None:
    victim, images = plane(SIZE, 2), torch.full((1, *SIZE), 0.5, dtype=torch.float64)
    goal = away(victim, images)
    delta = torch.zeros_like(images)
    delta[..., 0, :2] = 0.5 * eps
    asked: list[int] = []
    victim.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    GreedyFool(eps, scan="all")._reduce(victim, images, goal, delta)
    assert asked[0] == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"distortion": "gan"}, "distortion is 'gan'"),
        ({"scan": "none"}, "scan is 'none'"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], text: str) -> None:
    method = GreedyFool()
    for name, value in options.items():
        object.__setattr__(method, name, value)  # past the type checks of the tests
    with pytest.raises(ValueError, match=text):
        method.__post_init__()
