"""What every attack promises."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, ClassVar, Literal

import pytest
import torch
from planes import fewest, ladder, plane, some_images
from torch import Generator, Tensor, nn

import attacks
from attacks import BUILTIN, Attack, BaseAttack, Goal, PublishedAdvMask, passes, traits
from attacks.norms import box, l0_elements

NAMES = sorted(BUILTIN)
UNTARGETED_ONLY = {"sparsefool"}
NOT_SPARSE = {name for name in NAMES if traits(BUILTIN[name]()).role != "sparse"}
"""The ceiling and the floor of a table."""
BLIND = {"noise"}  # knows nothing of the model
NO_GRADIENT = {"noise", "sparse-rs", "sparse-autoattack"}  # or not for all of it

# fewer iterations where the promise doesn't depend on them
QUICK: dict[str, dict[str, Any]] = {
    "advmask": {"steps": 100},
    "cw-l0": {"steps": 20, "c_max": 100.0},
    "pgd-l0": {"steps": 20},
    "fmn-l0": {"steps": 100},
    "gse": {"searches": 4},
    "pgd-trim": {"steps": 8, "samples": 5},
    "sparse-autoattack": {"steps": 5, "queries": 50},
    "sparse-pgd": {"steps": 5},
    "sparse-rs": {"queries": 200},
    "vfga": {"samples": 2},
    "sapf": {"searches": 3, "steps": (25, 25, 25)},
}

# a factor of the fewest changes that a linear victim needs, and how many more
NEAR = {
    "jsma": (1.0, 1),  # the last pair
    "greedyfool": (1.25, 1),
    "pgd-l0": (2.0, 2),  # keeps the pixels of its random start too long
    "gse": (3.0, 4),  # changes groups of neighbours
    "pgd-trim": (1.6, 1),  # samples few subsets
    "sapf": (1.5, 15),  # its sparsity falls in coarse levels
    "sparsefool": (7.0, 2),  # aims three times as far as the boundary
}

GOALS = [(n, t) for n, t in product(NAMES, (False, True)) if not (t and n in UNTARGETED_ONLY)]


def attack(name: str, eps: float, *, quick: bool = True) -> Attack:
    options: dict[str, Any] = {"eps": eps, **(QUICK.get(name, {}) if quick else {})}
    return BUILTIN[name](**options)


def network(size: tuple[int, int, int], classes: int, seed: int = 0) -> nn.Module:
    """A small network in double precision; its dropout would show a forgotten eval()."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Conv2d(size[0], 4, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(4 * size[1] * size[2], classes),
        )
    return layers.double()


def goal_for(model: nn.Module, images: Tensor, targeted: bool) -> Goal:
    """Leave the predicted class, or reach the runner-up."""
    model.eval()
    with torch.no_grad():
        order = model(images).argsort(1, descending=True)
    return Goal(order[:, 1] if targeted else order[:, 0], targeted)


def seeded(count: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize(("size", "classes"), [((1, 7, 5), 2), ((3, 5, 6), 100)])
@pytest.mark.parametrize(("name", "targeted"), GOALS)
def test_every_attack_stays_in_the_box_and_returns_successes_or_the_image(
    name: str, targeted: bool, size: tuple[int, int, int], classes: int
) -> None:
    model, images, eps = network(size, classes), some_images(size, 4, seed=1, spread=0.3), 0.1
    goal = goal_for(model, images, targeted)
    adversarial = attack(name, eps)(model, images, goal, Generator().manual_seed(0))
    assert adversarial.shape == images.shape
    assert adversarial.dtype == images.dtype
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (adversarial - images).abs().max() <= eps * (1 + 1e-12)
    failed = ~goal.reached(model(adversarial))
    assert torch.equal(adversarial[failed], images[failed])
    assert not failed.all() or name in BLIND


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_leaves_its_arguments_and_the_global_generator_as_they_were(name: str) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 3, seed=2)
    goal = goal_for(model, images, targeted=False)
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    before = images.clone(), goal.labels.clone(), torch.random.get_rng_state()
    weights = [p.clone() for p in model.parameters()]
    adversarial = attack(name, 0.1)(model, images, goal, Generator().manual_seed(0))
    assert not adversarial.requires_grad
    after = images, goal.labels, torch.random.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not images.requires_grad
    assert [m.training for m in model] == [True, False, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_refuses_a_model_that_changes_its_images_in_place(name: str) -> None:
    class Darker(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mul_(0.9)

    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 2, seed=2)
    before, labels = images.clone(), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"changes the images .* in place: let it change a copy"):
        attack(name, 0.1)(nn.Sequential(Darker(), model), images, labels)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("name", "targeted"), GOALS)
