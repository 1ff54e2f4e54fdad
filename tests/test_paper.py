"""The paper is data: every table and figure builds at every scale, and says what was printed."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.paper import scales, tables
from bench.paper.experiments import Cell, Experiment
from bench.records.record import Record
from bench.records.store import Store
from bench.studies.jobs import labels

NAMES = [*(f"table{n}" for n in range(1, 9)), *(f"figure{n}" for n in range(2, 9))]


def record(experiment: Experiment, cell: Cell, seed: int, accuracy: float) -> Record:
    recipe = experiment.cells[cell]
    return Record(
        kind="run",
        key=recipe.key,
        seed=seed,
        labels=labels(recipe, 8),
        metrics={"accuracy": accuracy, "epochs": 2, "seconds_per_epoch": 1.0, "seconds": 2.0},
        job=recipe.to_json(),
    )


def complete(experiment: Experiment) -> list[Record]:
    """Records for every seed of every cell; later rows are better."""
    rows = experiment.rows
    return [
        record(experiment, cell, seed, 0.9 + 0.002 * rows.index(cell[0]) + 0.001 * (seed % 2))
        for cell in experiment.cells
        for seed in range(experiment.scale.seeds)
    ]


def test_every_table_and_figure_of_the_paper_is_declared_and_what_it_leaves_open() -> None:
    assert list(tables.EXPERIMENTS) == [*NAMES, "where"]


@pytest.mark.parametrize("scale", list(scales.SCALES))
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_builds_at_every_scale(name: str, scale: str) -> None:
    experiment = tables.experiment(name, scale)
    assert (experiment.name, experiment.scale.name) == (name, scale)
    assert experiment.kind == ("figure" if name.startswith("figure") else "table")
    assert experiment.cells or experiment.attacks
    assert len({job.name for job in experiment.jobs()}) == len(experiment.jobs())
    assert len(experiment.jobs()) % experiment.scale.seeds == 0
    rows = {*experiment.against, *experiment.against.values()}
    assert rows <= set(experiment.rows)
    assert experiment.baseline is None or experiment.baseline in experiment.rows
    assert not experiment.scale.faithful or set(experiment.published) <= set(experiment.cells)


def test_only_the_paper_scale_may_be_held_against_published_numbers() -> None:
    assert [name for name, scale in scales.SCALES.items() if scale.faithful] == ["paper"]


@pytest.mark.parametrize(
    ("name", "row", "column", "value", "starred"),
    [
        ("table1", "AdvMask", "CIFAR-10 / ResNet-18", 96.44, False),
        ("table1", "Cutout", "CIFAR-10 / ResNet-18", 96.01, True),
        ("table1", "AdvMask", "CIFAR-100 / Shake-26-32", 79.96, False),
        ("table1", "GridMask", "CIFAR-10 / WRN-28-10", 97.23, None),
        ("table5", "AdvMask", "Flowers / ResNet-50", 91.57, False),
        ("table7", "AdvMask", "CIFAR-10 / ResNet-50", 96.69, False),
        ("table8", "AAPM", "CIFAR-10 / ResNet-18", 92.96, False),
        ("figure3", "Baseline", "Tiny-ImageNet / ResNet-50", 73.61, False),
    ],
)
def test_published_numbers_are_those_that_were_printed(
    name: str, row: str, column: str, value: float, starred: bool | None
) -> None:
    experiment = tables.experiment(name, "paper")
    cell = next(cell for cell in experiment.published if (cell[0], cell[1].label) == (row, column))
    assert experiment.published[cell] == value
    assert starred is None or (cell in experiment.starred) == starred


def test_published_accuracies_are_percent() -> None:
    for name in NAMES:
        assert all(
            50 < value < 100 for value in tables.experiment(name, "paper").published.values()
        )


def test_an_experiment_takes_one_function() -> None:
    for name, function in tables.EXPERIMENTS.items():
        module = "tables" if name in NAMES else name
        assert (function.__module__, function.__name__) == (f"bench.paper.{module}", name)
        assert list(inspect.signature(function).parameters) == ["scale"]
        assert function.__doc__


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"there is no experiment 'tabel1': .*table1"):
        tables.experiment("tabel1", "smoke")
    with pytest.raises(ValueError, match=r"there is no scale 'smok': .*smoke"):
        tables.experiment("table1", "smok")


def test_gaps_are_the_seeds_that_failed_or_never_ran() -> None:
    experiment = tables.experiment("table1", "smoke")
    cell, other = list(experiment.cells)[:2]
    records = complete(experiment)
    assert experiment.missing(records) == {}
    mine, theirs = experiment.cells[cell].key, experiment.cells[other].key
    records = [r for r in records if (r.key, r.seed) not in ((mine, 1), (theirs, 0))]
    lost = record(experiment, other, 0, 0.9)
    records.append(Record(kind="run", key=lost.key, seed=0, labels={}, metrics={}, status="failed"))
    assert experiment.missing(records) == {cell: [1], other: [0]}


@pytest.mark.slow
def test_a_complete_experiment_is_printed_with_published_numbers(tmp_path: Path) -> None:
    experiment = tables.experiment("table8", "smoke")
    for each in complete(experiment):
        Store(tmp_path).add(each)
    asked = ["tables", "table8", "--results", str(tmp_path), "--format"]
    shown = CliRunner().invoke(main, [*asked, "text"])
    assert shown.exit_code == 0, shown.output
    assert "96.23" in shown.stdout
    assert "not comparable" in CliRunner().invoke(main, [*asked, "latex"]).stdout
    whole = json.loads(CliRunner().invoke(main, [*asked, "json"]).stdout)
    entry = next(each for each in whole["cells"] if each["row"] == "AAPM")
    assert entry["mean"] == pytest.approx(0.9005)
    assert entry["published"] == 0.9296


def test_missing_cells_are_marked_and_named_with_the_command_that_fills_them(
    tmp_path: Path,
) -> None:
    experiment = tables.experiment("table8", "smoke")
    for each in complete(experiment)[:-1]:
        Store(tmp_path).add(each)
    shown = CliRunner().invoke(
        main, ["tables", "table8", "--results", str(tmp_path), "--format", "text"]
    )
    assert shown.exit_code == 3
    assert "missing: AdvMask on CIFAR-10 / ResNet-18: seed 1" in shown.stderr
    assert "1 of 3 cells are missing or failed: bench run table8 --scale smoke" in shown.stderr
    assert "(n=1)" in shown.stdout


def test_an_experiment_without_any_record_still_prints(tmp_path: Path) -> None:
    asked = ["tables", "table1", "--results", str(tmp_path), "--format", "text"]
    shown = CliRunner().invoke(main, asked)
    assert shown.exit_code == 3
    assert "--" in shown.stdout
    assert "6 of 6 cells" in shown.stderr
    attacks = CliRunner().invoke(main, ["tables", "table6", "--results", str(tmp_path)])
    assert attacks.exit_code == 3
    assert "bench run table6 --scale smoke" in attacks.stderr


def test_an_experiment_of_attacks_heeds_the_options_of_its_command(tmp_path: Path) -> None:
    asked = ["run", "table6", "--results", str(tmp_path), "--dry-run", "--json"]
    for data, options in (("photos", []), ("digits", ["--data", "digits"])):
        shown = CliRunner().invoke(main, [*asked, *options])
        assert shown.exit_code == 0, shown.output
        jobs = [job for line in shown.stdout.splitlines() for job in json.loads(line)["jobs"]]
        assert len(jobs) == 20
        assert {job["eps"] for job in jobs} == {"8/255", "16/255"}
        assert {(job["data"].split()[0], job["images"]) for job in jobs} == {(data, 4)}


def test_an_experiment_is_run_anew_when_it_is_asked_for(tmp_path: Path) -> None:
    experiment = tables.experiment("table8", "smoke")
    for each in complete(experiment):
        Store(tmp_path).add(each)
    asked = ["run", "table8", "--results", str(tmp_path), "--dry-run"]
    told = CliRunner().invoke(main, asked).stderr
    assert "6 runs, 6 done, 0 to run" in told
    assert "6 runs, 0 done, 6 to run" in CliRunner().invoke(main, [*asked, "--fresh"]).stderr
