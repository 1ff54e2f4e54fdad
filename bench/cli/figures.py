"""``bench figures``: what the records say, as figures for a paper."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bench.cli import SOME_FAILED, options
from bench.cli.tables import declared

DRAWN = ("figure2", "figure3", "figure4", "figure5", "figure6", "figure7", "figure8")
OWN = {"differences": {"model", "baseline"}, "attacks": {"model", "unit"}, "occlusion": {"model"}}
"""Figures that are not of the paper → the options that they, and no others, depend on."""


@click.command()
@click.argument("what", type=click.Choice([*DRAWN, *OWN, "all"]))
@click.option(
    "--scale",
    type=click.Choice(["smoke", "reduced", "paper"]),
    default="smoke",
    show_default=True,
    help="Of a figure of the paper.",
)
@click.option(
    "--unit",
    type=click.Choice(["pixels", "elements"]),
    default="pixels",
    show_default=True,
    help="What is counted as a change in attacks.",
)
@click.option("--model", help="Only this network, in differences, attacks and occlusion.")
@click.option("--baseline", default="none", show_default=True, help="What others are held against.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to.  [default: figures in the results folder]",
)
@options.data
@options.results
@options.compute
def figures(
    what: str,
    scale: str,
    unit: Any,
    model: str | None,
    baseline: str,
    output: Path | None,
    **given: Any,
) -> None:
    """Draw figures of the paper, or what runs, attacks and occlusion have shown.

    differences: what each method gains over the baseline, paired by seed. attacks: their success
    against the number of changes. occlusion: the accuracy of stored networks under it.

    Each is written as PDF and PNG, with its caption and the numbers behind it beside. What is
    missing is drawn as a gap and named, and the exit code is then 3.

    \b
    Example: bench figures figure8 --scale reduced
    Example: bench figures differences
    Example: bench figures attacks --unit elements
    """
    from bench.errors import Missing
    from bench.execution.workspace import results_folder
    from bench.records.store import Store

    if what != "all":
        options.refuse(
            f"without effect on {what}",
            *({"scale"}.union(*OWN.values()) - OWN.get(what, {"scale"})),
        )
    store = Store(results_folder(given["results"]))
    folder = output or store.folder / "figures"
    records = store.all()
    only = {"data": given["data"], "model": model}
    missing = 0
    for name in (*DRAWN, *OWN) if what == "all" else (what,):
        try:
            if name == "differences":
                differences(records, folder, baseline, only)
            elif name == "attacks":
                attacks(store, records, folder, unit, only)
            elif name == "occlusion":
                occlusion(store, records, folder, only)
            else:
                missing += paper_figure(name, scale, store, records, folder, given)
        except (ValueError, Missing) as error:
            if what != "all":
                raise
            click.echo(f"{name}: {error}", err=True)
            missing += 1
    if missing:
        raise SystemExit(SOME_FAILED)


def paper_figure(
    name: str, scale: str, store: Any, records: list[Any], folder: Path, given: dict[str, Any]
) -> int:
    """Draw a figure of the paper; returns how many of its cells are missing or failed."""
    from bench.paper import experiments, figures
    from bench.reporting import formats
    from bench.reporting import plots as pictures

    experiment = declared(name, scale, given["data"], given["results"])
    if name in ("figure2", "figure5"):
        found = mosaic(experiment, store, records, given)
        drawn = {style: pictures.mosaic(found.columns, style) for style in ("pdf", "png")}
        numbers: Any = list(found.numbers)
    else:
        found = figures.picture(experiment, records, store.curve)
        drawn = {style: pictures.draw(found.panels, style) for style in ("pdf", "png")}
        numbers = json.loads(formats.json(experiments.table(experiment, records)))["cells"]
    command = f"bench run {name} --scale {scale}"
    command += f" --data {given['data']}" if given["data"] else ""
    about = {
        "experiment": name,
        "scale": scale,
        "missing": [{"row": r, "column": c, "seeds": s} for (r, c), s in found.gaps.items()],
        "command": command,
        "numbers": numbers,
    }
    save(folder, found.name, drawn, found.caption, about)
    for (row, column), seeds in found.gaps.items():
        click.echo(f"missing: {row} on {column}: seed {', '.join(map(str, seeds))}", err=True)
    if found.gaps:
        click.echo(
            f"{len(found.gaps)} of {len(experiment.cells)} cells are missing or failed: {command}",
            err=True,
        )
    return len(found.gaps)


def mosaic(experiment: Any, store: Any, records: list[Any], given: dict[str, Any]) -> Any:
    """Figures 2 and 5, which show pictures of the data set that they are made with."""
    from bench.paper import image_figures

    workspace = options.workspace(**given)
    data = next(iter(experiment.cells.values())).data
    pictures = replace(workspace, data=given["data"] or data).dataset()
    if experiment.name == "figure2":
        return image_figures.masks(experiment, pictures, store.folder)
    return image_figures.maps(experiment, records, pictures, store.folder, workspace.device)


def differences(
    records: list[Any], folder: Path, baseline: str, only: Mapping[str, str | None]
) -> None:
    """What each method gains over the baseline, one panel for each data set and network."""
    from bench.reporting import plots as pictures
    from bench.reporting import run_tables

    found = chosen(records, "run", only)
    if not found:
        raise ValueError("there are no runs for such a figure yet: bench run makes them")
    gained = run_tables.gains(found, baseline=baseline)
    panels = pictures.differences(gained)
    counts = {len(values) for values in gained.values()}
    n = pictures.span(counts)
    caption = (
        f"Accuracy after the last epoch minus that of {baseline} with the same seed, in percentage "
        f"points. Markers: mean; bars: 95 % t-interval; grey dots: single seeds. n = {n} seeds."
    )
    numbers = [
        {"row": row, "column": column, "gained": values} for (row, column), values in gained.items()
    ]
    drawn = {style: pictures.draw(panels, style) for style in ("pdf", "png")}
    save(folder, "differences", drawn, caption, {"baseline": baseline, "numbers": numbers})


def attacks(
    store: Any, records: list[Any], folder: Path, unit: Any, only: Mapping[str, str | None]
) -> None:
    """The success of attacks against the number of changes, one figure for each of their tables."""
    from bench.files.atomic import write
    from bench.reporting import attack_tables
    from bench.reporting import plots as pictures

    found = chosen(records, "attack", only)
    if not found:
        raise ValueError("there are no attacks for such a figure yet: bench attack-eval makes them")
    for key, members in attack_tables.groups(found).items():
        victim = key[0].partition(" mean=")[0]
        name = plain("attacks", victim, *key[1:], unit)
        panels = pictures.attacks([(each, store.curve(each)) for each in members], unit)
        caption = pictures.attacks_caption(members, unit)
        drawn = {style: pictures.draw(panels, style) for style in ("pdf", "png")}
        save(folder, name, drawn, caption, None)
        lines = [json.dumps(each.to_json()) + "\n" for each in members]
        write(folder / f"{name}.jsonl", "".join(lines))


def occlusion(store: Any, records: list[Any], folder: Path, only: Mapping[str, str | None]) -> None:
    """The accuracy of stored networks under occlusion, one figure per data set and network."""
    from bench.paper import figures
    from bench.reporting import plots as pictures
    from bench.robustness import occlusion

    columns: dict[tuple[str, str], dict[str, list[Sequence[Mapping[str, float]]]]] = {}
    for record in chosen(records, "run", only):
        if curve := occlusion.kept(record, store.folder):
            column = record.labels.get("data", ""), record.labels.get("model", "")
            label = record.labels.get("augmentation", "")
            columns.setdefault(column, {}).setdefault(label, []).append(curve)
    if not columns:
        raise ValueError("no network was tested under occlusion yet: bench occlusion does it")
    for (data, model), members in columns.items():
        counts = {len(curves) for curves in members.values()}
        n = pictures.span(counts)
        caption = (
            f"Accuracy of {model} on the test pictures of {data} with growing parts hidden by the "
            "mean colour: random cells of an 8x8 division, and the pixels with the largest "
            f"gradient of the true class. Lines: mean over n = {n} seeds; bands: 95 % t-interval."
        )
        panels = figures.occlusions(members)
        drawn = {style: pictures.draw(panels, style) for style in ("pdf", "png")}
        name = plain("occlusion", data, model)
        save(folder, name, drawn, caption, {"data": data, "model": model, "curves": members})


def chosen(records: list[Any], kind: str, only: Mapping[str, str | None]) -> list[Any]:
    """The finished records of a kind with the labels asked for."""
    return [
        record
        for record in records
        if record.kind == kind
        and record.status == "finished"
        and all(value is None or record.labels.get(name) == value for name, value in only.items())
    ]


def plain(*parts: str) -> str:
    """A file's name from texts that may hold anything.

    >>> plain("attacks", "../cifar10", "eps=8/255")
    'attacks-cifar10-eps-8-255'
    """
    return "-".join(re.findall(r"[A-Za-z0-9][A-Za-z0-9.]*", " ".join(parts)))


def save(
    folder: Path, name: str, drawn: Mapping[str, bytes], caption: str, about: Any | None
) -> None:
    """Write a figure with its caption and numbers beside, and name the files."""
    from bench.files.atomic import write

    for style, content in drawn.items():
        write(folder / f"{name}.{style}", content)
        click.echo(folder / f"{name}.{style}")
    write(folder / f"{name}.txt", caption + "\n")
    if about is not None:
        whole = {"caption": caption, **about}
        write(folder / f"{name}.json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
