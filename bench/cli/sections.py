"""Options that stand in sections of ``--help``, and what a command knows about those typed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

Function = Callable[..., Any]

SECTIONS = ("What is compared", "Attack", "Training", "Execution", "Output")
"""The sections of ``--help``, in their order."""


class Command(click.Command):
    """A command whose ``--help`` shows its options in sections, and that knows how it was typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and remember them for `noted`."""
        ctx.meta["bench.typed"] = list(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the heading of their section."""
        for title in SECTIONS:
            records = [
                record
                for param in self.get_params(ctx)
                if isinstance(param, click.Option)
                and getattr(param, "section", SECTIONS[-1]) == title
                and (record := param.get_help_record(ctx))
            ]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Option(click.Option):
    """An option that belongs to a section of ``--help``."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def section(title: str) -> Callable[..., Callable[[Function], Function]]:
    """Return a decorator like ``click.option`` whose options belong to a section of ``--help``."""
    maker: Callable[..., Callable[[Function], Function]] = functools.partial(
        click.option, cls=Option, section=title
    )
    return maker


def together(*options: Function) -> Function:
    """Combine several options into one decorator."""

    def decorate(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def gathered(name: str, load: Callable[[], type[Any]], *options: Function) -> Function:
    """Combine options into one argument of the command: a frozen dataclass.

    Args:
        name: Name of the argument.
        load: Returns the dataclass, which is imported only when the command runs.
        *options: Options named as the fields of the dataclass.
    """

    def decorate(command: Function) -> Function:
        def wrapper(**values: Any) -> Any:
            cls = load()
            fields = {field.name for field in dataclasses.fields(cls)} & set(values)
            own = {each: values.pop(each) for each in fields}
            return command(**values, **{name: cls(**own)})

        # not functools.wraps: the wrapper takes other arguments than the command
        functools.update_wrapper(wrapper, command)
        del wrapper.__wrapped__  # type: ignore[attr-defined]
        decorated: Function = together(*options)(wrapper)
        return decorated

    return decorate


compared, attacked, trained, execution, output = map(section, SECTIONS)


def typed(*names: str) -> list[str]:
    """Return those of the named options that were typed, as they were typed."""
    context = click.get_current_context()
    return [
        param.opts[0]
        for param in context.command.params
        if param.name in names
        and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


def need(what: str, *names: str) -> None:
    """Reject options that were typed but belong to another option.

    Args:
        what: The option that they need.
        *names: Names of the options' parameters.

    Raises:
        click.UsageError: One of them was typed.
    """
    if found := typed(*names):
        verb = "needs" if len(found) == 1 else "need"
        listed = ", ".join(found)
        raise click.UsageError(f"{listed} {verb} {what}: add it, or remove {listed}")


def refuse(what: str, *names: str) -> None:
    """Reject options that were typed but have no effect.

    Args:
        what: What they have no effect on.
        *names: Names of the options' parameters.

    Raises:
        click.UsageError: One of them was typed.
    """
    if found := typed(*names):
        verb, pronoun = ("has", "it") if len(found) == 1 else ("have", "them")
        raise click.UsageError(f"{', '.join(found)} {verb} no effect on {what}; remove {pronoun}")
