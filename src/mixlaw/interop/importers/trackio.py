"""Trackio: the SQLite file of a project, or its copy in Parquet."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.errors import MissingExtraError, RunTableError
from mixlaw.interop.curves import Curves, number
from mixlaw.interop.logged import LoggedRun, flatten
from mixlaw.interop.sqlite import columns, holds, is_sqlite, reading

METRICS = {"run_name", "step", "metrics"}
"""Columns of the table of metrics, in every version of the files."""
TABLE = {"id", "run_id", "run_name", "timestamp", "step", "created_at", "log_id", "space_id"}
"""Columns of the tables that are none of the user's."""


class Trackio:
    """Runs by their ids; before Trackio 0.24, and in files not opened by it since, by their names.

    Fields are "config.<...>" and "summary.<...>", the last value of every metric.
    """

    name: ClassVar[str] = "trackio"
    what: ClassVar[str] = "Trackio: <project>.db or <project>.parquet, or a folder of these"
    checked: ClassVar[str] = "files of SQLite and of Parquet written by trackio 0.43.0"

    def recognises(self, sources: Sequence[str]) -> bool:
        places = [_files(Path(source)) for source in sources]
        return bool(places) and all(
            files and all(_beside(f).is_file() or holds(f, "metrics", METRICS) for f in files)
            for files in places
        )

    def files(self, sources: Sequence[str]) -> list[Path]:
        return [path for source in sources for path in _files(Path(source))]

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """As of `mixlaw.interop.logged.Importer`."""
        for source in sources:
            if not (files := _files(Path(source))):
                raise RunTableError(
                    f"no project of Trackio at {source}; name its <project>.db, which is in "
                    "~/.cache/huggingface/trackio, or in TRACKIO_DIR"
                )
            for path in files:
                of = _of_database if is_sqlite(path) else _of_parquet
                yield from of(path, names)


def _files(source: Path) -> list[Path]:
    """The files of projects that a source means: of SQLite, else of Parquet."""
    found = sorted(source.glob("*.db")) if source.is_dir() else [source]
    if databases := [path for path in found if is_sqlite(path)]:
        return databases
    found = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    return [path for path in found if _beside(path).is_file()]


def _beside(path: Path) -> Path:
    """Where the settings are that belong to metrics in Parquet."""
    if path.name == "metrics.parquet":
        return path.parent / "aux" / "configs.parquet"
    return path.with_name(f"{path.stem}_configs.parquet")


def _of_database(path: Path, names: Collection[str] | None) -> Iterator[LoggedRun]:
    with reading(path) as connection:
        if missing := METRICS - columns(connection, "metrics"):
            raise RunTableError(
                f"{path} is no project of Trackio: its table of metrics has no "
                f"{', '.join(sorted(missing))}; say of which kind it is with --kind"
            )
        key = "run_id" if "run_id" in columns(connection, "metrics") else "run_name"
        settings = _settings(connection, path, key)
        found = f"SELECT {key}, max(run_name) FROM metrics GROUP BY {key} ORDER BY min(id)"
        runs = dict.fromkeys(settings) | dict(connection.execute(found).fetchall())
        for run, name in runs.items():
            if not isinstance(run, str):
                raise RunTableError(f"{path} is damaged: a run is called {run!r}")
            made = _Run(names)
            rows = f"SELECT id, step, metrics FROM metrics WHERE {key} = ? ORDER BY id"
            for row, step, said in connection.execute(rows, [run]):
                if number(step) is None:
                    raise RunTableError(f"{path}, metrics, row {row}: {step!r} is no step")
                made.add(step, _mapping(said, f"{path}, metrics, row {row}"))
            yield made.logged(run, name, settings.get(run, {}), path)


def _of_parquet(path: Path, names: Collection[str] | None) -> Iterator[LoggedRun]:
    """Metrics and settings are columns here, beside those of the tables."""
    made: defaultdict[tuple[str, str], _Run] = defaultdict(lambda: _Run(names))
    for row in _rows(path):
        made[_owner(row)].add(row["step"], _without(row, TABLE))
    settings = {_owner(row): _without(row, TABLE) for row in _rows(_beside(path))}
    for run, name in dict.fromkeys([*made, *settings]):
        config = settings.get((run, name), {})
        yield made[run, name].logged(run, name, config, path)


class _Run:
    """The metrics of one run, as its rows are read."""

    def __init__(self, names: Collection[str] | None):
        self.last, self.curves = Curves(None), Curves(names)

    def add(self, step: int, logged: Mapping[str, Any]) -> None:
        for metric, value in _numbers(logged):
            self.last.add(metric, step, value)
            if self.curves.wants(metric):
                self.curves.add(metric, step, value)

    def logged(
        self, run: str, name: str | None, config: Mapping[str, Any], path: Path
    ) -> LoggedRun:
        final = {key: float(series.values[-1]) for key, series in self.last.series().items()}
        own = {key: value for key, value in config.items() if not key.startswith("_")}
        return LoggedRun(
            run=run,
            name=name or run,
            fields=flatten(own, "config.") | {f"summary.{k}": value for k, value in final.items()},
            series=self.curves.series(),
            ends=self.last.ends,
            origin=f"{path}, run {name or run}",
            notes=self.curves.notes(),
        )


def _settings(connection: sqlite3.Connection, path: Path, key: str) -> dict[str, Mapping[str, Any]]:
    """Run -> its settings; none in files from before Trackio kept them."""
    if key not in columns(connection, "configs"):
        return {}
    return {
        run: _mapping(said, f"{path}, configs, {run}")
        for run, said in connection.execute(f"SELECT {key}, config FROM configs ORDER BY id")
    }


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, some at a time. Raises: RunTableError. MissingExtraError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RunTableError(f"cannot read {path}: {error}") from error


def _owner(row: Mapping[str, Any]) -> tuple[str, str]:
    return row.get("run_id") or row["run_name"], row["run_name"]


def _without(row: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names and value is not None}


def _mapping(said: str | bytes, place: str) -> Mapping[str, Any]:
    """What a cell of JSON holds. Raises: RunTableError."""
    try:
        found = json.loads(said)
    except (TypeError, ValueError, RecursionError) as error:
        raise RunTableError(f"{place}: no JSON: {error}") from error
    return found if isinstance(found, Mapping) else {}


def _numbers(logged: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The metrics among what was logged; images, tables and histograms say what they are."""
    for name, value in logged.items():
        if isinstance(value, Mapping):
            if "_type" not in value:
                yield from _numbers(value, f"{prefix}{name}.")
        elif (found := number(value)) is not None:
            yield f"{prefix}{name}", found
