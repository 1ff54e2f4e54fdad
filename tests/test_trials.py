"""A trial survives attacks that cheat, raise or are killed, and repeats nothing it has done."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import attacks
from attacks import Goal
from attacks.base import Streams, streams
from bench.data.dataset import Dataset
from bench.data.splits import Split
from bench.errors import Stopped
from bench.execution.executors import Executor, Lost, Work
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.robustness import evaluation
from bench.robustness.batches import Block
from bench.robustness.evaluation import AttackJob, run
from bench.robustness.judge import CorrectImages, correct_images
from bench.robustness.metrics import Outcome, join
from bench.robustness.trials import Trial, folder, refusal
from bench.training.victims import Victim


class Linear(nn.Module):
    """Class 1 for images whose elements sum to more than half; a class 2 that never wins."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.flatten(1).mean(1) - 0.5
        return torch.stack([-bright, bright, -9 + 0 * bright], 1)


@dataclass(frozen=True)
class Signs:
    """Every element by eps towards the other class: three forwards and two backwards."""

    eps: float | None = 0.1
    calls: ClassVar[list[int]] = []

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams) -> Tensor:
        self.calls.append(len(images))
        leaf = images.clone().requires_grad_()
        for _ in range(2):
            (gradient,) = torch.autograd.grad(goal.margin(model(leaf)).sum(), leaf)
        with torch.no_grad():
            model(images)
        return (images - (self.eps or 1.0) * gradient.sign()).clamp(0, 1)


@dataclass(frozen=True)
class Noisy(Signs):
    """Changes a random share of the elements."""

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams) -> Tensor:
        drawn = [
            torch.rand(image.shape, generator=each)
            for image, each in zip(images, streams(generator, len(images)), strict=True)
        ]
        return torch.where(torch.stack(drawn) < 0.5, super().__call__(
            model, images, goal, generator), images)  # fmt: skip


@dataclass(frozen=True)
class Cheat(Signs):
    """Cheats in the way that ``how`` names."""

    how: str = "box"

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams) -> Tensor:
        dark = images.flatten(1).mean(1) < 0.3
        if self.how == "raises" and dark.any():
            raise RuntimeError("too dark\n  for me")
        if self.how == "shape":
            return images[:, :1]
        if self.how == "nothing":
            return None  # type: ignore[return-value]
        if self.how == "moves":
            images.fill_(0.5)
            goal.labels.fill_(2)
            return images
        found = super().__call__(model, images, goal, generator)
        wrong = {"box": 2.0, "eps": 0.99, "nan": torch.nan}.get(self.how)
        return found if wrong is None else torch.full_like(found, wrong)


@dataclass(frozen=True)
class Untargeted(Signs):
    """Cannot aim."""

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams) -> Tensor:
        if goal.targeted:
            raise ValueError("this attack has no targeted form: choose --untargeted")
        return super().__call__(model, images, goal, generator)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cls in {
        "signs": Signs,
        "noisy": Noisy,
        "cheat": Cheat,
        "aimless": Untargeted,
    }.items():
        monkeypatch.setitem(attacks.BUILTIN, name, cls)
    monkeypatch.setattr(evaluation, "BLOCK", 8)
    evaluation._victims.clear()
    Signs.calls.clear()


GREY = 40  # images, of which the attacked ones are the first


@dataclass(frozen=True)
class Given(Victim):
    """The linear rule instead of a trained network."""

    def load(self, workspace: Workspace, progress: object, stop: object = None) -> nn.Module:
        return Linear()


VICTIM = Given(model="linear", data="grey")


@pytest.fixture(scope="module", autouse=True)
def data() -> Dataset:
    levels = torch.linspace(0.2, 0.8, GREY).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    images = (levels * 255).round().to(torch.uint8)
    split = Split(images, (levels[:, 0, 0, 0] > 0.5).long())
    half = torch.full((3,), 0.5)
    return Dataset("grey", ("dark", "light"), split, split, half, half, True, "0", "memory")


@pytest.fixture(scope="module")
def chosen(data: Dataset) -> CorrectImages:
    return correct_images(Linear(), data.test, 20, "cpu")


