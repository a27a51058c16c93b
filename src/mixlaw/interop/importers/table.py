"""Tables of runs in files: CSV, JSON lines, Parquet; a row per run or checkpoint, or per number."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mixlaw.errors import MissingExtraError, RunTableError
from mixlaw.interop.frame import Frame, joined, packed
from mixlaw.interop.logged import LoggedRun, flatten
from mixlaw.interop.pivot import widened
from mixlaw.interop.roles import names_runs

_DELIMITED, _LINES, _PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".parquet", ".pq")
_DELIMITERS = ",;\t|"
_CHUNK = 1 << 15
"""Rows that are held as text at a time."""


class Table:
    """CSV (also with semicolons or tabs), JSON lines, Parquet. Several files are one table."""

    name: ClassVar[str] = "table"
    what: ClassVar[str] = "a table of runs: CSV, JSONL or Parquet, wide or long"
    checked: ClassVar[str] = "files written by csv, json, pandas 2 and pyarrow, and by hand"

    def recognises(self, sources: Sequence[str]) -> bool:
        """By the ends of their names."""
        known = (*_DELIMITED, *_LINES, *_PARQUET)
        return bool(sources) and all(Path(s).suffix.lower() in known for s in sources)

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """Each row as a run of its own, whose cells are fields; a table has no series."""
        frame = self.frame(sources)
        for i in range(len(frame)):
            fields = {
                name: cell
                for name, cells in frame.columns.items()
                if (cell := cells[i]) is not None and cell == cell
            }
            yield LoggedRun(
                frame.run[i], frame.name[i], fields, {}, frame.status[i], origin=frame.place(i)
            )

    def files(self, sources: Sequence[str]) -> list[Path]:
        return [Path(source) for source in sources]

    def frame(self, sources: Sequence[str]) -> Frame:
        """All rows as columns, wide.

        Raises: RunTableError: a file that cannot be read, by line; or a column that is given twice.
            MissingExtraError: Parquet without pyarrow.
        """
        tables = [(str(source), columns_of(Path(source))) for source in sources]
        if empty := [name for name, columns in tables if not columns]:
            raise RunTableError(f"{empty[0]}: there is no row; is it a table of runs?")
        columns, rows = _below(tables)
        starts = np.cumsum([0, *rows])

        def place(i: int) -> str:
            k = int(np.searchsorted(starts, i, side="right")) - 1
            return f"{tables[k][0]}, row {i - int(starts[k]) + 1}"

        return widened(Frame.of_table(columns, place))


def columns_of(path: Path) -> dict[str, np.ndarray]:
    """Name -> column of one file. Raises: as `Table.frame`."""
    suffix = path.suffix.lower()
    try:
        if suffix in _PARQUET:
            return _parquet(path)
        if suffix in _LINES:
            return _json_lines(path)
        if suffix in _DELIMITED:
            return _delimited(path)
    except (OSError, UnicodeError, csv.Error) as error:
        what = "it is not UTF-8; save it as UTF-8" if isinstance(error, UnicodeError) else error
        raise RunTableError(f"could not read the table {path}: {what}") from error
    raise RunTableError(
        f"{path}: unknown kind {suffix!r} of a table; use "
        f"{', '.join((*_DELIMITED, *_LINES, *_PARQUET))}"
    )


def _below(tables: Sequence[tuple[str, dict[str, np.ndarray]]]) -> tuple[dict, list[int]]:
    """Tables one below the other, and how many rows each has; cells of a column that a table has
    not are empty."""
    sizes = [len(next(iter(columns.values()), ())) for _, columns in tables]
    names = dict.fromkeys(name for _, columns in tables for name in columns)
    out = {}
    for name in names:
        parts = [c.get(name, np.full(k, np.nan)) for (_, c), k in zip(tables, sizes, strict=True)]
        out[name] = joined(parts) if len(parts) > 1 else parts[0]
    return out, sizes


def _delimited(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as raw:
        encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with open(path, newline="", encoding=encoding) as handle:
        head = handle.readline()
        handle.seek(0)
        delimiter = max(_DELIMITERS, key=_unquoted(head).count)
        reader = csv.reader(handle, delimiter=delimiter, strict=True)
        header = next(reader, [])
        parts: list[list[np.ndarray]] = [[] for _ in header]
        # Where the comma does not part the cells, it may be the decimal one.
        comma = delimiter != ","
        for rows in _chunks(reader, path, len(header)):
            for name, part, cells in zip(header, parts, zip(*rows, strict=True), strict=True):
                part.append(packed(cells, decimal_comma=comma, as_text=names_runs(name)))
    if not header or not parts[0]:
        raise RunTableError(f"{path}: there is no row below the header; is it a table of runs?")
    columns = [joined(part) for part in parts]
    return _named(path, header, columns)


def _chunks(reader: Iterator[list[str]], path: Path, width: int) -> Iterator[list[list[str]]]:
    """Rows, some at a time; empty ones are passed over.

    Raises: RunTableError: one with more or fewer cells than the header.
    """
    rows: list[list[str]] = []
    for number, row in enumerate(_said_where(reader), start=1):
        if len(row) != width:
            if not any(row):
                continue
            wrong = "more" if len(row) > width else "fewer"
            raise RunTableError(
                f"{path}, row {number}: it has {len(row)} cells, {wrong} than the header's "
                f"{width}; is the file cut short, or a comma not quoted? Leave cells that were not "
                "measured empty"
            )
        if any(row):
            rows.append(row)
        if len(rows) == _CHUNK:
            yield rows
            rows = []
    if rows:
        yield rows


def _said_where(reader: Any) -> Iterator[list[str]]:
    """Rows of a CSV reader. Raises: csv.Error: with its line."""
    try:
        yield from reader
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from error


def _named(
    path: Path, header: Sequence[str], columns: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Columns by their names; the first may have none, as the index that pandas writes.

    Raises: RunTableError: a name that is given twice, or a column with cells and no name.
    """
    out: dict[str, np.ndarray] = {}
    for i, (name, cells) in enumerate(zip(header, columns, strict=True)):
        name = name.strip()
        if not name or (i == 0 and name == "Unnamed: 0"):
            if cells.dtype != object and np.isnan(cells).all():
                continue
            name = "index"
            if i > 0 or name in header:
                raise RunTableError(f"{path}: column {i + 1} has no name; name it, or remove it")
        if name in out:
            raise RunTableError(f"{path}: the column {name!r} is given twice; keep one")
        out[name] = cells
    return out


