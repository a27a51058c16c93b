"""MLflow: one MLflow run per run, in an experiment named after the study."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mixlaw.errors import MissingExtraError
from mixlaw.launch.tracking.base import EVENTS, Event, Point, describe, run_name, series_of
from mixlaw.runs import DONE, RunResult, RunSpec

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

RUN_ID, EVENT = "mixlaw.run_id", "mixlaw.event."
MOST_METRICS, MOST_OTHERS = 1000, 100
"""What a server takes in one request: metrics; parameters or tags."""


class MLflow:
    """Curves over tokens, which are MLflow's "step".

    MLFLOW_TRACKING_URI says where, else a SQLite file in the folder. What was logged is in the
    database before the call returns, a point with all its values or none.
    """

    def __init__(self, folder: Path, project: str):
        """Raises: MissingExtraError."""
        try:
            import mlflow.tracking  # noqa: F401
            import sqlalchemy  # noqa: F401
        except ImportError:
            raise MissingExtraError("mlflow", "mlflow") from None
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self.folder, self.experiment = folder, os.environ.get("MLFLOW_EXPERIMENT_NAME") or project
        self.destination = f"mlflow {self.uri} {self.experiment}"
        self._runs: dict[str, str] = {}

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow.tracking import MlflowClient

        self.folder.mkdir(parents=True, exist_ok=True)
        return MlflowClient(self.uri)

    @cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else self._client.create_experiment(self.experiment)

    def begin(self, spec: RunSpec) -> Mapping[str, int]:
        from mlflow.entities import Param

        query = f"tags.`{RUN_ID}` = '{spec.run_id}'"
        found = self._client.search_runs([self._experiment_id], query, max_results=1)
        run = found[0] if found else self._create(spec)
        run_id = self._runs[spec.run_id] = run.info.run_id
        self._client.update_run(run_id, status="RUNNING")
        params = [Param(_allowed(key), str(value)) for key, value in describe(spec).items()]
        for few in _parts(params, MOST_OTHERS):
            self._client.log_batch(run_id, params=few)
        held = {}
        for tag in {series_of(tag): tag for tag in run.data.metrics}.values():
            history = self._client.get_metric_history(run_id, tag)
            held[series_of(tag)] = max(metric.step for metric in history)
        return held | {EVENTS: sum(tag.startswith(EVENT) for tag in run.data.tags)}

    def _create(self, spec: RunSpec) -> Run:
        tags = {RUN_ID: spec.run_id}
        return self._client.create_run(self._experiment_id, run_name=run_name(spec), tags=tags)

    def log(self, spec: RunSpec, points: Sequence[Point], events: Sequence[Event]) -> None:
        from mlflow.entities import Metric, RunTag

        run_id, now = self._runs[spec.run_id], round(time.time() * 1000)
        most = max((len(point.values) for point in points), default=1)
        for few in _parts(points, max(MOST_METRICS // most, 1)):
            metrics = [
                Metric(_allowed(tag), value, now, point.tokens)
                for point in few
                for tag, value in point.values.items()
            ]
            self._client.log_batch(run_id, metrics=metrics)
        tags = [RunTag(f"{EVENT}{event.number:04d}", event.text) for event in events]
        for few in _parts(tags, MOST_OTHERS):
            self._client.log_batch(run_id, tags=few)

    def finish(self, spec: RunSpec, result: RunResult) -> None:
        status = "FINISHED" if result.status == DONE else "FAILED"
        self._client.set_terminated(self._runs.pop(spec.run_id), status)

    def close(self) -> None:
        self._runs.clear()


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _allowed(name: str) -> str:
    """MLflow takes no other characters in names; domains may have them ("c++")."""
    return re.sub(r"[^\w\-. :/]", "_", name)
