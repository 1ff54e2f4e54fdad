"""Results folders: found, made, and tried whether they can be written.

This module is light, so that commands that only read records start without torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import name_file, no_space
from bench.files import plain
from bench.files.atomic import neighbour_of, sweep
from bench.files.text import command


def existing_results(given: str | Path | None) -> Path:
    """Return a results folder that is only read: it must exist and is not changed.

    Args:
        given: The folder; None: ``$BENCH_RESULTS``, else ``./results``.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is a file, or has links, pipes or devices among its files.
    """
    folder = _chosen(given)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give the folder of results")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no results folder {folder}; bench run and bench.compare create one"
        )
    plain.check_folder(folder)
    return folder


def _chosen(given: str | Path | None) -> Path:
    return Path(given or os.environ.get("BENCH_RESULTS") or "results")


def option(folder: Path) -> str:
    """The option that names a results folder in a command; empty for the one without it.

    >>> option(Path("my results"))
    " --results 'my results'"
    """
    usual = folder.resolve() == _chosen(None).resolve()
    return "" if usual else f" --results {command([str(folder)])}"


def results_folder(given: str | Path | None) -> Path:
    """Return the results folder, which is created if it does not exist.

    Args:
        given: The folder; None: ``$BENCH_RESULTS``, else ``./results``.

    Raises:
        OSError: It cannot be written.
        ValueError: It has links, pipes or devices among its files.
    """
    folder = _chosen(given)
    plain.check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        probe = neighbour_of(folder / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        if no_space(error):
            name_file(error, folder)
            raise
        raise OSError(
            f"cannot write to the results folder {folder} ({error.strerror}): "
            "choose another with --results"
        ) from None
    return folder


WRITTEN = ("", "curves", "weights", "cache/checkpoints", "cache/locks")
"""Folders in the results folder that every command which runs jobs writes to."""


def check_writable(results: Path) -> None:
    """Try whether the results of jobs can be written, before the first one starts.

    Permissions are not asked but tried: on the files themselves, and with a new file in each
    folder.

    Raises:
        OSError: A file or folder cannot be written, or the disk is full.
    """
    path = results
    try:
        for name in ("records.jsonl", "records.lock"):
            path = results / name
            if path.exists():
                path.open("ab").close()
        for name in WRITTEN:
            path = results / name
            path.mkdir(parents=True, exist_ok=True)
            probe = neighbour_of(path / "probe")
            probe.touch()
            probe.unlink()
    except OSError as error:
        if no_space(error):
            name_file(error, results)
            raise
        raise OSError(
            f"cannot write to the results folder {results} ({path}: {error.strerror}): "
            "make it writable or choose another with --results"
        ) from None
