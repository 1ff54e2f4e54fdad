"""MLflow in studies. If it fails, there is a warning; results are never lost."""

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
    """The MLflow options of a user.

    Attributes:
        tracking_uri: Server or database; None: a database in the results folder.
        no_tracking: Write records only, and do not log to MLflow.
    """

    tracking_uri: str | None = None
    no_tracking: bool = False

    def open(self, workspace: Workspace, warn: Callable[[str], None]) -> Tracker | None:
        """Return the tracker of a results folder, or None without tracking.

        Args:
            workspace: The results folder.
            warn: Called with each warning.
        """
        if self.no_tracking:
            return None
        from bench.records.tracking import Tracker

        return Tracker(self.tracking_uri, workspace.results, warn=warn)


class TrackedRuns:
    """Logs each start and record to MLflow, and finally the intervals over seeds."""

    def __init__(self, tracker: Tracker, workspace: Workspace) -> None:
        self.tracker, self.workspace = tracker, workspace
        self.store = Store(workspace.results)
        self.running: dict[str, Record] = {}

    def started(self, job: Job) -> None:
        """Log the run of a seed as running."""
        record = jobs.describe(job, self.workspace)
        self.running[record.name] = record
        self.tracker.start_seed(record)

    def finished(self, record: Record, reused: bool) -> None:
        """Log metrics, curve and files of the run."""
        self.running.pop(record.name, None)
        weights = jobs.weights(record, self.workspace)
        self.tracker.log(record, self.store.curve(record), weights)

    def close(self) -> None:
        """Mark runs that have not finished as killed."""
        for record in self.running.values():
            self.tracker.end_seed(record, "KILLED")

    def summarise(self, records: Sequence[Record]) -> None:
        """Log the intervals over seeds after the last job."""
        table = run_tables.grid(records)
        files = {"table.tex": formats.latex(table), "table.md": formats.markdown(table)}
        self.tracker.summarise(run_tables.intervals(records), files)
