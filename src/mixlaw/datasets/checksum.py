"""A checksum of values, equal wherever they were read from.

A table comes from Parquet or from the source's own files, so the bytes of a file say nothing of the
other. What is compared is therefore the table itself, written down in one way: a line for each row,
which holds `column=cell` for every column of `RunTable.rows`, sorted by name and joined by tabs;
numbers with nine decimals, missing ones empty; the lines sorted. The order of rows and columns does
not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from mixlaw.errors import RunTableError

DECIMALS = 9
"""Weights are divided by their sum, whose last bit is the machine's affair: none lies so near an
edge of rounding that it could cross it (the tests measure how near). Losses stay as they are."""


def checksum(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of rows, 64 hexadecimal digits."""
    lines = sorted(
        "\t".join(f"{column}={_cell(row[column])}" for column in sorted(row)) for row in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def verify(rows: Iterable[Mapping[str, Any]], expected: str) -> None:
    """Raises: RunTableError: the rows have another checksum."""
    if (found := checksum(rows)) != expected:
        raise RunTableError(
            f"the values have the checksum {found}, those that were published {expected}"
        )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{DECIMALS}f}"
