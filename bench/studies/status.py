"""What is under way in a results folder, and what was left behind."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


def left_behind(folder: Path) -> dict[str, list[str]]:
    """Jobs that are ``running`` now, and jobs that were ``stopped`` and can be continued.

    A job that runs holds its lock, which the system gives back when its process dies.
    """
    running, stopped = [], []
    for path in sorted((folder / "cache/locks").glob("*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            running.append(path.stem)
    for checkpoint in sorted((folder / "cache/checkpoints").glob("*/checkpoint.json")):
        if checkpoint.parent.name not in running:
            stopped.append(checkpoint.parent.name)
    return {"running": running, "stopped": stopped}
