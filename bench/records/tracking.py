"""Records → MLflow: an index to browse, made from the records and never the source of a result.

An experiment is one study on one dataset. In it a parent run (``bench.kind = cell``), with the
intervals over its seeds, is a training job, or all attacks on one victim at one eps; its children
(``bench.kind = seed``) are the seeds, or each attack with each seed. Tags find them again, so
logging twice changes nothing. Only this module imports mlflow.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec

from filelock import FileLock

from bench.records.record import Curve, Record
from bench.records.tracking_text import (
    database_uri,
    flat_fields,
    interval_metrics,
    mask,
    mlflow_name,
    tracker_error,
)

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
BEAT = 30.0  # seconds between two heartbeats
TAKEN = 6000  # characters that MLflow takes as a value


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
            self.warn(
                f"the tracker {mask(self.uri)} is off for the rest of this run "
                f"({tracker_error(error, self.uri)}); results are kept all the same"
            )

    return guarded


class Tracker:
    """The tracker of one results folder, or a server.

    ``uri`` is what MLflow takes, by default a database in the folder. Several processes may start
    on an empty folder at once, and one writes at a time. ``on`` is False once the tracker failed
    or, where it is ``far``, cost too much time; the reason was given to ``warn`` then.
    """

    def __init__(
        self,
        uri: str | None,
        folder: Path,
        *,
        study: str = "bench",
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.folder = folder.resolve()
        self.uri = uri or database_uri(self.folder / "mlflow.db")
        self.far = self.uri.startswith("http")
        self.study = study
        self.warn = warn
        self.on = True
        self.lock = FileLock(self.folder / "mlflow.lock", timeout=120)
        self._experiments: dict[str, str] = {}
        self._beaten: dict[str, float] = {}
        self._began, self._spent = time.monotonic(), 0.0
        with contextlib.suppress(OSError):  # what uses the folder says so itself
            self.folder.mkdir(parents=True, exist_ok=True)
        self._connect()

    @_guarded
    def start_seed(self, record: Record) -> None:
        """Show that a seed is being trained; the record has no metrics yet."""
        experiment = self._experiment(record)
        if found := self._seed(experiment, record.name):
            if found.info.status == "RUNNING":
                self.client.set_terminated(found.info.run_id, "KILLED")
            self._delete(experiment, found)
        self._create(experiment, record)

    @_guarded
    def beat(self, record: Record) -> None:
        """Say that the seed is still being trained; may be called as often as one likes."""
        now = time.monotonic()
        if now - self._beaten.get(record.name, -math.inf) < BEAT:
            return
        self._beaten[record.name] = now
        if found := self._seed(self._experiment(record), record.name):
            self.client.set_tag(found.info.run_id, "bench.heartbeat", _now())

    @_guarded
    def end_seed(self, record: Record, status: Literal["KILLED", "FAILED"]) -> None:
        """Say that a seed that was started gave no record."""
        found = self._seed(self._experiment(record), record.name)
        if found and found.info.status == "RUNNING":
            self.client.set_terminated(found.info.run_id, status)

    @_guarded
    def log(
        self,
        record: Record,
        curve: Curve = (),
        weights: Path | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Log one seed, with files as its artifacts; a record that is there is left alone."""
        self._log(record, curve or record.curve, weights, files)

    @_guarded
    def summarise(
        self, intervals: Iterable[Mapping[str, Any]], files: Mapping[str, str] | None = None
    ) -> None:
        """Write intervals over seeds to the parents, and files to each.

        ``files`` maps names, such as ``table.tex``, to contents.
        """
        self._summarise(intervals, files or {})

    @_guarded
    def rebuild(
        self,
        records: Iterable[Record],
        curve: Callable[[Record], Curve] = lambda record: record.curve,
        intervals: Iterable[Mapping[str, Any]] = (),
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Make the study again from the records; what it had is renamed and marked as deleted."""
        self._began = -math.inf  # who asks for all of it has the time
        for experiment in self._study():
            replaced = f"{experiment.name} (until {_now()}, {experiment.experiment_id})"
            self.client.rename_experiment(experiment.experiment_id, replaced)
            self.client.delete_experiment(experiment.experiment_id)
        self._experiments.clear()
        for record in records:
            self._log(record, curve(record), None)
        self._summarise(intervals, files or {})

    @_guarded
    def reap(self) -> None:
        """Mark as killed the seeds that a process of this machine left running when it died."""
        for experiment in self._study():
            for run in self._find(experiment.experiment_id, "attributes.status = 'RUNNING'"):
                tags = run.data.tags
                here = tags.get("bench.host") == socket.gethostname()
                if here and tags.get("bench.kind") == "seed" and not _alive(tags["bench.pid"]):
                    self.client.set_terminated(run.info.run_id, "KILLED")

    @_guarded
    def _connect(self) -> None:
        """Reach the store; makes the tables of a new database, which takes seconds."""
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.client.search_experiments(max_results=1)

    def _spend(self, seconds: float) -> None:
        """Raises ``TimeoutError`` once a server has cost more than it may."""
        self._spent += seconds
        allowed = max(PATIENCE, SHARE * (time.monotonic() - self._began))
        if self.far and self._spent > allowed:
            raise TimeoutError(f"its server is slow: it has cost {self._spent:.0f} s")

    def _log(
        self, record: Record, curve: Curve, weights: Path | None, files: Sequence[Path] = ()
    ) -> None:
        from mlflow.entities import Metric, RunTag

        experiment = self._experiment(record)
        line = json.dumps(record.to_json(), indent=2)
        digest = hashlib.sha256(line.encode()).hexdigest()
        found = self._seed(experiment, record.name)
        if found and found.data.tags.get("bench.record") == digest:
            return
        if found and (found.data.metrics or found.info.status != "RUNNING"):
            self._delete(experiment, found)  # half logged, or of an older record
            found = None
        run = found.info.run_id if found else self._create(experiment, record)
        now = int(1000 * time.time())
        steps = [int(entry.get("epoch", place)) for place, entry in enumerate(curve)]
        metrics = [
            Metric(f"epoch/{mlflow_name(name)}", float(value), now, step)
            for step, entry in zip(steps, curve, strict=True)
            for name, value in entry.items()
            if name != "epoch" and math.isfinite(value)
        ]
        metrics += [
            Metric(mlflow_name(name), float(value), now, max(steps, default=0))
            for name, value in record.metrics.items()
            if math.isfinite(value)
        ]
        tags = {f"machine.{mlflow_name(name)}": value for name, value in record.machine.items()}
        tags |= {"bench.message": record.message} if record.message else {}
        tags |= {"bench.weights": str(weights)} if weights else {}
        self.client.log_batch(
            run, metrics, tags=[RunTag(name, value[:TAKEN]) for name, value in tags.items()]
        )
        self.client.log_text(run, line, "record.json")
        self.client.log_text(run, json.dumps(dict(record.machine), indent=2), "environment.json")
        for file in files:
            self.client.log_artifact(run, str(file))
        self.client.set_tag(run, "bench.record", digest)  # last: from here on it is whole
        self.client.set_terminated(run, "FINISHED" if record.status == "finished" else "FAILED")
        self._count(experiment, record.cell, int(record.status == "finished"))

    def _summarise(self, intervals: Iterable[Mapping[str, Any]], files: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for interval in intervals:
            cells.setdefault((interval["data"], interval["key"]), []).append(interval)
        for (data, key), members in cells.items():
            experiment = self._experiment_of(data)
            parent = self._cell(experiment, key)
            if parent is None:
                continue
            known, now = parent.data.metrics, int(1000 * time.time())
            changed = [
                Metric(name, value, now, 0)
                for interval in members
                for name, value in interval_metrics(interval).items()
                if known.get(name) != value
            ]
            tags = []
            if "attack" not in members[0]:
                texts = {
                    "verdict": members[0].get("verdict", ""), "row": members[0]["augmentation"]
                }  # fmt: skip
                tags = [RunTag(f"bench.{name}", text) for name, text in texts.items()]
            run = parent.info.run_id
            self.client.log_batch(run, changed, tags=tags)
            shown = dict(members[0]) if len(members) == 1 else list(map(dict, members))
            self.client.log_text(run, json.dumps(shown, indent=2), "stats.json")
            for name, content in files.items():
                self.client.log_text(run, content, name)

    def _experiment(self, record: Record) -> str:
        return self._experiment_of(record.labels.get("data", "other"))

    def _experiment_of(self, data: str) -> str:
        name = f"{self.study}/{data}"
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                # a database beside the results keeps its files there as well; a server knows where
                local = self.uri.startswith("sqlite")
                artifacts = (self.folder / "artifacts").as_uri() if local else None
                # its page opens with the runs then, not with traces of language models
                kind = {"mlflow.experimentKind": "custom_model_development"}
                self._experiments[name] = self.client.create_experiment(name, artifacts, kind)
            else:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _study(self) -> list[Any]:
        """The experiments of this study."""
        found = self.client.search_experiments()
        return [each for each in found if each.name.startswith(f"{self.study}/")]

    def _find(self, experiment: str, condition: str) -> list[Any]:
        return list(self.client.search_runs([experiment], condition, max_results=1000))

    def _seed(self, experiment: str, name: str) -> Any:
        return next(iter(self._find(experiment, f"tags.`bench.name` = '{name}'")), None)

    def _cell(self, experiment: str, key: str) -> Any:
        condition = f"tags.`bench.key` = '{key}' AND tags.`bench.kind` = 'cell'"
        return next(iter(self._find(experiment, condition)), None)

    def _create(self, experiment: str, record: Record) -> str:
        """A running child, and its parent where there is none; returns the child's id."""
        from mlflow.entities import Param

        labels = record.labels
        method = labels.get("augmentation") or labels.get("attack") or record.kind
        title = " ".join([method, labels.get("model", "")]).strip()
        kind = {"bench.record_kind": record.kind}
        cell = self._cell(experiment, record.cell)
        if cell is None:
            whole = title
            if record.kind == "attack":
                whole = f"attacks on {labels['model']}, eps {labels['eps']}, {labels['goal']}"
            tags = {
                **kind, "bench.key": record.cell,
                "bench.kind": "cell", "bench.status": "running", "bench.n": "0",
            }  # fmt: skip
            cell = self.client.create_run(experiment, tags=tags, run_name=whole)
        elif cell.info.status != "RUNNING":
            self.client.update_run(cell.info.run_id, status="RUNNING")
            self.client.set_tag(cell.info.run_id, "bench.status", "running")
        tags = {
            **kind,
            "bench.key": record.key,
            "bench.cell": record.cell,
            "bench.kind": "seed",
            "bench.name": record.name,
            "bench.seed": str(record.seed),
            "bench.pid": str(os.getpid()),
            "bench.host": socket.gethostname(),
            "bench.heartbeat": _now(),
            "mlflow.parentRunId": cell.info.run_id,
        }
        name = f"{title} seed {record.seed}"
        run: str = self.client.create_run(experiment, tags=tags, run_name=name).info.run_id
        fields = {**flat_fields(record.job), **record.labels}
        params = [Param(mlflow_name(field), value[:TAKEN]) for field, value in fields.items()]
        self.client.log_batch(run, params=params)
        return run

    def _delete(self, experiment: str, run: Any) -> None:
        """Delete a child, which its parent counts no more."""
        self.client.delete_run(run.info.run_id)
        if run.info.status == "FINISHED":
            self._count(experiment, run.data.tags["bench.cell"], -1)

    def _count(self, experiment: str, key: str, more: int) -> None:
        """Bring the parent's tags up to date with its children, without reading all of them."""
        children = f"tags.`bench.cell` = '{key}' AND tags.`bench.kind` = 'seed'"
        status = "finished"
        for state in ("RUNNING", "FAILED"):
            condition = f"attributes.status = '{state}' AND {children}"
            if self.client.search_runs([experiment], condition, max_results=1):
                status = state.lower()
                break
        cell = self._cell(experiment, key)
        parent = cell.info.run_id
        self.client.set_tag(parent, "bench.n", str(int(cell.data.tags["bench.n"]) + more))
        self.client.set_tag(parent, "bench.status", status)
        if status != "running":
            self.client.set_terminated(parent, status.upper())


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


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True
