"""One at a time: what reads the runs of a study, changes them and writes them again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mixlaw.errors import StorageError

LOCK = ".lock"

NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Others of this machine (on NFS: of any) wait until the block ends; a killed process lets go.

    Not to be nested. A file system without locks goes unguarded. Raises: StorageError: the folder
    cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A link there would make a file wherever it leads.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise StorageError(f"could not write {path}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise StorageError(f"could not lock {path}: {error.strerror or error}") from error
        yield
    finally:
        os.close(handle)
