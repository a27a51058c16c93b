"""What a source holds of its runs, as columns: the one shape that guessing and assembling read."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.logged import LoggedRun, flatten
from mixlaw.runs import DONE

_MISSING = {"", "NA", "N/A", "na", "n/a", "NULL", "null", "None", "none", "-", "NaN", "nan", "<NA>"}
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
_EXACT = 2**53


@dataclass(frozen=True, eq=False)
class Frame:
    """Rows of (run, checkpoint), as a source gives them.

    Attributes:
        columns: name -> (n,) int64 or float64 (NaN: no value), or objects (text, lists; None: no
            value).
        place: row -> where it stands, for messages: "runs.csv, row 3".
        run, name, status: (n,) text: the source's own id of a row's run, what people call it, and
            "done" or "failed".
        table: whether a row is one of a table, whose columns have to say of which run it is.
        logged: whether a row holds what was logged at one step, which need not be every target;
            else a row is as its author put it.
    """

    columns: Mapping[str, np.ndarray]
    place: Callable[[int], str]
    run: np.ndarray
    name: np.ndarray
    status: np.ndarray
    table: bool = False
    logged: bool = False
    notes: tuple[str, ...] = ()
    _known: dict[str, tuple[bool, bool]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.run)

    @classmethod
    def of_table(
        cls, columns: Mapping[str, np.ndarray], place: Callable[[int], str] | str
    ) -> Frame:
        """Rows of a table, which has no ids but its own; cells that hold a mapping are opened.

        Args: place: of a row, or the name of the table.
        """
        if isinstance(source := place, str):
            place = lambda i: f"{source}, row {i + 1}"  # noqa: E731
        for name in columns:
            if not name.isprintable():
                raise RunTableError(
                    f"{place(0)}: the column {name[:80]!r} has a line break or the like in its "
                    "name; name it otherwise"
                )
        num_rows = len(next(iter(columns.values()), ()))
        if not num_rows:
            raise RunTableError(
                f"{source if isinstance(source, str) else place(0)}: there is no row of a run"
            )
        ids = objects([f"row{i}" for i in range(num_rows)])
        status = np.full(num_rows, DONE, object)
        return cls(_opened(columns), place, ids, ids, status, table=True)

    @classmethod
    def of_runs(cls, runs: Iterable[LoggedRun]) -> Frame:
        """A row each, with the last value of every series: enough to see what there is.

        Raises: RunTableError: there is no run.
        """
        runs = list(runs)
        rows = []
        for run in runs:
            last = {name: s.values[-1] for name, s in run.series.items() if len(s.values)}
            rows.append(dict(run.fields) | last)
        return cls.of_cells(runs, rows)

    @classmethod
    def of_cells(
        cls, runs: Sequence[LoggedRun], cells: Sequence[Mapping[str, Any]], *, logged: bool = False
    ) -> Frame:
        """A row of cells each, of the run at the same place.

        Raises: RunTableError: there is no run.
        """
        if not runs:
            raise RunTableError("the source holds no run; is it the right folder or project?")
        names = dict.fromkeys(name for row in cells for name in row)
        columns = {name: packed([row.get(name) for row in cells]) for name in names}
        return cls(
            _opened(columns),
            lambda i: runs[i].origin or f"run {runs[i].run}",
            objects([run.run for run in runs]),
            objects([run.name for run in runs]),
            objects([run.status for run in runs]),
            logged=logged,
            notes=tuple(
                dict.fromkeys(f"{run.origin or run.run}: {n}" for run in runs for n in run.notes)
            ),
        )

    def is_numeric(self, name: str) -> bool:
        """Whether a column holds numbers, and at least one."""
        return self._kinds(name) == (True, False)

    def is_mixed(self, name: str) -> bool:
        """Whether a column holds numbers, and text that is none."""
        return self._kinds(name) == (True, True)

    def _kinds(self, name: str) -> tuple[bool, bool]:
        """Whether a column holds numbers, and whether something else."""
        if name not in self._known:
            cells = self.columns[name]
            if cells.dtype != object:
                self._known[name] = not np.isnan(cells).all(), False
            else:
                different = {c if isinstance(c, str) else repr(c): c for c in cells.tolist()}
                found = [number_of(cell) for cell in different.values() if cell is not None]
                numbers = any(number is not None and number == number for number in found)
                self._known[name] = numbers, None in found
        return self._known[name]

    def holds_counts(self, name: str) -> bool:
        """Whether a cell is a number, or a count such as "30M"."""
        cells = self.columns[name]
        if cells.dtype != object:
            return not np.isnan(cells).all()
        return any(count is not None and count == count for count in map(count_of, cells))

    def numbers(self, name: str, *, counts: bool = False) -> np.ndarray:
        """(n,) a column as numbers, NaN where a cell is empty.

        Args: counts: whether "30M", "1.5B" or "1,000,000" is a number, too.
        Raises: RunTableError: text, with its place.
        """
        cells = self.columns[name]
        if cells.dtype != object:
            return cells.astype(float)
        out = np.full(len(cells), np.nan)
        for i, cell in enumerate(cells):
            if cell is None:
                continue
            found = count_of(cell) if counts else number_of(cell)
            if found is None:
                comma = isinstance(cell, str) and "," in cell
                raise RunTableError(
                    f"{self.place(i)}: {name} is {cell!r}; it must be a number"
                    + " with a decimal point, not a comma" * comma
                )
            out[i] = found
        return out

    def texts(self, name: str) -> np.ndarray:
        """(n,) a column as text; None where a cell is empty."""
        cells = self.columns[name]
        if cells.dtype == object:
            return objects([c if c is None or isinstance(c, str) else text_of(c) for c in cells])
        return objects([text_of(cell) for cell in cells.tolist()])

    def codes(self, name: str) -> np.ndarray:
        """(n,) integers from 0, equal where the cells are; empty ones are equal to each other."""
        cells = self.columns[name]
        if cells.dtype != object:
            return np.unique(cells, return_inverse=True)[1].reshape(-1)
        seen: dict[Any, int] = {}
        keys = (cell if isinstance(cell, str) else repr(cell) for cell in cells)
        return np.fromiter((seen.setdefault(key, len(seen)) for key in keys), int, len(cells))

    def select(self, rows: np.ndarray, **changes: Any) -> Frame:
        """Some of the rows, by their indices.

        Args: changes: attributes that are others; columns are then as given.
        """
        place = self.place
        kept: dict[str, Any] = {
            "run": self.run[rows],
            "name": self.name[rows],
            "status": self.status[rows],
        }
        if "columns" not in changes:
            kept["columns"] = {name: cells[rows] for name, cells in self.columns.items()}
        return replace(self, place=lambda i: place(int(rows[i])), **(kept | changes))


def plural(count: int, thing: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count} {thing}{'s' * (count != 1)}"


def joint_codes(codes: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) integers from 0, equal where all of several codes (each (n,)) are."""
    out = np.zeros_like(codes[0])
    for other in codes:
        out = np.unique(out * (int(other.max()) + 1) + other, return_inverse=True)[1].reshape(-1)
    return out