def test_every_attack_returns_images_that_already_reach_the_goal(name: str, targeted: bool) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 4, seed=3)
    goal = goal_for(model, images, targeted)
    other = goal_for(model, images, not targeted)
    done = torch.tensor([True, False, True, False])
    mixed = Goal(torch.where(done, other.labels, goal.labels), targeted)
    adversarial = attack(name, 0.1)(model, images, mixed, Generator().manual_seed(0))
    assert torch.equal(adversarial[done], images[done])


@pytest.mark.parametrize("name", NAMES)
def test_no_eps_is_no_bound(name: str) -> None:
    model, images = network((1, 4, 4), 3), some_images((1, 4, 4), 2, seed=5)
    labels, options = model(images).argmax(1), QUICK.get(name, {})
    found = [
        BUILTIN[name](eps=eps, **options)(model, images, labels, Generator().manual_seed(6))
        for eps in (None, 1.0)
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_returns_a_batch_of_which_nothing_is_left_to_do(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wrong = (model(images).argmax(1) + 1) % 3
    assert torch.equal(BUILTIN[name](eps=0.1)(model, images, wrong), images)


@pytest.mark.parametrize("name", NAMES)
def test_no_attack_needs_gradients_to_be_switched_on(name: str) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 3, seed=3)
    goal = goal_for(model, images, targeted=False)
    usual = attack(name, 0.1)(model, images, goal, seeded(3))
    with torch.no_grad():
        assert torch.equal(attack(name, 0.1)(model, images, goal, seeded(3)), usual)


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_takes_an_empty_batch(name: str) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 0, seed=3)
    goal = Goal(torch.zeros(0, dtype=torch.long))
    assert attack(name, 0.1)(model, images, goal, Generator()).shape == images.shape


@pytest.mark.slow
@pytest.mark.parametrize(("name", "targeted"), GOALS)
def test_no_image_feels_the_size_of_its_batch(name: str, targeted: bool) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 64, seed=4, spread=0.2)
    goal = goal_for(model, images, targeted)
    method = attack(name, 0.1)
    whole = method(model, images, goal, Generator().manual_seed(0))
    for size in (1, 3):
        generator = Generator().manual_seed(0)
        for start in range(0, 6, size):
            rows = torch.arange(start, start + size)
            part = method(model, images[rows], goal[rows], generator)
            torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-9)
            assert torch.equal(part != images[rows], whole[rows] != images[rows])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "targeted"), GOALS)
@pytest.mark.parametrize("classes", [2, 4])
def test_no_attack_beats_the_fewest_changes_and_sparse_ones_come_near(
    name: str, targeted: bool, classes: int
) -> None:
    size, eps = (1, 9, 7), 0.1
    model = ladder(size, classes) if targeted else plane(size, classes)
    images = some_images(size, 8, seed=5, spread=0.15)
    goal = goal_for(model, images, targeted)
    least = fewest(model, images, goal, eps)
    method = attack(name, eps, quick=False)
    adversarial = method(model, images, goal, Generator().manual_seed(0))
    reached = goal.reached(model(adversarial))
    changes = l0_elements(adversarial - images)
    assert (changes[reached] >= least[reached]).all()
    if name not in NOT_SPARSE:
        assert reached.all()
        factor, more = NEAR.get(name, (1.25, 1))
        # no gradient tells which of several classes is the easiest to reach
        if not targeted and classes > 2:
            factor, more = max(factor, 2.0), max(more, 2)
        assert (changes <= factor * least + more).all(), (changes, least)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["elements", "pixels"])
