"""Hyperparameters are searched with a fixed budget, and judged on what the search has not seen."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from augmentations import BUILTIN
from bench.cli import main
from bench.records.statistics import compare
from bench.studies import search
from bench.studies.search import cost, levels
from bench.studies.search_spaces import SPACES, candidates

TINY = ["--model", "resnet8", "--epochs", "9", "--batch-size", "32", "--threads", "1"]
TINY += ["--data", "digits(train=60, test=40)", "--no-tracking", "--quiet"]


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("budget", [2, 3, 9, 27, 50])
def test_a_search_costs_at_most_its_budget_and_would_exceed_it_with_one_more(budget: int) -> None:
    plan = levels(budget, 90)
    assert cost(plan) <= 90 * budget
    more = [plan[0].candidates + 1, (plan[0].candidates + 1) // 3, (plan[0].candidates + 1) // 9]
    grown = sum(max(1, n) * level.epochs for n, level in zip(more, plan, strict=True))
    assert grown > 90 * budget


@pytest.mark.parametrize("epochs", [1, 4, 8, 9])
def test_no_level_trains_what_another_one_has_trained(epochs: int) -> None:
    lengths = [level.epochs for level in levels(9, epochs)]
    assert len(set(lengths)) == len(lengths)
    assert lengths[-1] == epochs


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("side", [8, 32, 64])
def test_candidates_are_valid_and_always_the_same(name: str, side: int) -> None:
    """The dataclasses reject values out of their range."""
    found = candidates(name, 20, "cifar10", side)
    assert found == candidates(name, 20, "cifar10", side)
    assert found[:5] == candidates(name, 5, "cifar10", side)
    assert found[0] == BUILTIN[name].preset("cifar10", side)
    assert len(set(map(str, found))) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--validation", "0"], "validation is 0: a search chooses by validation images"),
        (["--budget", "inf"], "inf is not a finite number"),
        (["--budget", "1"], "the budget of 1 trainings is too small for a search"),
        (["--aug", "none"], "none has no hyperparameters to search"),
        (["--aug", "cutout(length=3)"], "has hyperparameters already: search cutout"),
    ],
)
def test_a_search_that_cannot_be_fair_is_refused(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = bench("search", *arguments, "--results", str(tmp_path))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_search_reports_cost_and_gain_and_continues(tmp_path: Path) -> None:
    arguments = ["search", "--aug", "cutout", "--budget", "2", "--seeds", "2", *TINY]
    arguments += ["--results", str(tmp_path), "--json"]
    first = json.loads(bench(*arguments).stdout)
    (found,) = first["searches"]
    assert [each["epochs"] for each in found["tried"]] == [1, 1, 1, 1, 1, 3, 9]
    assert found["cost"]["trainings"] == pytest.approx(17 / 9)
    assert all(0 <= each["validation"] <= 1 for each in found["tried"])
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert json.loads(bench(*arguments).stdout) == first
    assert (tmp_path / "records.jsonl").read_text().splitlines() == lines
    records = [json.loads(line) for line in lines]
    # the search never trains on validation images, and the comparison has seeds of its own
    assert {(r["seed"] == 1000) == (r["job"]["validation"] > 0) for r in records} == {True}
    best = max(found["tried"][-1:], key=lambda each: each["validation"])
    assert found["best"] == best["augmentation"]


def test_a_choice_that_could_not_be_compared_is_not_called_worse() -> None:
    unknown = compare({"a": {0: 0.5}, "b": {1: 0.5}}, "a")["b"]
    tried = (search.Tried("b", 9, 0.5, 1.0),)
    found = search.Searched("cutout", "a", "b", tried, 9, unknown)
    assert "b was chosen, but has no finished run on a seed of the published a" in str(found)
