"""The judge counts every pass, believes nothing, and its numbers are those of paper and pencil."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks import JSMA, Attack, Goal, GreedyFool
from bench.data.splits import Split
from bench.records.over_images import relate
from bench.robustness.in_memory import prepare
from bench.robustness.judge import CorrectImages, Verdict, correct_images, goals, judge
from bench.robustness.metrics import Outcome, curve, join, summarise
from bench.robustness.pass_counter import Counted, peak_memory
from bench.robustness.results import pairwise_tests
from bench.robustness.trials import Trial


class Brightness(nn.Module):
    """Class 1 for images brighter than one half in the mean, class 0 for others, 2 never."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.flatten(1).mean(1) - 0.5
        return torch.stack([-bright, bright, torch.full_like(bright, -9.0)], 1)


def grey(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()


def counted(images: Tensor, cap: int | None = None) -> Counted:
    labels = Brightness()(images).argmax(1)
    return Counted(Brightness(), images, labels, cap)


def backward(model: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    return gradient


def test_passes_are_counted_exactly() -> None:
    images = grey(0.1, 0.4, 0.9)
    model = counted(images)
    backward(model, images)
    backward(model, images + 0.01)
    model(images[1:2])
    with torch.no_grad():
        model(images)
    assert model.forwards.tolist() == [3, 4, 3]
    assert model.backwards.tolist() == [2, 2, 2]
    assert model.passing > 0


def test_rows_belong_to_the_nearest_image_whatever_their_order() -> None:
    images = grey(0.1, 0.4, 0.9)
    model = counted(images)
    rows = torch.tensor([2, 0, 0, 2, 2])
    backward(model, images[rows] + 0.03 * torch.rand(5, 3, 4, 4))
    assert model.forwards.tolist() == model.backwards.tolist() == [2, 0, 3]


def test_counting_changes_neither_logits_nor_gradients() -> None:
    images = torch.rand(3, 3, 4, 4)
    model = counted(images)
    assert torch.equal(model(images), Brightness()(images))
    assert torch.equal(backward(model, images), backward(Brightness(), images))


def test_two_gradients_of_one_forward_count_twice() -> None:
    images = grey(0.1, 0.9)
    model = counted(images)
    leaf = images.clone().requires_grad_()
    logits = model(leaf)
    torch.autograd.grad(logits[:, 0].sum(), leaf, retain_graph=True)
    torch.autograd.grad(logits[:, 1].sum(), leaf)
    assert (model.forwards.tolist(), model.backwards.tolist()) == ([1, 1], [2, 2])


def test_gradients_that_cannot_be_counted_are_refused() -> None:
    images = grey(0.1)
    model = counted(images)
    leaf = images.clone().requires_grad_()
    logits = model(leaf)
    with pytest.raises(RuntimeError, match="is_grads_batched cannot be counted"):
        torch.autograd.grad(logits, leaf, torch.eye(3)[:, None], is_grads_batched=True)


def test_an_exhausted_image_gets_its_label_and_no_gradient() -> None:
    images = grey(0.1, 0.9)
    model = counted(images, cap=3)
    assert backward(model, images).abs().sum() > 0  # two passes each
    bright = torch.ones_like(images)
    assert model(bright[:1]).argmax() == 1  # nearest to the second image: its third pass
    answers = model(images + 0.05)
    assert model.forwards.tolist() == [2, 2]
    assert answers[1].tolist() == [0.0, 1.0, 0.0]
    late = backward(model, images)
    assert model.forwards.tolist() == [2, 2]
    assert late.abs().sum() == 0
    assert (model.forwards + model.backwards).max() <= 3


def test_the_rows_of_one_batch_are_paid_one_by_one() -> None:
    images = grey(0.1, 0.9)
    model = counted(images, cap=2)
    answers = model(grey(0.1, 0.12, 0.88, 0.14))
    assert model.forwards.tolist() == [2, 1]
    assert answers[3].tolist() == [1.0, 0.0, 0.0]
    assert answers[0, 2] == -9


def test_the_memory_of_a_large_tensor_is_seen_even_where_as_much_was_freed() -> None:
    pieces = [torch.ones(2**12) for _ in range(2**13)]  # so small that the heap keeps their pages
    pins = pieces[::64]
    del pieces
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(16 * 2**20).sum()
        seen = peak()
    assert pins
    assert seen is None or 50 < seen < 200


def verdict(images: Tensor, adversarial: Tensor, eps: float | None, target: int = -1) -> Verdict:
    labels = Brightness()(images).argmax(1)
    goal = Goal(labels) if target < 0 else Goal(torch.full_like(labels, target), targeted=True)
    return judge(Brightness(), images, labels, goal, adversarial, eps)


def test_norms_and_success_are_those_of_the_returned_image() -> None:
    images = grey(0.49)
    changed = images.clone()
    changed[0, 0, 0, :3] += 0.4
    changed[0, 1, 0, 0] += 0.3
    found = verdict(images, changed, 0.5)
    assert found.success.item()
    assert found.misclassified.item()
    assert (found.l0_pixels.item(), found.l0_elements.item()) == (3, 4)
    assert found.l2.item() == pytest.approx(math.sqrt(3 * 0.16 + 0.09))
    assert found.linf.item() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("cheat", "flag"),
    [
        (lambda images: images + 0.6, "outside_box"),
        (lambda images: images + 0.3, "beyond_eps"),
        (lambda images: torch.where(images == images[0, 0, 0, 0], torch.nan, 1.0), "not_finite"),
    ],
)
def test_a_success_by_cheating_is_a_failure(cheat: object, flag: str) -> None:
    images = grey(0.45)
    assert callable(cheat)
    found = verdict(images, cheat(images), 0.1)
    assert not found.success.item()
    assert not found.misclassified.item()
    assert getattr(found, flag).item()


def test_a_change_of_exactly_eps_is_allowed() -> None:
    images = torch.rand(64, 3, 4, 4)
    eps = 8 / 255
    attacked = (images + eps).clamp(0, 1)
    assert not verdict(images, attacked, eps).beyond_eps.any()
    assert verdict(images, images + 1.01 * eps * (images < 0.5), eps).beyond_eps.all()


def test_reaching_another_class_is_no_success_but_is_misclassified() -> None:
    found = verdict(grey(0.45), grey(0.55), 0.2, target=2)
    assert found.misclassified.item()
    assert not found.success.item()


def test_changes_below_half_a_level_vanish_with_rounding() -> None:
    images = (grey(0.499) * 255).round() / 255  # 127 levels: just below one half
    attacked = images.clone()
    attacked[0, 0] += 1.4 / 255
    attacked[0, 1:] += 0.49 / 255
    found = verdict(images, attacked, 0.1)
    assert found.success.item()
    assert (found.l0_elements.item(), found.l0_elements_8bit.item()) == (48, 16)
    assert not found.success_8bit.item()  # its mean is now 127.33 levels


def test_a_success_on_256_levels_keeps_within_eps_too() -> None:
    """A change of 0.03 is 7.65 levels, which are rounded to 8: more than 0.03."""
    images = (grey(0.499) * 255).round() / 255
    for eps, kept in ((0.03, False), (8 / 255, True)):
        found = verdict(images, images + eps, eps)
        assert found.success.item()
        assert found.success_8bit.item() == kept


def test_a_target_that_is_the_label_is_refused() -> None:
    with pytest.raises(ValueError, match="target of image 0 is its own label, 1; choose another"):
        verdict(grey(0.9), grey(0.9), 0.1, target=1)


def test_images_outside_the_box_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images lie in \[0.5, 1.5\]: attacks take \[0, 1\]"):
        verdict(grey(0.5, 1.5), grey(0.5, 0.5), 0.1)


def split(n: int = 40) -> Split:
    images = (grey(*torch.linspace(0.05, 0.95, n).tolist()) * 255).round().to(torch.uint8)
    labels = (images.float().flatten(1).mean(1) > 127.5).long()
    labels[::4] = 2  # which the network never says
    return Split(images, labels)


def test_only_correctly_classified_images_are_attacked_in_a_fixed_order() -> None:
    few = correct_images(Brightness(), split(), 7, "cpu")
    many = correct_images(Brightness(), split(), 20, "cpu")
    assert torch.equal(few.ids, many.ids[:7])
    assert (many.labels != 2).all()
    assert len(set(many.ids.tolist())) == 20
    assert 0.5 < many.correct <= 1
    assert set(many.labels.tolist()) == {0, 1}


def test_too_few_correct_images_are_said() -> None:
    with pytest.raises(ValueError, match="classifies 30 of 40 test images correctly; lower"):
        correct_images(Brightness(), split(), 31, "cpu")


class Overflowing(Brightness):
    """Gives no numbers for images brighter than a level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, images: Tensor) -> Tensor:
        wrong = images.flatten(1).mean(1, keepdim=True) > self.level
        return torch.where(wrong, torch.nan, super().forward(images))


def test_a_network_without_finite_logits_is_not_attacked() -> None:
    with pytest.raises(ValueError, match=r"logits that are not finite for \d+ of 40 images"):
        correct_images(Overflowing(0.5), split(), 5, "cpu")
    images = grey(0.2, 0.9)
    with pytest.raises(ValueError, match="logits that are not finite for 1 of 2 images"):
        prepare(Overflowing(0.5), images, torch.tensor([0, 1]))


@pytest.mark.parametrize(("target", "true"), [(-1, 1), (0, 1)])
def test_an_image_for_which_the_network_gives_no_numbers_is_no_success(
    target: int, true: int
) -> None:
    images, labels = grey(0.7, 0.7), torch.tensor([true, true])
    goal = Goal(labels) if target < 0 else Goal(torch.full_like(labels, target), targeted=True)
    attacked = grey(0.9, 0.4)  # argmax of numbers that are none is class 0
    found = judge(Overflowing(0.8), images, labels, goal, attacked, 0.5)
    assert found.success.tolist() == [False, True]
    assert found.misclassified.tolist() == [False, True]
    assert found.success_8bit.tolist() == [False, True]
    assert found.not_finite.tolist() == [True, False]


def chosen(n: int) -> CorrectImages:
    return correct_images(Brightness(), split(), n, "cpu")


def test_random_targets_depend_on_seed_and_image_alone() -> None:
    (many,), (few,) = goals("random", chosen(20), 3), goals("random", chosen(5), 3)
    assert torch.equal(many.labels[:5], few.labels)
    assert (many.labels != chosen(20).labels).all()
    (other,) = goals("random", chosen(20), 4)
    assert not torch.equal(many.labels, other.labels)
    assert len(set(many.labels.tolist())) == 3


def test_named_targets_are_what_they_say() -> None:
    some = chosen(6)
    (least,) = goals("least-likely", some, 0)
    assert (least.labels == 2).all()
    (following,) = goals("next", some, 0)
    assert torch.equal(following.labels, (some.labels + 1) % 3)
    every = goals("all", some, 0)
    assert len(every) == 2
    assert all(sorted({*t, int(label)}) == [0, 1, 2] for *t, label in zip(
        *(goal.labels.tolist() for goal in every), some.labels, strict=True))  # fmt: skip
    assert not goals("untargeted", some, 0)[0].targeted


def outcome(l0: list[float]) -> Outcome:
    """Failures are infinite; each pixel changes two elements by 0.1."""
    won = torch.tensor(l0).isfinite()
    count = torch.tensor([0 if math.isinf(each) else int(each) for each in l0])
    zero, no = torch.zeros(len(l0)), torch.zeros(len(l0), dtype=torch.bool)
    found = Verdict(
        won, won, won, no, no, no, no, count, 2 * count, count, 2 * count,
        zero + (2 * count).sqrt() * 0.1, zero + 0.1,
    )  # fmt: skip
    return Outcome(found, count + 1, count, 6.0, 5.0, None, {})


INF = math.inf


def test_metrics_are_those_of_paper_and_pencil() -> None:
    metrics = summarise([outcome([2, 8, INF, 5])])
    assert metrics["success"] == 0.75
    assert metrics["l0_pixels_mean"] == 5
    assert metrics["l0_elements_mean"] == 10
    assert metrics["l0_pixels_median"] == 6.5  # of 2, 5, 8 and infinity
    assert metrics["seconds_per_image"] == 1.5
    assert metrics["pass_ratio"] == pytest.approx(1.2)
    assert metrics["forwards"] == 4.75
    assert metrics["success_low"] == pytest.approx(0.30064, abs=1e-4)
    assert metrics["success_high"] == pytest.approx(0.95441, abs=1e-4)


def test_nothing_infinite_is_ever_a_metric() -> None:
    for l0 in ([INF, INF, INF], [INF, INF, 2], [1]):
        metrics = summarise([outcome(l0)])
        assert all(map(math.isfinite, metrics.values()))
    assert "l0_pixels_median" not in summarise([outcome([INF, INF, 2])])
    assert "l0_pixels_mean" not in summarise([outcome([INF])])


def test_several_goals_give_average_best_and_worst() -> None:
    metrics = summarise([outcome([2, 8, INF]), outcome([4, INF, INF])])
    assert metrics["images"] == 3
    assert metrics["success"] == 0.5
    assert (metrics["success_best"], metrics["success_worst"]) == (2 / 3, 1 / 3)
    assert (metrics["l0_pixels_best"], metrics["l0_pixels_worst"]) == (5, 4)
    assert metrics["success_low"] < 0.5 < metrics["success_high"]


def test_the_interval_over_several_goals_is_of_shares_and_needs_a_spread() -> None:
    metrics = summarise([outcome([2, 8, INF]), outcome([4, INF, INF])])
    assert (metrics["success_low"], metrics["success_high"]) == (0.0, 1.0)
    same = summarise([outcome([2, 8]), outcome([4, INF]), outcome([INF, 1])])
    assert same["success"] == pytest.approx(2 / 3)
    assert not {"success_low", "success_high"} & same.keys()


def test_goals_that_share_an_image_are_one_image_in_a_test() -> None:
    """Nine goals of two images are no eighteen images."""

    def trial(attack: Attack) -> Trial:
        return Trial(attack=attack, victim="v", data="d", eps="1", aim="all", images=2)

    few = [outcome([goal, 2 * goal]) for goal in range(1, 10)]
    many = [outcome([goal + 3, 2 * goal + 3]) for goal in range(1, 10)]
    (pixels, _) = pairwise_tests({trial(JSMA()): few, trial(GreedyFool()): many})
    assert (pixels["less"], pixels["more"], pixels["same"]) == (2, 0, 0)
    assert pixels["difference"] == -3
    assert pixels["p_holm"] == 0.5
    many[4] = outcome([8, INF])  # a goal that fails is a failure of its image
    (pixels, _) = pairwise_tests({trial(JSMA()): few, trial(GreedyFool()): many})
    assert (pixels["less"], pixels["difference"]) == (2, -3)


def test_common_successes_leave_out_references() -> None:
    found = relate(
        {
            "a": np.array([1.0, 4.0, INF]),
            "b": np.array([3.0, 2.0, 5.0]),
            "noise": np.array([INF, INF, INF]),
        },
        references=["noise"],
    )
    assert found["a"]["l0_common"] == 2.5
    assert found["b"]["l0_common"] == 2.5
    assert found["a"]["common"] == 2
    assert "l0_common" not in found["noise"]
    assert found["noise"]["optimality"] < found["a"]["optimality"] < 1


def test_the_curve_rises_where_an_image_breaks() -> None:
    found = curve(outcome([2, INF, 1, 2]).verdict)
    assert [(e["changes"], e["pixels"], e["elements"]) for e in found] == [
        (1, 0.25, 0.0),
        (2, 0.75, 0.25),
        (4, 0.75, 0.75),
    ]


def test_joined_outcomes_keep_every_image() -> None:
    parts = [outcome([1, 2]), dataclasses.replace(outcome([3]), memory=7.0, errors={5: "no"})]
    whole = join(parts)
    assert whole.verdict.l0_pixels.tolist() == [1, 2, 3]
    assert (whole.seconds, whole.memory, whole.errors) == (12.0, 7.0, {5: "no"})