@pytest.mark.parametrize(("classes", "targeted"), [(2, True), (2, False), (3, True), (3, False)])
def test_the_fewest_changes_are_those_of_an_exhaustive_search(
    classes: int, targeted: bool, unit: Literal["elements", "pixels"]
) -> None:
    size, eps, places = (2, 1, 5), 0.2, 10 if unit == "elements" else 5
    model = ladder(size, classes) if targeted else plane(size, classes)
    images = some_images(size, 20, seed=9)
    goal = goal_for(model, images, targeted)
    least = fewest(model, images, goal, eps, unit)
    lower, upper = box(images, eps)
    subsets = torch.tensor(list(product((False, True), repeat=places)))
    masks = (
        subsets.view(-1, *size)
        if unit == "elements"
        else subsets[:, None, None].expand(-1, 2, 1, 5)
    )
    for row in range(len(images)):
        label, found = goal.labels[row], torch.zeros(len(masks), dtype=torch.bool)
        for other in set(range(classes)) - {int(label)}:
            # on a ladder each step towards the target helps, and may be cut short
            pull = (model.weight[label] - model.weight[other]) * (1 if targeted else -1)
            best = torch.where(pull > 0, upper[row], lower[row])
            reach = torch.linspace(0, 1, 101, dtype=torch.float64)[1:, None, None, None, None]
            logits = model((images[row] + reach * masks * best).flatten(0, 1)).view(
                100, len(masks), -1
            )
            wins = Goal(label.expand(100 * len(masks)), targeted).reached(logits.flatten(0, 1))
            found |= wins.view(100, -1).any(0)
        sizes = subsets.sum(1)
        expected = int(sizes[found].min()) if found.any() else places + 1
        assert int(least[row]) == expected


class _Poison(torch.autograd.Function):
    """The identity, whose gradient has one value that is not a number for some rows."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        gradient = gradients[0].clone()
        gradient[rows, 0, 0, 0] = torch.nan
        return gradient, None


class Poisoned(nn.Module):
    """A model without a usable gradient near one image."""

    def __init__(self, model: nn.Module, image: Tensor, distance: float) -> None:
        super().__init__()
        self.model, self.image, self.distance = model, image, distance

    def forward(self, images: Tensor) -> Tensor:
        rows = (images.detach() - self.image).flatten(1).abs().amax(1) <= self.distance
        logits: Tensor = self.model(_Poison.apply(images, rows))
        return logits


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - NO_GRADIENT))
def test_a_gradient_that_is_not_a_number_stays_with_its_image(name: str) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 3, seed=6, spread=0.2)
    goal, method = goal_for(model, images, targeted=False), attack(name, 0.1)
    poisoned = Poisoned(model, images[1], distance=0.15)
    adversarial = method(poisoned, images, goal, seeded(3))
    clean = method(model, images, goal, seeded(3))
    assert torch.equal(adversarial[1], images[1])
    torch.testing.assert_close(adversarial[::2], clean[::2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", sorted(UNTARGETED_ONLY & set(NAMES)))
def test_an_attack_without_targets_says_so(name: str) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 2, seed=7)
    with pytest.raises(ValueError, match="untargeted"):
        attack(name, 0.1)(model, images, goal_for(model, images, True), Generator())


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_refuses_images_that_are_normalised(name: str) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 2, seed=8)
    with pytest.raises(ValueError, match="before normalisation"):
        attack(name, 0.1)(model, images * 4 - 2, Goal(torch.zeros(2).long()), Generator())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_labels_are_enough_to_leave_a_class(name: str) -> None:
    model, images = network((3, 5, 6), 5), some_images((3, 5, 6), 4, seed=9, spread=0.2)
    goal = goal_for(model, images, targeted=False)
    seeded = attack(name, 0.1)(model, images, goal, Generator().manual_seed(0))
    assert torch.equal(attack(name, 0.1)(model, images, goal), seeded)
    assert torch.equal(attack(name, 0.1)(model, images, goal.labels), seeded)
    assert torch.equal(attack(name, 0.1)(model, images, goal.labels.int()), seeded)


@dataclass(frozen=True)
class Idle(BaseAttack):
    """An attack of one's own, without any check."""

    eps: float | None = None

    def passes(self, shape: tuple[int, int, int]) -> int:
        return 0

    def _attack(self, model: nn.Module, images: Tensor, goal: Goal, generators: Any) -> Tensor:
        return images.clone()


