"""MLflow in studies. If it fails, there is a warning; results are never lost."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.records.record import Curve, Record
from bench.records.store import Store
from bench.records.tracking.runs import Place, place
from bench.records.tracking.shown import Inputs
from bench.records.tracking.tracker import Tracker
from bench.reporting.tracked_cells import cells
from bench.studies import jobs
from bench.studies.jobs import Job

MOST = 200
"""Number of earlier records that a new tracker is filled with; more are left to a command."""


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """The MLflow options of a user.

    Attributes:
        tracking_uri: Server or database; None: a database in the results folder.
        no_tracking: Write records only, and do not log to MLflow.
        log_weights: Copy the weights of trained networks to MLflow.
        system_metrics: Log the load of this machine while a network is trained.

    >>> TrackingOptions(tracking_uri="http://127.0.0.1:5000").no_tracking
    False
    """

    tracking_uri: str | None = None
    no_tracking: bool = False
    log_weights: bool = False
    system_metrics: bool = False

    def open(self, workspace: Workspace, warn: Callable[[str], None]) -> Tracker | None:
        """Return the tracker of a results folder, or None without tracking.

        What an earlier process left half done in it is made equal to the records first.

        Args:
            workspace: The results folder.
            warn: Called with each warning.

        Raises:
            ValueError: System metrics are wanted and the package that measures them is missing.
        """
        if self.system_metrics and importlib.util.find_spec("psutil") is None:
            raise ValueError("--system-metrics needs psutil; install it with: pip install psutil")
        if self.no_tracking:
            return None
        tracker = Tracker(
            self.tracking_uri, workspace.results, warn=warn, system_metrics=self.system_metrics
        )
        catch_up(tracker, Store(workspace.results), warn)
        return tracker


def catch_up(tracker: Tracker, store: Store, warn: Callable[[str], None]) -> None:
    """Log what a new tracker lacks, or what a process that ended has left half done."""
    if tracker.lacks_records:
        records = store.all()
        if len(records) > MOST:
            warn(
                f"the tracker is new and lacks {len(records)} earlier records; log them with: "
                f"bench track rebuild --results {store.folder}"
            )
        else:
            equalise(tracker, store)
    elif left := tracker.interrupted():
        equalise(tracker, store, left)


def equalise(
    tracker: Tracker, store: Store, only: set[Place] | None = None, anew: bool = False
) -> int:
    """Make runs, metrics and states of a tracker equal to the records.

    Args:
        tracker: The tracker.
        store: The records.
        only: The parents to look at; None: all.
        anew: Also log again what is whole.

    Returns:
        The number of records.
    """
    records = store.all()
    _equalise(tracker, store, records, only, anew)
    return len(records)


def _equalise(
    tracker: Tracker, store: Store, records: list[Record], only: set[Place] | None, anew: bool
) -> None:
    """`equalise` with the records of the store, whose reading warns of lines that hold none."""
    curve = epochs(store)
    tracker.equalise(records, curve, cells(records, curve, only), only, anew)


def rebuild(tracker: Tracker, store: Store) -> int:
    """Make a tracker again from the records, and check that it holds each of them.

    Args:
        tracker: A strict tracker.
        store: The records.

    Returns:
        The number of records.

    Raises:
        OSError: It cannot be written, or lacks a record.
    """
    records = store.all()
    _equalise(tracker, store, records, None, anew=True)
    tracker.verify(records)
    return len(records)


def epochs(store: Store) -> Callable[[Record], Curve]:
    """Reads the curves of trainings; those of attacks are over changes and not over epochs."""
    return lambda record: store.curve(record) if record.kind == "run" else []


class Touched:
    """The parents that a command works on, which show its records when it ends."""

    def __init__(self, tracker: Tracker, workspace: Workspace) -> None:
        self.tracker, self.store = tracker, Store(workspace.results)
        self.places: set[Place] = set()

    def add(self, record: Record) -> None:
        """Add the parent of a record."""
        self.places.add(place(record))

    def close(self) -> None:
        """Let the parents show all their records, also those of other commands."""
        if self.places and self.tracker.on:
            records = self.store.all()
            self.tracker.settle(cells(records, epochs(self.store), self.places), self.places)


class TrackedRuns:
    """Logs each start and record to MLflow, and finally the intervals over seeds."""

    def __init__(self, tracker: Tracker, workspace: Workspace, copy_weights: bool = False) -> None:
        self.tracker, self.workspace, self.copy_weights = tracker, workspace, copy_weights
        self.touched = Touched(tracker, workspace)
        self.running: dict[str, Record] = {}

    def started(self, job: Job) -> None:
        """Log the run of a seed as running."""
        record = jobs.describe(job, self.workspace)
        self.running[record.name] = record
        self.touched.add(record)
        self.tracker.start_seed(record)

    def finished(self, record: Record, reused: bool) -> None:
        """Log metrics, curve, dataset and network of the run."""
        self.running.pop(record.name, None)
        self.touched.add(record)
        weights = jobs.weights(record, self.workspace)
        self.tracker.log(
            record,
            self.touched.store.curve(record),
            weights if weights.exists() else None,
            inputs=self.inputs(record),
            copy_weights=self.copy_weights,
        )

    def inputs(self, record: Record) -> Inputs:
        """Return what MLflow is told of the dataset of a training."""
        data = self.workspace.dataset(record.labels["data"])
        return Inputs(
            digest=data.digest,
            images=(len(data.train.labels), len(data.test.labels)),
            shape=tuple(data.train.images.shape[1:]),
            classes=len(data.classes),
        )

    def close(self) -> None:
        """Mark runs that have not finished as killed, and log the intervals over seeds."""
        for record in self.running.values():
            self.tracker.end_seed(record, "KILLED")
        self.touched.close()


@contextmanager
def tracked_runs(
    options: TrackingOptions, workspace: Workspace, progress: Progress
) -> Iterator[TrackedRuns | None]:
    """The observer that logs trainings; None without tracking. It is closed whatever happens.

    Args:
        options: The MLflow options of a user.
        workspace: The results folder.
        progress: Shows warnings.
    """
    tracker = options.open(workspace, progress.say)
    if tracker is None:
        yield None
        return
    observer = TrackedRuns(tracker, workspace, options.log_weights)
    try:
        yield observer
    finally:
        observer.close()
