"""Figures show what the records say, and the same records give the same file."""

from __future__ import annotations

import pytest

from bench.figures import Line, Panel, attacks, draw, mean, steps
from bench.records import Record

CURVE = [
    {"changes": 2.0, "pixels": 0.5, "elements": 0.0},
    {"changes": 4.0, "pixels": 0.5, "elements": 0.5},
    {"changes": 7.0, "pixels": 1.0, "elements": 0.5},
]


def record(attack: str, *, eps: str = "8/255", seed: int = 0, role: str = "sparse") -> Record:
    labels = {"attack": attack, "eps": eps, "role": role, "bounded": "yes"}
    return Record(kind="attack", key=attack, seed=seed, labels=labels, metrics={"success": 1.0})


def test_a_step_stands_where_the_share_of_its_unit_rises() -> None:
    assert steps(CURVE, "pixels") == [(2, 0.5), (7, 1.0)]
    assert steps(CURVE, "elements") == [(4, 0.5)]
    assert steps([], "pixels") == []


def test_the_mean_of_seeds_holds_every_step() -> None:
    assert mean([[(1.0, 0.5), (3.0, 1.0)], [(2.0, 1.0)], []]) == [
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
    first, second = attacks(curves)
    assert [line.label for line in first.lines] == ["jsma", "noise"]
    assert first.lines[0].points == [(2, 0.5), (7, 1.0)]
    assert first.lines[1].points == []
    assert (first.title, second.title) == ("eps = 8/255", "eps = 16/255")
    assert attacks(curves, "elements")[0].across == "changed elements, at most"


def test_files_are_what_they_are_called_and_the_same_each_time() -> None:
    panels = attacks([(record("jsma"), CURVE), (record("noise", role="floor"), [])])
    pdf, png = draw(panels, "pdf"), draw(panels, "png")
    assert pdf.startswith(b"%PDF")
    assert png.startswith(b"\x89PNG")
    assert pdf == draw(panels, "pdf")
    assert png == draw(panels, "png")


def test_more_lines_than_colours_can_be_told_apart() -> None:
    lines = [Line(f"attack {number}", [(1.0, number / 20)], steps=True) for number in range(12)]
    assert draw([Panel("many", "changes", "success", lines, logarithmic=True)], "pdf")