@pytest.mark.parametrize("eps", [8.0, 0.0, -1.0, float("nan")])
@pytest.mark.parametrize("cls", [*BUILTIN.values(), PublishedAdvMask, Idle])
def test_an_eps_out_of_range_is_refused_before_any_call(cls: Any, eps: float) -> None:
    with pytest.raises(ValueError, match=f"^eps is {eps}: it must (be|lie) above 0 and at most 1"):
        cls(eps=eps)
    assert cls(eps=1.0).eps == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3).long(), r"labels have shape \(3,\) for 2 images: give one per image"),
        (torch.zeros(2, 1).long(), r"labels have shape \(2, 1\) for 2 images"),
        (torch.zeros(2), "labels are of type torch.float32: give integers, one class per image"),
        (torch.zeros(2).bool(), "labels are of type torch.bool: give integers"),
    ],
)
def test_labels_that_fit_no_batch_are_refused(labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BUILTIN["pgd"]()(network((3, 5, 6), 5), some_images((3, 5, 6), 2, seed=8), labels)


def test_another_number_of_generators_than_images_is_refused() -> None:
    images, labels = some_images((3, 5, 6), 2, seed=8), torch.zeros(2).long()
    with pytest.raises(ValueError, match="3 generators for 2 images: give one per image"):
        BUILTIN["pgd"]()(network((3, 5, 6), 5), images, Goal(labels), seeded(3))


class Counting(nn.Module):
    """Adds up the rows that go forward and the gradients that come back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.count = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.count += len(images)
        images = images.clone() if images.requires_grad else images
        if images.requires_grad:
            images.register_hook(self.back)
        logits: Tensor = self.model(images)
        return logits

    def back(self, gradient: Tensor) -> None:
        self.count += len(gradient)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_attack_makes_more_passes_than_it_declares(name: str) -> None:
    size, method = (3, 5, 6), attack(name, 0.02)
    counts = []
    for seed in range(6):
        model, images = network(size, 5, seed), some_images(size, 1, seed=seed, spread=0.3)
        counting = Counting(model)
        method(counting, images, goal_for(model, images, targeted=False))
        counts.append(counting.count)
    assert 0 < max(counts) <= passes(method, size)
    if name in {"pgd", "mi-fgsm", "sigma-zero"}:  # a failure takes all of them
        assert max(counts) == passes(method, size)


@dataclass(frozen=True)
class Bare:
    """Follows the protocol and declares nothing."""

    eps: float | None = 8 / 255

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Any) -> Tensor:
        return images.clone()


@dataclass(frozen=True)
class Odd(Bare):
    role: ClassVar[str] = "dense"


def test_what_an_attack_declares_is_read_in_one_place() -> None:
    roles = {name: traits(BUILTIN[name]()).role for name in NAMES}
    known = {
        "advmask", "cw-l0", "fmn-l0", "greedyfool", "gse", "jsma", "pgd-l0", "pgd-trim", "sapf",
        "sigma-zero", "sparse-autoattack", "sparse-pgd", "sparse-rs", "sparsefool", "vfga",
    }  # fmt: skip
    assert {roles[name] for name in known} == {"sparse"}
    assert roles["pgd"] == roles["mi-fgsm"] == "ceiling"
    assert roles["noise"] == "floor"
    assert traits(attack("cw-l0", 0.1)) == ("sparse", "pixels", True)
    assert traits(BUILTIN["cw-l0"](mode="free")) == ("sparse", "pixels", False)
    assert traits(BUILTIN["sigma-zero"]()) == ("sparse", "elements", False)
    assert traits(BUILTIN["pgd"]()).unit is None
    assert traits(Bare()) == ("sparse", "pixels", True)
    assert traits(Bare(None)) == ("sparse", "pixels", False)
    assert passes(Bare(), (3, 5, 6)) == 0
    with pytest.raises(ValueError, match="Odd declares the role 'dense': it must be one of sparse"):
        traits(Odd())


def test_every_attack_class_is_public() -> None:
    modules = [import_module(f"attacks.{m.name}") for m in pkgutil.iter_modules(attacks.__path__)]
    classes = {
        name
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, BaseAttack)
    }
    assert classes <= set(attacks.__all__)
    assert {cls.__name__ for cls in BUILTIN.values()} <= classes
    public = [getattr(attacks, name) for name in attacks.__all__]
    assert all(each.__doc__ for each in public if inspect.isclass(each) or inspect.isfunction(each))


@pytest.mark.slow
def test_importing_the_attacks_loads_nothing_heavy() -> None:
    code = (
        "import sys, attacks; heavy = {'mlflow', 'timm', 'matplotlib', 'sklearn', 'skimage', "
        "'click', 'scipy', 'bench', 'augmentations'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
