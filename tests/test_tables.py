"""Tables hold intervals, paired tests and published numbers, as the records give them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from example_tables import BETTER, NONE, SAME, cells_of, labels, records, seeds, usual

from bench.cli import main
from bench.records.over_images import OverImages
from bench.records.record import Record
from bench.records.statistics import Interval, compare, mean_interval
from bench.records.store import Store
from bench.reporting import formats, run_tables
from bench.reporting.cells import Column, Published, Row
from bench.reporting.table import Table, mark, of_images, rounded
from bench.studies.comparison import Study


def test_a_cell_is_the_interval_of_its_seeds_and_the_baseline_comes_first() -> None:
    table = usual()
    assert labels(table.rows) == ["none", "cutout(length=8)", "has"]
    assert labels(table.columns) == ["cifar10 / resnet18", "cifar100 / resnet_18"]
    assert table.cells["has", "cifar10 / resnet18"] == mean_interval(SAME)


@pytest.mark.slow
def test_each_column_is_a_family_of_its_own() -> None:
    table = usual()
    seeds = {
        name: dict(enumerate(values))
        for name, values in {"none": NONE, "cutout(length=8)": BETTER, "has": SAME}.items()
    }
    expected = compare(seeds, "none")
    for method, comparison in expected.items():
        assert table.comparisons[method, "cifar10 / resnet18"] == comparison
    assert table.comparisons["has", "cifar100 / resnet_18"].n == 2


@pytest.mark.slow
def test_markdown_is_this() -> None:
    lines = formats.markdown(usual()).splitlines()
    assert cells_of(lines[0], "|") == [
        "method",
        "cifar10 / resnet18",
        "cifar10 / resnet18 (published)",
        r"cifar100 / resnet\_18",
    ]
    none, cutout, has = (cells_of(line, "|") for line in lines[2:5])
    assert none == ["none", "92.0 ± 2.0", r"95.10\*", "**91.5** ± 2.1 (n=4, 1 failed)"]
    assert cutout == ["cutout(length=8)", "**94.0** ± 2.5†", "", "--"]
    assert has == ["has", "92.0 ± 2.0", "", "55 (wide, n=2)"]


@pytest.mark.slow
def test_the_caption_says_what_the_numbers_mean() -> None:
    caption = formats.caption(usual())
    for part in (
        "Accuracy in percent after the last epoch: mean ± half-width of the 95 % t-interval over "
        "n = 5 seeds unless stated.",
        "Bold: best mean of a column.",
        "* and †: differs from none, p < 0.05 and p < 0.01 (paired t-test over seeds, Holm's "
        "correction over the methods of a column).",
        "points are shown with less than 80 % power.",
        "Failed: seeds whose training or attack broke down, not in the mean.",
        "Published: printed by others, neither bold nor tested.",
        "--: not run.",
    ):
        assert part in caption
    plain = formats.caption(run_tables.grid(records("none", [0.5, 0.52])))
    assert plain.endswith("over n = 2 seeds. Bold: best mean of a column.")


def test_a_single_seed_has_no_interval() -> None:
    table = run_tables.grid([*records("none", [0.961]), *records("has", [0.9644])])
    assert "±" not in formats.text(table)
    assert "96.10" in formats.text(table)
    assert "a single seed, so there is no interval" in formats.caption(table)
    assert "Bold: best value of a column." in formats.caption(table)
    assert "No method" not in formats.text(table)


NEAR = [0.901, 0.909, 0.9205, 0.9295, 0.9405]
"""Differences from `NONE` of 0.1, -0.1, 0.05, -0.05 and 0.05 points."""


def test_the_three_verdicts_are_marks_of_a_cell() -> None:
    """Better or worse by the sign of what differs, equivalent, and undecided without a mark."""
    table = run_tables.grid(
        [*records("none", NONE), *records("cutout", BETTER), *records("near", NEAR),
         *records("has", SAME)]
    )  # fmt: skip
    rows = {row.name: mark(table, row, table.columns[0]) for row in table.rows}
    assert rows == {"none": "", "cutout": "†", "near": "≈", "has": ""}
    assert compare({"none": seeds(NONE), "near": seeds(NEAR)}, "none")["near"].equivalent
    caption = formats.caption(table)
    assert "≈: shown to be within ±0.5 points of none (two one-sided paired t-tests," in caption
    assert "No mark: undecided." in caption
    assert r"$^{\approx}$" in formats.latex(table)
    decided = run_tables.grid([*records("none", NONE), *records("cutout", BETTER)])
    assert "No mark" not in formats.caption(decided)
    assert "≈" not in formats.caption(decided)
    loss = replace(table, columns=[replace(each, percent=False) for each in table.columns])
    assert "≈" not in formats.text(loss)  # half a point is no margin of a number in nats


def test_what_does_not_differ_is_said_not_to() -> None:
    table = run_tables.grid([*records("none", NONE), *records("has", SAME)])
    assert "No method differs from none significantly." in formats.caption(table)
    assert "*" not in formats.text(table)


@pytest.mark.parametrize(
    ("mean", "half", "percent", "expected"),
    [
        (0.961, 0.0011, True, ("96.10", "0.11")),
        (0.961, 0.00001, True, ("96.10", "0.00")),
        (0.961, 0.0114, True, ("96.1", "1.1")),
        (0.961, 0.12, True, ("96", "12")),
        (0.961, 0.0, True, ("96.10", "0.00")),
        (0.961, None, True, ("96.10", "")),
        (1199.74, 23.4, False, ("1200", "23")),
        (0.012345, 0.00067, False, ("0.01235", "0.00067")),
        (1199.74, None, False, ("1200", "")),
        (0.012345, None, False, ("0.0123", "")),
        (0.0, 0.0, False, ("0.00", "0.00")),
    ],
)
def test_digits_are_those_that_the_interval_supports(
    mean: float, half: float | None, percent: bool, expected: tuple[str, str]
) -> None:
    assert rounded(Interval(mean, half, half, 5), percent) == expected


def test_a_number_over_images_has_no_exponent_from_1000_on() -> None:
    cell = OverImages(999.6, 12.34, 123456.0, 10)
    assert of_images(cell, percent=False) == ("1000", "[12.3, 123456]")


@pytest.mark.slow
def test_settings_that_differ_in_a_column_are_named_and_not_compared() -> None:
    table = run_tables.grid(
        [
            *records("none", NONE, epochs=300),
            *records("none", SAME),
            *records("has", BETTER),
            *records("none", NONE, "digits / resnet18", epochs=12),
            *records("has", BETTER, "digits / resnet18", epochs=12),
        ]
    )
    assert set(labels(table.rows)) == {"none [epochs=300]", "none", "has"}
    assert set(table.comparisons) == {
        ("has", "cifar10 / resnet18"),
        ("has", "digits / resnet18"),
    }
    expected = compare({"none": dict(enumerate(SAME)), "has": dict(enumerate(BETTER))}, "none")
    assert table.comparisons["has", "cifar10 / resnet18"] == expected["has"]


def test_methods_without_points_are_the_baseline_of_methods_with_any_points() -> None:
    base, ours = [0.1, 0.2, 0.3, 0.5], [0.2, 0.4, 0.4, 0.7]
    plain, one = records("none", base), records("advmask", ours, points="advmask.published")
    table = run_tables.differences([*plain, *one])
    assert labels(table.rows) == ["advmask"]
    other = records("advmask", base[::-1], points="advmask(steps=100)")
    table = run_tables.differences([*plain, *one, *other])
    assert labels(table.rows) == [
        "advmask [points=advmask.published]",
        "advmask [points=advmask(steps=100)]",
    ]
    # a baseline with points of its own shares them
    cutout = records("advmask + random", base, points="advmask.published")
    table = run_tables.differences([*one, *other, *cutout], baseline="advmask")
    assert labels(table.rows) == ["advmask + random [points=advmask.published]"]
    # two kinds of points are compared where the baseline is named with its own
    with pytest.raises(ValueError, match=r"such as --baseline 'advmask \[points=advmask\("):
        run_tables.differences([*one, *other], baseline="advmask")
    name = "advmask [points=advmask(steps=100)]"
    table = run_tables.differences([*plain, *one, *other], baseline=name)
    assert labels(table.rows) == ["none", "advmask [points=advmask.published]"]
    gained = table.cells[table.rows[1].label, table.columns[0].label]
    assert isinstance(gained, Interval)
    assert gained.mean == pytest.approx(sum(ours) / 4 - sum(base) / 4)
    # any other setting that differs still keeps two rows apart
    longer = records("advmask", ours, points="advmask.published", epochs=9)
    shorter = records("none", base, epochs=3)
    with pytest.raises(ValueError, match="no method shares a seed with none"):
        run_tables.differences([*shorter, *longer])


def test_chosen_methods_are_a_family_of_their_own_with_the_baseline(tmp_path: Path) -> None:
    """Holm's correction is over what is shown."""
    store = Store(tmp_path)
    for each in [*records("none", NONE), *records("has", BETTER), *records("cutout", SAME)]:
        store.add(replace(each, key=each.labels["augmentation"]))
    asked = ["tables", "differences", "--results", str(tmp_path), "--format", "json"]
    both = json.loads(CliRunner().invoke(main, asked).stdout)
    shown = CliRunner().invoke(main, [*asked[:-1], "markdown", "--method", "has"])
    one = compare({"none": dict(enumerate(NONE)), "has": dict(enumerate(BETTER))}, "none")["has"]
    every = {"none": NONE, "has": BETTER, "cutout": SAME}
    three = compare({name: dict(enumerate(values)) for name, values in every.items()}, "none")
    assert one.p_holm == one.p != three["has"].p_holm
    assert both
    assert "| has " in shown.stdout
    assert "cutout" not in shown.stdout
    assert f"{one.p_holm:.2g}" in shown.stdout
    wrong = CliRunner().invoke(main, [*asked, "--method", "hsa"])
    assert wrong.exit_code == 2
    assert wrong.stderr.strip() == "Error: no run is called 'hsa': did you mean 'has'?"
    other = CliRunner().invoke(main, [*asked, "--data", "digits", "--model", "resnet8"])
    assert other.exit_code == 2
    assert other.stderr.startswith(
        "Error: there are no runs of digits / resnet8: there are cifar10 "
    )
    for what, said in (("attacks", "no attacks for such a table"), ("passes", "no attacks for")):
        none = CliRunner().invoke(main, ["tables", what, *asked[2:4], "--method", "jsma"])
        assert (none.exit_code, said in none.stderr) == (2, True), none.stderr


