"""Commands that were started on a results folder and have not ended, as they were typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench.errors import Stopped
from bench.files import atomic, checksums, json_text, plain
from bench.files.locks import locked
from bench.records.tracking.text import mask

KEPT = KeyboardInterrupt, Stopped
"""What ends a command that the same command continues."""


@contextmanager
def noted(results: Path, command: str) -> Iterator[None]:
    """Keep a command in a note while the context is open, and after it was interrupted or killed.

    The same command takes the note over, and removes it when it ends. One that ends with an error
    leaves none: its message says what to do.

    Args:
        results: The results folder.
        command: The command as it was typed; passwords in it are not written.
    """
    command = mask(command)
    path = _folder(results) / f"{checksums.of_bytes(command.encode())[:16]}.json"
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # the same command is running, and has its note
        yield
        return
    try:
        atomic.write(path, json.dumps({"command": command}))
        yield
    except KEPT:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    else:
        path.unlink(missing_ok=True)
    finally:
        lock.release()


def found(results: Path) -> tuple[list[str], list[str]]:
    """Return the commands that are running on a results folder, and those that were interrupted."""
    running: list[str] = []
    stopped: list[str] = []
    for path in sorted(_folder(results).glob("*.json")):
        try:
            command = str(json_text.parse(plain.read(path, results))["command"])
        except (OSError, ValueError, LookupError, TypeError):  # of another version
            continue
        (running if locked(path.with_suffix(".lock")) else stopped).append(command)
    return running, stopped


def _folder(results: Path) -> Path:
    return results / "cache" / "commands"
