"""MLflow: its SQLite file, and its older folder mlruns/."""

from __future__ import annotations

import ast
import contextlib
import math
import sqlite3
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.errors import RunTableError
from mixlaw.files import parse_yaml
from mixlaw.interop.curves import Curves
from mixlaw.interop.logged import LoggedRun, flatten
from mixlaw.interop.sqlite import columns, holds, is_sqlite, reading
from mixlaw.runs import DONE, FAILED

ADDRESS = "sqlite:///"
DATABASE, META = "mlflow.db", "meta.yaml"
TABLES = ("experiments", "runs", "params", "tags", "metrics", "latest_metrics")
ENDED = ("FINISHED", "FAILED")
STATUS = ("", "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
"""By their numbers in a folder's files."""


class MlFlow:
    """Runs that are not deleted, of experiments that are not.

    Fields are "config.<param>" (texts, as MLflow keeps them; those that are mappings are opened),
    "tags.<tag>" (MLflow's own left out), "summary.<metric>" and "experiment".
    """

    name: ClassVar[str] = "mlflow"
    what: ClassVar[str] = "MLflow: a SQLite file (mlflow.db), a folder with one, or mlruns/"
    checked: ClassVar[str] = "files and folders written by mlflow-skinny 3.17.2"

    def recognises(self, sources: Sequence[str]) -> bool:
        return bool(sources) and all(_is_ours(_place(source)) for source in sources)

    def files(self, sources: Sequence[str]) -> list[Path]:
        """Without the artifacts of runs, which may be large."""
        places = [place for source in sources if (place := _place(source)) is not None]
        found = [path for p in places for path in (sorted(p.rglob("*")) if p.is_dir() else [p])]
        return [path for path in found if path.is_file() and "artifacts" not in path.parts]

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """As of `mixlaw.interop.logged.Importer`."""
        for source in sources:
            if (place := _place(source)) is None:
                raise RunTableError(
                    f"no runs of MLflow at {source}; name its SQLite file, the folder that holds "
                    f"{DATABASE}, or mlruns/ (of a server: the file behind it)"
                )
            yield from (_of_folder if place.is_dir() else _of_database)(place, names)


def _place(source: str) -> Path | None:
    """The file or folder that a source means; None for what is none of MLflow's."""
    path = Path(source.removeprefix(ADDRESS))
    if path.is_dir():
        if is_sqlite(path / DATABASE):
            return path / DATABASE
        return next((p for p in (path, path / "mlruns") if any(p.glob(f"*/{META}"))), None)
    return path if is_sqlite(path) else None


def _is_ours(place: Path | None) -> bool:
    if place is None or place.is_dir():
        return place is not None
    # By its name where a writer has locked it.
    return place.name == DATABASE or holds(place, "latest_metrics", ["run_uuid"])


def _of_database(path: Path, names: Collection[str] | None) -> Iterator[LoggedRun]:
    with reading(path) as connection:
        if missing := [table for table in TABLES if not columns(connection, table)]:
            raise RunTableError(
                f"{path} is no file of MLflow: it has no table {', '.join(missing)}; "
                "say of which kind it is with --kind"
            )
        runs = connection.execute(
            "SELECT run_uuid, runs.name, status, experiments.name FROM runs "
            "JOIN experiments USING (experiment_id) WHERE runs.lifecycle_stage = 'active' "
            "AND experiments.lifecycle_stage = 'active' ORDER BY start_time, run_uuid"
        )
        for run, name, status, experiment in runs.fetchall():
            read = _Rows(connection, run)
            last = list(read.metrics("latest_metrics", None))
            curves = Curves(names)
            for point in last if names is None else read.metrics("metrics", names):
                curves.add(*point)
            _reach(curves, last)
            yield _logged(
                LoggedRun(run, name, {"experiment": experiment}, origin=f"{path}, run {run}"),
                status=status,
                params=dict(read.pairs("params")),
                tags=dict(read.pairs("tags")),
                final={metric: value for metric, _, value in last},
                curves=curves,
            )


class _Rows:
    """What the tables have of one run."""

    def __init__(self, connection: sqlite3.Connection, run: str):
        self._connection, self._run = connection, run

    def pairs(self, table: str) -> Iterator[tuple[str, str]]:
        query = f"SELECT key, value FROM {table} WHERE run_uuid = ?"
        return self._connection.execute(query, [self._run])

    def metrics(
        self, table: str, names: Collection[str] | None
    ) -> Iterator[tuple[str, int, float]]:
        """Name, step and value, in the order of logging; of these names only, None: of all."""
        query = f"SELECT key, step, value, is_nan FROM {table} WHERE run_uuid = ?"
        if names is not None:
            # The plus: else SQLite takes an index that begins with the key, and reads all runs.
            query += f" AND +key IN ({', '.join('?' * len(names))})"
        rows = self._connection.execute(
            f"{query} ORDER BY timestamp, step", [self._run, *(names or ())]
        )
        return ((name, step, _value(value, is_nan)) for name, step, value, is_nan in rows)


def _value(value: float, is_nan: int) -> float:
    """As it was logged: the tables have 0 and a mark for NaN, the largest number for infinity."""
    if is_nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _of_folder(folder: Path, names: Collection[str] | None) -> Iterator[LoggedRun]:
    """Source: mlflow/store/tracking/file_store.py."""
    for place in sorted(folder.glob(f"*/{META}")):
        experiment = _meta(place)
        for path in sorted(place.parent.glob(f"*/{META}")):
            meta, run = _meta(path), path.parent
            if "deleted" in (meta.get("lifecycle_stage"), experiment.get("lifecycle_stage")):
                continue
            curves, last = Curves(names), Curves(None)
            for point in _points(run / "metrics"):
                last.add(*point)
                _reach(curves, [point])
                if curves.wants(point[0]):
                    curves.add(*point)
            fields = {"experiment": experiment.get("name", "")}
            yield _logged(
                LoggedRun(run.name, meta.get("run_name") or "", fields, origin=str(run)),
                status=_status(meta),
                params=dict(_texts(run / "params")),
                tags=dict(_texts(run / "tags")),
                final={metric: float(s.values[-1]) for metric, s in last.series().items()},
                curves=curves,
            )


def _points(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Name, step and value, from files with a line for each point."""
    for name, lines in _texts(folder):
        for number, line in enumerate(lines.splitlines(), start=1):
            try:
                _, value, step, *_ = line.split()
                yield name, int(step), float(value)
            except ValueError:
                raise RunTableError(
                    f"{folder / name}, line {number}: {line!r} is not <time> <value> <step>"
                ) from None


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Files below a folder; a name with slashes is a folder in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise RunTableError(f"cannot read {path}: {error}") from error


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta = parse_yaml(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunTableError(f"cannot read {path}: {error}") from error
    return meta if isinstance(meta, dict) else {}


def _status(meta: Mapping[str, Any]) -> str:
    """By its number, or its name."""
    said = meta.get("status")
    return STATUS[said] if isinstance(said, int) and said < len(STATUS) else str(said)


def _reach(curves: Curves, points: Iterable[tuple[str, int, float]]) -> None:
    """Tell of all that was logged, but for what MLflow measures of the machine, at its own pace."""
    for name, step, _ in points:
        if not name.startswith("system/"):
            curves.reach(step)


def _logged(
    run: LoggedRun,
    *,
    status: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    final: Mapping[str, float],
    curves: Curves,
) -> LoggedRun:
    """A run with all that there is of it."""
    settings = flatten({key: _opened(value) for key, value in params.items()}, "config.")
    marks = {f"tags.{k}": v for k, v in tags.items() if not k.startswith("mlflow.")}
    summary = {f"summary.{metric}": value for metric, value in final.items()}
    ended = () if status in ENDED else (f"its status is {status}",)
    return replace(
        run,
        name=run.name or tags.get("mlflow.runName") or run.run,
        fields={**run.fields, **settings, **marks, **summary},
        series=curves.series(),
        status=FAILED if status == "FAILED" else DONE,
        ended=status == "FINISHED",
        ends=curves.ends,
        notes=[*ended, *curves.notes()],
    )


def _opened(param: str) -> Any:
    """A nested setting is kept as Python shows it: "{'web': 0.7}"; JSON is left to `flatten`."""
    if param.startswith("{"):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return ast.literal_eval(param)
    return param
