"""The paper is data: every table and figure builds at every scale, and says what was printed."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from augmentations import AdvMask
from bench.cli import main
from bench.paper import figures, published, scales, tables
from bench.paper.experiments import Cell, Experiment
from bench.points import coverage
from bench.records.record import Record
from bench.records.store import Store
from bench.registry import build
from bench.reporting import formats
from bench.studies import estimates
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
    assert experiment.cells or experiment.attacks or experiment.points
    assert len({job.name for job in experiment.jobs()}) == len(experiment.jobs())
    assert len(experiment.jobs()) % experiment.scale.seeds == 0
    rows = {*experiment.against, *experiment.against.values()}
    assert rows <= set(experiment.rows)
    assert experiment.baseline is None or experiment.baseline in experiment.rows
    assert set(experiment.published) <= set(experiment.cells)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_paper_scale_has_the_headings_of_the_paper(name: str) -> None:
    assert not tables.experiment(name, "paper").stands_for
    for scale in ("smoke", "reduced"):
        experiment = tables.experiment(name, scale)
        for column in experiment.columns:
            recipes = [each for (_, own), each in experiment.cells.items() if own == column]
            assert {each.data for each in recipes} == {column.group.partition(" / ")[0]}
            assert column in experiment.stands_for
        assert experiment.stands_for
        (paper, *_) = experiment.stands_for.values()
        assert f"for {paper.label}" in experiment.replaced
        assert experiment.replaced in " ".join(experiment.told)


def test_columns_are_headed_by_what_ran_and_published_numbers_by_what_they_are_of() -> None:
    experiment = tables.experiment("table1", "smoke")
    table = experiment.table(complete(experiment))
    assert [each.heading(" / ") for each in table.printed()] == [
        "digits / resnet8",
        "published, other setting / CIFAR-10 / ResNet-18",
    ]
    assert "digits / resnet8 for CIFAR-10 / ResNet-18" in formats.caption(table)
    assert "2 epochs, batch size 64" in formats.caption(table)
    assert experiment.chosen in formats.caption(table)
    (entry, *_) = json.loads(formats.json(table))["cells"]
    assert (entry["column"], entry["published"]) == ("digits / resnet8", 0.9528)
    assert (entry["published_of"], entry["published_setting"]) == ("CIFAR-10 / ResNet-18", "other")
    assert entry["published_starred"]
    paper = tables.experiment("table1", "paper").table([])
    assert [each.heading(" / ") for each in paper.printed()][:3] == [
        "CIFAR-10 / ResNet-18",
        "CIFAR-10 / ResNet-18 (published)",
        "CIFAR-10 / ResNet-44",
    ]
    assert "95.28*" in formats.text(paper)
    assert "taken from another paper" in formats.caption(paper)


@pytest.mark.parametrize("name", ["table4", "table5", "figure3"])
def test_numbers_whose_recipe_is_not_published_are_of_another_setting(name: str) -> None:
    table = tables.experiment(name, "paper").table([])
    published = [each for each in table.printed() if each.published]
    assert published
    assert {each.group for each in published} == {"published, other setting"}


def test_the_same_dataset_under_another_name_is_no_stand_in() -> None:
    same = tables.experiment("table7", "paper", scales.OtherData("cifar10", 32))
    assert not same.stands_for
    other = tables.experiment("table1", "paper", scales.OtherData("mine", 32, "abc"))
    assert {column.group for column in other.columns} == {"mine"}
    assert len(other.columns) == 5  # of the ten of the paper
    assert {column.group for column in other.stands_for.values()} == {"CIFAR-10"}
    assert {recipe.digest for recipe in other.cells.values()} == {"abc"}


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
    assert experiment.published[cell].value == value
    assert starred is None or experiment.published[cell].starred == starred


def test_published_accuracies_are_percent() -> None:
    for name in NAMES:
        assert all(
            50 < each.value < 100 for each in tables.experiment(name, "paper").published.values()
        )


def test_the_papers_scale_trains_as_section_4_says() -> None:
    """300 epochs, batch 128, 0.1, 5e-4; Shake-Shake 1800, 256, 0.01, 1e-3; crops out of 36x36."""
    for name in ("table1", "table2", "table3", "table7", "table8", "figure7", "figure8"):
        for recipe in tables.experiment(name, "paper").cells.values():
            settings = recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay
            shaken = recipe.model.startswith("shake-shake")
            assert settings == ((1800, 256, 0.01, 1e-3) if shaken else (300, 128, 0.1, 5e-4))
            assert (recipe.padding, recipe.validation, recipe.precision) == (2, 0.0, "float32")
            assert recipe.schedule == ("steps" if name == "figure7" else "cosine")
            assert recipe.data in ("cifar10", "cifar100")
    assert tables.experiment("figure6", "paper").scale.seeds == 3


def test_tiny_imagenet_and_flowers_are_fine_tuned_by_one_rule() -> None:
    for name in ("table4", "table5", "figure3", "figure4", "figure5"):
        experiment = tables.experiment(name, "paper")
        for recipe in experiment.cells.values():
            assert str(recipe.pretrained).startswith("torchvision:")
            assert str(recipe.pretrained).endswith(".IMAGENET1K_V1")
            assert (recipe.epochs, recipe.learning_rate, recipe.validation) == (30, 0.01, 0.0)
            assert recipe.data in ("tiny-imagenet", "flowers102(side=224)")
        assert "fine-tuned from torchvision:" in experiment.settings
    for scale in ("smoke", "reduced"):
        cells = tables.experiment("table4", scale).cells
        assert {recipe.pretrained for recipe in cells.values()} == {None}


def test_the_gridmask_control_deletes_as_much_as_is_said() -> None:
    method = build("augmentations", scales.COVERED, data="cifar10", side=32)
    deleted = coverage.measure(method, 4096, (32, 32)).metrics["deleted_share"]
    assert deleted == pytest.approx(0.328, abs=0.0005)
    chosen = tables.experiment("table7", "paper").chosen
    assert "32.8 %" in chosen


def test_table_6_attacks_1000_images_of_cifar10_with_targets(tmp_path: Path) -> None:
    settings = tables.experiment("table6", "paper").attacks
    assert settings is not None
    assert (settings.victim.data, settings.victim.model) == ("cifar10", "resnet18")
    assert (settings.images, settings.aim) == (1000, "random")
    assert [str(eps) for eps in settings.eps] == ["8/255", "16/255"]
    names = {name for eps in settings.eps for name in settings.names(eps)}
    assert {"jsma.official", "cw-l0.official", "sapf.official", "cw-l0", "sapf", "jsma"} <= names
    assert {name for name, _ in settings.published} <= names
    assert len(settings.published) == len(published.TABLE6) == 12
    assert len(names) == 10
    asked = ["run", "table6", "--scale", "paper", "--dry-run", "--results", str(tmp_path)]
    shown = CliRunner().invoke(main, asked)
    assert shown.exit_code == 0, shown.output  # without the images
    lines = [line for line in shown.stdout.splitlines() if "1000 images of cifar10" in line]
    assert len(lines) >= 12


def test_the_cost_of_an_evaluation_of_attacks_is_that_of_its_attacks(tmp_path: Path) -> None:
    asked = ["run", "table6", "--scale", "paper", "--results", str(tmp_path), "--dry-run"]
    told = CliRunner().invoke(main, asked).stderr
    assert "table6: Targeted sparse attacks (cifar10) (20 attack evaluations)" in told
    assert "20 attack evaluations, 0 done, 20 to run: at most " in told
    assert "0 runs" not in told
    assert " 0 s" not in told
    settings = tables.experiment("table6", "paper").attacks
    assert settings is not None
    planned = [replace(each, done=True) for each in settings.plan([])]
    told = estimates.attack_cost(planned, settings.victim, "cpu")
    assert told == "20 attack evaluations, 20 done, 0 to run"
    smoke = CliRunner().invoke(main, ["run", "table6", "--results", str(tmp_path), "--dry-run"])
    assert smoke.stderr.count("Not applicable: sparsefool") == 1  # not once for each eps


def test_figure_8_moves_one_parameter_on_cifar100_and_places_its_largest_squares() -> None:
    experiment = tables.experiment("figure8", "paper")
    assert {recipe.data for recipe in experiment.cells.values()} == {"cifar100"}
    for (row, column), recipe in experiment.cells.items():
        method = recipe.augmentation
        assert isinstance(method, AdvMask)
        if column.name == "l":
            low, high = map(int, row.split("-"))
            assert method.length == (low, high)
            assert method.ratio[1] == pytest.approx(max(0.5, (high / 32) ** 2), rel=1e-3)
            guide = torch.ones(64, 1, 32, 32)
            images = torch.zeros(64, 3, 32, 32)
            deleted = method.mask(images, torch.Generator().manual_seed(0), guide)
            assert deleted.flatten(1).any(1).all(), row
        else:
            assert method.length == (5, 20)
        assert method.overlap == (int(row[:-1]) / 100 if column.name == "o" else 0.2)


def test_figure_2_trains_nothing_and_asks_for_images_of_imagenet(tmp_path: Path) -> None:
    asked = ["run", "figure2", "--results", str(tmp_path), "--dry-run"]
    shown = CliRunner().invoke(main, asked)
    assert shown.exit_code == 0, shown.output
    assert "0 runs, 0 done, 0 to run\n" in shown.stderr
    assert "adversarial points of digits" in shown.stderr
    refused = CliRunner().invoke(main, [*asked, "--scale", "paper"])
    assert refused.exit_code == 2
    assert "figure2 at scale paper shows images of ImageNet: choose some with" in refused.stderr
    everything = ["run", "all", "--scale", "paper", *asked[2:]]
    every = CliRunner().invoke(main, everything)
    assert every.exit_code == 0, every.output
    assert "left out: figure2 at scale paper shows images of ImageNet" in every.stderr
    table = CliRunner().invoke(main, ["tables", "figure2", "--results", str(tmp_path)])
    assert table.exit_code == 2
    assert "figure2 has no table: bench figures figure2 draws it" in table.stderr


def test_an_experiment_takes_one_function() -> None:
    for name, function in tables.EXPERIMENTS.items():
        module = "figure_experiments" if name.startswith("figure") else "tables"
        module = module if name in NAMES else name
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
    assert "missing: AdvMask on digits / resnet8: seed 1" in shown.stderr
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
    for bound, length in (("eps 8/255", "468.2"), ("eps 16/255", "238.3")):
        assert bound in attacks.stdout
        assert length in attacks.stdout  # as published
    rows = [line.split() for line in attacks.stdout.splitlines()]
    assert rows.count(["greedyfool", *["--"] * 4]) == 2
    whole = CliRunner().invoke(
        main, ["tables", "table6", "--scale", "paper", "--results", str(tmp_path)]
    )
    assert "advmask.published" in whole.stdout


def test_an_experiment_of_attacks_heeds_the_options_of_its_command(tmp_path: Path) -> None:
    asked = ["run", "table6", "--results", str(tmp_path), "--dry-run", "--json"]
    for data, options in (("photos", []), ("digits", ["--data", "digits"])):
        shown = CliRunner().invoke(main, [*asked, *options])
        assert shown.exit_code == 0, shown.output
        jobs = [job for line in shown.stdout.splitlines() for job in json.loads(line)["jobs"]]
        assert len(jobs) == 2 * len({job["attack"] for job in jobs}) >= 20
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


def test_each_row_against_a_rival_of_its_own_is_corrected_over_all_of_them() -> None:
    experiment = tables.experiment("table2", "reduced")
    pairs = list(experiment.against.items())
    assert len(pairs) > 1
    spread = (0.0, 0.001, 0.003, 0.004, 0.008)
    family = {row: dict(enumerate(spread)) for row in experiment.rows}
    for row, _ in pairs:  # the same gain everywhere, hence the same p-value
        family[row] = {s: v + 0.003 + 0.002 * (s % 2) for s, v in enumerate(spread)}
    found = experiment._compare(family)
    assert len({each.p for each in found.values()}) == 1
    (raw,), (corrected,) = ({getattr(e, n) for e in found.values()} for n in ("p", "p_holm"))
    assert corrected == pytest.approx(min(1.0, raw * len(found)))


def test_seeds_beyond_those_of_the_scale_change_neither_figure_nor_failures() -> None:
    experiment = tables.experiment("figure7", "smoke")
    own = complete(experiment)
    more = [replace(each, seed=each.seed + 50, metrics={"accuracy": 0.1}) for each in own]
    more += [replace(each, seed=each.seed + 90, status="failed", metrics={}) for each in own]

    def curve(each: Record) -> list[dict[str, float]]:
        return [{"epoch": e, "test_accuracy": 0.9 if each.seed < 50 else 0.1} for e in (1, 2)]

    one, other = (figures.figure_of(experiment, some, curve) for some in (own, own + more))
    assert one == other
    table = tables.experiment("table8", "smoke")
    own = complete(table)
    lost = [replace(each, seed=each.seed + 90, status="failed", metrics={}) for each in own]
    assert table.table(own + lost).failed == {}
