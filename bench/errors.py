"""What a user is told when something cannot be done."""

from __future__ import annotations

import errno

USAGE, DATA_MISSING = 2, 4


class Missing(LookupError):
    """A data set is not there; the message says what to place where."""


class Stopped(Exception):
    """Work was asked to stop; the message says how far it came, and what is done is kept."""


def exit_code(error: BaseException) -> int:
    """4 when data is missing, 2 for everything else that the user can mend."""
    return DATA_MISSING if isinstance(error, Missing) else USAGE


def reason(error: BaseException, longest: int = 200) -> str:
    """What another library says of a file, to be quoted: one line, however much of it that was.

    >>> reason(ValueError("no\\nnumber"))
    'no number'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]}…"


def one_line(error: BaseException) -> str:
    """An error as one line: what is wrong, with which value, and what to do.

    >>> one_line(OSError(28, "No space left on device", "results/records.jsonl"))
    'no space left on the disk of results/records.jsonl: free some or choose another --results'
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or "the results folder"
        return f"no space left on the disk of {place}: free some or choose another --results"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
