"""Records → MLflow: an index to browse, made from the records and never the source of a result.

An experiment is one study on one dataset. In it a parent run (``bench.kind = cell``), with the
intervals over its seeds, is a training job, or all attacks on one victim at one eps; its children
(``bench.kind = seed``) are the seeds, or each attack with each seed. Tags find them again, so
logging twice changes nothing.

A process may end between any two writes. A parent is running before anything below it changes, and
until it shows all of its records; a child carries the checksum of its record (``bench.record``)
once it is whole, a parent that of all that it shows. What a process left running when it ended is
thereby found, and made equal to the records by the next command.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec

from filelock import FileLock

from bench.records.record import Curve, Record
from bench.records.tracking import database, repair, shown
from bench.records.tracking.runs import Place, StudyRuns, place
from bench.records.tracking.shown import Cell, Inputs
from bench.records.tracking.text import database_uri, mask, mlflow_name, tracker_error

P = ParamSpec("P")

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # a server that does not answer costs seconds, once
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
PATIENCE, SHARE = 60.0, 0.1  # seconds that a server may cost, and more if it is so little of a run


def _guarded(
    method: Callable[Concatenate[Tracker, P], None],
) -> Callable[Concatenate[Tracker, P], None]:
    """A failure of the tracker costs one warning and the rest of the tracking, never a result."""

    @functools.wraps(method)
    def guarded(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if not self.on:
            return
        start = time.monotonic()
        try:
            with _silence(), self.lock:
                method(self, *args, **kwargs)
            self._spend(time.monotonic() - start)
        except Exception as error:  # whatever it is, a training must not end for it
            self.on = False
            why = tracker_error(error, self.uri)
            if self.strict and "disk is full" in why:
                text = os.strerror(errno.ENOSPC)
                raise OSError(errno.ENOSPC, text, mask(self.uri)) from error
            if self.strict:
                raise OSError(f"the tracker {mask(self.uri)} failed: {why}") from error
            self.warn(
                f"the tracker {mask(self.uri)} is off for the rest of this run ({why}); "
                "results are kept all the same"
            )

    return guarded


class Tracker:
    """The tracker of one results folder, or a server.

    Several processes may start on an empty folder at once, and one writes at a time.

    Args:
        uri: What MLflow takes; None: a database in the folder.
        folder: The results folder.
        study: The first part of the names of experiments.
        warn: Called with each warning.
        strict: Raise ``OSError`` for the first failure, instead of a warning.
        system_metrics: Log the load of this machine while a seed is trained.

    Attributes:
        on: False once the tracker has failed or, where it is ``far``, has cost too much time; the
            reason was given to ``warn``.
    """

    def __init__(
        self,
        uri: str | None,
        folder: Path,
        *,
        study: str = "bench",
        warn: Callable[[str], None] = warnings.warn,
        strict: bool = False,
        system_metrics: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self.own = self.folder / "mlflow.db" if uri is None else None
        self.uri = uri or database_uri(self.folder / "mlflow.db")
        self.path = self.own or database.local_path(self.uri)
        self.far = self.uri.startswith("http")
        self.study, self.warn = study, warn
        self.strict, self.system_metrics = strict, system_metrics
        self.on = True
        self.lock = FileLock(self.folder / "mlflow.lock", timeout=120)
        self.runs: StudyRuns
        self._monitors: dict[str, Any] = {}
        self._began, self._spent = time.monotonic(), 0.0
        with contextlib.suppress(OSError):  # what uses the folder says so itself
            self.folder.mkdir(parents=True, exist_ok=True)
        self._connect()

    @property
    def lacks_records(self) -> bool:
        """Whether the database is new, and earlier records were not logged to it yet."""
        return self.on and self.path is not None and database.lacks_records(self.path)

    @_guarded
    def start_seed(self, record: Record) -> None:
        """Show that a seed is being trained; the record has no metrics yet."""
        experiment = self.runs.experiment(place(record)[0])
        parent = self.runs.open_parent(experiment, record)
        if found := self.runs.seed(experiment, record.name):
            self.runs.drop(found)
        run = self.runs.create(experiment, record, parent)
        if self.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitors[record.name] = SystemMetricsMonitor(run, tracking_uri=self.uri)
            self._monitors[record.name].start()

    @_guarded
    def end_seed(self, record: Record, status: Literal["KILLED", "FAILED"]) -> None:
        """Say that a seed that was started gave no record."""
        self._end_monitor(record)
        found = self.runs.seed(self.runs.experiment(place(record)[0]), record.name)
        if found and found.info.status == "RUNNING":
            self.client.set_terminated(found.info.run_id, status)

    @_guarded
    def log(
        self,
        record: Record,
        curve: Curve = (),
        weights: Path | None = None,
        files: Sequence[Path] = (),
        inputs: Inputs | None = None,
        copy_weights: bool = False,
    ) -> None:
        """Log one seed; a record that is there is left alone. `settle` then closes the parent.

        Args:
            record: The record.
            curve: Its curve.
            weights: File of the trained network.
            files: Further files that become artifacts.
            inputs: The dataset; with it, the trained network is logged as MLflow's model.
            copy_weights: Whether that model has a copy of the weights.
        """
        self._end_monitor(record)
        runs, experiment = self.runs, self.runs.experiment(place(record)[0])
        found = runs.seed(experiment, record.name)
        if found and found.data.tags.get("bench.record") == shown.digest(record):
            if found.info.status != shown.status(record):
                runs.open_parent(experiment, record)
                self.client.set_terminated(found.info.run_id, shown.status(record))
            return
        parent = runs.open_parent(experiment, record)
        own = found and any(not name.startswith("system/") for name in found.data.metrics)
        if found and (own or found.info.status != "RUNNING"):
            runs.drop(found)  # half logged, or of an older record
            found = None
        run = found.info.run_id if found else runs.create(experiment, record, parent)
        entries = shown.curve_metrics(curve or record.curve)
        last = max((step for _, _, step in entries), default=0)
        entries += [
            (mlflow_name(name), float(value), last)
            for name, value in record.metrics.items()
            if math.isfinite(value)
        ]
        tags = shown.result_tags(record)
        if weights:
            tags["bench.weights"] = shown.weights_name(weights, self.folder)
        runs.write(run, entries, tags)
        runs.write_files(run, shown.files(record))
        for file in files:
            self.client.log_artifact(run, str(file))
        if record.kind == "run":
            runs.log_dataset(run, record, inputs)
        if weights and inputs and record.status == "finished":
            copied = weights if copy_weights else None
            runs.log_model(run, record, inputs, tags["bench.weights"], copied, last)
        self.client.set_tag(run, "bench.record", shown.digest(record))  # last: now it is whole
        self.client.set_terminated(run, shown.status(record))

    def settle(
        self, cells: Iterable[Cell], touched: Collection[Place] = (), anew: bool = False
    ) -> None:
        """Let parents show their records, and end those below which nothing runs any more.

        Args:
            cells: What the parents show.
            touched: Further parents, which may have no records.
            anew: Also write what seems to be there.
        """
        known = set()
        for cell in cells:
            known.add(place(cell.first))
            self._settle(cell, anew)
        for rest in sorted(set(touched) - known):
            self._abandon(rest)

    def interrupted(self) -> set[Place]:
        """The parents below which a process left something running when it ended."""
        found: set[Place] = set()
        self._interrupted(found)
        return found

    def equalise(
        self,
        records: Sequence[Record],
        curve: Callable[[Record], Curve] = lambda record: record.curve,
        cells: Iterable[Cell] = (),
        only: Collection[Place] | None = None,
        anew: bool = False,
    ) -> None:
        """Make runs, metrics and states equal to the records.

        Seeds that another process is training stay as they are.

        Args:
            records: All records of the folder.
            curve: Reads the curve of a record.
            cells: What the parents show.
            only: The parents to look at; None: all of the study.
            anew: Also log again what is whole.
        """
        if self.strict:
            self._began = -math.inf  # who asks for all of it has the time
        wanted = [each for each in records if only is None or place(each) in only]
        missing: list[Record] = []
        self._tidy({each.name: each for each in wanted}, only, anew, missing)
        for record in missing:
            self.log(record, curve(record))
        self.settle(cells, {*(only or ()), *self.interrupted()}, anew)
        if only is None:
            self._note_records()

    @_guarded
    def verify(self, records: Iterable[Record]) -> None:
        """Fail unless each record is held by exactly one whole run."""
        repair.verify(self.runs, records)

    @_guarded
    def _tidy(
        self,
        wanted: Mapping[str, Record],
        only: Collection[Place] | None,
        anew: bool,
        missing: list[Record],
    ) -> None:
        missing += repair.tidy(self.runs, wanted, only, anew)

    @_guarded
    def _settle(self, cell: Cell, anew: bool) -> None:
        repair.settle(self.runs, cell, anew)

    @_guarded
    def _abandon(self, where: Place) -> None:
        repair.abandon(self.runs, where)

    @_guarded
    def _interrupted(self, found: set[Place]) -> None:
        found |= repair.interrupted(self.runs)

    @_guarded
    def _note_records(self) -> None:
        if self.path:
            database.note_records(self.path)

    def _end_monitor(self, record: Record) -> None:
        if monitor := self._monitors.pop(record.name, None):
            monitor.finish()

    @_guarded
    def _connect(self) -> None:
        """Reach the store; a database that cannot be opened is replaced by an empty one."""
        import mlflow

        path, artifacts = self.path, (self.folder / "artifacts").as_uri()
        if path:
            version = mlflow.__version__
            if line := database.prepare(path, _make_tables, version, thorough=self.strict):
                self.warn(line)
        self.client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        if path:
            _disconnect(self.client)  # they may be to a file that was replaced
        # a database beside the results keeps its files there as well; a server knows where
        self.runs = StudyRuns(self.client, self.study, artifacts if path else None)
        self.client.search_experiments(max_results=1)
        if self.own:
            database.relocate(self.own, artifacts, self.study)

    def _spend(self, seconds: float) -> None:
        """Raises ``TimeoutError`` once a server has cost more than it may."""
        self._spent += seconds
        allowed = max(PATIENCE, SHARE * (time.monotonic() - self._began))
        if self.far and self._spent > allowed:
            raise TimeoutError(f"its server is slow: it has cost {self._spent:.0f} s")


def _make_tables(path: Path) -> None:
    """Make the tables of a new database, which takes seconds."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=database_uri(path), registry_uri="")
    client.search_experiments(max_results=1)
    _disconnect(client)


def _disconnect(client: Any) -> None:
    """Forget the open connections of this process to a database."""
    client._tracking_client.store.engine.dispose()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No notes of MLflow and its database layer on standard error; no telemetry."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401  (it sets its loggers up when it is imported)

        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
