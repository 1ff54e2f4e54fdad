"""Records of attacks in tables and in the sentence on who needs fewer changes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from bench.records import over_images
from bench.records.over_images import paired_images
from bench.records.record import Record
from bench.reporting import attack_tables, formats
from bench.reporting.grouping import group_attacks
from bench.robustness.results import comparison_line


def record(attack: str, *, bounded: str = "yes", success: float = 1.0) -> Record:
    return Record(
        kind="attack",
        key=attack,
        seed=0,
        labels={
            "attack": attack, "eps": "8/255", "goal": "random", "victim": "v", "model": "m",
            "data": "d", "bounded": bounded, "role": "sparse",
        },
        metrics={"success": success, "l0_elements_mean": 100 * success, "l2": 0.5, "linf": 0.03},
        job={"images": 10},
    )  # fmt: skip


def test_what_ignores_eps_never_wins_a_column() -> None:

    found = [record("a", success=0.8), record("b", success=0.9), record("c", bounded="no")]
    (table,) = attack_tables.norm_tables(found)
    latex = formats.latex(table)
    assert r"\bfseries 90.00" in latex
    assert r"\bfseries 100.00" not in latex
    assert r"\bfseries 80.0" in latex  # the fewest elements among the two that are bounded


def test_tables_without_any_success_say_what_they_are_of() -> None:
    found = [replace(record(name), metrics={"success": 0.0}) for name in ("a", "b")]
    (table,) = attack_tables.norm_tables(found)
    told = formats.caption(table)
    assert told.startswith("m, d, target: random, 10 images, eps 8/255: ASR in percent")
    assert formats.markdown(table).rstrip().endswith("not compared.")
    assert r"\caption{}" not in formats.latex(table)
    table = attack_tables.across_victims(found, "l0_pixels_mean")
    assert set(table.cells.values()) == {""}
    assert formats.caption(table).endswith(
        "over the successes among 10 images. No attack has enough successes for it."
    )
    few = [replace(each, metrics={"success": 0.3}) for each in found]
    assert set(attack_tables.across_victims(few, "l0_pixels_median").cells.values()) == {"∞"}
    with pytest.raises(ValueError, match="attacks have no metric 'l0_pixels'"):
        attack_tables.across_victims(found, "l0_pixels")


@pytest.mark.parametrize("metric", ["l0_pixels_median", "l0_elements_q25", "l0_pixels_q75"])
def test_a_quantile_that_is_infinite_for_a_seed_is_null_as_tables_show_infinity(
    metric: str,
) -> None:
    found = [
        replace(record("a", success=success), seed=seed, metrics={"success": success, **known})
        for seed, (success, known) in enumerate(
            [(0.9, {metric: 10.0}), (0.9, {metric: 12.0}), (0.2, {})]
        )
    ]
    (entry,) = attack_tables.attack_entries(found)
    assert entry[metric] == {"n": 3, "mean": None, "std": None, "low": None, "high": None}
    table = attack_tables.across_victims(found, metric)
    assert list(table.cells.values()) == ["∞"]
    (entry,) = attack_tables.attack_entries(found[:2])
    assert (entry[metric]["n"], entry[metric]["mean"]) == (2, 11)


@pytest.mark.parametrize("n", range(2, 21))
def test_a_quantile_counts_as_infinite_exactly_where_it_is(n: int) -> None:
    for k in range(n + 1):
        distances = np.array([1.0] * k + [np.inf] * (n - k))
        known = over_images.quartiles("l0_pixels", distances)
        one = replace(record("a", success=k / n), metrics={"success": k / n, **known})
        one = replace(one, job={"images": n})
        for end in ("median", "q25", "q75"):
            (entry,) = attack_tables.attack_entries(
                [one, replace(one, metrics={**one.metrics, f"l0_pixels_{end}": 1.0}, seed=1)]
            )
            infinite = entry[f"l0_pixels_{end}"]["mean"] is None
            assert infinite == (f"l0_pixels_{end}" not in known), (k, end)


def test_records_of_other_victims_stand_in_other_tables() -> None:
    one, two = record("a"), record("b")
    other = Record(**{**vars(two), "labels": {**two.labels, "victim": "w"}})
    assert len(group_attacks([one, other])) == 2
    assert len(group_attacks([one, two])) == 1


def test_a_comparison_names_who_needs_fewer_pixels() -> None:
    few = [float(each) for each in range(8)]
    many = [each + 10.0 for each in few]
    pair = {
        "unit": "pixels",
        "attack": "x",
        "other": "advmask",
        **vars(paired_images(many, few)),
        "p_holm": 0.01,
    }
    line = comparison_line([pair], "advmask")
    assert line.startswith("advmask needs fewer pixels than x (Wilcoxon")
    # on more images 10 pixels instead of 11, on fewer 200 instead of 100: the test ranks sizes
    few, many = [10.0] * 110 + [200.0] * 90, [11.0] * 110 + [100.0] * 90
    against = {**pair, **vars(paired_images(few, many)), "attack": "advmask", "other": "x"}
    assert (against["less"], against["more"]) == (110, 90)
    assert comparison_line([against], "advmask").startswith("advmask needs more pixels than x")
    unclear = {**pair, "p_holm": 0.3}
    shown = "no difference in pixels is shown between advmask and x (Wilcoxon"
    assert comparison_line([unclear], "advmask").startswith(shown)
    both = comparison_line([pair, {**unclear, "attack": "z"}], "advmask")
    assert both.startswith(
        "advmask needs fewer pixels than x; no difference in pixels is shown between advmask and z "
    )
    assert comparison_line([], "advmask") == ""
    elements = {**pair, "unit": "elements", "other": "y", "attack": "advmask"}
    line = comparison_line([pair, elements], "advmask", "elements")
    assert line.startswith("advmask needs more elements than y (Wilcoxon")


@pytest.mark.parametrize(("images", "rivals"), [(6, 14), (11, 14), (12, 14), (5, 2), (6, 2)])
def test_a_comparison_on_too_few_images_says_how_many_it_takes(images: int, rivals: int) -> None:
    """Even attacks that differ on every image in the same direction are not told apart by a few."""
    numbers = np.arange(1.0, images + 1)
    rows = {f"a{place}": numbers + 100 * 2**place for place in range(rivals)}
    found = [
        {"unit": "pixels", "attack": a, "other": b, **vars(paired_images(rows[a], rows[b]))}
        for a, b in itertools.combinations(rows, 2)
    ]
    corrected = multipletests([pair["p"] for pair in found], method="holm")[1]
    pairs = [{**pair, "p_holm": p} for pair, p in zip(found, corrected, strict=True)]
    line = comparison_line(pairs, "a0")
    if min(corrected) < 0.05:
        assert line.startswith("a0 needs fewer pixels than a1")
        assert "it takes" not in line
    else:
        needed = 12 if rivals == 14 else 6
        assert f"; {len(pairs)} tests on {images} images can show none: it takes {needed})" in line