def _json_lines(path: Path) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    rows: list[Mapping[str, Any]] = []
    done = 0

    def take() -> None:
        nonlocal done
        names = dict.fromkeys(name for row in rows for name in row)
        for name in {**dict.fromkeys(parts), **names}:
            before = parts.setdefault(name, [np.full(done, np.nan)] if done else [])
            cells = [row.get(name) for row in rows]
            before.append(packed(cells, as_text=names_runs(name)))
        done += len(rows)
        rows.clear()

    with open(path, encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, Mapping):
                    raise RunTableError(f"{path}, line {number}: it must be a JSON object")
                rows.append(flatten(row))
            except RunTableError:
                raise
            except (ValueError, RecursionError) as error:
                raise RunTableError(f"{path}, line {number}: no JSON ({error})") from error
            if len(rows) == _CHUNK:
                take()
    take()
    if not done:
        raise RunTableError(f"{path}: there is no row; is it a table of runs?")
    return {name: joined(part) for name, part in parts.items()}


def _parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    try:
        return arrow_columns(parquet.read_table(path))
    except pyarrow.ArrowException as error:
        raise RunTableError(f"could not read the table {path}: {error}") from error


def arrow_columns(table: Any) -> dict[str, np.ndarray]:
    """Name -> column of an Arrow table; nested ones flat, with dots.

    Raises: RunTableError: a column that is given twice.
    """
    while any(str(kind).startswith("struct<") for kind in table.schema.types):
        table = table.flatten()
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RunTableError(f"the columns {twice} are given twice; keep one of each")
    out = {}
    for name in names:
        column, kind = table.column(name), str(table.schema.field(name).type)
        plain = kind in ("double", "float", "int64", "int32", "int16", "int8", "uint8", "uint16")
        if plain and (kind in ("double", "float") or not column.null_count):
            cells = column.to_numpy()
            out[name] = cells.astype(np.int64 if cells.dtype.kind in "iu" else float)
            continue
        cells = column.to_pylist()
        if kind.startswith("map<"):
            cells = [cell if cell is None else dict(cell) for cell in cells]
        out[name] = packed(cells, as_text=names_runs(name))
    return out


def _unquoted(text: str) -> str:
    return "".join(text.split('"')[::2])
