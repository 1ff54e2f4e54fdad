"""``bench list``: available methods, networks, datasets and experiments, and finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from bench.cli import options, sections, types
from bench.cli.output import echo


@click.command(
    "list", cls=sections.Command, short_help="List what can be named, and finished runs."
)
@click.argument(
    "what",
    metavar="WHAT",
    type=types.Word(
        "list of",
        [
            *("augmentations", "policies", "mixes", "attacks", "models", "data", "guides"),
            *("experiments", "runs"),
        ],
    ),
)
@options.results
@options.as_json
def listing(what: str, results: str | None, as_json: bool) -> None:
    """List augmentations, policies, attacks, networks, datasets, guides, experiments or runs.

    WHAT is augmentations, policies, mixes, attacks, models, data, guides, experiments or runs.

    \b
    Example: bench list augmentations
    """
    kinds: dict[str, Callable[[], list[dict[str, str]]]] = {
        "augmentations": lambda: methods("augmentations"),
        "policies": policies,
        "mixes": mixes,
        "attacks": lambda: methods("attacks"),
        "models": models,
        "data": data,
        "guides": guides,
        "experiments": experiments,
        "runs": lambda: runs(results),
    }
    rows = kinds[what]()
    if as_json:
        echo(json.dumps(rows))
        return
    if not rows:
        echo(f"No {what} yet.")
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        echo(f"{row['name']:{width}}  {row['about']}")


def methods(kind: Any) -> list[dict[str, str]]:
    """Return every method and named reading: first line of its description, and options."""
    import dataclasses
    import inspect

    from bench import registry
    from bench.registry import notation

    rows = []
    for name, make in registry.makers(kind).items():
        method = make()
        arguments = ", ".join(
            f"{field.name}={notation.show(getattr(method, field.name))}"
            for field in dataclasses.fields(method)
        )
        about = (inspect.getdoc(make) or "").partition("\n")[0]
        rows.append({"name": name, "about": f"{about}  [{arguments}]"})
    return rows


def policies() -> list[dict[str, str]]:
    """Return every policy of image operations."""
    from bench.data.policies import NAMES

    return [{"name": name, "about": about} for name, about in NAMES.items()]


def mixes() -> list[dict[str, str]]:
    """Return every way to mix images."""
    from bench.data.mixing import NAMES

    return [{"name": name, "about": about} for name, about in NAMES.items()]


def models() -> list[dict[str, str]]:
    """Return every network."""
    from bench.models import networks

    return [{"name": name, "about": about} for name, about in networks.names().items()]


def data() -> list[dict[str, str]]:
    """Return every dataset."""
    from bench.data import catalog

    return [{"name": name, "about": about} for name, about in catalog.names().items()]


def guides() -> list[dict[str, str]]:
    """Return every fixed guide."""
    from bench.points.guides import FIXED

    return [{"name": name, "about": about} for name, about in FIXED.items()]


def experiments() -> list[dict[str, str]]:
    """Return every table and figure of the paper, and the questions that it leaves open."""
    from bench.paper.tables import EXPERIMENTS

    return [
        {"name": name, "about": (function.__doc__ or "").strip()}
        for name, function in EXPERIMENTS.items()
    ]


def runs(results: str | None) -> list[dict[str, str]]:
    """Return the records of the results folder."""
    from bench.execution.folders import existing_results
    from bench.records.method import Method
    from bench.records.store import Store
    from bench.reporting.grouping import AttackSetting

    rows = []
    for record in Store(existing_results(results)).all():
        labels, metrics = record.labels, record.metrics
        if record.kind == "run":
            parts = [Method.of(record).name, labels["model"], labels["data"]]
            value = f"accuracy {metrics['accuracy']:.2%}" if "accuracy" in metrics else ""
        else:
            setting = AttackSetting.of(record)
            aim = f"eps {labels['eps']}, {setting.goal_in_words}"
            parts = [labels["attack"], aim, labels["victim"], f"{setting.size} of {labels['data']}"]
            parts += [setting.limit] * bool(setting.limit)
            value = f"success {metrics['success']:.2%}" if "success" in metrics else ""
        about = ", ".join([*parts, f"seed {record.seed}"])
        outcome = f"failed, {record.message}" if record.status == "failed" else value
        rows.append({"name": record.name, "about": f"{about}: {outcome}"})
    return rows
