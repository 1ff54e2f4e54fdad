"""The report says what the records say, holds all it needs, and trusts no record."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import registry
from bench.cli import main
from bench.files.atomic import write
from bench.paper.report_section import add_experiments
from bench.points import find
from bench.records.record import Record
from bench.records.store import NAMED, Store
from bench.reporting import cost_table, report
from bench.reporting.grouping import group_runs
from bench.reporting.page import inline
from bench.studies.jobs import labels
from bench.training import trained
from bench.training.recipes import Recipe, usual

pytestmark = pytest.mark.slow

SECTIONS = [
    *("verdict", "results", "curves", "paper", "occlusion", "images", "attacks", "cost"),
    *("seeds", "failures", "environment", "commands"),
]
HOSTILE = (
    "</script><script>alert('x')</script><img src=x onerror=alert(1)>\x00\u202e & $a_b$ {{7*7}}"
)


def run(augmentation: str, seed: int, accuracy: float, **fields: object) -> Record:
    recipe = Recipe(
        data="digits",
        model="resnet8",
        augmentation=registry.build("augmentations", augmentation, data="digits", side=8),
        **(usual("digits", "resnet8", 8) | {"epochs": 2}),
    )
    given: dict[str, object] = {
        "job": recipe.to_json(),
        "labels": labels(recipe, 8),
        "metrics": {"accuracy": accuracy, "epochs": 2, "seconds_per_epoch": 1.5, "seconds": 3.5},
        "machine": {"bench": "0.1", "commit": "abc", "device": "cpu"},
        "curve": [{"epoch": e, "test_accuracy": accuracy * e / 2} for e in (1, 2)],
    }
    return Record(
        kind="run",
        key=recipe.key,
        seed=seed,
        **(given | fields),  # type: ignore[arg-type]
    )


def attack(name: str, seed: int = 0, **fields: object) -> Record:
    given: dict[str, object] = {
        "labels": {
            "attack": name, "victim": "resnet8 on digits", "data": "digits", "goal": "untargeted",
            "eps": "8/255", "bounded": "yes", "role": "sparse", "model": "resnet8",
        },
        "metrics": {"success": 0.75, "l0_elements_mean": 12.0, "l2": 0.5, "linf": 0.03},
        "curve": [{"changes": 3.0, "pixels": 0.5, "elements": 0.25}],
        "job": {"images": 100},
    }  # fmt: skip
    return Record(kind="attack", key=f"a-{name}", seed=seed, **(given | fields))  # type: ignore[arg-type]


GAIN = {
    "none": (0.9, 0.901, 0.902),
    "cutout": (0.95, 0.951, 0.9525),
    "advmask": (0.901, 0.9, 0.904),
}


def filled(folder: Path) -> Store:
    """Three methods with three seeds, one of them failed, two attacks and an occlusion curve."""
    store = Store(folder)
    for name, accuracies in GAIN.items():
        for seed, accuracy in enumerate(accuracies):
            store.add(run(name, seed, accuracy))
    store.add(run("has", 0, 0.0, status="failed", message="the loss is nan", metrics={}, curve=()))
    store.add(attack("jsma"))
    store.add(attack("noise", labels=dict(attack("noise").labels) | {"role": "floor"}))
    for seed in range(3):
        curve = [{"share": s, "random": 0.9 - s, "important": 0.8 - s} for s in (0.0, 0.5)]
        path = trained.path(run("none", seed, 0.9), folder).with_suffix(".occlusion.json")
        write(path, json.dumps({"version": 1, "curve": curve}))
    return store


class Outline(HTMLParser):
    """What a page is made of, and that its elements are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.scripts: list[dict[str, str | None]] = []
        self.elements: dict[str, int] = {}
        self.text: list[str] = []
        self.json = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements[tag] = self.elements.get(tag, 0) + 1
        assert not [name for name in found if name.startswith("on")], found
        if found.get("id") and "svg" not in self.open:
            self.ids.append(str(found["id"]))
        self.links += [str(found[name]) for name in ("href", "src") if name in found]
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "script":
            self.scripts.append(found)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.json += data
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A report of `filled`, and its text."""
    folder = tmp_path_factory.mktemp("results")
    path, _ = report.write_report(filled(folder), folder / "report")
    return path, path.read_text()


def test_the_page_has_every_section_and_is_well_formed(page: tuple[Path, str]) -> None:
    outline = Outline(page[1])
    assert [each for each in outline.ids if each in SECTIONS] == SECTIONS
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.elements["section"] == len(SECTIONS)
    assert outline.headings[0] == 1
    steps = zip(outline.headings, outline.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)


def test_the_page_needs_nothing_from_elsewhere(page: tuple[Path, str]) -> None:
    outline = Outline(page[1])
    assert all(link.startswith(("#", "data:")) for link in outline.links)
    assert outline.scripts == [{"type": "application/json", "id": "numbers"}]
    assert "default-src 'none'" in page[1]
    assert "@import" not in page[1]
    assert set(re.findall(r"url\((.)", page[1])) <= {"#"}


def test_light_dark_and_print_have_rules(page: tuple[Path, str]) -> None:
    assert "prefers-color-scheme: dark" in page[1]
    assert "@media print" in page[1]


def test_the_verdict_counts_and_names_gains(page: tuple[Path, str]) -> None:
    text = " ".join("".join(Outline(page[1]).text).split())
    assert "10 training runs of 4 methods with 1 network on 1 dataset" in text
    assert "1 failed" in text
    assert "Of 3 comparisons with no augmentation, 1 show a significant gain" in text
    assert re.search(
        r"cutout\S* is best of 3 with 95.12 ± 0.31 % \(n = 3\); against none \+5.02", text
    )


def test_every_seed_failure_machine_and_command_is_listed(page: tuple[Path, str]) -> None:
    text = " ".join("".join(Outline(page[1]).text).split())
    assert "0: 95.00, 1: 95.10, 2: 95.25" in text
    assert "0: failed" in text
    assert "the loss is nan" in text
    assert "commit abc" in text
    assert "bench run --aug cutout --model resnet8 --data digits --epochs 2 --seeds 3" in text


def test_numbers_are_embedded_in_fractions(page: tuple[Path, str]) -> None:
    numbers = json.loads(Outline(page[1]).json)
    assert len(numbers["records"]) == 12
    cell = next(c for c in numbers["tables"]["All runs"] if c["row"].startswith("cutout"))
    assert cell["mean"] == pytest.approx(sum(GAIN["cutout"]) / 3)
    assert cell["n"] == 3


def test_tables_and_figures_lie_beside_the_page(page: tuple[Path, str]) -> None:
    folder = page[0].parent
    tables = {path.name for path in (folder / "tables").iterdir()}
    assert {"results-All-runs.tex", "results-All-runs.csv"} <= tables
    figures = list((folder / "figures").glob("*.pdf"))
    assert len(figures) >= 3
    assert all(path.read_bytes().startswith(b"%PDF") for path in figures)


def test_the_same_records_give_the_same_page(page: tuple[Path, str], tmp_path: Path) -> None:
    path, _ = report.write_report(Store(page[0].parent.parent), tmp_path)
    assert path.read_bytes() == page[0].read_bytes()


def test_the_papers_tables_appear_with_published_numbers(tmp_path: Path) -> None:
    from bench.paper import asked, tables

    store = Store(tmp_path)
    experiment = tables.experiment("table8", "smoke")
    for recipe in experiment.cells.values():
        for seed in range(2):
            store.add(
                Record(
                    kind="run",
                    key=recipe.key,
                    seed=seed,
                    labels=labels(recipe, 8),
                    metrics={"accuracy": 0.9},
                    job=recipe.to_json(),
                )
            )
    adopted = report.build_page(store, [add_experiments])
    assert "paper" not in adopted.sections  # nobody has asked for it
    asked.note([experiment], tmp_path)
    written = report.build_page(store, [add_experiments])
    titles = [part.title for part in written.sections["paper"]]
    assert any(title.startswith("table8, scale smoke") for title in titles)
    part = next(p for p in written.sections["paper"] if p.title.startswith("table8"))
    assert "96.23" in part.table
    assert "not comparable" in written.files["tables/paper-table8-scale-smoke.tex"]


def test_a_list_of_experiments_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    from bench.paper import asked, tables
    from bench.paper.scales import OtherData

    other = tables.experiment("table8", "smoke", OtherData("mine", 16, "abc"))
    asked.note([tables.experiment("table1", "smoke"), other], tmp_path)
    asked.note([other], tmp_path)
    path = tmp_path / asked.FILE
    assert len(path.read_text().splitlines()) == 2
    lines = ['{"name": "x", "scale": "smoke"}', "[1", '"a"', '{"name": "table1"}', HOSTILE[:40]]
    lines.append(
        '{"name": "table1", "scale": "smoke", "data": {"name": 1, "side": 8, "digest": ""}}'
    )
    path.write_text(path.read_text() + "\n".join(lines), errors="replace")
    first, second = asked.asked(tmp_path)
    assert (first.name, second.name) == ("table1", "table8")
    assert {recipe.digest for recipe in second.cells.values()} == {"abc"}
    assert second.command() == "bench run table8 --scale smoke --data mine"


def test_hostile_records_are_shown_as_text(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bad = {"augmentation": HOSTILE, "model": HOSTILE, "data": HOSTILE}
    store.add(run("none", 0, 0.9, labels=bad, machine={"device": HOSTILE}, job={"x": HOSTILE}))
    store.add(run("none", 1, 0.8, labels=bad, status="failed", message=HOSTILE))
    store.add(attack("jsma", labels=dict(attack("jsma").labels) | {"attack": HOSTILE}))
    path, _ = report.write_report(store, tmp_path / "report")
    text = path.read_text()
    outline = Outline(text)
    assert len(outline.scripts) == 1
    assert "img" not in outline.elements
    assert "{{7*7}}" in text
    assert "alert(1)" in "".join(outline.text)
    json.loads(outline.json)


ODD: dict[str, dict[str, object]] = {
    "it has no label 'augmentation'": {"augmentation": 1.5},
    "machine is ['x']": {"machine": ["x"]},
    "machine is 3": {"machine": 3},
    "accuracy is 1e+308, which is not a fraction": {"accuracy": 1e308},
    "seconds is -1e+308": {"seconds": -1e308},
    "accuracy is nan": {"accuracy": math.nan},
    "seconds is inf": {"seconds": math.inf},
    "its version is 99, not 1": {"version": 99},
    "kind is 'king'": {"kind": "king"},
    "key is '../../etc'": {"key": "../../etc"},
    "model is '\\ud800', which is not a text": {"model": "\ud800"},
}
"""What is said of a training → what is wrong with it."""
ODD_ATTACKS: dict[str, dict[str, object]] = {
    "eps is '1/0'": {"eps": "1/0"},
    "eps is 'zzz'": {"eps": "zzz"},
    "eps is '1e999999999'": {"eps": "1e999999999"},
    "role is 'king'": {"role": "king"},
    "its images are None": {"job": {}},
    "it has no label 'goal'": {"goal": 1.0},
}


def test_each_line_that_holds_no_record_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    store = filled(tmp_path)
    lines = [run("none", 7, 0.9).to_json() | odd for odd in ODD.values()]
    lines += [attack("odd").to_json() | odd for odd in ODD_ATTACKS.values()]
    reasons = [*ODD, *ODD_ATTACKS]
    for number, line in enumerate(lines):
        with store.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        records, said = store.read()
        assert len(records) == 12
        start = f"{store.path}: {number + 1} line"
        assert said[0].startswith(start)
        if number < NAMED:
            assert f"line {13 + number}: {reasons[number]}" in said[0]
        else:
            assert f"and {number + 1 - NAMED} more" in said[0]
    for reason, line in zip(reasons, lines, strict=True):
        with pytest.raises(ValueError, match=re.escape(reason)):
            Record.from_json(line)
    shown = CliRunner().invoke(main, ["report", "--results", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    said = f"{len(lines)} lines are set aside, which hold no valid record (line 13: it has no label"
    assert said in " ".join(shown.stderr.split())
    assert said in html.unescape((tmp_path / "report" / "index.html").read_text())


def test_no_record_is_written_that_could_not_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for odd in ({"accuracy": math.nan}, {"seconds": 10**400}):
        with pytest.raises(ValueError, match="which is not a"):
            store.add(run("none", 0, 0.5, metrics=odd))
    assert not store.path.exists()


@pytest.mark.parametrize(
    "content", ["[", "{}", "[1]", '[{"test_accuracy": "high"}]', '[{"a": NaN}]']
)
def test_a_curve_that_is_none_is_passed_over(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    record = run("none", 0, 0.9, curve=())
    write(tmp_path / "curves" / f"{record.name}.json", content)
    assert store.curve(record) == []


def test_an_empty_folder_is_answered_with_what_to_do(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["report", "--results", str(tmp_path)])
    assert shown.exit_code == 2
    assert "has no records to report; bench run makes them" in shown.stderr


def test_attacks_alone_make_a_report(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(attack("jsma"))
    text = report.write_report(store, tmp_path / "report")[0].read_text()
    assert "no training run yet" in text
    assert "jsma" in text
    assert list((tmp_path / "report/figures").glob("*.pdf"))


def test_an_attack_whose_curve_was_lost_is_not_drawn_as_a_failure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(attack("jsma", curve=()))
    text = report.write_report(store, tmp_path / "report")[0].read_text()
    assert "jsma" in text
    assert not list((tmp_path / "report/figures").glob("*.pdf"))


def test_the_search_for_points_is_charged_to_those_who_use_them(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    about = {"data": "digits", "attack": find.SPARSE, "seconds": 40.0}
    write(
        tmp_path / "points" / "digits-x.safetensors",
        save({"places": torch.zeros(1)}, {"about": json.dumps(about)}),
    )
    write(tmp_path / "points" / "broken.safetensors", b"no")
    assert cost_table.point_seconds(tmp_path) == {("digits", find.SPARSE): 40.0}
    groups = group_runs(run(name, seed, 0.9) for name in GAIN for seed in range(2))
    table = cost_table.cost_table(groups, tmp_path)
    assert table is not None
    whole = {
        row: cell.mean
        for (row, column), cell in table.cells.items()
        if column == "seconds per run including points" and not isinstance(cell, str | None)
    }
    assert whole == {
        f"{name}, digits / resnet8": seconds
        for name, seconds in (("none", 3.5), ("cutout", 3.5), ("advmask", 43.5))
    }
    unknown = cost_table.cost_table(groups, tmp_path / "elsewhere")
    assert unknown is not None
    assert (
        unknown.cells["advmask, digits / resnet8", "seconds per run including points"]
        == "not known"
    )


def test_a_drawing_in_the_page_takes_the_colour_of_its_text() -> None:
    svg = (
        '<?xml version="1.0"?><svg height="10pt" width="20pt" viewBox="0 0 20 10" xmlns="x">'
        '<metadata>http://x</metadata><g id="axes_1">'
        '<path id="p7" style="stroke: #000000"/></g></svg>'
    )
    assert inline(svg) == (
        '<svg viewBox="0 0 20 10" style="max-width: 30pt">'
        '<g><path id="p7" style="stroke: currentColor"/></g></svg>'
    )


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser; skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium to open the page in")


def test_a_browser_shows_every_section_without_an_error(
    page: tuple[Path, str], chromium: str, tmp_path: Path
) -> None:
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
    )
    shown = subprocess.run(
        [chromium, *options, page[0].resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
    outline = Outline(shown.stdout)
    assert [each for each in outline.ids if each in SECTIONS] == SECTIONS
    # the parser moved nothing: as many parts as were written
    written = Outline(page[1]).elements
    for tag in ("section", "article", "figure", "table", "svg", "details", "th", "td"):
        assert outline.elements[tag] == written[tag], tag


def test_differences_are_drawn_where_seeds_are_common(tmp_path: Path) -> None:
    (found,) = [
        part
        for part in report.build_page(filled(tmp_path)).sections["results"]
        if part.title == "Accuracy gained over none"
    ]
    for row in ("cutout", "advmask", "has"):
        assert row in found.svg
    alone = Store(tmp_path / "alone")
    alone.add(run("cutout", 0, 0.9))
    assert len(report.build_page(alone).sections["results"]) == 1


def test_two_victims_of_one_architecture_are_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, success in ((1, 0.75), (2, 0.25)):
        made = attack("jsma")
        labels = {**made.labels, "victim": f"resnet8 weights{number}.safetensors"}
        metrics = {**made.metrics, "success": success}
        store.add(replace(made, key=f"a-{number}", labels=labels, metrics=metrics))
    text = report.write_report(store, tmp_path / "report")[0].read_text()
    numbers = json.loads(Outline(text).json)
    titles = [title for title in numbers["tables"] if "jsma" not in title]
    assert len([title for title in titles if title.startswith("Norms on")]) == 2
    assert len([title for title in titles if title.startswith("Metrics on")]) == 2
    written = [path.read_text() for path in (tmp_path / "report" / "tables").glob("*.tex")]
    labels_ = re.findall(r"\\label\{(.*?)\}", "".join(written))
    assert len(set(labels_)) == len(labels_) >= 4


def test_a_failed_run_has_no_learning_curve(tmp_path: Path) -> None:
    store, curve = Store(tmp_path), [{"epoch": 1, "test_accuracy": 0.5}]
    first = run("none", 0, 0.9)
    store.add(replace(first, curve=curve))
    store.add(replace(first, status="failed", message="the loss is nan", metrics={}, curve=()))
    (found,) = store.all()
    assert found.status == "failed"
    assert store.curve(found) == []
