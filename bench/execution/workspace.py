"""The workspace: results folder, datasets and device. Nothing in it changes a result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where jobs work and on which device; nothing in it changes a result.

    Attributes:
        results: Folder of records, weights, points and the MLflow database.
        data_root: Folder searched first for named datasets.
        download: Whether a missing dataset, and missing published weights, may be downloaded.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        paths: (name, path) of each dataset that was given as a folder or archive, and of each file
            of weights that a training starts from; jobs refer to them by their names alone.
        workers: Threads that decode images which are too large for memory; None: one per core.
    """

    results: Path
    data_root: Path | None = None
    download: bool = False
    device: str = "cpu"
    paths: tuple[tuple[str, str], ...] = ()
    workers: int | None = None

    @property
    def cache(self) -> Path:
        """Folder of what can be computed again: victim models, guides, checkpoints."""
        return self.results / "cache"

    def dataset(self, name: str) -> Dataset:
        """Return a dataset by name; it is loaded once per process.

        Raises:
            ValueError: The folder or archive of this name holds another dataset.
            Missing: The dataset was not found; further errors as `bench.data.catalog.load`.
        """
        key = name, self.data_root
        if key not in _open:
            path = dict(self.paths).get(name, name)
            found = self._load(path)
            if found.name != name:
                raise ValueError(f"{path} holds the dataset {found.name}, not {name}")
            self.adopt(found)
        return _open[key]

    def locate(self, text: str) -> tuple[Workspace, str]:
        """Load a dataset by name or path.

        Args:
            text: Name of a dataset, or path of an image folder or archive.

        Returns:
            A workspace that also knows this dataset, and the dataset's name.

        Raises:
            ValueError, Missing: As `bench.data.catalog.load`.
        """
        found = self._load(text)
        self.adopt(found)
        if found.name == text:
            return self, text
        return replace(self, paths=(*self.paths, (found.name, text))), found.name

    def _load(self, text: str) -> Dataset:
        from bench.data import catalog

        return catalog.load(text, root=self.data_root, download=self.download, workers=self.workers)

    def adopt(self, data: Dataset) -> None:
        """Keep a dataset that is in memory, so that this process need not read it."""
        from bench.data.dataset import MEMORY

        key = data.name, self.data_root
        _open.pop(key, None)
        _open[key] = data
        # datasets that were read from files can be read again
        for other in [other for other, each in _open.items() if each.source != MEMORY][:-KEPT]:
            del _open[other]


KEPT = 2  # number of datasets from files that stay in memory
_open: dict[tuple[str, Path | None], Dataset] = {}


def open_datasets() -> list[Dataset]:
    """Return the datasets that are in the memory of this process."""
    return list(_open.values())


def pick_device(wanted: str) -> str:
    """Return the device to use.

    Args:
        wanted: A torch device, or ``"auto"`` for a CUDA GPU if there is one and the CPU otherwise.

    Raises:
        ValueError: The device does not exist.
    """
    if wanted == "cpu":
        return wanted
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError):
        raise ValueError(f"device {wanted!r} is not available; use --device auto or cpu") from None
    return wanted