def test_jobs_that_labels_do_not_tell_apart_keep_rows_of_their_own() -> None:
    first, second = records("none", NONE), records("none", SAME)
    second = [Record(**{**vars(record), "key": "0123456789ab"}) for record in second]
    assert labels(run_tables.grid(first + second).rows) == ["none", "none #012345"]


def test_policies_and_mixing_belong_to_the_method() -> None:
    mixed = [
        Record(**{**vars(record), "labels": {**record.labels, "mix": "cutmix"}, "job": {"mix": 1}})
        for record in records("none", BETTER)
    ]
    table = run_tables.grid([*records("none", NONE), *mixed])
    assert labels(table.rows) == ["none", "cutmix"]
    assert ("cutmix", "cifar10 / resnet18") in table.comparisons


def test_missing_cells_are_listed() -> None:
    assert usual().missing() == [("cutout(length=8)", "cifar100 / resnet_18")]


def test_published_numbers_are_never_bold_and_never_tested() -> None:
    table = run_tables.grid([*records("none", NONE), *records("has", SAME)])
    table = replace(
        table,
        rows=[*table.rows, Row("advmask")],
        published={
            ("has", "cifar10 / resnet18"): Published(99.9),
            ("advmask", "cifar10 / resnet18"): Published(99.95),
        },
    )
    assert not any("99.9" in cell and "*" in cell for cell in formats.markdown(table).split("|"))
    assert ("advmask", "cifar10 / resnet18") in table.missing()
    assert ("advmask", "cifar10 / resnet18") not in table.comparisons


