"""Where a command works and on what device: nothing in it changes a result."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from bench.data import catalog
from bench.data.dataset import MEMORY, Dataset


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where jobs work and on what device; nothing in it changes a result.

    Attributes:
        results: Folder of records, weights, points and the tracker.
        data_root: Folder in which named datasets are looked for first.
        download: Whether a missing dataset may be fetched from its publisher.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        paths: (name, path) of datasets that come from a folder or archive of the user's; jobs know
            a dataset by its name alone.
    """

    results: Path
    data_root: Path | None = None
    download: bool = False
    device: str = "cpu"
    paths: tuple[tuple[str, str], ...] = ()

    @property
    def cache(self) -> Path:
        """What can be made again: victim models, guides, checkpoints."""
        return self.results / "cache"

    def dataset(self, name: str) -> Dataset:
        """The dataset of that name, loaded once per process; errors as `catalog.load`."""
        key = name, self.data_root
        if key not in _open:
            path = dict(self.paths).get(name, name)
            found = catalog.load(path, root=self.data_root, download=self.download)
            if found.name != name:
                raise ValueError(f"{path} holds the dataset {found.name}, not {name}")
            self.adopt(found)
        return _open[key]

    def locate(self, text: str) -> tuple[Workspace, str]:
        """The workspace that also knows a dataset as a user types it, and the dataset's name.

        The dataset, a name or a path, is loaded; errors as `catalog.load`.
        """
        found = catalog.load(text, root=self.data_root, download=self.download)
        self.adopt(found)
        if found.name == text:
            return self, text
        return replace(self, paths=(*self.paths, (found.name, text))), found.name

    def adopt(self, data: Dataset) -> None:
        """Take a dataset that is in memory already, so that this process need not read it."""
        key = data.name, self.data_root
        _open.pop(key, None)
        _open[key] = data
        # those that were read from files can be read again
        for other in [other for other, each in _open.items() if each.source != MEMORY][:-KEPT]:
            del _open[other]


KEPT = 2  # datasets from files that stay in memory
_open: dict[tuple[str, Path | None], Dataset] = {}


def open_datasets() -> list[Dataset]:
    """The datasets that are in the memory of this process."""
    return list(_open.values())


def results_folder(given: str | Path | None) -> Path:
    """The results folder: what was given, else ``$BENCH_RESULTS``, else ``./results``.

    Raises ``OSError`` when it cannot be written.
    """
    folder = Path(given or os.environ.get("BENCH_RESULTS") or "results")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to the results folder {folder} ({error.strerror}): "
            "choose another with --results"
        ) from None
    return folder


def pick_device(wanted: str) -> str:
    """``auto`` is the accelerator where there is one; a device that is absent is refused."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError):
        raise ValueError(f"device {wanted!r} is not there: use --device auto or cpu") from None
    return wanted