def trial(attack: Signs, **changes: object) -> Trial:
    fields = {"victim": "linear", "data": "grey", "eps": "1/10", "aim": "untargeted"}
    return Trial(attack=attack, **(fields | {"images": 20} | changes))  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, data: Dataset) -> Workspace:
    workspace = Workspace(results=tmp_path)
    workspace.adopt(data)
    return workspace


def every(
    one: Trial, place: Workspace, *, seed: int = 0, stop: Callable[[], bool] | None = None,
    executor: Executor | None = None, **options: object,
) -> tuple[list[Outcome], bool]:  # fmt: skip
    """One outcome per goal, and whether all was there before."""
    chosen = evaluation.load_victim(VICTIM, one.images, place, Silent())[1]
    jobs = evaluation.attack_jobs(one, seed, VICTIM, chosen, **options)  # type: ignore[arg-type]
    ((_, _, outcomes, reused),) = run(
        jobs, place, Silent(), stop=stop or (lambda: False), executor=executor
    )
    return outcomes, reused


def go(one: Trial, place: Workspace, **options: object) -> tuple[Outcome, bool]:
    outcomes, reused = every(one, place, **options)  # type: ignore[arg-type]
    return join(outcomes), reused


def test_an_attack_is_judged_and_its_passes_are_exact(
    chosen: CorrectImages, place: Workspace
) -> None:
    outcome, reused = go(trial(Signs()), place)
    brightness = chosen.images.flatten(1).mean(1)
    assert not reused
    assert torch.equal(outcome.verdict.success, (brightness - 0.5).abs() < 0.1)
    assert (outcome.forwards == 3).all()
    assert (outcome.backwards == 2).all()
    assert (outcome.verdict.l0_elements == 48).all()
    assert 0 < outcome.passing < outcome.seconds


def test_a_cap_on_passes_is_kept(chosen: CorrectImages, place: Workspace) -> None:
    outcome, _ = go(trial(Signs(), query_cap=4), place)
    assert (outcome.forwards + outcome.backwards).tolist() == [4] * 20
    starved, _ = go(trial(Signs(), query_cap=1), place)
    assert (starved.verdict.l0_elements == 0).all()
    assert not starved.verdict.success.any()


@pytest.mark.parametrize(
    ("how", "flag"), [("box", "outside_box"), ("eps", "beyond_eps"), ("nan", "not_finite")]
)
def test_cheating_is_caught(how: str, flag: str, chosen: CorrectImages, place: Workspace) -> None:
    outcome, _ = go(trial(Cheat(how=how)), place)
    assert not outcome.verdict.success.any()
    assert getattr(outcome.verdict, flag).all()


def test_writing_into_the_arguments_helps_nobody(chosen: CorrectImages, place: Workspace) -> None:
    before = chosen.images.clone()
    outcome, _ = go(trial(Cheat(how="moves"), eps="1/100"), place)
    assert not outcome.verdict.success.any()
    assert torch.equal(chosen.images, before)


def test_an_exception_costs_the_image_that_raises_it(
    chosen: CorrectImages, place: Workspace
) -> None:
    outcome, _ = go(trial(Cheat(how="raises")), place)
    honest, _ = go(trial(Signs()), place)
    dark = chosen.images.flatten(1).mean(1) < 0.3
    assert 0 < dark.sum() < 20
    assert outcome.errors == {i: "RuntimeError: too dark for me" for i in chosen.ids[dark].tolist()}
    assert torch.equal(outcome.verdict.success, honest.verdict.success & ~dark)


@pytest.mark.parametrize("how", ["shape", "nothing"])
def test_what_is_no_image_is_an_error_of_the_attack(
    how: str, chosen: CorrectImages, place: Workspace
) -> None:
    outcome, _ = go(trial(Cheat(how=how)), place)
    assert len(outcome.errors) == 20
    assert "did not return images of shape (1, 3, 4, 4)" in next(iter(outcome.errors.values()))


