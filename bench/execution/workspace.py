"""Where a command works and on what device: nothing in it changes a result."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.data.catalog import Dataset


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where a command works.

    ``results`` holds records, weights, points and the tracker; ``data`` is the data set as it was
    typed (a name or a folder), ``data_root`` where named ones are looked for first.
    """

    results: Path
    data: str
    data_root: Path | None = None
    download: bool = False
    device: str = "cpu"

    @property
    def cache(self) -> Path:
        """What can be made again: victims, guides, checkpoints."""
        return self.results / "cache"

    def dataset(self) -> Dataset:
        """The data set, loaded once per process."""
        from bench.data import catalog

        if (self.data, self.data_root) not in _LOADED:
            found = catalog.load(self.data, root=self.data_root, download=self.download)
            adopt(self, found)
        return _LOADED[self.data, self.data_root]


_LOADED: dict[tuple[str, Path | None], Dataset] = {}


def adopt(workspace: Workspace, data: Dataset) -> None:
    """Take a data set that was loaded elsewhere, so that this process need not read it."""
    _LOADED.clear()
    _LOADED[workspace.data, workspace.data_root] = data


def results_folder(given: str | None) -> Path:
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


@functools.lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the checkout that runs, with a ``+`` when it has changes; empty outside one."""
    here = Path(__file__).parents[2]
    try:
        run = functools.partial(
            subprocess.run, cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        if Path(run(["git", "rev-parse", "--show-toplevel"]).stdout.strip()) != here:
            return ""
        head = run(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


@functools.lru_cache(maxsize=1)
def version() -> str:
    """The version of the installed package; ``0+unknown`` in a checkout that is not installed."""
    from importlib import metadata

    try:
        return metadata.version("deletion-bench")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def machine(device: str) -> dict[str, str]:
    """What a record tells about the machine; no name of it and no path."""
    import torch

    return {
        "bench": version(),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": str(torch.get_num_threads()),
    }


@functools.lru_cache(maxsize=1)
def processor() -> str:
    """The processor's name, as far as the system tells."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
