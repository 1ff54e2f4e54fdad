"""Settings that every test shares."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

if TYPE_CHECKING:
    from bench.records.tracking.tracker import Tracker

# before anything imports them: no telemetry, no version check, no network
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true", NO_ALBUMENTATIONS_UPDATE="1", DO_NOT_TRACK="true"
)

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of an accelerator where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The number of threads changes the last bits of sums, so tests fix it."""
    torch.set_num_threads(1)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Nothing checks types and shapes at a call, as for a user."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def bench_data() -> Path:
    """The folder with images and weights that some tests look at; skipped without it."""
    folder = os.environ.get("BENCH_DATA")
    if not folder:
        pytest.skip("BENCH_DATA names no folder with images and weights")
    return Path(folder)


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of the user, nor finds data that happens to be there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("BENCH_DATA", raising=False)
    from bench.data import catalog

    monkeypatch.setattr(catalog, "SYSTEM", Path("/nowhere"))


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded images are not kept from one file to the next."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables made, which takes seconds; tests copy it."""
    from bench.records.tracking.tracker import Tracker

    folder = tmp_path_factory.mktemp("store")
    assert Tracker(None, folder, warn=pytest.fail).on
    return folder / "mlflow.db"


@pytest.fixture
def warned() -> list[str]:
    """The warnings that a tracker gave."""
    return []


@pytest.fixture
def tracker(empty_store: Path, tmp_path: Path, warned: list[str]) -> Iterator[Tracker]:
    """A tracker that must not warn."""
    from bench.records.tracking.tracker import Tracker

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    yield Tracker(None, tmp_path, warn=warned.append)
    assert warned == []