def test_a_batch_for_which_memory_is_short_is_attacked_in_parts(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = go(trial(Signs()), place)
    usual = Signs.__call__

    def greedy(self: Signs, model: Any, images: Tensor, *rest: Any) -> Tensor:
        if len(images) > 3:
            raise MemoryError
        return usual(self, model, images, *rest)

    monkeypatch.setattr(Signs, "__call__", greedy)
    parts, _ = go(trial(Signs()), place, fresh=True)
    assert torch.equal(parts.verdict.success, whole.verdict.success)
    assert not parts.errors


def test_the_memory_of_a_failed_attempt_is_free_for_the_halves(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    held: list[weakref.ref[Tensor]] = []
    usual = Signs.__call__

    def greedy(self: Signs, model: Any, images: Tensor, *rest: Any) -> Tensor:
        alive.append(sum(each() is not None for each in held))
        large = torch.zeros(len(images))
        held.append(weakref.ref(large))
        if len(images) > 3:
            raise MemoryError
        return usual(self, model, images, *rest)

    monkeypatch.setattr(Signs, "__call__", greedy)
    go(trial(Signs()), place, fresh=True)
    assert len(alive) > 2
    assert alive == [0] * len(alive)


def test_memory_that_is_short_for_one_image_names_the_remedy(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(Signs, "__call__", greedy)
    with pytest.raises(ValueError, match="Out of memory with a single image: use a device with"):
        go(trial(Signs()), place)


def test_what_is_done_is_not_attacked_again(chosen: CorrectImages, place: Workspace) -> None:
    first, _ = go(trial(Noisy()), place)
    Signs.calls.clear()
    again, reused = go(trial(Noisy()), place)
    assert reused
    assert Signs.calls == []
    assert torch.equal(first.verdict.l2, again.verdict.l2)
    assert first.seconds == again.seconds
    go(trial(Noisy()), place, fresh=True)
    assert Signs.calls == [8, 8, 4]


@pytest.mark.parametrize("damage", ["half", "flipped", "gone", "swapped", "of another seed"])
def test_only_a_damaged_block_is_attacked_again(
    damage: str, chosen: CorrectImages, place: Workspace
) -> None:
    one = trial(Noisy())
    first, _ = go(one, place)
    here = folder(one, 0, place)
    block = here / "goal-0-block-00001.safetensors"
    content = block.read_bytes()
    if damage == "half":
        block.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        block.write_bytes(content[:-9] + bytes([content[-9] ^ 64]) + content[-8:])
    elif damage == "swapped":
        block.write_bytes((here / "goal-0-block-00000.safetensors").read_bytes())
    elif damage == "of another seed":
        go(one, place, seed=1)
        block.write_bytes((folder(one, 1, place) / block.name).read_bytes())
    else:
        block.unlink()
    Signs.calls.clear()
    again, reused = go(one, place)
    assert not reused
    assert Signs.calls == [8]
    assert torch.equal(first.verdict.l2, again.verdict.l2)


def test_a_stop_keeps_the_finished_blocks(chosen: CorrectImages, place: Workspace) -> None:
    with pytest.raises(Stopped, match="stopped after 1 of 3 blocks of images"):
        go(trial(Signs()), place, stop=lambda: len(Signs.calls) == 2)
    assert Signs.calls == [8, 8]  # the second was under way
    go(trial(Signs()), place)
    assert Signs.calls[2:] == [8, 4]


def test_each_executor_gives_the_same_images(place: Workspace) -> None:
    jobs: list[AttackJob] = []

    @dataclass
    class Backwards:
        """Runs the last job first."""

        def map(
            self, work: Work, todo: Sequence[AttackJob], *rest: Any
        ) -> Iterator[tuple[int, bool | None]]:
            jobs.extend(todo)
            for index in reversed(range(len(todo))):
                yield index, work(todo[index], *rest)

    here, _ = go(trial(Noisy()), place)
    there, _ = go(trial(Noisy()), replace(place, results=place.results / "b"), executor=Backwards())
    assert [part.number for part in jobs] == [0, 1, 2]
    assert all(pickle.loads(pickle.dumps(part)) == part for part in jobs)
    assert torch.equal(here.verdict.l2, there.verdict.l2)


class Deadly:
    """An executor whose workers die at the first job."""

    def map(self, work: Work, todo: Sequence[AttackJob], *rest: Any) -> Iterator[tuple[int, Any]]:
        yield 0, Lost("its worker died 3 times")
        yield from ((index, work(todo[index], *rest)) for index in range(1, len(todo)))


def test_a_block_whose_workers_died_is_a_failure_that_is_told(place: Workspace) -> None:
    outcome, _ = go(trial(Signs()), place, executor=Deadly())
    assert not outcome.verdict.success[:8].any()
    assert outcome.verdict.success[8:].any()
    assert set(outcome.errors.values()) == {"its worker died 3 times"}
    assert len(outcome.errors) == 8
    again, reused = go(trial(Signs()), place)
    assert not reused
    assert not again.errors


@pytest.mark.parametrize("batch_size", [1, 3, 16])  # 16 are two blocks
def test_results_do_not_depend_on_the_batch(
    batch_size: int, chosen: CorrectImages, place: Workspace
) -> None:
    whole, _ = go(trial(Noisy()), replace(place, results=place.results / "whole"))
    parts, _ = go(
        trial(Noisy()), replace(place, results=place.results / "parts"), batch_size=batch_size
    )
    assert max(Signs.calls[3:]) == batch_size
    assert torch.equal(whole.verdict.l0_elements, parts.verdict.l0_elements)
    assert torch.equal(whole.verdict.l2, parts.verdict.l2)
    assert torch.equal(whole.forwards, parts.forwards)


def test_a_batch_of_several_blocks_is_stored_block_by_block(place: Workspace) -> None:
    whole, _ = go(trial(Noisy()), place, batch_size=24)
    assert Signs.calls == [20]
    first, second, third = sorted(place.results.glob("attacks/*/*.safetensors"))
    second.unlink()
    again, reused = go(trial(Noisy()), place, batch_size=24)
    assert Signs.calls == [20, 8]
    assert not reused
    assert torch.equal(whole.verdict.l2, again.verdict.l2)
    assert torch.equal(whole.forwards, again.forwards)
    first.unlink()
    third.unlink()
    go(trial(Noisy()), place, batch_size=24)
    assert Signs.calls[2:] == [8, 4]  # they aren't consecutive
    _, reused = go(trial(Noisy()), place)
    assert reused


def test_a_batch_leaves_out_what_another_process_has_done(
    chosen: CorrectImages, place: Workspace
) -> None:
    first, second, _ = evaluation.attack_jobs(trial(Signs()), 0, VICTIM, chosen, batch_size=24)
    assert evaluation.work(second, place, Silent(), lambda: False) is False
    whole = replace(first, span=3)
    assert evaluation.work(whole, place, Silent(), lambda: False) is False
    assert Signs.calls == [8, 12]
    assert evaluation.work(whole, place, Silent(), lambda: False) is True
    assert Signs.calls == [8, 12]


def test_the_time_of_a_batch_is_shared_by_its_blocks() -> None:
    ids = torch.arange(20)
    whole = Block.untouched(ids, torch.rand(20, 1, 4, 4), "no reason")
    whole = replace(whole, seconds=5.0, passing=2.0)
    first, rest = whole.part(0, 8), whole.part(8, 20)
    assert (first.seconds, first.passing, rest.seconds) == (2.0, 0.8, 3.0)
    assert set(first.errors) == set(range(8))
    assert rest.ids.tolist() == list(range(8, 20))
    assert torch.equal(rest.adversarial, whole.adversarial[8:])


def test_all_blocks_of_a_batch_whose_workers_died_are_failures(place: Workspace) -> None:
    outcome, _ = go(trial(Signs()), place, executor=Deadly(), batch_size=16)
    assert list(outcome.errors.values()) == ["its worker died 3 times"] * 16
    assert Signs.calls == [4]


def test_full_blocks_serve_a_trial_of_more_images(place: Workspace) -> None:
    few, _ = go(trial(Noisy(), images=10), place)
    more, reused = go(trial(Noisy(), images=20), place)
    assert Signs.calls == [8, 2, 8, 4]  # the first block was whole
    assert not reused
    assert torch.equal(few.verdict.l2[:8], more.verdict.l2[:8])


def test_every_other_class_is_a_goal_of_its_own(chosen: CorrectImages, place: Workspace) -> None:
    outcomes, _ = every(trial(Signs(), aim="all"), place)
    assert len(outcomes) == 2
    never = chosen.labels == 0  # two classes on, class 2 never wins
    assert not outcomes[1].verdict.success[never].any()
    assert outcomes[0].verdict.success[never].any()


def test_the_floor_changes_as_many_pixels_as_the_other_attack(
    chosen: CorrectImages, place: Workspace
) -> None:
    @dataclass(frozen=True)
    class Pixels(Signs):
        """The first ``count`` pixels, or some number that depends on the image."""

        count: int | None = None

        def __call__(
            self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams
        ) -> Tensor:
            attacked = super().__call__(model, images, goal, generator)
            number = (images.flatten(1).mean(1) * 10).long() + 8
            number = number if self.count is None else torch.full_like(number, self.count)
            mask = torch.arange(16) < number[:, None]
            return torch.where(mask.reshape(-1, 1, 4, 4), attacked, images)

    attacks.BUILTIN["pixels"] = Pixels
    try:
        first = trial(Pixels(), victim="other")
        outcomes, _ = every(first, place)
        floor = trial(Pixels(), matched=first.key)
        matched, _ = every(floor, place, matched=outcomes)
        assert floor.name == "pixels, as many pixels"
    finally:
        del attacks.BUILTIN["pixels"]
    won, counts = outcomes[0].verdict.success, outcomes[0].verdict.l0_pixels
    assert len(counts[won].unique()) > 1
    assert torch.equal(matched[0].verdict.l0_pixels[won], counts[won])
    assert (matched[0].verdict.l0_pixels[~won] == counts[won].median()).all()


def test_an_attack_that_cannot_aim_says_so_before_the_trial(chosen: CorrectImages) -> None:
    def reason(attack: Signs, aim: str) -> str:
        return refusal(trial(attack, aim=aim), chosen.images[:1], chosen.labels[:1], 3)

    assert reason(Signs(), "random") == ""
    assert reason(Untargeted(), "untargeted") == ""
    assert "no targeted form" in reason(Untargeted(), "random")


def test_what_changes_results_changes_the_key_and_nothing_else_does() -> None:
    plain = trial(Signs())
    assert plain.key == trial(Signs()).key
    assert "query_cap" not in plain.to_json()
    others = [
        trial(Signs(), query_cap=10), trial(Signs(), images=19), trial(Signs(), aim="all"),
        trial(Signs(eps=0.2)), trial(Signs(), victim="else"), trial(Signs(), matched=plain.key),
    ]  # fmt: skip
    assert len({plain.key, *(other.key for other in others)}) == 7


def test_an_attack_without_eps_is_not_bounded(chosen: CorrectImages, place: Workspace) -> None:
    assert trial(Signs()).bounded
    free = trial(Signs(eps=None))
    assert not free.bounded
    outcome, _ = go(free, place)
    assert outcome.verdict.success.all()
    assert not outcome.verdict.beyond_eps.any()


def test_the_name_of_an_attack_says_where_it_ignores_the_eps_of_its_table() -> None:
    sigma = [attacks.SigmaZero(steps=20, eps=eps) for eps in (0.1, None)]
    jsma = [attacks.JSMA(eps=eps) for eps in (0.1, None)]
    names = [trial(each).name for each in (*sigma, *jsma, attacks.CWL0.official())]  # type: ignore[arg-type]
    assert names == [
        "sigma-zero(steps=20)", "sigma-zero(eps=None, steps=20)", "jsma", "jsma(eps=None)",
        "cw-l0.official",
    ]  # fmt: skip
    assert trial(sigma[1]).to_json()["attack"] == "sigma-zero(steps=20)"  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("images", 0), ("query_cap", 0)])
def test_impossible_trials_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{field} is 0: .* at least 1"):
        trial(Signs(), **{field: value})
