"""What every table's reader has, and what several of them need."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mixlaw.errors import RunTableError

Row = dict[str, Any]
ROUNDED = 0.01
"""Weights that a source rounded sum to one within this."""


class Layout(Protocol):
    """Reads one source. Its records are the rows of the Parquet file in MIXLAW_DATA; what is asked
    of them is all that the two have in common.

    Attributes:
        tolerance: how far the weights of a row may be from summing to one.
    """

    tolerance: ClassVar[float]

    def parse(self, files: Sequence[Path]) -> list[Row]:
        """The records, from the source's own files. Raises: RunTableError, ValueError, KeyError,
        IndexError: a file is not laid out as it was."""
        ...

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        """The rows of the run table, see `RunTable.from_rows`."""
        ...


def read_csv(path: Path) -> list[dict[str, str]]:
    """Its rows, by the names in its header. Raises: RunTableError: a row of another length."""
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            raise RunTableError(f"row {i + 1} of {path.name} has another length than its header")
    return rows


def number(cell: str) -> float | None:
    """A cell of a CSV file; None for an empty one."""
    return None if cell.strip().lower() in {"", "nan"} else float(cell)


def measures(record: Mapping[str, Any]) -> Row:
    """The weights and targets of a record."""
    return {k: v for k, v in record.items() if k.startswith(("weight/", "loss/", "bpb/"))}
