"""Two tables that are one together: the mixtures of runs, and what was measured on them."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import number_of
from mixlaw.interop.logged import LoggedRun

_ONE = (0.99, 1.01)
"""Between these a row of proportions sums, by which a table of mixtures is told by its looks."""
_TOP = 20
"""Rows that are looked at for it."""
_NO_DATA = ("name", "index", "")
"""Columns beside the ids: what people call a run, its number, a saved data frame's own index."""


@dataclass(frozen=True, eq=False)
class Half:
    """One of the two tables.

    Attributes:
        path: its file.
        columns: those that are no ids.
        rows: id -> column -> number; empty cells are left out.
        labels: id -> the column "name", else the id.
        places: id -> row of the file, from 1.
        twice: ids of rows that were there more than once, alike.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]
    labels: Mapping[str, str]
    places: Mapping[str, int]
    twice: frozenset[str]


def read_half(path: Path, keys: Sequence[str]) -> Half:
    """Read one of the tables.

    Args: keys: what the column of ids may be called, the surest first.
    Raises: RunTableError: names the file, and the row and column, of what cannot be read: no CSV
        table, no ids, an id of two different rows, text where a number must be.
    """
    names, cells = _read(path)
    if not (found := [key for key in keys if key in names]):
        raise RunTableError(
            f"{path}: no column {' or '.join(map(repr, keys))}, by which its rows are told apart; "
            f"it has {names[:8]}"
        )
    columns = tuple(name for name in names if name not in {*keys, *_NO_DATA})
    rows: dict[str, dict[str, float]] = {}
    labels: dict[str, str] = {}
    places: dict[str, int] = {}
    twice = set()
    for place, row in enumerate(cells, start=1):
        run = re.sub(r"^(\d+)\.0$", r"\1", row[found[0]])  # a data frame's numbers may be floats
        if not run:
            raise RunTableError(f"{path}, row {place}: {found[0]} is empty; every run needs its id")
        numbers = {name: _number(path, place, name, row[name]) for name in columns}
        held = {name: value for name, value in numbers.items() if not math.isnan(value)}
        if rows.get(run, held) != held:
            raise RunTableError(
                f"{path}: rows {places[run]} and {place} are both of the run {run!r} and differ; "
                f"keep one, or give them ids of their own in the column {found[0]!r}"
            )
        twice |= {run} & rows.keys()
        rows[run] = held
        labels[run] = row.get("name") or run
        places.setdefault(run, place)
    return Half(path, columns, rows, labels, places, frozenset(twice))


def join(
    mixtures: Half,
    measures: Half,
    *,
    domains: Mapping[str, str],
    targets: Mapping[str, str],
    prefix: str = "",
) -> Iterator[LoggedRun]:
    """The runs of both tables, with the cells of a run table: weight/<domain>, <metric>/<target>.

    Args:
        domains, targets: column -> name.
        prefix: of the runs' ids, where they are counted and so the same in every pair.
    Raises: RunTableError: the tables have no run in common, two columns have one name, or a domain
        has no share at all. A run that only one of the tables has is given as it is.
    """
    if not mixtures.rows.keys() & measures.rows.keys():
        first, other = (sorted(half.rows)[:3] for half in (mixtures, measures))
        raise RunTableError(
            f"{mixtures.path} and {measures.path} have no run in common: the first has "
            f"{len(mixtures.rows)} with ids such as {first}, the other {len(measures.rows)} such "
            f"as {other}; are they of one swarm?"
        )
    for names in (domains, targets):
        if len(set(names.values())) < len(names):
            twice = [name for name in names if list(names.values()).count(names[name]) > 1]
            raise RunTableError(f"the columns {twice} would all be called {names[twice[0]]!r}")
    known = {name for row in mixtures.rows.values() for name in row}
    if empty := [name for name in mixtures.columns if name not in known]:
        raise RunTableError(
            f"{mixtures.path}: the columns {empty} hold no number, so they are no domains; write 0 "
            "where a run has nothing of a domain, or drop the columns"
        )
    for run in dict.fromkeys([*mixtures.rows, *measures.rows]):
        halves = [half for half in (mixtures, measures) if run in half.rows]
        shares, values = (half.rows.get(run, {}) for half in (mixtures, measures))
        weights = {f"weight/{domains[name]}": share for name, share in shares.items()}
        again = [half.path.name for half in halves if run in half.twice]
        yield LoggedRun(
            run=f"{prefix}{run}",
            name=f"{prefix}{halves[0].labels[run]}",
            fields=weights | {targets[name]: value for name, value in values.items()},
            origin=" and ".join(f"{half.path}, row {half.places[run]}" for half in halves),
            notes=[f"{name} has its row more than once, alike" for name in again],
        )


def tell_apart(paths: Sequence[Path], keys: Sequence[str]) -> tuple[Path, Path] | None:
    """(mixtures, measures) of two CSV tables that have a column of ids: the one of which half
    of the first rows sum to one is that of mixtures. None: they do not look so. Never raises."""
    if len(paths) != 2 or any(path.suffix != ".csv" for path in paths):
        return None
    tops = [top_of(path) for path in paths]
    if any(not set(keys) & set(names) for names, _ in tops):
        return None
    are_mixtures = [
        bool(rows) and 2 * sum(_is_mixture(names, row, keys) for row in rows) >= len(rows)
        for names, rows in tops
    ]
    if sum(are_mixtures) != 1:
        return None
    return (paths[0], paths[1]) if are_mixtures[0] else (paths[1], paths[0])


def top_of(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and first rows of a CSV table; empty where there are none. Never raises."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            lines = csv.reader(handle)
            return next(lines, []), list(itertools.islice(filter(None, lines), _TOP))
    except (OSError, ValueError, csv.Error):
        return [], []


def _is_mixture(names: Sequence[str], cells: Sequence[str], keys: Sequence[str]) -> bool:
    """Whether the numbers of a row, but ids, are shares that sum to one."""
    ids = {*keys, *_NO_DATA}
    try:
        shares = [float(c) for name, c in zip(names, cells, strict=True) if name not in ids and c]
    except ValueError:
        return False
    return bool(shares) and min(shares) >= 0 and _ONE[0] <= math.fsum(shares) <= _ONE[1]


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns, and rows."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            lines = list(csv.reader(handle))
    except (OSError, ValueError, csv.Error) as error:
        raise RunTableError(f"could not read {path}: {error}") from error
    if len(lines) < 2:
        raise RunTableError(f"{path} has no rows; it must be a CSV table with a header")
    names = [name.strip() for name in lines[0]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunTableError(f"{path}: the columns {twice} are given twice; keep one")
    rows = []
    for place, cells in enumerate(filter(None, lines[1:]), start=1):
        if len(cells) != len(names):
            raise RunTableError(
                f"{path}, row {place}: {len(cells)} cells under a header of {len(names)}; is the "
                "file cut short?"
            )
        rows.append(dict(zip(names, map(str.strip, cells), strict=True)))
    return names, rows


def _number(path: Path, place: int, name: str, cell: str) -> float:
    """NaN for an empty cell."""
    if (number := number_of(cell)) is None:
        raise RunTableError(
            f"{path}, row {place}: {name} is {cell!r}; every column but the ids must hold numbers"
        )
    return number
