"""Tables show each number once, rounded honestly, in five outputs that agree."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.records.record import Record
from bench.records.statistics import Interval, compare, mean_interval
from bench.records.store import Store
from bench.reporting import formats, run_tables
from bench.reporting.cells import Column, Published, Row
from bench.reporting.table import Table, rounded

# of five seeds; the differences from the first are (1, 2, 3, 2, 2) points
NONE = [0.90, 0.91, 0.92, 0.93, 0.94]
BETTER = [0.91, 0.93, 0.95, 0.95, 0.96]
SAME = [0.91, 0.90, 0.93, 0.92, 0.94]


def records(
    method: str, values: list[float | None], column: str = "cifar10 / resnet18", **job: Any
) -> list[Record]:
    """One record a seed; None is a seed that failed."""
    data, model = column.split(" / ")
    return [
        Record(
            kind="run",
            key=f"{method}{column}{job}",
            seed=seed,
            labels={"augmentation": method, "data": data, "model": model},
            metrics={} if value is None else {"accuracy": value},
            job={"augmentation": method, **job},
            machine={"bench": "0.1.0", "commit": "abc_1"},
            status="failed" if value is None else "finished",
        )
        for seed, value in enumerate(values)
    ]


def usual() -> Table:
    """Two columns, three methods; one cell is missing, one has a failed seed."""
    table = run_tables.grid(
        [
            *records("cutout(length=8)", BETTER),
            *records("none", NONE),
            *records("has", SAME),
            *records("none", [*NONE[:4], None], "cifar100 / resnet_18"),
            *records("has", [0.5, 0.6], "cifar100 / resnet_18"),
        ]
    )
    return replace(table, published={("none", "cifar10 / resnet18"): Published(95.1, starred=True)})


def labels(parts: Sequence[Row | Column]) -> list[str]:
    return [part.label for part in parts]


def cells_of(line: str, bar: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").removesuffix(r"\\").split(bar)]


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
        "points could not have been shown with 80 % power.",
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
        with pytest.raises(ValueError, match="no method shares a seed with none"):
            compared(alone)


def seeds(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


HOSTILE = r"a_b & 50% {x} ~^ $#\ <|> ± †"


def hostile() -> Table:
    table = run_tables.grid(
        [
            *records(HOSTILE, BETTER, f"data {HOSTILE} / model {HOSTILE}"),
            *records("none", [*NONE[:4], None], f"data {HOSTILE} / other"),
            *records("none", NONE, f"data {HOSTILE} / model {HOSTILE}"),
        ]
    )
    return replace(table, published={("none", f"data {HOSTILE} / other"): Published(1.0)})


def wide() -> Table:
    """Twelve columns of five groups, with long names of rows, and published numbers for some."""
    rows = [Row("gridmask(ratio=0.42, share=Ramp(0.0, 0.8))"), *(Row(f"row {i}") for i in range(4))]
    columns = [
        Column(f"network-{i}", f"data {i // 3}", percent=True, best="high") for i in range(12)
    ]
    keys = [(row.label, column.label) for row in rows for column in columns]
    return Table(
        title="Wide",
        rows=rows,
        columns=columns,
        cells={
            key: mean_interval([v + place / 1000 for v in NONE]) for place, key in enumerate(keys)
        },
        published={key: Published(90.5, key[0] == "row 1") for key in keys if "data 1" in key[1]},
        settings={columns[3].label: Column("ResNet-18", "CIFAR-10")},
    )


def long() -> Table:
    """A hundred rows of one column, among them negative numbers and texts."""
    rows = [Row(f"[{place}]") for place in range(100)]
    cells = {
        row.label: mean_interval([place - 50.0, place - 49.0]) for place, row in enumerate(rows)
    }
    texts = {"[3]": "undecided", "[4]": None}
    return Table(
        title="Long",
        rows=rows,
        columns=[Column("number")],
        cells={(label, "number"): texts.get(label, cell) for label, cell in cells.items()},
    )


TABLES = [usual, hostile, wide, long]


def floats(source: str) -> list[str]:
    return re.findall(r"\\begin\{table\*?\}.*?\\end\{table\*?\}", source, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["one-column", "two-column"])
@pytest.mark.parametrize("make", TABLES)
def test_latex_braces_balance_and_every_line_has_all_columns(make: Any, layout: Any) -> None:
    source = formats.latex(make(), layout)
    bare = re.sub(r"\\[{}&%$#_\\]", lambda m: "\\\\" if m[0] == r"\\" else "", source)
    assert bare.count("{") == bare.count("}")
    shown = 0
    for each in floats(bare):
        spec = re.search(r"\\begin\{tabular\}\{(.+)\}", each)
        assert spec
        columns = len(re.findall(r"[lc]|S\[table-format=-?\d+\.\d+\]", spec[1]))
        lines = [line for line in each.splitlines() if line.endswith("\\\\")]
        for line in lines:
            spanned = sum(int(number) - 1 for number in re.findall(r"multicolumn\{(\d+)\}", line))
            assert line.count("&") + 1 + spanned == columns, line
        shown += len(lines)
    assert shown >= len(make().rows)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "options"), [("one-column", ""), ("two-column", "twocolumn")])
@pytest.mark.parametrize("make", TABLES)
def test_latex_compiles_and_fits_the_page(
    make: Any, layout: Any, options: str, tmp_path: Path
) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    if subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True, check=False).returncode:
        pytest.skip("the LaTeX package siunitx is not installed")
    source = tmp_path / "table.tex"
    source.write_text(
        f"\\documentclass[{options}]{{article}}\n\\usepackage{{adjustbox,booktabs,siunitx}}\n"
        f"\\begin{{document}}\n{formats.latex(make(), layout)}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Float too large" not in done.stdout


def test_latex_has_the_rules_of_booktabs_bold_and_marks() -> None:
    source = formats.latex(usual())
    expected: Mapping[str, int] = {
        r"\toprule": 1,
        r"\midrule": 1,
        r"\bottomrule": 1,
        r"\hline": 0,
        r"\bfseries 94.0 & $\,\pm\,2.5$$^{\dagger}$": 1,
        r"lS[table-format=2.1]@{}lS[table-format=2.2]@{}lS[table-format=2.1]@{}l": 1,
        r"\multicolumn{4}{c}{cifar10}": 1,
        r"\cmidrule(lr){2-5} \cmidrule(lr){6-7}": 2,
        "95.10 & $^{*}$": 1,
        "% bench 0.1.0; commit abc_1; 22 records": 1,
    }
    assert {part: source.count(part) for part in expected} == expected


def test_a_table_that_is_too_wide_is_divided_between_its_groups() -> None:
    parts = floats(formats.latex(wide()))
    headings = [re.findall(r"\{c\}\{(data \d)\}", part) for part in parts]
    assert len(parts) > 3
    assert [name for some in headings for name in dict.fromkeys(some)][:2] == ["data 0", "data 1"]
    assert all("network-0" not in part for part in parts[1:])
    assert "continued from Table~\\ref{tab:wide}" in parts[1]
    (whole,) = floats(formats.latex(replace(wide(), columns=wide().columns[:1])))
    assert "Bold: best mean of a column." in whole
    assert len(floats(formats.latex(long()))) == 3


def test_two_columns_span_the_page_only_where_they_must() -> None:
    narrow = replace(wide(), columns=wide().columns[:1], rows=wide().rows[1:], published={})
    assert r"\begin{table}" in formats.latex(narrow, "two-column")
    assert r"\begin{table*}" in formats.latex(wide(), "two-column")
    assert r"max width=\textwidth" in formats.latex(wide(), "two-column")


@pytest.mark.parametrize("make", [usual, wide])
def test_text_has_80_columns_and_every_row_in_every_block(make: Any) -> None:
    table = make()
    shown = formats.text(table)
    assert max(map(len, shown.splitlines())) <= 80
    whole = formats.text(table, width=10_000)
    for word in ("±", "(published)", "*"):
        assert shown.count(word) == whole.count(word)
    assert shown.count("\nrow 2 ") == (len(re.findall("row 3", shown)) if make is wide else 0)
    assert len(whole.splitlines()) < len(shown.splitlines())


def test_published_numbers_of_another_setting_stand_apart() -> None:
    printed = wide().printed()
    assert [each.heading(" / ") for each in printed if each.published] == [
        "data 1 / network-4 (published)",
        "data 1 / network-5 (published)",
        "published, other setting / CIFAR-10 / ResNet-18",
    ]
    assert printed[-1].published
    assert "Other setting: of another dataset" in formats.caption(wide())
    assert "Other setting" not in formats.caption(usual())


def test_a_terminal_and_a_notebook_show_the_table_itself() -> None:
    from rich.console import Console

    table = run_tables.grid([*records("none", NONE, epochs=3), *records("none", SAME, epochs=9)])
    assert str(table) == repr(table) == formats.text(table)
    assert table._repr_html_() == formats.html(table)
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    assert "none [epochs=3]" in console.file.getvalue()


def test_names_with_slashes_are_not_taken_apart() -> None:
    column = Column("res / net", group="a / b")
    table = Table(title="t", rows=[Row("r")], columns=[column], cells={("r", column.label): "x"})
    assert r"\multicolumn{1}{c}{a / b}" in formats.latex(table)
    assert r"& \multicolumn{1}{c}{res / net}" in formats.latex(table)
    assert formats.text(table).splitlines()[:2] == ["method       a / b", "           res / net"]


ODD_NAMES = ("\x1b[2J\x1b]0;x\x07", "a\u202eb\u2066c", "\x9b31m", "a\nb\u2028c", "\x00\x7f")


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("style", ["text", "markdown", "latex", "csv", "json", "html"])
def test_no_format_has_a_character_that_a_terminal_obeys(name: str, style: str) -> None:
    column = Column(name, group=name)
    table = Table(
        title=name, rows=[Row(name, settings=name)], columns=[column], corner=name,
        cells={(Row(name, settings=name).label, column.label): name}, origin=name, measure=name,
    )  # fmt: skip
    made: str = getattr(formats, style)(table)
    assert all(line.isprintable() for line in made.replace("\r\n", "\n").split("\n"))
    if style == "json":
        assert json.loads(made)["title"] == name


def test_a_name_is_no_formula_in_a_spreadsheet() -> None:
    names = ["=1+1", "+x", "-x", "@SUM(A1)", " =1+1", "-0.5", "plain"]
    cells = {(name, "c"): name for name in names}
    made = formats.csv(
        Table(title="t", rows=[*map(Row, names)], columns=[Column("c")], cells=cells)
    )
    shown = ["'=1+1", "'+x", "'-x", "'@SUM(A1)", "'=1+1", "-0.5", "plain"]
    rows = list(csv.DictReader(io.StringIO(made)))
    assert [row["row"] for row in rows] == [row["text"] for row in rows] == shown
    compared = formats.csv(usual())
    assert re.search(r"[\",]'[+-]\d", compared)  # the verdict: +2.00 points, …
    assert not re.search(r"[\",][+-]\d[\d.]* points", compared)


def test_a_name_is_no_argument_of_a_latex_command() -> None:
    names = ["[oops] x", "*", " [2cm]", "a [b]"]
    cells = {(name, "c"): name for name in names}
    made = formats.latex(
        Table(title="t", rows=[*map(Row, names)], columns=[Column("c")], cells=cells)
    )
    rows = [line for line in made.splitlines() if line.endswith(r"\\")][1:]
    assert [row.partition(" & ")[0].strip() for row in rows] == [
        "{}[oops] x",
        "{}*",
        "{}[2cm]",
        "a [b]",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("style", ["text", "markdown", "latex", "csv", "json", "html"])
def test_the_work_of_a_table_grows_with_its_rows(style: str) -> None:
    def calls(count: int) -> int:
        rows = [Row(str(number)) for number in range(count)]
        columns = [Column("a", best="high"), Column("b", best="low")]
        cells = {
            (row.label, column.label): Interval(float(number), 1.0, 2.0, 2 + number % 3)
            for number, row in enumerate(rows)
            for column in columns
        }
        table = Table(title="t", rows=rows, columns=columns, cells=cells)
        done = 0

        def count_call(*_: object) -> None:
            nonlocal done
            done += 1

        sys.setprofile(count_call)
        try:
            getattr(formats, style)(table)
        finally:
            sys.setprofile(None)
        return done

    calls(2)  # what is imported at first use
    assert calls(200) < 2.5 * calls(100)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.49, 0.77], "63 (wide)"),  # 63 ± 178
        ([0.02, 0.1], "6 ± 51"),  # it excludes more than half of the accuracies
        ([0.60, 0.66], "63 ± 38"),
        ([0.49, 0.77, 0.63], "63 ± 35"),
        ([0.63, 0.63], "63.00 ± 0.00"),
    ],
)
def test_an_interval_as_wide_as_all_accuracies_is_named_instead_of_shown(
    values: list[float], shown: str
) -> None:
    table = run_tables.grid(records("none", list(values)))
    wide = "wide" in shown
    texts = formats.text(table), formats.markdown(table), formats.html(table)
    assert all(shown in text for text in texts)
    half = shown.partition(" ± ")[2]
    assert (f"$\\,\\pm\\,{half}$" if half else "63 &  (wide)") in formats.latex(table)
    told = "wide: the interval is as wide as all possible values; run more seeds."
    for text in (*texts, formats.latex(table)):
        assert (told in " ".join(text.split())) == wide
    interval = mean_interval(values)
    assert interval.low is not None
    assert interval.high is not None
    assert wide == (interval.low <= 0 and interval.high >= 1)
    (cell,) = json.loads(formats.json(table))["cells"]  # programs get the numbers
    assert (cell["low"], cell["high"]) == (interval.low, interval.high)
    (line,) = csv.DictReader(io.StringIO(formats.csv(table)))
    assert float(line["high"]) == pytest.approx(interval.high)


def test_a_wide_interval_of_counts_is_shown_whole() -> None:
    column = Column("pixels", best="low")
    cells = {("jsma", column.label): Interval(20.0, 15.0, 120.0, 2)}
    shown = formats.text(Table(title="t", rows=[Row("jsma")], columns=[column], cells=cells))
    assert "20 ± 120" in shown
    assert "wide" not in shown
