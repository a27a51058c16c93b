"""Runs from wherever they lie to a table of runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.assemble import Planned, assemble
from mixlaw.interop.columns import Columns
from mixlaw.interop.frame import Frame, packed
from mixlaw.interop.guess import Hints, guess
from mixlaw.interop.importers import importer, recognise
from mixlaw.interop.importers.table import Table, arrow_columns
from mixlaw.interop.pivot import widened
from mixlaw.interop.roles import names_runs
from mixlaw.interop.targets import bare, run_parts
from mixlaw.runs import RunTable

_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class Imported:
    """Runs that were read, and how.

    Attributes:
        table: of runs.
        columns: what was read from where.
        kind: of the sources, by the name of their importer; "frame" of an object in memory.
        sources: as given.
        notes: what is not as the sources have it.
        inputs: file -> sha256 of what was in it.
        ignored: columns that were read as nothing.
    """

    table: RunTable
    columns: Columns
    kind: str
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    inputs: Mapping[str, str]
    ignored: tuple[str, ...] = ()

    def meanings(self) -> list[tuple[str, str]]:
        """(column, what it was read as); "" for those that were ignored."""
        return [*self.columns.meanings(), *((name, "") for name in self.ignored)]


def import_runs(
    sources: Sequence[str | Path],
    *,
    kind: str | None = None,
    columns: Columns | None = None,
    hints: Hints | None = None,
    planned: Planned | None = None,
) -> Imported:
    """Runs from files, folders or addresses.

    Args:
        kind: of the sources; None: by their looks.
        columns: what means what; None: guessed, with the hints.
        hints: what the user says of the columns; without effect where `columns` are given.
        planned: run name -> cells (weight/<domain>, num_params, train_tokens, seed) of runs whose
            configs mixlaw wrote; see `assemble`.
    Raises: RunTableError: what cannot be read, understood or trusted. MissingExtraError.
    """
    places = [sources] if isinstance(sources, str | Path) else sources
    names = tuple(map(str, places))
    if not names:
        raise RunTableError("no source is named; name a file, a folder or an address")
    reader = recognise(names) if kind is None else importer(kind)
    if isinstance(reader, Table):
        frame = reader.frame(names)
        columns = columns or guess(frame, hints, planned=bool(planned))
        table, notes = assemble(frame, columns, planned=planned)
    else:
        frame = Frame.of_runs(reader.read(names))
        columns = columns or guess(frame, hints, planned=bool(planned))
        runs = reader.read(names, names=_series(columns))
        table, notes = assemble(runs, columns, planned=planned)
    inputs = {str(path): _digest(path) for path in reader.files(names)}
    return Imported(table, columns, reader.name, names, notes, inputs, _ignored(frame, columns))


def from_frame(
    frame: Any,
    *,
    columns: Columns | None = None,
    hints: Hints | None = None,
    planned: Planned | None = None,
) -> Imported:
    """Runs from a pandas or polars frame, an Arrow table, a mapping of columns, or mappings of
    cells, one a row.

    Args: as of `import_runs`.
    Raises: RunTableError: what is none of these, or cannot be understood or trusted.
    """
    wide = widened(Frame.of_table(_columns_of(frame), "the frame"))
    columns = columns or guess(wide, hints, planned=bool(planned))
    table, notes = assemble(wide, columns, planned=planned)
    return Imported(table, columns, "frame", (), notes, {}, _ignored(wide, columns))


def _columns_of(frame: Any) -> dict[str, np.ndarray]:
    """By what the object can do: no data-frame library is imported for it."""
    if hasattr(frame, "collect") and not hasattr(frame, "to_dicts"):
        frame = frame.collect()  # polars, lazy
    if hasattr(frame, "column_names") and hasattr(frame, "schema"):
        return arrow_columns(frame)
    if hasattr(frame, "reset_index") and hasattr(frame, "columns"):
        names = [name for name in frame.index.names if name is not None]
        frame = frame.reset_index() if names else frame
        return _checked([(c, frame[c].tolist()) for c in _once(frame.columns)])
    if hasattr(frame, "to_dicts"):
        return _checked([(c, frame[c].to_list()) for c in frame.columns])
    if isinstance(frame, Mapping) and all(map(_is_column, frame.values())):
        return _checked([(name, list(cells)) for name, cells in frame.items()])
    if _is_column(frame):
        rows = list(frame)
        if all(isinstance(row, Mapping) for row in rows):
            names = dict.fromkeys(name for row in rows for name in row)
            return _checked([(name, [row.get(name) for row in rows]) for name in names])
    raise RunTableError(
        f"{type(frame).__name__} is no table; give a pandas or polars frame, an Arrow table, a "
        "mapping of columns, or a list of mappings, one a row"
    )


def _is_column(cells: Any) -> bool:
    return isinstance(cells, Iterable) and not isinstance(cells, str | bytes | Mapping)


def _once(names: Iterable[Any]) -> list[Any]:
    """The same. Raises: RunTableError: one is there twice."""
    names = list(names)
    if twice := [str(name) for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise RunTableError(f"the columns {twice} are given twice; keep one of each")
    return names


def _checked(columns: Iterable[tuple[Any, list[Any]]]) -> dict[str, np.ndarray]:
    """Raises: RunTableError: columns of different lengths."""
    out = {}
    for name, cells in columns:
        key = "/".join(map(str, name)) if isinstance(name, tuple) else str(name)
        out[key] = packed(cells, as_text=names_runs(key))
    sizes = {len(cells) for cells in out.values()}
    if len(sizes) > 1:
        named = ", ".join(f"{name} {len(cells)}" for name, cells in [*out.items()][:10])
        raise RunTableError(f"the columns have different numbers of rows: {named}")
    return out


def _series(columns: Columns) -> set[str]:
    """Names that are wanted over training."""
    wanted = {*columns.targets.values(), *map(bare, columns.targets.values())}
    return wanted | {c for c in (columns.train_tokens,) if isinstance(c, str)}


def _ignored(frame: Frame, columns: Columns) -> tuple[str, ...]:
    """Names of the frame that mean nothing."""
    used = {bare(column) for column, _ in columns.meanings()}
    if columns.run is not None:
        used |= set(run_parts(frame, columns.run))
    # What a tool keeps twice, over training and as its last value, is one thing.
    used |= {f"summary.{name}" for name in frame.columns}
    return tuple(name for name in frame.columns if name not in used)


def _digest(path: Path) -> str:
    """Raises: RunTableError: it cannot be read any more."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            while block := handle.read(_BLOCK):
                found.update(block)
    except OSError as error:
        raise RunTableError(f"could not read {path}: {error}") from error
    return found.hexdigest()
