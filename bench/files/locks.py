"""Locks between processes that say whom one waits for."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench.errors import Stopped
from bench.files import atomic, json_text

PAUSE = 0.2  # seconds between two attempts


@contextmanager
def held(
    path: Path, what: str, say: Callable[[str], None], stop: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Hold a lock, which the system releases when this process ends.

    Args:
        path: The lock's file; its folder is made. Who holds it stands in a file beside.
        what: What is locked, for the line that says whom this process waits for.
        say: Prints that line, once.
        stop: Whether to stop waiting.

    Raises:
        Stopped: ``stop()`` returned True while another process held the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    told = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if stop():
                raise Stopped(f"stopped while waiting for {what}") from None
            if not told:
                say(f"Waiting for {what}: {holder(path)} is at work on it.")
                told = True
            time.sleep(PAUSE)
    note = _note(path)
    try:
        atomic.write(note, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> str:
    """Name the process that holds a lock, as far as it is known."""
    try:
        found = json_text.parse(_note(path).read_bytes())
        return f"process {int(found['pid'])} on {str(found['host'])[:80]}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


def locked(path: Path) -> bool:
    """Whether a process holds a lock.

    The file is neither made nor changed, so that the folder may be read-only. Links and what is no
    regular file are held by nobody.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)  # what `filelock` takes is exclusive
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(opened)
    return False


def _note(path: Path) -> Path:
    return path.with_suffix(".holder")
