"""``nox -s faults`` leaves out no command: each of the command line is broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from breaking.commands import BEGINNINGS, CASES, Case
from faults import scenarios

from bench.cli import main

LONG = {"speed all": "all of the others", "speed growth": "minutes, in folders of its own"}
"""What is left out, and why."""


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that can be typed, with the kinds of `speed` as commands of their own."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command, path = group.get_command(context, name), (*before, name)
        if isinstance(command, click.Group):
            yield from commands(command, path)
        elif path == ("speed",):
            assert command is not None
            what = next(each for each in command.params if each.name == "what")
            assert isinstance(what.type, click.Choice)
            yield from ((*path, kind) for kind in what.type.choices)
        else:
            yield path


def without_case(group: click.Group) -> list[str]:
    """The commands that no case is of."""
    broken = [case.words for case in CASES]
    return [
        " ".join(path)
        for path in commands(group)
        if not any(tuple(words[: len(path)]) == path for words in broken)
    ]


def test_every_command_is_broken() -> None:
    assert set(without_case(main)) <= set(LONG)


def test_a_new_command_is_missed() -> None:
    group = click.Group(commands={"invent": click.Command("invent")})
    assert without_case(group) == ["invent"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_broken_command_can_be_typed(case: Case, tmp_path: Path) -> None:
    (tmp_path / "points.npz").touch()
    words = [word.replace("{folder}", str(tmp_path)) for word in case.words]
    command: click.Command | None = main
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(click.Context(command), name)
    assert command is not None
    command.make_context(command.name, words)  # refuses unknown options and values


def test_each_case_is_a_line_of_the_table_and_begins_with_a_known_folder() -> None:
    titles = list(scenarios(1, 1))
    for case in CASES:
        assert sum(title.endswith(f": {case.title}") for title in titles) == 1
        assert case.begin is None or case.begin in BEGINNINGS
