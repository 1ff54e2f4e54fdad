"""``bench figures``: what the records say, as a figure for a paper."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from bench.cli import options


@click.command()
@click.argument("what", type=click.Choice(["attacks"]))
@click.option(
    "--unit",
    type=click.Choice(["pixels", "elements"]),
    default="pixels",
    show_default=True,
    help="What is counted as a change.",
)
@click.option("--data", help="Only this data set.")
@click.option("--model", help="Only this network.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to.  [default: figures in the results folder]",
)
@options.results
def figures(what: str, unit: Any, output: Path | None, results: str | None, **only: Any) -> None:
    """Draw the success of attacks against the number of changes, as PDF and PNG.

    Beside each figure lie the records that it was made from.

    \b
    Example: bench figures attacks --unit elements
    """
    from bench import attack_tables, records
    from bench import figures as pictures
    from bench.workspace import results_folder

    store = records.Store(results_folder(results))
    found = [
        record
        for record in store.all()
        if record.kind == "attack"
        and all(value is None or record.labels.get(name) == value for name, value in only.items())
    ]
    if not found:
        raise ValueError("there are no attacks for such a figure yet: bench attack-eval makes them")
    folder = output or store.folder / "figures"
    for key, members in attack_tables.groups(found).items():
        victim = key[0].partition(" mean=")[0]
        name = "-".join(re.findall(r"[A-Za-z0-9.]+", " ".join([what, victim, *key[1:3], unit])))
        panels = pictures.attacks([(each, store.curve(each)) for each in members], unit)
        for style in ("pdf", "png"):
            records.write(folder / f"{name}.{style}", pictures.draw(panels, style))
            click.echo(folder / f"{name}.{style}")
        lines = [json.dumps(each.to_json()) + "\n" for each in members]
        records.write(folder / f"{name}.jsonl", "".join(lines))