def objects(cells: Sequence[Any]) -> np.ndarray:
    """(n,) an array of anything; of lists, too, which numpy would make another axis of."""
    out = np.empty(len(cells), object)
    out[:] = cells
    return out


def packed(
    cells: Sequence[Any], *, decimal_comma: bool = False, as_text: bool = False
) -> np.ndarray:
    """Cells as a column: numbers where all are, else as they are; None where there is no value.

    Text is a number only if it says nothing more: "007" and ids too long for a float stay text.

    Args:
        decimal_comma: whether "0,5" is a number.
        as_text: whether text stays as it is: the run "1.10" is not the run "1.1".
    """
    kinds = set(map(type, cells))
    if not kinds <= {int, float, str, type(None)}:
        cells = [_plain(cell) for cell in cells]
        kinds = set(map(type, cells))
    if kinds == {int}:
        try:
            return np.array(cells, np.int64)
        except OverflowError:
            return objects(list(map(str, cells)))
    if kinds <= {int, float, type(None)}:
        if int in kinds and any(type(cell) is int and abs(cell) >= _EXACT for cell in cells):
            return objects([str(cell) if type(cell) is int else cell for cell in cells])
        return np.array([np.nan if cell is None else cell for cell in cells], float)
    if kinds <= {str, type(None)}:
        found = None if as_text else _numbers_in(cells, decimal_comma)
        if found is not None:
            return found
        same: dict[str, str] = {}
        missing = {"", None}
        return objects([None if c in missing else same.setdefault(c, c) for c in cells])
    return objects([None if _is_missing(cell) else cell for cell in cells])


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Columns one below the other; numbers become text where another part has text."""
    if len({part.dtype == object for part in parts}) == 1:
        return np.concatenate(parts)
    return objects(
        [
            cell if part.dtype == object else text_of(cell)
            for part in parts
            for cell in part.tolist()
        ]
    )


def number_of(cell: Any) -> float | None:
    """A number, of any type or as text, NaN for what tables write where there is none; None: it is
    no number, as "3_1", which Python would read as one."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, str):
        if cell in _MISSING:
            return math.nan
        if "_" in cell:
            return None
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def count_of(cell: Any) -> float | None:
    """The same, of what may also be written as "30M", "1.5B" or "1,000,000"."""
    if (found := number_of(cell)) is not None:
        return found
    text = str(cell).strip().lower()
    if _THOUSANDS.fullmatch(text):
        return float(text.replace(",", ""))
    factor = _SUFFIXES.get(text[-1:])
    found = number_of(text[:-1])
    return None if factor is None or found is None else found * factor


