"""What studies tell MLflow while they run; a tracker that fails costs a warning, never a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.execution.workspace import Workspace
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import formats, run_tables
from bench.studies import jobs
from bench.studies.jobs import Job

if TYPE_CHECKING:
    from bench.records.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """What a user asks of MLflow.

    Attributes:
        tracking_uri: Server or database; None: a database in the results folder.
        no_tracking: Write records only.
    """

    tracking_uri: str | None = None
    no_tracking: bool = False

    def open(self, workspace: Workspace, warn: Callable[[str], None]) -> Tracker | None:
        """The tracker of a results folder, or None where none is wanted."""
        if self.no_tracking:
            return None
        from bench.records.tracking import Tracker

        return Tracker(self.tracking_uri, workspace.results, warn=warn)


class TrackedRuns:
    """Logs the start and the record of every job, and at the end the intervals over seeds."""

    def __init__(self, tracker: Tracker, workspace: Workspace) -> None:
        self.tracker, self.workspace = tracker, workspace
        self.store = Store(workspace.results)
        self.under_way: dict[str, Record] = {}

    def started(self, job: Job) -> None:
        """A run of the seed appears as running."""
        record = jobs.describe(job, self.workspace)
        self.under_way[record.name] = record
        self.tracker.start_seed(record)

    def finished(self, record: Record, reused: bool) -> None:
        """The run gets its metrics, curve and artifacts."""
        self.under_way.pop(record.name, None)
        weights = jobs.weights(record, self.workspace)
        self.tracker.log(record, self.store.curve(record), weights)

    def close(self) -> None:
        """What has started and not ended was killed."""
        for record in self.under_way.values():
            self.tracker.end_seed(record, "KILLED")

    def summarise(self, records: Sequence[Record]) -> None:
        """Every job is done: the intervals go to the parents."""
        table = run_tables.grid(records)
        files = {"table.tex": formats.latex(table), "table.md": formats.markdown(table)}
        self.tracker.summarise(run_tables.intervals(records), files)