def test_every_cell_of_tabulate_stays_as_it_was_formatted() -> None:
    table = Table(
        title="t",
        rows=[Row("1e5"), Row("007")],
        columns=[Column("c")],
        cells={("1e5", "c"): "96.10", ("007", "c"): "1e3"},
    )
    for output in (formats.text, formats.markdown, formats.latex):
        for word in ("1e5", "007", "96.10", "1e3"):
            assert word in output(table)


def test_an_empty_table_can_be_written() -> None:
    table = run_tables.grid([])
    for output in (formats.text, formats.markdown, formats.latex, formats.csv, formats.json):
        assert isinstance(output(table), str)


@pytest.mark.slow
def test_csv_and_json_hold_the_same_fractions() -> None:
    table = usual()
    lines = list(csv.DictReader(io.StringIO(formats.csv(table))))
    cells = json.loads(formats.json(table))["cells"]
    assert len(lines) == len(cells) == 6
    for line, cell in zip(lines, cells, strict=True):
        assert (line["row"], line["column"]) == (cell["row"], cell["column"])
        assert line["mean"] == ("" if cell["mean"] is None else repr(cell["mean"]))
    assert cells[0]["published"] == 0.951
    assert cells[0]["mean"] == pytest.approx(0.92)
    assert (
        cells[2]["p_holm"] == table.comparisons["cutout(length=8)", table.columns[0].label].p_holm
    )


