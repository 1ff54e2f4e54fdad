"""The worst case over several attacks, and verdicts that need evidence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from planes import plane, some_images
from torch import nn

import bench
from attacks import JSMA, GreedyFool, SigmaZero
from bench.cli import main
from bench.records.over_images import paired_images, relate
from bench.records.record import Curve, Record
from bench.records.statistics import wilson
from bench.records.store import Store
from bench.reporting import attack_tables, formats
from bench.reporting.leaderboard import make_boards
from bench.reporting.worst_case import compared, shares, worst_cases
from bench.robustness.results import comparison_line
from bench.training import victims


@pytest.fixture(scope="module")
def study() -> bench.AttackStudy:
    model, images = plane((3, 6, 7), 3).float(), some_images((3, 6, 7), 12, seed=2, spread=0.1)
    labels = model(images.float()).argmax(1)
    attacks = [JSMA(), GreedyFool(), SigmaZero()]
    return bench.evaluate_attacks(
        attacks, model=model, images=images.float(), labels=labels, eps=0.1
    )


def test_the_last_row_is_the_worst_case_of_the_sparse_attacks(study: bench.AttackStudy) -> None:
    (worst,) = study.worst
    assert list(study.table().rows)[-1].label == "worst case"
    means = [record.metrics["l0_pixels_mean"] for record in study.records]
    assert worst.record.metrics["success"] == 1
    assert worst.record.metrics["l0_pixels_mean"] <= min(means)
    for name in ("forwards", "backwards"):
        total = sum(record.metrics[name] for record in study.records)
        assert worst.record.metrics[name] == pytest.approx(total)
    assert sum(worst.shares.values()) == pytest.approx(1)
    assert str(worst).startswith("Fewest pixels of the broken images, ties shared: ")
    lines = [line for line in formats.text(study.table()).splitlines() if line.strip()]
    last = next(line for line in reversed(lines) if "sigma-zero" in line or "worst" in line)
    assert "worst case" in last


def test_the_worst_case_is_image_by_image_and_ties_are_shared() -> None:
    pixels = np.array([[3, 1, np.inf, np.inf], [3, 2, 5, np.inf], [4, 9, 6, np.inf]])
    found = shares(["a", "b", "c"], pixels)
    assert found == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert shares(["a"], np.full((1, 2), np.inf)) == {}


class Stubborn(nn.Module):
    """Always answers class 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]) + 0 * images.flatten(1)[:, :1]


def test_without_a_success_nothing_is_bold_and_no_sentence_ranks() -> None:
    images = some_images((1, 4, 4), 3, seed=1).float()
    labels = torch.zeros(3, dtype=torch.long)
    study = bench.evaluate_attacks(
        [JSMA(), GreedyFool()], model=Stubborn(), images=images, labels=labels, eps=0.1
    )
    assert str(study.worst[0]) == ""
    assert "**" not in formats.markdown(study.table())
    assert comparison_line(study.pairs, "jsma") == ""


def test_attacks_that_never_differ_are_not_compared() -> None:
    same = paired_images(np.array([2.0, 3.0]), np.array([2.0, 3.0]))
    pairs = [{"unit": "pixels", "attack": "advmask", "other": "cw-l0", **vars(same)}]
    assert comparison_line(pairs, "advmask") == ""


def test_a_single_attack_has_no_worst_case() -> None:
    model, images = plane((3, 6, 7), 3).float(), some_images((3, 6, 7), 2, seed=2).float()
    labels = model(images).argmax(1)
    study = bench.evaluate_attacks(
        [SigmaZero(steps=5)], model=model, images=images, labels=labels, eps=0.1
    )
    assert study.worst == ()
    assert [row.label for row in study.table().rows] == ["sigma-zero(steps=5)"]


