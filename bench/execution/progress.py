"""Progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol, runtime_checkable

from bench.files.text import printable_lines

Advance = Callable[..., None]
"""``advance(count=1, note="")`` counts finished steps; ``note`` is shown beside them."""


@runtime_checkable
class Progress(Protocol):
    """Shows the progress of tasks, which may nest, and messages."""

    def task(self, label: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Open a task.

        Args:
            label: Name of the task.
            total: Number of its steps.
            done: Steps that an earlier command finished: counted, but not in the estimate.

        Returns:
            A context that gives the function ``advance(count=1, note="")``, which counts steps.
        """
        ...

    def say(self, line: str) -> None:
        """Print a line."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda count=1, note="": None

    def say(self, line: str) -> None:
        """Say nothing."""


class Lines:
    """Plain lines, for logs: one when a task ends, and at most one every ``every`` seconds before.

    Args:
        every: Seconds between two lines.
    """

    def __init__(self, every: float = 15.0) -> None:
        self.every = every
        self.last = time.monotonic()

    @contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Count steps and print a line from time to time."""
        start, before = time.monotonic(), done

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal done
            done += count
            now = time.monotonic()
            if now - self.last >= self.every or (done >= total and now - start >= self.every):
                self.last = now
                left = (now - start) / max(done - before, 1) * (total - done)
                self.say(f"{label}: {done}/{total}, {clock(left)} left{note and ', ' + note}")

        yield advance

    def say(self, line: str) -> None:
        """Print a line to stderr."""
        with suppress(OSError):  # a reader of the log that has gone ends no training
            sys.stderr.write(printable_lines(line) + "\n")
            sys.stderr.flush()


class Bars:
    """Bars on a terminal: one per nested task, with the remaining time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bars: Any = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.depth = 0

    @contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Draw a bar below those of the enclosing tasks."""
        if self.depth == 0:
            self.bars.start()
        self.depth += 1
        bar = self.bars.add_task(label, total=total, completed=done, note="")
        try:
            yield lambda count=1, note="": self.bars.update(bar, advance=count, note=note)
        finally:
            self.bars.remove_task(bar)
            self.depth -= 1
            if self.depth == 0:
                self.bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        shown = printable_lines(line)
        self.bars.console.print(shown, markup=False, highlight=False, soft_wrap=True)


def open_progress(quiet: bool = False) -> Progress:
    """Return bars on a terminal and plain lines elsewhere.

    Args:
        quiet: Show nothing.
    """
    import os

    if quiet:
        return Silent()
    plain = not sys.stderr.isatty() or os.environ.get("TERM") == "dumb"
    return Lines() if plain else Bars()


def clock(seconds: float) -> str:
    """Format a duration in seconds.

    >>> clock(5.0), clock(75.0), clock(7300.0)
    ('5 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
