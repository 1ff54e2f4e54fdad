"""What is said of the studies is what their records and tables show."""

from __future__ import annotations

import json
import re
from statistics import mean

import pytest
from click.testing import CliRunner
from studies import RESULTS, ROOT, SHOWN, said

import attacks
from bench.cli import main
from bench.records.sequential import SequentialDesign
from bench.records.statistics import holm


def test_the_methods_that_are_said_to_lose_do() -> None:
    records = [
        json.loads(line)
        for line in (RESULTS / "augmentations/records.jsonl").read_text().splitlines()
    ]
    assert len({each["seed"] for each in records}) == 8
    assert "In an older study on 1,000 images no deletion gains significantly." in " ".join(
        SHOWN.split()
    )
    rows = marks("differences")
    assert len(rows) == 11
    lose = {"has", "advmask + random"}
    for name, (cifar, fashion) in rows.items():
        assert cifar.endswith(("†", "*")) == (name in lose), name
        assert fashion.endswith(("†", "*")), name
        assert fashion.startswith("-"), name
        assert cifar.startswith("-") or name not in lose, name
    assert marks("differences-advmask")["advmask + corners-matched"][1] == "1.00 ± 0.55*"


def accuracies(study: str) -> dict[str, dict[int, float]]:
    """The accuracy of each method of a study with each seed."""
    found: dict[str, dict[int, float]] = {}
    for line in (RESULTS / study / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        name = " + ".join(filter(None, [record["augmentation"], record.get("guide")]))
        found.setdefault(name, {})[record["seed"]] = record["accuracy"]
    return found


def test_the_verdicts_of_the_control_are_those_of_its_design() -> None:
    """The plan fixed looks and margin; the seeds of the last look decide about each method."""
    found = accuracies("control")
    (seeds,) = {len(values) for values in found.values()}
    plan = SequentialDesign(methods=2, most=30, margin=0.005)
    decisions = plan.decide(found, "none", plan.looks.index(seeds) + 1)
    assert set(decisions) == {"cutout", "random-erasing"}
    for text in (" ".join(SHOWN.split()), said("control")):
        for name, decision in decisions.items():
            assert f"`{name}`: {decision}" in text


def test_the_verdicts_of_the_comparison_are_those_of_its_design() -> None:
    plan = SequentialDesign(methods=9, most=10, margin=0.005)
    decisions = plan.decide(accuracies("comparison"), "none", 2)
    assert len(decisions) == 9
    for name, decision in decisions.items():
        assert f"- `{name}`: {decision}" in said("comparison")
    better = {name for name, each in decisions.items() if each.verdict == "better"}
    assert better == {"cutout", "random-erasing", "has", "gridmask"}


def test_the_verdicts_with_crop_and_flip_are_those_of_the_first_look() -> None:
    found = accuracies("crop")
    assert {len(values) for values in found.values()} == {5}
    decisions = SequentialDesign(methods=4, most=10, margin=0.005).decide(found, "none", 1)
    assert set(decisions) == {"cutout", "random-erasing", "advmask", "advmask + random"}
    assert {decision.verdict for decision in decisions.values()} == {"undecided"}
    for name, decision in decisions.items():
        assert f"- `{name}`: {decision}" in said("crop")


def marks(name: str) -> dict[str, tuple[str, str]]:
    """The differences of a table, with their marks: on `cifar10-jpeg` and on Fashion-MNIST."""
    text = (RESULTS / f"augmentations/{name}.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    cells = [
        [cell.strip().replace("\\", "").replace("\N{MINUS SIGN}", "-") for cell in line]
        for line in lines
    ]
    return {row[0]: (row[1], row[5]) for row in cells}


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


def differences(path: str, seeds: int = 5) -> dict[str, tuple[str, str]]:
    """The differences of a table over so many seeds, and their p-values, as sentences write them.

    Where a method has another number of seeds, it stands behind the difference.
    """
    table = (RESULTS / path).read_text().replace("\\", "")
    assert f"over n = {seeds} seeds" in table
    row = r"^\| (\S.*?) +\| +(\S+ ± [\d.]+)\S*(?: \((n=\d)\))? +\| +(.+?) +\|"
    return {
        name: (" ".join(filter(None, [cell, n])), p if p.startswith("<") else f"= {p}")
        for name, cell, n, p in re.findall(row, table, re.M)
    }


def test_what_is_said_of_deletion_with_crop_and_flip_is_in_its_tables() -> None:
    section = said("crop")
    columns = [
        differences(f"crop/{name}.md") for name in ("differences", "occlusion", "corruption")
    ]
    assert len(columns[0]) == 4
    for name in columns[0]:
        cells = [f"{column[name][0]} (p {column[name][1]})" for column in columns]
        assert f"| {name} | {' | '.join(cells)} |" in section
    clean, p = differences("crop/controls.md")["advmask + random"]
    assert (
        f"Random points against adversarial ones: {clean} points on clean images (p {p})" in section
    )
    occluded, _ = differences("crop/occlusion-advmask.md")["advmask + random"]
    assert f"{occluded} on occluded ones" in section
    assert f"AdvMask gains {columns[0]['advmask'][0]} points and" in " ".join(SHOWN.split())
    gain, p = columns[0]["random-erasing"]
    assert f"Random Erasing {gain} (p {p})" in " ".join(SHOWN.split())
    hidden = [columns[1][name][0] for name in ("advmask", "advmask + random")]
    told = f"AdvMask gains {hidden[0]} with adversarial and {hidden[1]} with random points"
    assert told in " ".join(SHOWN.split())


def test_what_is_said_of_all_methods_with_crop_and_flip_is_in_its_tables() -> None:
    section = said("crop-all")
    columns = [differences(f"crop-all/{name}.md", seeds=4) for name in ("differences", "occlusion")]
    assert len(columns[0]) == 9
    for name in columns[0]:
        seeds = 3 if columns[0][name][0].endswith("n=3") else 4
        cells = [
            f"{column[name][0].removesuffix(' n=3')} (p {column[name][1]})" for column in columns
        ]
        assert f"| {name} | {seeds} | {' | '.join(cells)} |" in section
    controls = [cell for cell, _ in differences("crop-all/controls.md", seeds=3).values()]
    assert f"{', '.join(controls[:2])} and {controls[2]} points on clean images" in section
    hidden = [cell for cell, _ in differences("crop-all/controls-occlusion.md", seeds=3).values()]
    assert f"{', '.join(hidden[:2])} and {hidden[2]} on occluded ones" in section


@pytest.mark.slow
def test_the_seeds_that_one_point_is_said_to_take_are_those_of_bench_plan() -> None:
    needed = []
    for study in ("crop-all", "crop"):
        plan = ["plan", "--difference", "1.0", "--results", str(RESULTS / study)]
        result = CliRunner().invoke(main, plan)
        found = re.search(r"  advmask \(.+?; (\d+) seeds;", result.stdout)
        assert found, result.output
        needed.append(found[1])
    assert needed[1] == "10"
    assert f"takes {needed[0]} seeds by its spread here, and ten by that over" in said("crop-all")


def test_what_is_said_of_predicted_points_is_in_its_tables() -> None:
    def cell(name: str, row: str) -> str:
        table = (RESULTS / f"fast-points/{name}.md").read_text()
        assert "over n = 10 seeds" in table
        found = re.search(
            rf"^\| {re.escape(row)} +\| +(\S+ ± [\d.]+)\S* +\| +(.+?) +\|", table, re.M
        )
        assert found
        p = found[2].replace("\\", "")
        return f"{found[1]} (p {p})" if p.startswith("<") else f"{found[1]} (p = {p})"

    exact, predicted = "advmask [points=advmask.published]", "advmask [points=advmask.fast]"
    for row, places in (
        (
            "predicted points - no deletion",
            [("differences", predicted), ("occlusion-none", predicted)],
        ),
        ("exact points - no deletion", [("differences", exact), ("occlusion-none", exact)]),
        ("predicted - exact points", [("exact", predicted), ("occlusion", predicted)]),
    ):
        clean, occluded = (cell(*place) for place in places)
        assert f"| {row} | {clean} | {occluded} |" in said("fast-points")
    told = "with predicted ones, which delete more, 1.81 ± 0.99;"
    assert told in " ".join(SHOWN.split())
    coverage = (RESULTS / "fast-points/coverage.md").read_text()
    assert re.search(r"published\] \| 27\.03 .+?\| +17\.18", coverage)
    assert re.search(r"fast\] +\| 31\.29 .+?\| +1\.23", coverage)
    assert "31.3 % of the pixels are deleted with predicted points and 27.0 %" in said(
        "fast-points"
    )


def test_what_is_said_of_seeking_and_avoiding_the_points_is_in_its_tables() -> None:
    section = (RESULTS / "seeking/README.md").read_text()
    rows = dict(re.findall(r"^\| (\S+ \S \S+) \| (.+) \|$", section, re.M))
    assert list(rows) == ["seek - ignore", "avoid - ignore", "seek - avoid"]
    for (difference, cells), (ending, place) in zip(
        rows.items(), [("", "seek"), ("", "avoid"), ("-seek-avoid", "seek")], strict=True
    ):
        for eraser, cell in zip(("cutout", "random-erasing"), cells.split(" | "), strict=True):
            table = (RESULTS / f"seeking/{eraser}{ending}.md").read_text()
            method = re.escape(f"{eraser}(points='{place}')")
            found = re.search(rf"^\| {method} +\| +(\S+ ± \S+) +\| +(\S+) ", table, re.M)
            assert found
            assert cell == f"{found[1]} (p = {found[2]})", difference
            assert "over n = 5 seeds. No method differs from" in table
    deleted = (RESULTS / "seeking/coverage.md").read_text()
    for eraser, share in (("cutout", "19.15 ± 0.19"), ("random-erasing", "20.20 ± 0.46")):
        assert len(re.findall(rf"^\| {eraser}\b.*\| {share} ", deleted, re.M)) == 3


ERASERS = {"seeking-has": "has", "seeking-gridmask": "gridmask"}
"""The studies in float32 of masks that seek and avoid the points, and the eraser of each."""


def seeking(study: str) -> list[dict[str, tuple[str, str]]]:
    """The differences of such a study on clean and on occluded images, by their names."""
    eraser = ERASERS[study]
    seek = f"{eraser}(points='seek')"
    columns = []
    for metric in ("", "-occlusion"):
        found = differences(f"{study}/{eraser}{metric}.md", seeds=5)
        assert list(found) == [seek, f"{eraser}(points='avoid')", f"{seek} + random"]
        rows = dict(zip(("seek", "avoid", "seek random"), found.values(), strict=True))
        column = {f"{row} - ignore": cell for row, cell in rows.items()}
        for other in ("avoid", "random"):
            both = differences(f"{study}/{eraser}{metric}-seek-{other}.md", seeds=5)
            column[f"seek - {'seek ' * (other == 'random')}{other}"] = both[seek]
        columns.append(column)
    return columns


@pytest.mark.parametrize("study", ERASERS)
def test_what_is_said_of_an_eraser_that_seeks_and_avoids_is_in_its_tables(study: str) -> None:
    section, columns = said(study), seeking(study)
    assert len(columns[0]) == 5
    for row in columns[0]:
        cells = [f"{column[row][0]} (p {column[row][1]})" for column in columns]
        assert f"| {row} | {' | '.join(cells)} |" in section
    shares = re.findall(r"(\d+\.\d+) ± \d", (RESULTS / study / "coverage.md").read_text())
    assert len(set(shares)) == 1
    assert f"delete equally many pixels of every image, {shares[0]} % in the mean" in section


def test_seeking_adversarial_points_is_worse_than_random_ones_for_one_eraser_alone() -> None:
    """Tested alone it is; corrected over clean and occluded images, or over both erasers, not."""
    columns = {study: seeking(study) for study in ERASERS}
    for study, eraser in ERASERS.items():
        for table in (RESULTS / study).glob(f"{eraser}*.md"):
            shown = "No method differs from" not in table.read_text()
            assert shown == (table.name == "has-seek-random.md")
    p = {
        study: [float(column["seek - seek random"][1].removeprefix("= ")) for column in both]
        for study, both in columns.items()
    }
    assert holm(p["seeking-has"])[0] == pytest.approx(0.051, abs=0.0015)  # from rounded ones
    clean, occluded = (holm(list(pair)) for pair in zip(*p.values(), strict=True))
    assert clean == pytest.approx([0.051, 0.19], abs=0.0015)
    assert occluded == pytest.approx([0.91, 0.76], abs=0.01)
    assert "p is 0.051 and 0.19, on occluded images 0.91 and 0.76" in said("seeking-gridmask")
    assert "would have p = 0.051, as with the correction over both" in said("seeking-has")
    sizes = {study: both[0]["seek - seek random"][0][1:] for study, both in columns.items()}
    told = (
        f"Hide-and-Seek loses {sizes['seeking-has']} where it seeks the points instead of random "
        f"ones (five seeds, p = {p['seeking-has'][0]}), GridMask {sizes['seeking-gridmask']}; "
        "corrected for both it is not shown (p = 0.051)."
    )
    assert told in " ".join(SHOWN.split())
    assert "difference from ignoring of less than 3.6 points is shown with" in said("seeking-has")
    for path, spread in (
        ("seeking-has/has", "3.6 to 5.7"),
        ("seeking-gridmask/gridmask", "2.8 to 5.3"),
        ("seeking-gridmask/gridmask-seek-random", "2.5"),
    ):
        assert f"Differences below {spread} points" in (RESULTS / f"{path}.md").read_text()
    for spread in ("less than 2.8 to 5.3 points", "random points of less than 2.5"):
        assert spread in said("seeking-gridmask")


def test_seeking_has_the_lowest_mean_of_every_eraser_in_the_setting_of_the_control() -> None:
    for study, erasers in (
        ("seeking", ("cutout", "random-erasing")),
        ("seeking-has", ("has",)),
        ("seeking-gridmask", ("gridmask",)),
    ):
        means = {name: mean(values.values()) for name, values in accuracies(study).items()}
        for eraser in erasers:
            own = {name: value for name, value in means.items() if name.startswith(eraser)}
            assert min(own, key=own.__getitem__) == f"{eraser}(points='seek')"
    for study, eraser in ERASERS.items():
        found = accuracies(study)
        seek, random = (found[f"{eraser}(points='seek'){end}"] for end in ("", " + random"))
        assert max(seek, key=lambda seed: abs(seek[seed] - random[seed])) == 12


def test_the_plan_ended_when_its_core_hours_were_spent() -> None:
    studies = (
        "control-pilots", "control", "comparison", "crop", "crop-all", "seeking", "seeking-has",
        "seeking-gridmask", "fast-points",
    )  # fmt: skip
    runs = {
        (record["key"], record["seed"], record["seconds"])
        for study in studies
        for line in (RESULTS / study / "records.jsonl").read_text().splitlines()
        if (record := json.loads(line))["machine"]["device"] == "cpu"
    }
    hours = sum(seconds for *_, seconds in runs) / 3600
    plan = " ".join((RESULTS / "PLAN.md").read_text().split())
    assert f"The trainings on processor cores took {hours:.1f} hours" in plan
    assert hours > 30


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


def test_what_is_said_of_what_masks_delete_is_in_the_records() -> None:
    """Mean shares over the last epochs of all runs, in percent."""

    def means(study: str) -> dict[str, tuple[float, float]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for line in (RESULTS / study / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            if "deleted_share" in record:
                name = " + ".join(filter(None, [record["augmentation"], record.get("guide")]))
                below = record.get("masks_below_minimum", 0.0)
                found.setdefault(name, []).append((record["deleted_share"], below))
        return {
            name: (100 * mean(d for d, _ in each), 100 * mean(b for _, b in each))
            for name, each in found.items()
        }

    controls = [f"advmask + {name}" for name in ("random", "saliency", "corners-matched")]
    found = means("comparison")
    order = ["advmask", *controls]
    shares = [f"{found[name][0]:.1f}" for name in order]
    assert f"shares: {', '.join(shares[:3])} and {shares[3]} %" in said("comparison")
    below = [f"{found[name][1]:.0f} %" for name in order]
    assert f"{below[0]} of AdvMask's masks are below" in said("comparison")
    assert (
        f"{below[1]} of those around random, {below[2]} around salient and {below[3]} around"
        in said("comparison")
    )
    shares = [f"{found[name][0]:.0f} %" for name in ("has", "cutout", "advmask")]
    assert f"the most ({shares[0]} of the pixels; Cutout {shares[1]}, AdvMask {shares[2]})" in said(
        "comparison"
    )
    found = means("crop")
    ours, other = found["advmask"], found["advmask + random"]
    assert f"{ours[1]:.0f} % of AdvMask's masks are below" in said("crop")
    assert (
        f"{other[1]:.0f} % of its control's, which delete {other[0]:.1f} % of the pixels instead "
        f"of {ours[0]:.1f} %"
    ) in said("crop")
    found = means("crop-all")
    order = [f"advmask + {name}" for name in ("random", "corners-matched", "saliency")]
    shares = [f"{found[name][0]:.1f}" for name in order]
    assert (
        f"delete {', '.join(shares[:2])} and {shares[2]} % of the pixels where adversarial ones "
        f"delete {found['advmask'][0]:.1f} %"
    ) in said("crop-all")
    below = [f"{found[name][1]:.0f}" for name in order]
    assert f"{found['advmask'][1]:.0f} % of the masks around adversarial points are below" in said(
        "crop-all"
    )
    assert f"and {', '.join(below[:2])} and {below[2]} % of those around" in said("crop-all")
