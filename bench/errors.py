"""Exceptions with a meaning for the user, and errors as one line with an exit code."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

USAGE, FAILED, DATA_MISSING = 2, 3, 4


class Missing(FileNotFoundError, LookupError):
    """A dataset or a file of weights is missing; the message says what to place where."""


class Stopped(Exception):
    """The work was asked to stop; the message says how far it got. Finished results are kept."""


class Failed(RuntimeError):
    """Work could not be done, whatever the user had typed. Finished results are kept."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error: 4 for missing data, 3 for failed work, 2 for all others.

    A full disk and too little memory are failed work.

    >>> exit_code(Missing("cifar10")), exit_code(MemoryError()), exit_code(ValueError("eps"))
    (4, 3, 2)
    """
    if isinstance(error, Missing):
        return DATA_MISSING
    failed = isinstance(error, Failed | SystemExit) or out_of_memory(error) or no_space(error)
    return FAILED if failed else USAGE


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, of the machine or of a GPU.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
    True
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def reason(error: BaseException, longest: int = 200) -> str:
    r"""Shorten the message of another library to one line, to be quoted in an error.

    Args:
        error: The exception.
        longest: Most characters of the line.

    >>> reason(ValueError("no\nnumber"))
    'no number'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]}…"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest known word, or all known words.

    Args:
        word: What the user typed.
        known: What would have been valid.

    >>> suggest("cutuot", ["cutout", "has"])
    "did you mean 'cutout'?"
    """
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"


def no_space(error: BaseException) -> bool:
    """Whether a disk is full, or a user's share of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def name_file(error: OSError, path: Path) -> None:
    """Let an error of the operating system name the file that a user knows.

    The system names none where the content cannot be written, or a temporary one beside it.
    """
    if error.errno is not None:
        error.filename = str(path)


def one_line(error: BaseException) -> str:
    """Return an error as one line: what is wrong, with which value, and what to do.

    >>> one_line(OSError(28, "No space left on device", "results/records.jsonl"))
    'no space left on the disk of results/records.jsonl: free some or choose another --results'
    """
    if isinstance(error, OSError) and no_space(error):
        place = error.filename or "the results folder"
        return f"no space left on the disk of {place}: free some or choose another --results"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    if out_of_memory(error):
        return (
            f"memory ran out ({reason(error, 80)}): take a smaller --batch-size or fewer --jobs; "
            "finished results are stored"
        )
    if isinstance(error, SystemExit):
        return (
            f"something called sys.exit({error.code!r}) inside the command, and ended it; a "
            "plug-in must raise an error instead"
        )
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