def attacked(attack: str, pixels: list[int | None], **changes: str) -> Record:
    """An attack that changes so many pixels of each image; None: it fails."""
    labels = {
        "attack": attack, "victim": "net a1b2", "model": "resnet8", "data": "digits",
        "eps": "8/255", "goal": "random", "bounded": "yes", "role": "sparse",
    }  # fmt: skip
    n = len(pixels)
    images = [
        {"misclassified": 0, "success_8bit": 0, "forwards": 3, "backwards": 2}
        | ({} if k is None else {"pixels": k, "elements": 3 * k, "l2": 1.0, "linf": 0.01 * k})
        for k in pixels
    ]
    return Record(
        kind="attack",
        key=attack,
        seed=0,
        labels=labels | changes,
        metrics={"images": float(n), "success": 0.5, "seconds_per_image": 2.0},
        job={"images": n},
        images=images,
    )


def own_images(record: Record) -> Curve:
    return record.images


def test_the_worst_case_has_the_fewest_of_each_unit() -> None:
    """An image may need the fewest elements under another attack than the fewest pixels."""
    few, many = attacked("jsma", [2, 3, None]), attacked("greedyfool", [4, 1, 5])
    few.images[0]["elements"], many.images[0]["elements"] = 6, 4
    (worst,) = worst_cases([few, many], own_images)
    found = worst.record.metrics
    assert found["l0_pixels_mean"] == pytest.approx((2 + 1 + 5) / 3)
    assert found["l0_elements_mean"] == pytest.approx((4 + 3 + 15) / 3)
    assert worst.shares == {"greedyfool": pytest.approx(2 / 3), "jsma": pytest.approx(1 / 3)}


def test_the_worst_case_is_the_last_row_whichever_attacks_a_later_victim_has() -> None:
    names = ["jsma", "greedyfool"]
    first = [attacked(name, [1, 2]) for name in names]
    second = [attacked(name, [3, 4], victim="other c3d4") for name in [*names, "sigma-zero"]]
    made = compared([*first, *second], own_images)
    table = attack_tables.across_victims(made, "success")
    assert [row.label for row in table.rows] == [*names, "sigma-zero", "worst case"]


