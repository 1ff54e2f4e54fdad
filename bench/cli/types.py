"""The types of option values: names that the shell completes, eps, seeds and lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import click
from click.shell_completion import CompletionItem

from bench.errors import suggest


class Name(click.ParamType[str, str]):
    """A name from a registry, with options in brackets; the shell can complete it."""

    name = "name"

    def __init__(self, names: Callable[[], list[str]]) -> None:
        self.names = names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that start with what was typed."""
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


def augmentation_names() -> list[str]:
    """Return the names of all augmentations."""
    from bench import registry

    return list(registry.classes("augmentations"))


def attack_names() -> list[str]:
    """Return the names of all attacks and of their named readings."""
    from bench import registry

    return list(registry.makers("attacks"))


def policy_names() -> list[str]:
    """Return the names of all policies."""
    from bench.data import policies

    return list(policies.NAMES)


def mix_names() -> list[str]:
    """Return the names of all ways to mix images."""
    from bench.data import mixing

    return list(mixing.NAMES)


def data_names() -> list[str]:
    """Return the names of all datasets."""
    from bench.data import catalog

    return list(catalog.names())


def model_names() -> list[str]:
    """Return the names of all networks."""
    from bench.models import networks

    return list(networks.names())


def experiment_names() -> list[str]:
    """Return the names of all experiments, and the one for all of them."""
    from bench.paper import tables

    return [*tables.EXPERIMENTS, "all"]


class Eps(click.ParamType[Fraction, str]):
    """The largest change of a value, as a fraction or decimal above 0 and at most 1.

    >>> Eps().convert("8/255", None, None)
    Fraction(8, 255)
    """

    name = "eps"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        """Parse the fraction; for a number above 1, suggest the same number of 255ths."""
        try:
            eps = Fraction(str(value).replace(" ", ""))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not a number; write it as 8/255 or 0.03", param, ctx)
        if eps > 1:
            near = f"; did you mean {eps}/255?" if eps <= 255 and eps.denominator == 1 else ""
            self.fail(f"{value} is above 1{near}", param, ctx)
        if eps <= 0:
            self.fail(f"{value} is not above 0", param, ctx)
        from bench.records.validation import positive

        if not positive(str(eps)):
            self.fail(
                f"{value} is {eps}: records hold at most nine digits above and below the line; "
                "round it, such as to 8/255",
                param, ctx,
            )  # fmt: skip
        return eps


class Word(click.Choice[str]):
    """One of a few words, such as the name of a figure; an error shows the words once."""

    def __init__(self, kind: str, words: Sequence[str]) -> None:
        super().__init__(words)
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word; suggest one for an unknown word."""
        if value not in self.choices:
            hint = suggest(value, self.choices)
            raise click.UsageError(f"there is no {self.kind} {value!r}: {hint}", ctx)
        return str(value)


class Whole(click.IntRange):
    """A whole number of a range."""

    name = "integer"  # not "integer range", which errors would show


class Real(click.FloatRange):
    """A finite number of a range."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse the number; no comparison with a bound refuses one that is not a number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


SEEDS = Whole(1, 10_000)
"""A number of seeds; each is a job in memory, and no study needs nearly so many."""


class AtLeast(click.ParamType[int, str]):
    """A whole number with a least value, refused before anything is imported."""

    name = "integer"

    def __init__(self, called: str, least: int) -> None:
        self.called, self.least = called, least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the number."""
        number = click.INT.convert(value, param, ctx)
        if number < self.least:
            raise click.UsageError(
                f"{self.called} is {number}: it must be at least {self.least}", ctx
            )
        return number


class Points(click.ParamType[float, str]):
    """A difference of accuracies in percentage points, above 0 and below 100.

    >>> Points().convert("0.5", None, None)
    0.5
    """

    name = "points"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse the number."""
        number: float = click.FLOAT.convert(value, param, ctx)
        if not 0 < number < 100:  # nor what is no number
            self.fail(
                f"{value} is not a number of percentage points above 0 and below 100", param, ctx
            )
        return number


class Numbers(click.ParamType[tuple[float, ...], str]):
    """Numbers separated by commas, such as ``0.485,0.456,0.406``."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Parse the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(
                f"{value!r} is not a list of numbers; write it as 0.485,0.456,0.406", param, ctx
            )


class Seeds(click.ParamType[tuple[int, ...], str]):
    """Seeds separated by commas, such as ``0,3,7``."""

    name = "seeds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse the seeds."""
        if isinstance(value, tuple):
            return value
        try:
            seeds = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of seeds; write it as 0,3,7", param, ctx)
        from bench.records.validation import LAST_SEED

        if min(seeds) < 0 or max(seeds) > LAST_SEED or len(set(seeds)) < len(seeds):
            self.fail(
                f"{value!r} is not a list of seeds: give integers from 0 to {LAST_SEED}, each once",
                param, ctx,
            )  # fmt: skip
        return seeds