def test_intervals_are_objects_for_programs() -> None:
    mixed = [*records("none", NONE), *records("has", BETTER)]
    none, has = run_tables.intervals(mixed)
    assert list(none) == [
        "augmentation", "model", "data", "key", "metric", "failed",
        "n", "mean", "std", "low", "high",
    ]  # fmt: skip
    assert set(has) - set(none) == {
        "difference", "difference_low", "difference_high", "p", "p_holm", "improvement",
        "detectable", "verdict", "decision",
    }  # fmt: skip
    assert has["difference"] == pytest.approx(0.02)
    assert has["augmentation"] == "has"
    json.dumps([none, has], allow_nan=False)
    assert "difference" not in run_tables.intervals(mixed, baseline="nobody")[1]
    assert run_tables.intervals(records("none", [None]))[0]["mean"] is None


def test_a_seed_whose_accuracy_is_not_a_number_has_failed() -> None:
    table = run_tables.grid(records("none", [0.9, 0.92, float("nan")]))
    assert table.failed == {("none", "cifar10 / resnet18"): 1}
    assert "(1 failed)" in formats.text(table)


def test_what_a_failed_seed_measured_is_not_in_the_mean() -> None:
    failed = Record(**{**vars(records("none", [0.1])[0]), "status": "failed", "seed": 9})
    table = run_tables.grid([*records("none", [0.9, 0.92]), failed])
    assert table.cells["none", "cifar10 / resnet18"] == mean_interval([0.9, 0.92])


