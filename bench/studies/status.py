"""What a results folder holds, what is running in it, and what was interrupted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import registry
from bench.data.catalog import known_side
from bench.execution import unfinished
from bench.execution.folders import option
from bench.files import json_text, plain
from bench.files.locks import locked
from bench.records.store import Store
from bench.records.validation import check_curve
from bench.reporting import commands
from bench.training.recipes import Recipe

UNKNOWN = OSError, ValueError, LookupError, TypeError
"""What reading a job of another version raises."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a results folder.

    Attributes:
        runs: Records of trainings.
        attacks: Records of attack evaluations.
        finished: Records of both kinds that finished.
        failed: Records of both kinds that failed.
        running: Jobs that are running now, by their key and seed.
        stopped: Jobs that were interrupted and can be continued.
        trainings: What each of these two trains and how far it is, where that is known.
        commands: The command that continues each interrupted job, where it is known.
        running_commands: Commands that are running, as they were typed.
        stopped_commands: Commands that were interrupted: attacks, searches and points too.
    """

    runs: int
    attacks: int
    finished: int
    failed: int
    running: list[str]
    stopped: list[str]
    trainings: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    running_commands: list[str] = field(default_factory=list)
    stopped_commands: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``bench status --json`` prints."""
        shown = (
            *("finished", "failed", "running", "stopped"),
            *("running_commands", "stopped_commands"),
        )
        return {name: value for name, value in asdict(self).items() if name in shown}

    def __str__(self) -> str:
        lines = [
            f"{self.finished} records finished, {self.failed} failed "
            f"({self.runs} trainings, {self.attacks} attack evaluations)",
            *(f"running: {command}" for command in self.running_commands),
            *(f"running: {self.trainings.get(name, name)}" for name in self.running),
            *(
                f"interrupted: {command}; the same command continues it"
                for command in self.stopped_commands
            ),
            *(
                f"interrupted: {self.trainings.get(name, name)}; "
                + (
                    f"this continues it: {self.commands[name]}"
                    if name in self.commands
                    else "the same command continues it"
                )
                for name in self.stopped
            ),
        ]
        return "\n".join(lines)


def status_of(results: Path) -> Status:
    """Return the state of a results folder."""
    records = Store(results).all()
    running, stopped = unfinished_jobs(results)
    running_commands, stopped_commands = unfinished.found(results)
    names = [*running, *stopped]
    return Status(
        runs=sum(record.kind == "run" for record in records),
        attacks=sum(record.kind == "attack" for record in records),
        finished=sum(record.status == "finished" for record in records),
        failed=sum(record.status == "failed" for record in records),
        running=running,
        stopped=stopped,
        trainings={name: text for name in names if (text := training(results, name))},
        commands={name: command for name in stopped if (command := continuing(results, name))},
        running_commands=running_commands,
        stopped_commands=stopped_commands,
    )


def training(results: Path, name: str) -> str:
    """Return what a job trains and how many epochs it has finished; empty if it is not known."""
    try:
        recipe, seed = _job(results, name)
    except UNKNOWN:
        return ""
    try:
        curve = check_curve(_kept(results, name, "checkpoint.json")["curve"])
    except UNKNOWN:  # none yet
        curve = []
    text = registry.label(recipe.augmentation, recipe.data, known_side(recipe.data))
    return (
        f"{recipe.method(text).name}, {recipe.model}, {recipe.data}, seed {seed}: "
        f"{len(curve)} of {recipe.epochs} epochs done"
    )


def continuing(results: Path, name: str) -> str:
    """Return the command that continues an interrupted training; empty if it is not known."""
    try:
        recipe, seed = _job(results, name)
        return commands.run(recipe, [seed]) + option(results)
    except UNKNOWN:
        return ""


def _job(results: Path, name: str) -> tuple[Recipe, int]:
    job = _kept(results, name, "job.json")
    return Recipe.from_json(job["recipe"]), int(job["seed"])


def _kept(results: Path, name: str, file: str) -> Any:
    folder = results / "cache/checkpoints" / name
    return json_text.parse(plain.read(folder / file, folder))


def unfinished_jobs(results: Path) -> tuple[list[str], list[str]]:
    """Return the jobs that are running now, and those that were interrupted and can be continued.

    A running job holds its lock, which the system releases when its process ends.
    """
    running, stopped = [], []
    for path in sorted((results / "cache/locks").glob("*.lock")):
        if locked(path):
            running.append(path.stem)
    for checkpoint in sorted((results / "cache/checkpoints").glob("*/checkpoint.json")):
        if checkpoint.parent.name not in running:
            stopped.append(checkpoint.parent.name)
    return running, stopped
