"""Where should one delete? The experiment asks at equal coverage and answers with its tests."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench.cli import main
from bench.data import seeds
from bench.data.loader import Loader
from bench.data.splits import Split
from bench.paper import scales, tables
from bench.paper.contrasts import Contrasts
from bench.paper.experiments import Experiment
from bench.paper.where import ERASERS
from bench.points import find, guides
from bench.records.record import Record
from bench.records.statistics import compare_pairs, equivalence
from bench.records.store import Store
from bench.studies.jobs import labels
from bench.training.recipes import Recipe

ANSWERS = {"yes", "no", "undecided"}


def named(experiment: Experiment) -> dict[str, Recipe]:
    """The recipes of the first column by row."""
    first = experiment.columns[0]
    return {row: recipe for (row, column), recipe in experiment.cells.items() if column == first}


def values(rows: list[str], n: int) -> dict[str, dict[int, float]]:
    """Accuracies by row and seed: seeking wins by two points, avoiding is as good as ignoring."""
    generator = np.random.default_rng(0)
    common = generator.normal(0.9, 0.01, n)
    made = {}
    for row in rows:
        gain = 0.02 if "seek points" in row else 0.0
        found = common + gain + generator.normal(0, 0.0008, n)
        made[row] = {seed: float(value) for seed, value in enumerate(found)}
    return made


def store(experiment: Experiment, folder: Path, leave_out: tuple[str, int] = ("", 0)) -> None:
    """Records of every cell of the first column, except for one seed."""
    found = values(experiment.rows, experiment.scale.seeds)
    for row, recipe in named(experiment).items():
        for seed, accuracy in found[row].items():
            if (row, seed) != leave_out:
                Store(folder).add(
                    Record(
                        kind="run",
                        key=recipe.key,
                        seed=seed,
                        labels=labels(recipe, 8),
                        metrics={
                            "accuracy": accuracy,
                            "epochs": 2,
                            "seconds": 2.0,
                            "deleted_share": 0.2,
                        },
                        job=recipe.to_json(),
                    )
                )


def shown(folder: Path, style: str, scale: str = "reduced") -> Any:
    asked = ["tables", "where", "--scale", scale, "--results", str(folder), "--format", style]
    return CliRunner().invoke(main, asked)


@pytest.mark.parametrize("scale", list(scales.SCALES))
def test_every_eraser_ignores_seeks_and_avoids_points_and_random_points(scale: str) -> None:
    experiment = tables.experiment("where", scale)
    assert len(experiment.columns) == (2 if scale == "paper" else 1)
    rows = named(experiment)
    assert len(rows) == 1 + 4 * 5 + 4 + 1
    assert len({recipe.key for recipe in rows.values()}) == len(rows)
    assert {job.seed for job in experiment.jobs()} == set(range(experiment.scale.seeds))
    for name in ERASERS:
        rule = {
            suffix: (recipe.augmentation.points, recipe.guide, guides.needed(recipe))  # type: ignore[attr-defined]
            for suffix in ("", "seek points", "avoid points", "seek random points")
            if (recipe := rows[f"{name}, {suffix}" if suffix else name])
        }
        assert rule == {
            "": ("ignore", None, None),
            "seek points": ("seek", None, "attack"),
            "avoid points": ("avoid", None, "attack"),
            "seek random points": ("seek", "random", "random"),
        }
    for row, recipe in rows.items():
        wanted = find.chosen_attack(recipe.data) if row not in ("None", *ERASERS) else None
        assert recipe.points == wanted, row


def test_rows_that_the_paper_has_too_are_run_once() -> None:
    table1, where = (named(tables.experiment(name, "paper")) for name in ("table1", "where"))
    for name in (*ERASERS, "AdvMask"):
        assert where[name].key == table1[name].key
    assert where["None"].key == table1["Baseline"].key


@pytest.mark.parametrize("scale", ["smoke", "paper"])
@pytest.mark.parametrize("name", ERASERS)
def test_every_variant_deletes_as_much_of_each_image_in_each_epoch(name: str, scale: str) -> None:
    rows, n = named(tables.experiment("where", scale)), 300
    side = 8 if scale == "smoke" else 32
    points = torch.rand(n, 1, side, side, generator=seeds.generator(0, "points")) < 0.14
    blank = Split(
        torch.zeros(n, 1, side, side, dtype=torch.uint8),
        torch.zeros(n, dtype=torch.long),
        torch.arange(n),
    )
    areas, masks = {}, {}
    for suffix in ("", ", seek points", ", avoid points", ", avoid random points"):
        recipe = rows[name + suffix]
        loader = Loader(
            blank,
            batch_size=recipe.batch_size,
            seed=3,
            padding=recipe.padding,
            flip=True,
            device="cpu",
            augmentation=recipe.augmentation,
            guide=None if guides.needed(recipe) is None else points,
        )
        drawn = [b.mask for epoch in (0, 1) for b in loader.epoch(epoch, (epoch + 1) / 2)]
        masks[suffix] = torch.cat([mask for mask in drawn if mask is not None])
        areas[suffix] = masks[suffix].sum((1, 2, 3))
    first = areas[""]
    assert len(first) == 2 * n
    assert 0 < float(first.float().mean()) < side * side / 2
    for suffix, area in areas.items():
        assert torch.equal(area, first), suffix
    assert not torch.equal(masks[", seek points"], masks[", avoid points"])


def test_differences_are_paired_one_family_and_judged_for_equivalence(tmp_path: Path) -> None:
    experiment = tables.experiment("where", "reduced")
    store(experiment, tmp_path)
    found = values(experiment.rows, 5)
    whole, points, control = experiment.tables(Store(tmp_path).all())
    assert whole.baseline == "None"
    assert [row.label for row in points.rows] == [row.label for row in control.rows]
    assert [row.label for row in points.rows] == list(ERASERS)
    names = {"ignore": "", "seek": ", seek points", "avoid": ", avoid points"}
    pairs = {
        (row, f"{a} - {b}"): (found[row + names[a]], found[row + names[b]])
        for row in ERASERS
        for a, b in (("seek", "ignore"), ("avoid", "ignore"), ("seek", "avoid"))
    }
    compared = compare_pairs(pairs)
    for (row, heading), comparison in compared.items():
        assert points.comparisons[row, f"{heading} / difference"] == comparison
        same = equivalence(*pairs[row, heading])
        assert points.equivalences[row, f"{heading} / equivalent"] == same
        assert points.cells[row, f"{heading} / equivalent"] == same.verdict
        assert same.verdict == ("yes" if heading == "avoid - ignore" else "no")
    assert set(control.equivalences) == {
        (row, f"{rule} - {rule} random / equivalent")
        for row in ERASERS
        for rule in ("seek", "avoid")
    }


def test_the_table_is_printed_for_readers_and_for_programs(tmp_path: Path) -> None:
    experiment = tables.experiment("where", "reduced")
    store(experiment, tmp_path)
    text = shown(tmp_path, "text")
    assert text.exit_code == 0, text.output
    for part in (
        "seek - ignore",
        "equivalent",
        "cifar10(train=2000, test=4000) / resnet20 for CIFAR-10 / ResNet-18",
        "Equal coverage: all variants of an eraser delete equally many pixels",
        "Equivalent: yes, the two differ by less than 0.5 points",
        "Holm's correction over the differences of the table",
        "at scale reduced",
    ):
        assert part in " ".join(text.stdout.split())
    latex = shown(tmp_path, "latex").stdout
    assert r"\multicolumn{3}{c}{seek - ignore}" in latex
    assert latex.count(r"\begin{table}") - latex.count("continued from") == 3
    made = json.loads(shown(tmp_path, "json").stdout)
    assert [len(table["cells"]) for table in made] == [26, 4 * 9, 4 * 8]
    cells = {(cell["row"], cell["column"]): cell for cell in made[1]["cells"]}
    equal = cells["Cutout", "avoid - ignore / equivalent"]
    assert (equal["verdict"], equal["margin"], equal["n"]) == ("yes", 0.005, 5)
    assert equal["p"] < 0.05
    gain = cells["Cutout", "seek - ignore / difference"]
    assert gain["difference"] == pytest.approx(0.02, abs=0.002)
    assert "significant" in gain["verdict"]
    assert gain["p_holm"] < 0.05
    assert cells["Cutout", "Accuracy / seek"]["deleted_share"] == pytest.approx(0.2)
    lines = list(csv.DictReader(io.StringIO(shown(tmp_path, "csv").stdout)))
    assert {line["verdict"] for line in lines if line["column"].endswith("equivalent")} <= ANSWERS


def test_a_seed_that_is_missing_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    experiment = tables.experiment("where", "reduced")
    store(experiment, tmp_path, leave_out=("HaS, seek points", 4))
    printed = shown(tmp_path, "json")
    assert printed.exit_code == 3
    assert (
        "missing: HaS, seek points on cifar10(train=2000, test=4000) / resnet20: seed 4"
        in printed.stderr
    )
    assert "1 of 26 cells are missing or failed: bench run where --scale reduced" in printed.stderr
    cells = {(cell["row"], cell["column"]): cell for cell in json.loads(printed.stdout)[1]["cells"]}
    assert cells["HaS", "seek - ignore / equivalent"]["n"] == 4
    assert cells["HaS", "avoid - ignore / equivalent"]["n"] == 5


def test_one_seed_and_none_are_undecided_and_never_nan() -> None:
    contrasts = Contrasts(
        title="t",
        groups={"a": {"x": "ax", "y": "ay"}, "b": {"x": "bx", "y": "by"}},
        pairs=[("x", "y")],
    )
    table = contrasts.table({"ax": {0: 0.9}, "ay": {0: 0.8}, "bx": {0: 0.9}}, {"by": 1}, "d / m")
    assert table.cells["a", "x - y / equivalent"] == "undecided"
    assert table.cells["b", "x - y / equivalent"] is None
    assert table.failed == {("b", "Accuracy / y"): 1}
    from bench.reporting import formats

    assert "nan" not in formats.text(table) + formats.json(table)


def test_a_dry_run_says_what_would_be_run(tmp_path: Path) -> None:
    asked = ["run", "where", "--results", str(tmp_path), "--dry-run"]
    told = CliRunner().invoke(main, [*asked, "--scale", "smoke"])
    assert told.exit_code == 0, told.output
    assert "where: Where should one delete? (digits) (52 runs)" in told.stderr
    assert "52 runs, 0 done, 52 to run" in told.stderr
    moved = CliRunner().invoke(main, [*asked, "--data", "digits(train=200, test=100)"])
    assert moved.exit_code == 0, moved.output
    assert "(52 runs)" in moved.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_question_is_listed_in_a_sentence() -> None:
    listed = CliRunner().invoke(main, ["list", "experiments"]).stdout.splitlines()
    line = next(each for each in listed if each.startswith("where "))
    assert "at adversarial points, away from them, or anywhere (not in the paper)." in line