def test_differences_are_paired_by_seed_with_their_interval_and_what_could_be_shown() -> None:
    mixed = [*records("none", NONE), *records("has", BETTER), *records("cutout", SAME)]
    alone = records("none", NONE, "cifar100 / resnet_18")
    table = run_tables.differences(
        [*mixed, *alone, *records("gridmask", NONE, "photos / resnet18")]
    )
    assert labels(table.columns) == [
        f"cifar10, resnet18 / {head}" for head in ("difference", "Holm p", "detectable", "verdict")
    ]
    assert labels(table.rows) == ["has", "cutout"]
    gains = [0.01, 0.02, 0.03, 0.02, 0.02]
    interval = mean_interval(gains)
    found = table.cells["has", table.columns[0].label]
    assert isinstance(found, Interval)
    assert (found.mean, found.half) == pytest.approx((interval.mean, interval.half))
    again = compare({"none": seeds(NONE), "has": seeds(BETTER), "cutout": seeds(SAME)}, "none")
    above, _, heads, _, line, *_ = formats.markdown(table).splitlines()
    assert above == "**cifar10, resnet18**"  # what all columns share, once
    assert cells_of(heads, "|") == ["method", "difference", "Holm p", "detectable", "verdict"]
    assert cells_of(line, "|") == [
        "has", "2.00 ± 0.88†", f"{again['has'].p_holm:.2g}",
        f"{100 * (again['has'].detectable or 0):.2g}", "better",
    ]  # fmt: skip
    assert "minus that of none with the same seed: mean ± half-width" in formats.caption(table)
    gained = run_tables.gains([*mixed, *alone])
    column = Column("resnet18", group="cifar10")
    assert gained[Row("has"), column] == pytest.approx(gains)
    assert set(gained) == {(Row(row), column) for row in ("has", "cutout")}
    for compared in (run_tables.differences, run_tables.gains):
        with pytest.raises(ValueError, match="only none has finished runs: run another method"):
            compared([*alone, *records("has", [None], "cifar100 / resnet_18")])


def test_a_metric_that_no_run_has_is_refused_and_its_lack_is_no_failure() -> None:
    mixed = [*records("none", NONE), *records("has", SAME)]
    for made in (run_tables.grid, run_tables.differences, run_tables.gains):
        with pytest.raises(
            ValueError, match="no run has the metric 'acuracy': did you mean 'accura"
        ):
            made(mixed, "acuracy")
    with pytest.raises(ValueError, match="no run has the metric 'zzz': there are: accuracy"):
        run_tables.intervals(mixed, metric="zzz")
    newer = [
        replace(each, metrics={**each.metrics, "nll": 0.1 * each.seed})
        for each in records("cutout", [*NONE[:3], None])
    ]
    older = [*mixed, *newer[:2], replace(newer[2], metrics={}), newer[3]]
    table = run_tables.grid([replace(each, metrics={**each.metrics}) for each in older], "nll")
    assert table.failed == {("cutout", "cifar10 / resnet18"): 1}
    assert table.cells["none", "cifar10 / resnet18"] == "not measured"
    for output in (formats.text, formats.latex, formats.markdown, formats.json):
        assert "not measured" in output(table)
    entries = {each["augmentation"]: each for each in run_tables.intervals(older, metric="nll")}
    assert [entries[name]["failed"] for name in ("none", "cutout")] == [0, 1]


def test_a_baseline_that_no_run_is_called_is_refused() -> None:
    mixed = [*records("cutout", NONE), *records("has", SAME)]
    for known in ("none", "has", None):
        Study(tuple(mixed)).table(baseline=known)
    for made in (Study(tuple(mixed)).table, Study(tuple(mixed)).intervals):
        with pytest.raises(ValueError, match="no run is called 'cuotut': did you mean 'cutout'"):
            made(baseline="cuotut")
    with pytest.raises(ValueError, match="bench run --aug gridmask adds one"):
        Study(tuple(mixed)).to_latex(baseline="gridmask")


def test_large_numbers_of_points_have_no_exponent() -> None:
    mixed = [
        *records("none", [0.2, 0.9]),
        *records("has", [0.9, 0.3]),
        *records("cutout", NONE[:2]),
    ]
    for table in (run_tables.grid(mixed), run_tables.differences(mixed)):
        for output in (formats.text, formats.latex, formats.json):
            assert "e+0" not in output(table)
    assert "e+0" not in json.dumps([each["verdict"] for each in run_tables.intervals(mixed)[1:]])


def test_the_usual_number_of_seeds_is_one_that_has_an_interval() -> None:
    single = [record for name in ("has", "cutout", "gridmask") for record in records(name, [0.9])]
    table = run_tables.grid([*records("none", NONE[:2]), *single])
    assert "over n = 2 seeds unless stated" in formats.caption(table)
    assert formats.text(table).count("(n=1)") == 3
    assert "(n=1)" not in formats.text(run_tables.grid(single))
