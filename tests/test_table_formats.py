"""Tables show each number once, rounded honestly, in five outputs that agree."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_tables import NONE, SAME, TABLES, long, records, usual, wide

from bench.records.statistics import Interval, compare, mean_interval
from bench.reporting import formats, run_tables
from bench.reporting.cells import Column, Row
from bench.reporting.table import Table, caption, rounded


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


def test_a_table_of_some_columns_is_as_if_nothing_were_known_of_the_others() -> None:
    columns = [Column("small", percent=True), Column("large", percent=True)]
    values = {"small": (0.5, 0.51, 0.52), "large": (0.6, 0.7, 0.8)}
    cells = {(row, name): mean_interval(seeds) for name, seeds in values.items() for row in "ab"}
    ours, base = dict(enumerate((0.6, 0.71, 0.8))), dict(enumerate((0.5, 0.6, 0.7)))
    rows = [Row("a"), Row("b")]
    shown = Table(title="t", rows=rows, columns=columns, cells=cells, baseline="a",
                  comparisons={("b", "large"): compare({"a": base, "b": ours}, "a")["b"]},
                  failed={("a", "large"): 1})  # fmt: skip
    small = {key: cell for key, cell in cells.items() if key[1] == "small"}
    alone = Table(title="t", rows=rows, columns=columns[:1], baseline="a", cells=small)
    assert "Failed" in caption(shown)
    assert caption(shown.restricted(columns[:1])) == caption(alone)


def test_a_mean_that_rounds_to_zero_has_no_sign() -> None:
    assert rounded(mean_interval([-0.00001, -0.00002]), percent=True)[0] == "0.00"