def text_of(cell: Any) -> str | None:
    """A cell as text, a whole number without a fraction; None for NaN."""
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        if cell.is_integer() and abs(cell) < _EXACT:
            return str(int(cell))
    return str(cell)


def opened(cell: Any) -> Any:
    """A list or mapping that was written as text, by JSON or by Python; any other as it is."""
    if not isinstance(cell, str) or cell.lstrip()[:1] not in ("{", "[", "("):
        return cell
    for read in (json.loads, ast.literal_eval):  # data frames write Python's way into CSV
        try:
            return _plain(read(cell))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return cell


def _is_missing(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _plain(cell: Any) -> Any:
    """A cell without the types of a data-frame library, numpy or decimal."""
    if hasattr(cell, "tolist"):  # numpy's floats are Python's, too
        cell = cell.tolist()
    if isinstance(cell, str | int | float | list | Mapping) or cell is None:
        return cell
    if type(cell).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(cell, tuple):
        return list(cell)
    found = number_of(cell)
    return str(cell) if found is None else found


def _numbers_in(cells: Sequence[str | None], decimal_comma: bool) -> np.ndarray | None:
    """Texts as integers or floats; None where one is not a number, or says more than one."""
    known = [cell for cell in cells if cell not in _MISSING and cell is not None]
    if not known:
        return np.full(len(cells), np.nan)
    try:
        values = np.array(list(map(float, known)))
    except ValueError:
        if not decimal_comma:
            return None
        return _numbers_in([cell and cell.replace(",", ".") for cell in cells], False)
    if not np.isfinite(values).all() or any("_" in cell for cell in known):
        # "1e999", an id that happens to be a number, is kept as it is; so are "inf" and "3_1".
        return None
    whole = bool((values == np.floor(values)).all())
    if whole:
        if np.abs(values).max() >= _EXACT:
            return None
        plain = (c[:-2] if c.endswith(".0") else c for c in known)
        if any(text != c for text, c in zip(map(str, map(int, values)), plain, strict=True)):
            return None
        if len(known) == len(cells):
            return values.astype(np.int64)
    if len(known) == len(cells):
        return values
    out = np.full(len(cells), np.nan)
    out[[i for i, cell in enumerate(cells) if cell not in _MISSING and cell is not None]] = values
    return out


def _opened(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns whose cells are mappings, or JSON text of one, as a column for each entry."""
    out: dict[str, np.ndarray] = {}
    for name, cells in columns.items():
        if cells.dtype != object or not _holds_mappings(cells):
            out[name] = cells
            continue
        # Runs at many checkpoints repeat their settings: each text is read once.
        known: dict[str, dict[str, Any]] = {}
        entries = []
        for cell in cells:
            key = cell if isinstance(cell, str) else repr(cell)
            if key not in known:
                known[key] = {} if cell is None else flatten({name: opened(cell)})
            entries.append(known[key])
        keys = dict.fromkeys(key for opened in known.values() for key in opened)
        out |= {key: packed([opened.get(key) for opened in entries]) for key in keys}
    return out


def _holds_mappings(cells: np.ndarray) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(
        isinstance(c, Mapping) or (isinstance(c, str) and c.lstrip().startswith("{")) for c in known
    )
