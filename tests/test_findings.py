"""What is said of deletion and points is what the records and tables of the studies show."""

from __future__ import annotations

import json
import re
from statistics import mean

import pytest
from click.testing import CliRunner
from studies import RESULTS, SHOWN, said

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
