"""Published tables of runs, by name.

>>> from mixlaw import datasets
>>> datasets.names()
('mixinglaws/2mix', ..., 'regmix', 'regmix/train-1m', ..., 'olmix/dclm', ...)
>>> runs = datasets.load("regmix/train-1m")
>>> datasets.info("regmix/train-1m").oddities

A table is read from the folder in the environment variable MIXLAW_DATA, where it lies as Parquet
(needs the extra `parquet`), or else downloaded from the source's own repository, at a fixed commit,
into a cache (needs the extra `datasets`; MIXLAW_CACHE moves it). Nothing is shipped with mixlaw:
see each table's licence. Whichever way it came, its values are compared with a checksum that was
computed when mixlaw described it, so that a changed file, or one that is read wrongly, is refused.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from typing import TypeVar

from mixlaw.datasets.about import Info
from mixlaw.datasets.catalogue import ENTRIES, PILE_SHARES, Entry, find
from mixlaw.datasets.checksum import verify
from mixlaw.datasets.layouts import Row
from mixlaw.datasets.places import fetch, forget, local_file, read_parquet
from mixlaw.errors import RunTableError
from mixlaw.runs import RunTable

T = TypeVar("T")

__all__ = ["Info", "info", "load", "names", "target_weights"]


def names() -> tuple[str, ...]:
    """Of all tables that `load` knows."""
    return tuple(ENTRIES)


def info(name: str) -> Info:
    """What a table is, where it comes from, and what to mind. Reads and downloads nothing.

    Raises: RunTableError: no such table; names the nearest.
    """
    return find(name).info


def load(name: str) -> RunTable:
    """A published table.

    Raises:
        RunTableError: no such table; it cannot be downloaded; or its values are not those that were
            published (both checksums are named).
        StorageError: the cache cannot be written.
        MissingExtraError: pyarrow (for MIXLAW_DATA) or pooch (to download) is not installed.
    """
    entry = find(name)

    def build(rows: list[Row]) -> RunTable:
        return RunTable.from_rows(rows, sum_tolerance=entry.layout.tolerance)

    return _read(entry, build, RunTable.rows)


def target_weights(name: str) -> dict[str, float]:
    """Target -> its weight in the overall Pile loss, for tables of Ye et al. that measured all 22
    parts of the Pile. The weights sum to one; a target that is no part of the Pile has none.

    Raises: RunTableError: a table without such weights; and as `load`.
    """
    if not find(name).pile_shares:
        known = [key for key, entry in ENTRIES.items() if entry.pile_shares]
        raise RunTableError(f"{name} has no weights of its targets; {', '.join(known)} have")
    return _read(PILE_SHARES, lambda rows: rows[0], lambda weights: [weights])


def _read(
    entry: Entry, build: Callable[[list[Row]], T], written: Callable[[T], Sequence[Row]]
) -> T:
    """What `build` makes of an entry's rows, once `written` of it has the known checksum."""
    path = local_file(entry.info)
    files = [] if path else fetch(entry.info)
    try:
        table = build(entry.layout.rows(read_parquet(path) if path else entry.layout.parse(files)))
        verify(written(table), entry.info.checksum)
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        forget(files)
        why = error if isinstance(error, RunTableError) else f"not laid out as it was ({error!r})"
        remedy = (
            f"fetch {path} again" if path else "its files are taken out of the cache; try again"
        )
        raise RunTableError(
            f"{entry.info.name}, read from {path or entry.info.repository}: {why}; {remedy}"
        ) from error
    return table
