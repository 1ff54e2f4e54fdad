"""Attacks under a budget: what is found within so many changes and passes, with intervals."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from attacks import Goal
from attacks.base import Streams
from bench.cli import main
from bench.records import over_images
from bench.records.over_images import OverImages
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import budgets, formats
from bench.reporting.figures import passes_figures
from bench.robustness import batches
from bench.robustness.best_so_far import BUDGETS, NEVER
from bench.robustness.judge import judge
from bench.robustness.metrics import Outcome, trace
from bench.robustness.trials import Trial

INF = math.inf
START = torch.zeros(2, 3, 4, 4)
START[1, 0, 3, 3] = 0.5
"""Two images that differ, since passes are counted for the nearest one."""


class Bright(nn.Module):
    """Class 1 from a sum of more than one on, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        total = images.flatten(1).sum(1) - 1
        return torch.stack([-total, total], 1)


@dataclass(frozen=True)
class Script:
    """Shows the victim model images with so many white pixels, one after the other."""

    counts: tuple[int, ...] = ()
    returned: int = 0
    eps: float | None = None
    size: float = 1.0

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams) -> Tensor:
        for count in self.counts:
            model(self.white(images, count))
        return self.white(images, self.returned)

    def white(self, images: Tensor, count: int) -> Tensor:
        changed = images.flatten(2).clone()
        changed[:, :, :count] += self.size
        return changed.view(images.shape)


def attacked(
    script: Script, images: Tensor | None = None, region: Tensor | None = None
) -> batches.Block:
    images = START if images is None else images
    labels = torch.zeros(len(images), dtype=torch.long)
    trial = Trial(attack=script, victim="bright", data="none", eps=str(script.eps or 1))
    ids = torch.arange(len(images))
    return batches.attack(trial, 0, Bright(), images, labels, Goal(labels, region=region), ids)


def outcome(script: Script) -> Outcome:
    block = attacked(script)
    labels = torch.zeros(2, dtype=torch.long)
    verdict = judge(Bright(), START, labels, Goal(labels), block.adversarial, script.eps)
    return block.outcome(verdict)


def within(counts: Sequence[int], budget: int, succeeds_from: int) -> float:
    """By hand: the fewest white pixels among the first images that are shown."""
    return min((c for c in counts[:budget] if c >= succeeds_from), default=INF)


def test_the_best_so_far_is_the_fewest_changes_that_were_shown() -> None:
    counts = (*[0] * 5, 16, *[9] * 10, 12, *[0] * 20, 4, 7, *[0] * 100, 3)
    found = {e["passes"]: e for e in trace([outcome(Script(counts, returned=3))])}
    assert list(found) == list(BUDGETS)
    for budget in BUDGETS:
        best = within(counts, budget, 1)
        assert found[budget]["pixels"] == best
        assert found[budget]["elements"] == 3 * best
        assert found[budget]["success"] == 1


def test_what_was_returned_but_never_shown_counts_from_the_last_pass_on() -> None:
    found = {e["passes"]: e for e in trace([outcome(Script((0,) * 60, returned=2))])}
    assert found[50]["success"] == 0
    assert "pixels" not in found[50]
    assert found[100]["pixels"] == 2


@pytest.mark.parametrize("size", [2.0, -1.0, math.nan])
def test_images_that_break_the_rules_are_no_success(size: float) -> None:
    script = Script((5,), returned=0, size=size)
    assert (attacked(script).fewest == NEVER).all()


def test_images_beyond_eps_are_no_success() -> None:
    assert (attacked(Script((5,), eps=0.5, size=0.6)).fewest == NEVER).all()
    assert (attacked(Script((5,), eps=0.5, size=0.5)).fewest[:, 0] == torch.tensor([5, 15])).all()


def test_images_that_change_outside_the_region_are_no_success() -> None:
    region = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    region[0] = True
    fewest = attacked(Script((5,)), region=region).fewest
    assert fewest is not None
    assert fewest[0, 0].tolist() == [5, 15]
    assert (fewest[1] == NEVER).all()


