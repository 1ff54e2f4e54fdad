"""Figures show what the records say, and the same records give the same file."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch
from click.testing import CliRunner

from bench.cli import main
from bench.files.atomic import write
from bench.paper import figures, scales, tables
from bench.paper.experiments import Experiment
from bench.paper.figures import Figure
from bench.records.record import Record
from bench.records.statistics import mean_interval
from bench.records.store import Store
from bench.reporting.figures import occlusion_figures
from bench.reporting.panels import (
    LONGEST_LINE,
    Distribution,
    Distributions,
    Estimate,
    Estimates,
    Line,
    Panel,
    attack_panels,
    error_lines,
    mean_of_steps,
    share_steps,
)
from bench.reporting.plots import draw, draw_images, line_style
from bench.studies.jobs import labels as run_labels
from bench.training.recipes import Recipe
from bench.training.trained import path as weights_of

pytestmark = pytest.mark.slow

CURVE = [
    {"changes": 2.0, "pixels": 0.5, "elements": 0.0},
    {"changes": 4.0, "pixels": 0.5, "elements": 0.5},
    {"changes": 7.0, "pixels": 1.0, "elements": 0.5},
]


def record(attack: str, *, eps: str = "8/255", seed: int = 0, role: str = "sparse") -> Record:
    labels = {"attack": attack, "eps": eps, "role": role, "bounded": "yes"}
    return Record(kind="attack", key=attack, seed=seed, labels=labels, metrics={"success": 1.0})


def test_a_step_stands_where_the_share_of_its_unit_rises() -> None:
    assert share_steps(CURVE, "pixels") == [(2, 0.5), (7, 1.0)]
    assert share_steps(CURVE, "elements") == [(4, 0.5)]
    assert share_steps([], "pixels") == []


def test_the_mean_of_seeds_holds_every_step() -> None:
    assert mean_of_steps([[(1.0, 0.5), (3.0, 1.0)], [(2.0, 1.0)], []]) == [
        (1, pytest.approx(0.5 / 3)),
        (2, pytest.approx(0.5)),
        (3, pytest.approx(2 / 3)),
    ]


def test_a_panel_per_eps_and_a_line_per_attack_without_the_ceiling() -> None:
    curves = [
        (record("jsma"), CURVE),
        (record("jsma", seed=1), CURVE),
        (record("pgd", role="ceiling"), CURVE),
        (record("noise", role="floor"), []),
        (record("jsma", eps="16/255"), CURVE),
    ]
    first, second = attack_panels(curves)
    assert [line.label for line in first.lines] == ["jsma", "noise"]
    assert first.lines[0].points == [(2, 0.5), (7, 1.0)]
    assert first.lines[1].points == []
    assert (first.title, second.title) == ("eps = 8/255", "eps = 16/255")
    assert attack_panels(curves, "elements")[0].x == "changed elements, at most"


@pytest.mark.slow
def test_files_are_what_they_are_called_and_the_same_each_time() -> None:
    panels = attack_panels([(record("jsma"), CURVE), (record("noise", role="floor"), [])])
    pdf, png = draw(panels, "pdf"), draw(panels, "png")
    assert pdf.startswith(b"%PDF")
    assert png.startswith(b"\x89PNG")
    assert pdf == draw(panels, "pdf")
    assert png == draw(panels, "png")


def test_more_lines_than_colours_can_be_told_apart() -> None:
    lines = [Line(f"attack {number}", [(1.0, number / 20)], steps=True) for number in range(12)]
    assert draw([Panel("many", "changes", "success", lines, logarithmic=True)], "pdf")


def trained(name: str, skip: tuple[str, ...] = ()) -> tuple[Experiment, list[Record]]:
    """Records for every seed of an experiment: row number i has accuracy 0.8 + i / 100."""
    experiment = tables.experiment(name, "smoke")
    found = []
    for (row, _), recipe in experiment.cells.items():
        for seed in range(experiment.scale.seeds):
            accuracy = 0.8 + experiment.rows.index(row) / 100 + seed / 1000
            curve = [{"epoch": 1, "test_accuracy": 0.5}, {"epoch": 2, "test_accuracy": accuracy}]
            metrics = {"accuracy": accuracy, "seconds_per_epoch": 2.0 + seed}
            found.append(
                Record(
                    kind="run",
                    key=recipe.key,
                    seed=seed,
                    labels=run_labels(recipe, 8),
                    metrics=metrics,
                    curve=curve,
                )
            )
    lost = {experiment.cells[cell].key for cell in experiment.cells if cell[0] in skip}
    return experiment, [each for each in found if each.key not in lost]


def figure(name: str, skip: tuple[str, ...] = ()) -> Figure:
    experiment, records = trained(name, skip)
    return figures.figure_of(experiment, records, lambda record: record.curve)


def estimates(panel: Panel | Estimates) -> Estimates:
    assert isinstance(panel, Estimates)
    return panel


def test_gains_are_paired_differences_to_the_baseline_in_points() -> None:
    panel = estimates(figure("figure3").panels[0])
    assert [entry.label for entry in panel.entries] == list(scales.DELETION)[1:]
    for place, entry in enumerate(panel.entries, 1):
        assert entry.interval is not None
        assert entry.interval.mean == pytest.approx(place)
        assert entry.seeds == pytest.approx([place, place])


def test_combinations_are_held_against_the_same_method_without_advmask() -> None:
    panel = estimates(figure("figure4").panels[0])
    assert [entry.label for entry in panel.entries] == [f"AdvMask-{name}" for name in scales.OTHERS]
    for entry in panel.entries:
        assert entry.interval is not None
        assert entry.interval.mean == pytest.approx(1.0)


def test_time_and_convergence_stand_side_by_side() -> None:
    seconds, epochs = map(estimates, figure("figure6").panels)
    assert [entry.interval and entry.interval.mean for entry in seconds.entries] == [2.5] * 11
    assert [entry.interval and entry.interval.mean for entry in epochs.entries] == [2.0] * 11


def test_a_run_has_converged_where_it_stays() -> None:
    entries = [{"test_accuracy": value} for value in (0.9, 0.2, 0.8995, 0.9005, 0.9)]
    assert figures.convergence_epoch(entries) == 3
    assert figures.convergence_epoch(entries[:1]) == 1
    assert figures.convergence_epoch([]) is None


def test_the_band_of_a_curve_is_the_t_interval_of_each_epoch() -> None:
    values = [[0.5, 0.8], [0.51, 0.81], [0.52, 0.79]]
    curves = [[{"test_accuracy": value} for value in each] for each in values]
    (line,) = error_lines({"a": curves, "never ran": []})
    for epoch in range(2):
        interval = mean_interval([100 - 100 * each[epoch] for each in values])
        assert interval.half is not None
        assert line.points[epoch] == (epoch + 1, pytest.approx(interval.mean))
        assert line.band[epoch] == pytest.approx((interval.low, interval.high))


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    curve = [{"test_accuracy": epoch / 1800} for epoch in range(1800)]
    (line,) = error_lines({"a": [curve]})
    assert len(line.points) <= LONGEST_LINE
    assert (line.points[0][0], line.points[-1][0]) == (1, 1800)
    assert line.band == []


def test_sweeps_have_a_panel_per_parameter() -> None:
    panels = [estimates(panel) for panel in figure("figure8").panels]
    assert [panel.title for panel in panels] == ["l", "p", "o"]
    assert [len(panel.entries) for panel in panels] == [8, 5, 6]


def test_missing_cells_are_gaps_and_named_in_the_caption() -> None:
    found = figure("figure3", skip=("HaS",))
    (column,) = {column for _, column in found.missing}
    assert found.missing == {("HaS", column): [0, 1]}
    assert [entry.label for entry in estimates(found.panels[0]).entries if not entry.interval] == [
        "HaS"
    ]
    assert f"HaS on {column.label}" in found.caption
    assert "n = 2 seeds" in found.caption
    assert "95 % t-interval" in found.caption
    assert "not comparable" in found.caption


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure3", "figure6", "figure7", "figure8"])
def test_every_figure_is_drawn_with_and_without_gaps(name: str) -> None:
    for skip in ((), ("HaS", "20-40%", "21-24")):
        panels = figure(name, skip).panels
        assert draw(panels, "pdf").startswith(b"%PDF")


@pytest.mark.slow
def test_a_figure_without_any_record_is_drawn_as_gaps() -> None:
    for name in figures.PANELS:
        found = figures.figure_of(tables.experiment(name, "smoke"), [], lambda _: [])
        assert len(found.missing) == len(tables.experiment(name, "smoke").cells)
        assert "n = 0 seeds" in found.caption
        assert draw(found.panels, "pdf")


@pytest.mark.slow
def test_sizes_are_those_of_a_column_and_a_page() -> None:
    from PIL import Image

    line = Line("a", [(1.0, 0.5), (2.0, 0.6)])
    for count, inches in ((1, 3.25), (2, 6.75), (5, 6.75)):
        panels = [Panel(str(number), "x", "y", [line]) for number in range(count)]
        with Image.open(io.BytesIO(draw(panels, "png"))) as image:
            assert image.width == pytest.approx(200 * inches, abs=2)


def test_text_in_a_pdf_stays_text() -> None:
    content = draw([Panel("Test error", "epoch", "y", [Line("a", [(1.0, 0.5)])])], "pdf")
    assert b"/Type3" not in content
    assert b"/FontFile2" in content  # TrueType, as fonttype 42 embeds it


def test_svg_holds_its_text_and_the_same_panels_give_the_same_ids() -> None:
    panels = [Panel("Test <error>", "epoch", "y", [Line("a", [(1.0, 0.5)])])]
    first = draw(panels, "svg", "one").decode()
    assert "Test &lt;error&gt;" in first
    assert first == draw(panels, "svg", "one").decode()
    assert first != draw(panels, "svg", "two").decode()


def test_names_with_formulas_in_them_are_drawn_as_they_are() -> None:
    panels = [Panel("cost $5$ \\frac{$", "a_b $x$", "$", [Line("_hidden $\\alpha", [(1.0, 0.5)])])]
    assert "cost $5$ \\frac{$" in draw(panels, "svg").decode()


def test_a_logarithmic_axis_shows_plain_numbers() -> None:
    line = Line("a", [(1.0, 0.1), (10.0, 0.5), (300.0, 1.0)])
    text = draw([Panel("", "changes", "share", [line], logarithmic=True)], "svg").decode()
    assert ">100<" in text
    assert "mathdefault" not in text


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw([Panel("a", "b", "c", [Line("d", [(1.0, 0.5)])])], "svg")
    assert dict(matplotlib.rcParams) == before


def test_lines_differ_in_grey() -> None:
    looks = [line_style(number) for number in range(32)]
    assert len({tuple(each.values()) for each in looks}) == 32
    assert len({(each["linestyle"], each["marker"]) for each in looks}) == 32
    assert len({each["color"] for each in looks[:8]}) == 8


def test_images_side_by_side_are_all_drawn() -> None:
    columns = {"image": torch.rand(2, 1, 8, 8), "mask": torch.ones(2, 3, 8, 8)}
    assert draw_images(columns, "png").startswith(b"\x89PNG")
    assert draw_images(columns, "pdf") == draw_images(columns, "pdf")


def test_a_figure_with_missing_cells_is_written_and_exits_with_3(tmp_path: Path) -> None:
    _, records = trained("figure3", skip=("HaS",))
    for each in records:
        Store(tmp_path).add(each)
    asked = ["figures", "figure3", "--results", str(tmp_path)]
    shown = CliRunner().invoke(main, asked)
    assert shown.exit_code == 3, shown.output
    assert "missing: HaS on" in shown.stderr
    assert "bench run figure3 --scale smoke" in shown.stderr
    folder = tmp_path / "figures"
    assert {path.suffix for path in folder.glob("figure3-smoke.*")} == {
        ".pdf", ".png", ".txt", ".json"
    }  # fmt: skip
    whole = json.loads((folder / "figure3-smoke.json").read_text())
    assert whole["caption"] == (folder / "figure3-smoke.txt").read_text().strip()
    assert whole["missing"] == [{"row": "HaS", "column": ANY, "seeds": [0, 1]}]


def test_occlusion_draws_a_line_for_each_recipe_with_its_own_seeds(tmp_path: Path) -> None:
    for seed, fields in [
        *((seed, {}) for seed in range(3)),
        *((seed, {"guide": "random"}) for seed in range(2)),
        (0, {"epochs": 3}),
    ]:
        recipe = Recipe(data="digits", model="resnet8", **fields)
        each = Record(
            kind="run", key=recipe.key, seed=seed, labels=run_labels(recipe, 8),
            metrics={"accuracy": 0.9}, job=recipe.to_json(),
        )  # fmt: skip
        Store(tmp_path).add(each)
        curve = [{"share": 0.0, "random": 0.9, "important": 0.8}]
        path = weights_of(each, tmp_path).with_suffix(".occlusion.json")
        write(path, json.dumps({"version": 1, "curve": curve}))
    (figure,) = occlusion_figures(Store(tmp_path).all(), tmp_path)
    assert figure.numbers is not None
    lines = {label: len(curves) for label, curves in figure.numbers["curves"].items()}
    assert lines == {"none": 3, "random": 2, "none [epochs=3]": 1}
    assert "n = 1 to 3 seeds" in figure.caption
    shown = CliRunner().invoke(main, ["figures", "occlusion", "--results", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "figures/occlusion-digits-resnet8.png").exists()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("rows", [1, 10])
def test_long_names_and_titles_leave_the_axes_room(count: int, rows: int) -> None:
    name = "advmask [advmask.published(eps=0.3, step_size=0.15, steps=20, restarts=2)]"
    values, title = (
        [1.0, 2.0, 40.0],
        "clean images\nphotos(train=300, side=64)\n/ resnet18 from timm",
    )
    shapes = [Distribution(name, values)] * rows
    gained = [Estimate(name, mean_interval(values), values)] * rows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for entries in (
            Distributions(title, "deleted / %", shapes, (0.0, 100.0)),
            Estimates(title, "points", gained),
            Estimates(title, "points", [Estimate("has", None)] * rows),
        ):
            text = draw([entries] * count, "svg").decode()
    assert "resnet18 from timm" in text
