"""Other tools' SQLite files, opened so that nothing in them can change."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from mixlaw.errors import RunTableError

MAGIC = b"SQLite format 3\0"


def is_sqlite(path: Path) -> bool:
    """By its first bytes; False for what is not there."""
    try:
        with open(path, "rb") as handle:
            return handle.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@contextlib.contextmanager
def reading(path: Path, *, wait_s: float = 5) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Take all of an answer at once: a writer has to wait meanwhile.

    Args:
        wait_s: for a writer to let go of the file.
    Raises: RunTableError: no SQLite file, damaged, or locked.
    """
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(contextlib.closing(_open(path, wait_s)))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            remedy = (
                "it is being written to; wait, or import a copy made with `sqlite3 FILE .backup`"
                if "locked" in str(error)
                else "see that it is whole with `sqlite3 FILE 'pragma integrity_check'`"
            )
            raise RunTableError(f"cannot read {path}: {error}; {remedy}") from error


def _open(path: Path, wait_s: float) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=wait_s)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if "open" not in str(error) or (log.exists() and log.stat().st_size):
            raise
        # A file that was written with a log, where none can be made: on read-only media.
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True)
    return connection


def columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """The names of a table's columns; none where there is no such table."""
    return {name for _, name, *_ in connection.execute(f'PRAGMA table_info("{table}")')}


def holds(path: Path, table: str, names: Collection[str]) -> bool:
    """Whether a file is of SQLite and has a table with these columns; False also where it cannot be
    read."""
    if not is_sqlite(path):
        return False
    try:
        with reading(path, wait_s=0) as connection:
            return columns(connection, table) >= set(names)
    except RunTableError:
        return False