@pytest.mark.slow
def test_tables_compare_attacks_with_those_shown_whatever_they_were_recorded_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three attacks in one command, then one of them in another: the table stays the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(victims, "PASSES", 2000)  # a victim model that is soon trained will do

    def typed(*words: str) -> str:
        result = CliRunner().invoke(main, list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    names = ["jsma", "greedyfool", "sigma-zero(steps=20)"]
    asked = ["attack-eval", "--eps", "0.2", "--images", "6", "--data", "digits(train=60, test=40)"]
    asked += ["--threads", "1", "--no-tracking"]
    typed(*asked, *(word for name in names for word in ("--attack", name)))
    metrics = ("optimality", "l0_common", "optimality_elements")
    shown = [typed("tables", "attacks", "--metric", metric) for metric in metrics]
    stored = (tmp_path / "results/records.jsonl").read_text()
    typed(*asked, "--attack", "sigma-zero(steps=20)")
    assert [typed("tables", "attacks", "--metric", metric) for metric in metrics] == shown
    assert (tmp_path / "results/records.jsonl").read_text() == stored
    # one by one, too, and in another order
    for name in reversed(names):
        typed(*asked, "--attack", name, "--results", "alone")
    for metric, table in zip(metrics, shown, strict=True):
        one = typed("tables", "attacks", "--metric", metric, "--results", "alone")
        assert sorted(one.splitlines()) == sorted(table.splitlines())


def test_what_is_recomputed_for_a_table_is_what_one_comparison_gives() -> None:
    made = [attacked("a", [2, 4, None]), attacked("b", [3, 1, 7]), attacked("pgd", [9, 9, 9])]
    made[2] = replace(made[2], labels=dict(made[2].labels) | {"role": "ceiling"})
    stale = [replace(made[0], metrics=dict(made[0].metrics) | {"optimality": 1, "l0_common": 99})]
    *found, _ = compared([*stale, *made[1:]], own_images)
    wanted = relate(
        {"a": np.array([2, 4, np.inf]), "b": np.array([3.0, 1, 7]), "pgd": np.array([9.0] * 3)},
        ["pgd"],
    )
    for record in found:
        values = wanted[record.key]
        assert {name: record.metrics[name] for name in values} == values
        assert record.metrics["l0_common_elements"] == 3 * record.metrics["l0_common"]
    without = [replace(record, images=()) for record in stale]
    assert compared(without, own_images) == without  # nothing is known of its images


def test_the_worst_case_comes_from_stored_records(tmp_path: Path) -> None:
    """Numbers of each image lie beside the records; what is no rival does not count."""
    store = Store(tmp_path)
    store.add(attacked("jsma", [3, None, 5, None]))
    store.add(attacked("greedyfool", [4, 2, 4, None]))
    store.add(attacked("pgd", [1, 1, 1, 1], role="ceiling"))
    store.add(attacked("free", [1, 1, 1, 1], bounded="no"))
    store.add(attacked("theirs", [1, 1, 1, 1], source="re-judged from images"))
    (worst,) = worst_cases(store.all(), store.images)
    found = worst.record.metrics
    assert found["success"] == 0.75
    assert (found["success_low"], found["success_high"]) == wilson(3, 4)
    assert (found["l0_pixels_mean"], found["l0_elements_mean"]) == (3.0, 9.0)
    assert (found["forwards"], found["backwards"], found["seconds_per_image"]) == (6, 4, 4)
    assert found["linf_max"] == pytest.approx(0.04)
    assert [entry["pixels"] for entry in worst.record.curve] == [0.25, 0.5, 0.75, 0.75, 0.75, 0.75]
    assert worst.shares == {"greedyfool": pytest.approx(2 / 3), "jsma": pytest.approx(1 / 3)}
    for shown in (
        attack_tables.norm_tables(compared(store.all(), store.images))[0],
        attack_tables.across_victims(compared(store.all(), store.images), "success"),
    ):
        assert list(shown.rows)[-1].label == "worst case"
    (board,) = make_boards(store.all(), store.curve, images=store.images)
    last = board.entries[-1]
    assert (last.attack, last.ranked, last.success.value) == ("worst case", False, 0.75)
    assert (last.remarks, board.note) == ((), str(worst))
    assert board.entries[0].attack != "worst case"


def test_the_worst_case_over_several_targets_is_that_of_every_pair() -> None:
    """Two goals for each of two images, goal by goal."""
    members = [attacked("a", [1, None, 6, 2]), attacked("b", [2, None, 5, None])]
    members = [replace(each, metrics=each.metrics | {"images": 2.0}) for each in members]
    (worst,) = worst_cases(members, own_images)
    found = worst.record.metrics
    assert found["success"] == 0.75
    assert found["success_low"] < 0.75 < found["success_high"]
    assert (found["success_best"], found["success_worst"]) == (1.0, 0.5)
    assert (found["l0_pixels_best"], found["l0_pixels_worst"]) == (1.5, 5.0)
    assert found["l0_pixels_mean"] == pytest.approx(8 / 3)


@pytest.mark.parametrize(
    ("pixels", "ends"), [([1, None, 6, 2], (0.0, 1.0)), ([1, 2, 3, 4], (None, None))]
)
def test_the_interval_over_several_targets_is_of_shares_and_needs_a_spread(
    pixels: list[int | None], ends: tuple[float | None, float | None]
) -> None:
    members = [attacked(name, pixels) for name in "ab"]
    members = [replace(each, metrics=each.metrics | {"images": 2.0}) for each in members]
    (worst,) = worst_cases(members, own_images)
    assert (
        worst.record.metrics.get("success_low"),
        worst.record.metrics.get("success_high"),
    ) == ends


def test_foreign_records_without_numbers_that_are_usual_are_no_traceback() -> None:
    members = [replace(attacked(name, [1, None, 2]), metrics={"images": 2.0}) for name in "ab"]
    (worst,) = worst_cases(members, own_images)
    assert worst.record.metrics["success"] == pytest.approx(2 / 3)
    assert worst.record.metrics["seconds_per_image"] == 0


def test_a_record_without_its_images_leaves_no_worst_case_that_would_be_too_mild() -> None:
    members = [attacked(name, [1, 2]) for name in "abc"]
    members[2] = replace(members[2], images=())
    assert worst_cases(members, own_images) == []
    assert len(worst_cases(members[:2], own_images)) == 1
    other_seed = [members[0], replace(members[1], seed=1)]
    assert worst_cases(other_seed, own_images) == []


def test_chosen_attacks_have_a_worst_case_of_their_own() -> None:
    folder = Path(__file__).parent.parent / "results/budget"
    chosen = ["fmn-l0(steps=150)", "sigma-zero(steps=150)"]
    asked = ["tables", "attacks", "--metric", "l0_elements_median", "--eps", "1"]
    asked += ["--format", "markdown", "--results", str(folder)]

    def rows(arguments: list[str]) -> dict[str, list[str]]:
        lines = CliRunner().invoke(main, arguments).stdout.splitlines()
        cells = [line.split("|")[1:-1] for line in lines if line.startswith("| ")][1:]
        return {name.strip(): [each.strip(" *") for each in others] for name, *others in cells}

    typed = [*asked, *(word for name in chosen for word in ("--method", name))]
    shown, every = rows(typed), rows(asked)
    assert set(shown) == {*chosen, "worst case"} < set(every)
    store = Store(folder)
    wanted = [each for each in store.all() if each.labels["attack"] in chosen]
    worst = worst_cases([each for each in wanted if each.labels["eps"] == "1"], store.images)
    medians = [each.record.metrics["l0_elements_median"] for each in worst]
    assert list(map(float, shown["worst case"])) == medians
    assert shown["worst case"] != every["worst case"]
    wrong = CliRunner().invoke(main, [*asked, "--method", "sigma-zer0(steps=150)"])
    assert wrong.exit_code == 2
    assert wrong.stderr.strip() == (
        "Error: no attack is called 'sigma-zer0(steps=150)': did you mean 'sigma-zero(steps=150)'?"
    )


def test_a_median_of_mostly_failures_is_infinite_for_any_seed() -> None:
    def seed(number: int, success: float, median: float | None) -> Record:
        found = {} if median is None else {"l0_pixels_median": median}
        record = attacked("jsma" if number < 2 else "greedyfool", [1])
        return replace(
            record, key=f"key{number}", seed=number, metrics={"success": success} | found
        )

    records = [seed(0, 0.6, 4.0), seed(1, 0.5, None), seed(2, 0.9, 5.0)]
    table = attack_tables.across_victims(records, "l0_pixels_median")
    shown = formats.markdown(table)
    assert "| ∞" in " ".join(next(line for line in shown.splitlines() if "| jsma" in line).split())
    told = formats.caption(table)
    assert re.search(r"^Pixels, median, .+, over 1 image, failures counted as infinite", told)
    assert "over the successes among" not in shown
    # not recorded, as in records of earlier versions, is not infinite
    early = attack_tables.across_victims([*records[1:], seed(3, 0.9, None)], "l0_pixels_median")
    assert formats.markdown(early).count("∞") == 1


def test_victims_of_one_network_are_told_apart_by_their_weights() -> None:
    victims = {"a": "resnet8 a1b2", "b": "resnet8 robust.safetensors c3d4"}
    records = [attacked(key, [3, 4], victim=text) for key, text in victims.items()]
    shown = attack_tables.across_victims(records, "success")
    assert [column.label for column in shown.columns] == ["resnet8", "robust"]
    assert "targeted (random), " in formats.caption(shown)
    alone = attack_tables.across_victims(records[1:], "success")
    assert [column.label for column in alone.columns] == ["resnet8"]
    titles = [board.title for board in make_boards(records, lambda _: ())]
    assert titles[0].startswith("resnet8, digits")
    assert titles[1].startswith("resnet8 (robust), digits")
