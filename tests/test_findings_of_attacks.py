"""What is said of attacks is what the records and tables of the studies show."""

from __future__ import annotations

import json
import re

import pytest
from studies import RESULTS, ROOT, SHOWN, said

import attacks


def test_the_attack_that_is_said_to_need_the_fewest_pixels_does() -> None:
    text = (RESULTS / "attacks-defaults/pixels-all.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    rows = {row[0].strip(): [cell.strip(" *") for cell in row[1:]] for row in lines}
    sparse = set(attacks.BUILTIN) & set(rows) - {"pgd", "mi-fgsm"}
    for column, head in enumerate(rows["attack"]):
        pixels = {name: float(rows[name][column]) for name in sparse if rows[name][column]}
        fewest = "cw-l0" if head.endswith("no bound") else "advmask"
        assert min(pixels, key=pixels.__getitem__) == fewest, head


def test_the_differences_in_pixels_that_are_said_to_be_significant_are() -> None:
    alike = []
    for path in sorted((RESULTS / "attacks-defaults").glob("*.txt")):
        found = re.findall(r"eps (\S+), .+?^advmask (needs .+?) \(", path.read_text(), re.M | re.S)
        assert [eps for eps, _ in found] == ["8/255", "16/255", "1"], path.name
        for eps, verdict in found:
            others = verdict.replace(";", ",").split(", ")
            rivals = [other for other in others if other.startswith(("no difference", "more"))]
            if eps == "1":
                assert any(other.startswith("more pixels than") for other in rivals)
            elif rivals:
                assert rivals == ["no difference in pixels is shown between advmask and cw-l0"]
                alike.append((path.stem, eps))
    assert alike == [("resnet20-untargeted", "16/255"), ("resnet44-untargeted", "16/255")]


def test_the_attacks_succeed_as_often_as_is_said() -> None:
    summary = (RESULTS / "attacks/summary.md").read_text()
    shown = set(re.findall(r"^\| (\S.*?) +\|", summary, re.MULTILINE)) - {"attack", "worst case"}
    lines = (RESULTS / "attacks/records.jsonl").read_text().splitlines()
    found = [each for each in map(json.loads, lines) if each.get("attack") in shown]
    assert len(found) == 4 * len(shown) > 30
    assert {record["success"] for record in found} == {1.0}
    assert "all succeed on all images" in SHOWN


def test_the_cost_of_cheap_defaults_in_the_tutorial_is_that_of_the_records() -> None:
    lines = (RESULTS / "attacks-cost/records.jsonl").read_text().splitlines()
    found = {record["attack"]: record for record in map(json.loads, lines)}
    text = (ROOT / "docs/tutorials/attack.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 7
    for name, cells in rows:
        both = (found[name], found[f"{name}.published"])
        assert all(each["success"] == 1 and each["images"] == 200 for each in both)
        assert cells.split(" | ") == [
            text
            for each in both
            for text in (
                f"{each['l0_pixels_mean']:.2f}",
                f"{each['l0_elements_mean']:.2f}",
                f"{each['forwards'] + each['backwards']:.0f}",
            )
        ]


RIVALS: dict[tuple[str, str], dict[str, list[str]]] = {
    ("attacks/resnet8", "pixels"): {},
    ("attacks/resnet8", "elements"): {},
    ("attacks/convmixer", "pixels"): {},
    ("attacks/convmixer", "elements"): {},
    ("attacks/fashion", "pixels"): {"no difference": ["sparse-rs.published"]},
    ("attacks/fashion", "elements"): {"no difference": ["sparse-rs.published"]},
    ("attacks/robust", "pixels"): {
        "more": ["sparse-rs.published"],
        "no difference": ["pgd-trim.published", "cw-l0.published"],
    },
    ("attacks/robust", "elements"): {},
    ("attacks-others/wrn-40-2", "pixels"): {},
    ("attacks-others/wrn-40-2", "elements"): {},
    ("attacks-others/vit-96-6", "pixels"): {},
    ("attacks-others/vit-96-6", "elements"): {},
    ("attacks-others/robust-resnet20", "pixels"): {
        "more": ["sparse-rs.published"],
        "no difference": ["fmn-l0.published(unit='pixels')", "pgd-trim.published"],
    },
    ("attacks-others/robust-resnet20", "elements"): {},
}
"""Which attacks AdvMask's with 3,000 passes is not ahead of, by study, victim model and unit."""


@pytest.mark.parametrize(("victim", "unit"), RIVALS)
def test_the_rivals_of_the_attack_with_published_budgets_are_those_named(
    victim: str, unit: str
) -> None:
    name = {"pixels": "advmask(budget=3000)", "elements": "advmask(unit='elements', budget=3000)"}
    text = (RESULTS / f"{victim}.txt").read_text()
    (line,) = (each for each in text.splitlines() if each.startswith(f"{name[unit]} needs "))
    verdict = line.removeprefix(f"{name[unit]} needs ").partition(" (Wilcoxon")[0]
    found: dict[str, list[str]] = {}
    shown = f"no difference in {unit} is shown between {name[unit]} and "
    for part in verdict.replace(shown, f"no difference {unit} than ").split("; "):
        how, listed = part.split(f" {unit} than ")
        names = re.split(r", (?![^(]*\))", listed)  # not the commas between options
        found[how] = [each for each in names if not re.fullmatch(r"advmask(\(.+\))?", each)]
    others = 15 if victim.startswith("attacks/") else 8
    assert sum(map(len, found.values())) >= others
    assert found.pop("fewer")
    assert {how: names for how, names in found.items() if names} == RIVALS[victim, unit]


@pytest.mark.parametrize(
    ("study", "tied"),
    [
        ("budget", {("targeted", 300, "pixels", "1")}),
        ("budget-convmixer", {(g, 300, "pixels", "16/255") for g in ("untargeted", "targeted")}),
    ],
)
def test_at_equal_passes_the_attack_is_first_but_for_the_ties_that_are_named(
    study: str, tied: set[tuple[str, int, str, str]]
) -> None:
    ties, firsts = set(), 0
    for goal in ("untargeted", "targeted"):
        for passes in (300, 1000):
            text = (RESULTS / f"{study}/{goal}-{passes}.txt").read_text()
            for unit, options in (("pixels", ""), ("elements", "unit='elements', ")):
                ours = f"advmask({options}budget={passes}) needs fewer {unit} than "
                tables = re.split(r", eps (\S+), ", text)[1:]
                for eps, table in zip(tables[::2], tables[1::2], strict=True):
                    (line,) = (each for each in table.splitlines() if each.startswith(ours))
                    firsts += 1
                    assert "more " not in line
                    if "no difference in " in line:
                        ties.add((goal, passes, unit, eps))
    assert firsts == 24  # without a bound, at 8/255 and at 16/255
    assert ties == tied
    assert f"{24 - len(tied)} of the 24 comparisons" in said(study)


def test_what_is_said_of_cw_l0_with_its_budget_is_that_of_its_records() -> None:
    found = [
        record
        for line in (RESULTS / "attacks/records.jsonl").read_text().splitlines()
        if (record := json.loads(line)).get("attack") == "cw-l0.published"
    ]
    assert len(found) == 4
    assert all(record["images"] == 200 and record["success"] == 1 for record in found)
    passes = sorted(record["forwards"] + record["backwards"] for record in found)
    assert f"{passes[0] / 1000:.0f},000 to {passes[-1] / 1000:.0f},000 passes" in said("attacks")
    pixels = {
        ("robust" if "robust" in record["victim"] else record["model"], record["data"][:5]): record
        for record in found
    }
    order = [
        ("resnet8", "cifar"),
        ("resnet8", "fashi"),
        ("convmixer-64-4", "cifar"),
        ("robust", "cifar"),
    ]
    *first, last = (f"{pixels[each]['l0_pixels_mean']:.3g}" for each in order)
    assert f"It needs {', '.join(first)} and {last} pixels" in said("attacks")
