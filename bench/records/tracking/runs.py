"""The runs of one study in MLflow: found by their tags, made, filled and removed.

Nothing here is locked or caught; `bench.records.tracking.tracker` does that.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.records.record import Record
from bench.records.tracking import shown
from bench.records.tracking.shown import Cell, Inputs

BATCH = 900  # metrics in one request; MLflow takes 1,000
Place = tuple[str, str]
"""Where a parent is: the dataset and the key of its records."""


def place(record: Record) -> Place:
    """Where the parent of a record's child is."""
    return record.labels.get("data", "other"), record.cell


class StudyRuns:
    """The runs of one study.

    Args:
        client: MLflow's client.
        study: The first part of the names of experiments.
        artifacts: Address of the folder of artifacts; None: the server knows.
    """

    def __init__(self, client: Any, study: str, artifacts: str | None) -> None:
        self.client, self.study, self.artifacts = client, study, artifacts
        self._experiments: dict[str, str] = {}
        self._inputs: dict[str, Inputs] = {}  # by dataset, of this process

    def experiment(self, data: str) -> str:
        """The id of the experiment of a dataset, which is made if it does not exist."""
        name = f"{self.study}/{data}"
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                # its page opens with the runs then, not with traces of language models
                kind = {"mlflow.experimentKind": "custom_model_development"}
                made = self.client.create_experiment(name, self.artifacts, kind)
                self._experiments[name] = made
            else:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def experiments(self) -> dict[str, str]:
        """The experiments of the study: dataset by id."""
        start = f"{self.study}/"
        found = self.client.search_experiments(max_results=1000)
        return {
            each.experiment_id: each.name.removeprefix(start)
            for each in found
            if each.name.startswith(start)
        }

    def find(self, experiments: Collection[str], condition: str) -> list[Any]:
        """All runs of some experiments that meet a condition."""
        found: list[Any] = []
        token = None
        while experiments:
            page = self.client.search_runs(
                list(experiments), condition, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    def seed(self, experiment: str, name: str) -> Any:
        """The child of a record's name, or None."""
        return next(iter(self.find([experiment], f"tags.`bench.name` = '{name}'")), None)

    def parents(self, experiment: str, key: str) -> list[Any]:
        """The parents of a key, newest first: one, unless a process ended while it replaced it."""
        condition = f"tags.`bench.key` = '{key}' AND tags.`bench.kind` = 'cell'"
        return self.find([experiment], condition)

    def children(self, experiment: str, key: str) -> list[Any]:
        """The children below the parent of a key."""
        condition = f"tags.`bench.cell` = '{key}' AND tags.`bench.kind` = 'seed'"
        return self.find([experiment], condition)

    def open_parent(self, experiment: str, record: Record) -> str:
        """The id of the parent of a record's child, which is running from now on."""
        found = self.parents(experiment, record.cell)
        if not found:
            return self.create_parent(experiment, record)
        run: str = found[0].info.run_id
        if found[0].info.status != "RUNNING":
            self.client.update_run(run, status="RUNNING")
            self.write(run, (), {"bench.status": "running", **_owner()})
        return run

    def create_parent(self, experiment: str, record: Record) -> str:
        """Make the running parent of a record's child; returns its id."""
        tags = {
            "bench.record_kind": record.kind,
            "bench.key": record.cell,
            "bench.kind": "cell",
            "bench.status": "running",
            "bench.n": "0",
            **_owner(),
            **shown.label_tags(record),
            **shown.source_tags(record),
        }
        name = shown.parent_title(record)
        run: str = self.client.create_run(experiment, tags=tags, run_name=name).info.run_id
        self._set_params(run, shown.parent_params(record))
        return run

    def create(self, experiment: str, record: Record, parent: str) -> str:
        """Make a running child; returns its id."""
        tags = {
            "bench.record_kind": record.kind,
            "bench.key": record.key,
            "bench.cell": record.cell,
            "bench.kind": "seed",
            "bench.name": record.name,
            "bench.seed": str(record.seed),
            "mlflow.parentRunId": parent,
            **_owner(),
            **shown.label_tags(record),
            **shown.source_tags(record),
        }
        name = f"{shown.title(record)} seed {record.seed}"
        run: str = self.client.create_run(experiment, tags=tags, run_name=name).info.run_id
        self._set_params(run, shown.params(record))
        return run

    def drop(self, run: Any) -> None:
        """Remove a run and its networks from the page; `mlflow gc` deletes them for good."""
        if run.info.status == "RUNNING":
            self.client.set_terminated(run.info.run_id, "KILLED")
        outputs = self.client.get_run(run.info.run_id).outputs
        for output in outputs.model_outputs if outputs else []:
            self.client.delete_logged_model(output.model_id)
        self.client.delete_run(run.info.run_id)

    def write(
        self, run: str, metrics: Iterable[tuple[str, float, int]], tags: Mapping[str, str]
    ) -> None:
        """Write metrics (name, value, step) and tags."""
        from mlflow.entities import Metric, RunTag

        moment = int(1000 * time.time())
        entries = [Metric(name, value, moment, step) for name, value, step in metrics]
        texts = [RunTag(name, value) for name, value in tags.items()]
        for start in range(0, max(len(entries), 1), BATCH):
            part = entries[start : start + BATCH]
            self.client.log_batch(run, part, tags=texts if start == 0 else ())

    def write_cell(self, run: str, cell: Cell) -> None:
        """Let a parent show its records."""
        metrics = [(name, value, 0) for name, value in cell.metrics.items()]
        metrics += shown.curve_metrics(cell.curve())
        self.write(run, metrics, {"mlflow.note.content": cell.note} if cell.note else {})
        self.write_files(run, shown.cell_files(cell))
        if cell.first.kind == "run":
            self.log_dataset(run, cell.first, self._inputs.get(place(cell.first)[0]))

    def write_files(self, run: str, files: Mapping[str, str | bytes]) -> None:
        """Write artifacts from their contents by name."""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                Path(folder, name).write_bytes(data)
            self.client.log_artifacts(run, folder)

    def log_dataset(self, run: str, record: Record, inputs: Inputs | None) -> None:
        """Log the dataset of a training as an input of its run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        name = place(record)[0]
        if inputs:
            self._inputs[name] = inputs
        content = inputs.digest if inputs else record.job.get("digest")
        profile = {"images": inputs.images, "classes": inputs.classes} if inputs else {}
        dataset = Dataset(
            name=name[:500],
            digest=str(content or hashlib.sha256(name.encode()).hexdigest())[:36],
            source_type="bench",
            source=json.dumps({"name": name}),
            profile=json.dumps(profile),
        )
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(run, [DatasetInput(dataset, [context])])

    def log_model(
        self, run: str, record: Record, inputs: Inputs, weights: str, copied: Path | None, step: int
    ) -> None:
        """Log a trained network as MLflow's model: its signature, and its weights if wanted.

        Args:
            run: The id of the child.
            record: The record of the training.
            inputs: The dataset.
            weights: Where the weights lie.
            copied: File of the weights that is copied; None: the model only names it.
            step: The last epoch.
        """
        import numpy as np
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, ModelSignature
        from mlflow.types.schema import Schema, TensorSpec

        network = record.labels["model"]
        experiment = self.client.get_run(run).info.experiment_id
        model = self.client.create_logged_model(
            experiment,
            name=shown.model_name(record),
            source_run_id=run,
            tags={"bench.weights": weights},
            params={"model": network, "classes": str(inputs.classes)},
            model_type="image classifier",
        )
        kind = np.dtype("float32")
        signature = ModelSignature(
            Schema([TensorSpec(kind, (-1, *inputs.shape), name="images in [0, 1]")]),
            Schema([TensorSpec(kind, (-1, inputs.classes), name="logits")]),
        )
        described = Model(run_id=run, signature=signature, model_id=model.model_id)
        described.add_flavor("bench", model=network, weights=weights)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            described.save(str(Path(folder, "MLmodel")))
            self.client.log_model_artifacts(model.model_id, folder)
        if copied:
            self.client.log_model_artifact(model.model_id, str(copied))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run, [LoggedModelOutput(model.model_id, step)])

    def _set_params(self, run: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(name, value) for name, value in params.items()]
        for start in range(0, len(entries), 100):
            self.client.log_batch(run, params=entries[start : start + 100])


def is_live(run: Any) -> bool:
    """Whether a run is running, as far as this machine can tell."""
    if run.info.status != "RUNNING":
        return False
    tags = run.data.tags
    return tags.get("bench.host") != socket.gethostname() or _alive(tags.get("bench.pid", ""))


def _owner() -> dict[str, str]:
    return {"bench.pid": str(os.getpid()), "bench.host": socket.gethostname()}


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True
