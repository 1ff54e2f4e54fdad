"""What commands print: text that a terminal can show, on streams that may end at any time."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import Any, TextIO

import click

from bench.errors import USAGE
from bench.files.text import printable_lines

CUT_OFF = 141
"""The exit code when the reader of the output has gone: 128 and the number of SIGPIPE."""


def echo(message: Any = "", err: bool = False) -> None:
    """Print a message and a line break; what a terminal would obey is replaced.

    Args:
        message: The message, which may have several lines.
        err: Print to standard error, where a failure is of no importance.

    Raises:
        BrokenPipeError: The reader of standard output has gone.
        OSError: Standard output cannot be written.
    """
    if err:
        with contextlib.suppress(OSError):
            click.echo(printable_lines(str(message)), err=True)
        return
    try:
        click.echo(printable_lines(str(message)))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritten(error) from None


def unwritten(error: OSError) -> OSError:
    """The error of standard output that cannot be written."""
    return OSError(f"cannot write to standard output: {error.strerror}")


def open_missing_streams() -> None:
    """Open standard streams that the caller has closed, so that no other file gets their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def drop_output() -> None:
    """Send what is still to be written to standard output nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finish(code: Any) -> Any:
    """Write what is still to be written to standard output.

    Args:
        code: The exit code of the command.

    Returns:
        It, or that of output that cannot be written.
    """
    if "PacifyFlush" in type(sys.stdout).__name__:  # click found no reader
        return CUT_OFF
    try:
        sys.stdout.flush()
    except OSError as error:
        return failed(error)
    return code


def failed(error: OSError) -> int:
    """Say that standard output cannot be written, unless its reader has gone.

    Returns:
        The exit code.
    """
    drop_output()
    if isinstance(error, BrokenPipeError):
        return CUT_OFF
    echo(f"Error: {unwritten(error)}", err=True)
    return USAGE


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the place in the code."""
    echo(f"Warning: {' '.join(str(message).split())}", err=True)


def use_plain_warnings() -> None:
    """Print warnings by `show_warning`, unless they are errors or recorded."""
    warnings.showwarning = show_warning