def test_watching_changes_no_pass_and_no_image() -> None:
    block = attacked(Script((1, 2, 3), returned=3))
    assert block.forwards.tolist() == [3, 3]
    assert block.adversarial.sum() == 2 * 9 + 0.5


def test_blocks_of_earlier_versions_are_read_and_have_no_trace(tmp_path: Path) -> None:
    path, about, ids = tmp_path / "block.safetensors", {"trial": 1}, torch.arange(2)
    block = attacked(Script((5,), returned=5))
    batches.save(replace(block, fewest=None), path, about)
    old = batches.load(path, about, ids)
    assert old is not None
    assert old.fewest is None
    assert torch.equal(old.adversarial, block.adversarial)
    batches.save(block, path, about)
    new = batches.load(path, about, ids)
    assert new is not None
    assert new.fewest is not None
    assert block.fewest is not None
    assert torch.equal(new.fewest, block.fewest)
    batches.save(replace(block, fewest=block.fewest[:, :3]), path, about)  # other budgets
    other = batches.load(path, about, ids)
    assert other is not None
    assert other.fewest is None


@pytest.mark.parametrize("n", [1, 5, 6, 9, 20, 200])
def test_the_interval_of_a_median_covers_as_often_as_it_says(n: int) -> None:
    values = [float(each) for each in range(n)]
    found = over_images.median(values)
    assert found.value == (n - 1) / 2
    best = None
    for r in range(1, n // 2 + 1):  # P(B < r), by counting
        if 2 * sum(math.comb(n, k) for k in range(r)) / 2**n <= 0.05:
            best = r
    expected = (None, None) if best is None else (best - 1, n - best)
    assert (found.low, found.high) == expected


def test_failures_are_infinite_in_a_median() -> None:
    assert over_images.median([1.0, 2.0, INF, INF, INF]).value == INF
    assert over_images.median([1.0, 2.0, 3.0, INF]).value == 2.5
    with pytest.raises(ValueError, match="must be a number"):
        over_images.median([math.nan])


def record(attack: str, **changes: object) -> Record:
    labels = {
        "attack": attack, "victim": "v", "model": "resnet8", "data": "digits", "eps": "8/255",
        "goal": "untargeted", "bounded": "yes", "role": "sparse",
    }  # fmt: skip
    metrics = {"success": 0.5, "images": 10, "forwards_max": 60, "backwards_max": 0}
    fields: dict[str, object] = {
        "kind": "attack", "key": attack, "seed": 0, "labels": labels, "metrics": metrics,
        "job": {"images": 10},
    }  # fmt: skip
    return Record(**fields | changes)  # type: ignore[arg-type]


CURVE = [
    {"changes": 2.0, "pixels": 0.3, "elements": 0.0},
    {"changes": 6.0, "pixels": 0.5, "elements": 0.3},
]
TRACE = [
    {"passes": 50.0, "success": 0.4, "success_low": 0.1, "success_high": 0.7},
    {"passes": 100.0, "success": 0.6, "pixels": 6.0, "pixels_low": 2.0},
    {"passes": 300.0, "success": 0.6, "pixels": 6.0, "pixels_low": 2.0},
]


def test_success_within_so_many_changes_is_read_off_the_curve() -> None:
    table = budgets.success_within([record("jsma", curve=CURVE)], lambda each: each.curve)
    cells = [table.cells["jsma", column.label] for column in table.columns]
    assert [cell.value for cell in cells] == [0, 0.3, 0.3, *[0.5] * 5]  # type: ignore[union-attr]
    assert cells[1] == over_images.share(3, 10)
    assert "30.0 [10.8, 60.3]" in formats.markdown(table)


def test_a_lost_curve_is_no_zero() -> None:
    table = budgets.success_within([record("jsma")], lambda each: [])
    assert set(table.cells.values()) == {None}


def test_a_column_without_any_success_has_nothing_bold() -> None:
    weak = [record(name, metrics={"success": 0, "images": 10}) for name in ("jsma", "sapf")]
    table = budgets.success_within(weak, lambda each: [])
    shown = formats.markdown(table)
    assert "0.0 [0.0, 27.8]" in shown
    assert "**" not in shown.partition("|")[2]  # below the heading
    never = [{"passes": 300.0, "success": 0.0}]
    passes = formats.markdown(budgets.fewest_after(weak, lambda each: never))
    assert "**" not in passes.partition("|")[2]


def test_what_ignores_eps_is_never_bold() -> None:
    labels = dict(record("cw-l0").labels) | {"bounded": "no"}
    free, bound = record("cw-l0", labels=labels, curve=CURVE), record("jsma")
    shown = formats.markdown(
        budgets.success_within([free, bound, record("sapf")], lambda each: each.curve or CURVE[:1])
    )
    (line,) = [line for line in shown.splitlines() if "cw-l0" in line]
    assert "**" not in line
    assert shown.count("**30.0**") > 1


def test_medians_are_infinite_until_half_of_the_images_succeed() -> None:
    table = budgets.fewest_after([record("jsma", trace=TRACE)], lambda each: each.trace)
    cells = [table.cells["jsma", column.label] for column in table.columns]
    assert cells[:3] == [
        OverImages(INF, None, None, 10),
        OverImages(6.0, 2.0, INF, 10),
        OverImages(6.0, 2.0, INF, 10),
    ]
    assert "6 [2, ∞]" in formats.text(table)
    assert re.search(r"6 &\s+\[2, \$\\infty\$\]", formats.latex(table))
    entries = formats.json(table)
    assert '"value": null' in entries
    assert "Infinity" not in entries


def test_several_seeds_have_an_interval_over_seeds() -> None:
    two = [record("jsma", curve=CURVE), record("jsma", seed=1, curve=CURVE[:1])]
    table = budgets.success_within(two, lambda each: each.curve)
    cell = table.cells["jsma", table.columns[-1].label]
    assert (cell.n, cell.mean) == (2, 0.4)  # type: ignore[union-attr]


def test_one_table_at_equal_passes_over_all_victims() -> None:
    other = dict(record("jsma").labels) | {"victim": "w", "goal": "random"}
    both = [record("jsma", trace=TRACE), record("jsma", labels=other, trace=TRACE)]
    table = budgets.equal_passes(both, lambda each: each.trace, 100)
    assert [column.label for column in table.columns] == [
        f"resnet8, {goal} / {name}"
        for goal, name in itertools.product(["untargeted", "targeted (random)"], ["%", "pixels"])
    ]
    assert formats.caption(table).startswith("Eps 8/255, after 100 forward and backward passes")
    with pytest.raises(ValueError, match="after 70 passes: choose one of 50, 100, 300"):
        budgets.equal_passes(both, lambda each: each.trace, 70)
    with pytest.raises(ValueError, match="earlier version: run them again with bench attack-eval"):
        budgets.equal_passes(both, lambda each: [], 100)


def test_a_line_begins_with_half_of_the_images_and_ends_with_the_attack() -> None:
    (panel,) = budgets.trace_panels([record("jsma", trace=TRACE)], lambda each: each.trace)
    assert panel.lines[0].points == [(100.0, 6.0)]  # 60 passes at most
    with pytest.raises(ValueError, match="no attack says what it had found"):
        list(passes_figures([record("jsma")], lambda each: []))


def test_traces_are_kept_beside_the_curves(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(record("jsma", trace=TRACE, curve=CURVE))
    (found,) = store.all()
    assert store.trace(found) == TRACE
    assert store.curve(found) == CURVE
    (tmp_path / "curves/jsma-0.passes.json").write_text("[1]")
    assert store.trace(found) == []


@pytest.mark.parametrize("what", ["attacks", "runs", "coverage"])
def test_options_of_budgets_are_refused_elsewhere(what: str) -> None:
    result = CliRunner().invoke(main, ["tables", what, "--passes", "100"])
    assert result.exit_code == 2
    assert f"--passes has no effect on {what}; remove it" in result.output
