"""The command that runs a recipe, as one would type it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bench import registry
from bench.data.catalog import facts, known_side
from bench.files.text import command
from bench.points import find, guides
from bench.records.record import Record
from bench.reporting.grouping import group_runs
from bench.reporting.table import Table
from bench.training.recipes import DEFAULT, Recipe, usual

OPTIONS = (
    *("epochs", "batch_size", "learning_rate", "weight_decay", "optimizer", "schedule"),
    *("warmup", "padding", "validation", "precision"),
)


def run(recipe: Recipe, seeds: Sequence[int]) -> str:
    """The ``bench run`` with these seeds whose records have the recipe's key.

    Options with the value that a dataset and a network have by default are left out; momentum has
    none. For a folder whose images have an unknown side, what depends on the side is written out.

    >>> run(Recipe(data="digits", model="resnet8", **usual("digits", "resnet8", 8)), [0, 1])
    'bench run --aug none --model resnet8 --data digits --seeds 2'
    """
    text = registry.label(recipe.augmentation, recipe.data, known_side(recipe.data))
    words = ["bench", "run", "--aug", text]
    if recipe.robust is not None:
        words = ["bench", "train-robust", "--method", recipe.robust]
    words += ["--model", recipe.model, "--data", recipe.data]
    for name in ("guide", "policy", "mix"):
        if value := getattr(recipe, name):
            words += [f"--{name}", value]
    if guides.from_points(recipe) and recipe.points != find.chosen_attack(recipe.data):
        words += ["--points-from", recipe.points or find.SPARSE]
    if recipe.pretrained not in (None, recipe.model):
        # a file is named without its folder, which records do not hold
        words += ["--pretrained", recipe.pretrained.partition(" ")[0]]
    usually = _usual(recipe)
    for name in OPTIONS:
        if (value := getattr(recipe, name)) != usually[name]:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if not recipe.flip:
        words.append("--no-flip")
    ordered = sorted(seeds)
    if ordered == list(range(len(ordered))):
        words += ["--seeds", str(len(ordered))]
    else:
        words += ["--seed-list", ",".join(map(str, ordered))]
    return command(words)


def _usual(recipe: Recipe) -> dict[str, Any]:
    """What the options of a command are where they are not typed; None where nothing tells."""
    settings = {name: getattr(DEFAULT, name) for name in OPTIONS}
    assumed = facts(recipe.data).side
    settings |= usual(recipe.data, recipe.model, assumed, recipe.pretrained, recipe.robust)
    return settings if known_side(recipe.data) else settings | {"padding": None}


def fill(method: Record, others: Sequence[Record]) -> str:
    """The ``bench run`` of a record's method in the setting of others and with their seeds.

    Raises ``ValueError`` for records whose recipe is of another version.
    """
    return run(moved(method, others), [record.seed for record in others])


def moved(method: Record, others: Sequence[Record]) -> Recipe:
    """The recipe of a record's method in the setting of others.

    Its points are found by the same attack, or by that of the other dataset where it is its own's.
    """
    recipe, own = (Recipe.from_json(dict(each.job)) for each in (others[0], method))
    if own.data == recipe.data:
        augmentation = own.augmentation
    else:
        augmentation = registry.build(
            "augmentations",
            method.labels["augmentation"],
            data=recipe.data,
            side=facts(recipe.data).side,
        )
    usual = own.points == find.chosen_attack(own.data)
    points = find.chosen_attack(recipe.data) if usual else own.points
    return dataclasses.replace(
        recipe,
        augmentation=augmentation,
        points=points,
        robust=own.robust,
        guide=method.labels.get("guide"),
        policy=method.labels.get("policy"),
        mix=method.labels.get("mix"),
    )


def missing_cells(table: Table, runs: Sequence[Record]) -> list[str]:
    """One line for each empty cell of `run_tables.grid`, with the command that fills it."""
    methods: dict[str, Record] = {}
    others: dict[str, Sequence[Record]] = {}
    for group in group_runs(runs):
        methods.setdefault(group.row.label, group.records[0])
        others.setdefault(group.column.label, group.records)
    done = {(record.key, record.seed) for record in runs}
    lines = []
    for row, column in table.missing():
        try:
            key = moved(methods[row], others[column]).key
            if all((key, record.seed) in done for record in others[column]):
                remedy = (
                    "its runs are in another row, since settings differ in this column; run all "
                    "methods with the same settings"
                )
            else:
                remedy = fill(methods[row], others[column])
        except (ValueError, TypeError, LookupError):
            remedy = "its recipe is of another version"
        lines.append(f"missing: {row} on {column}: {remedy}")
    return lines
