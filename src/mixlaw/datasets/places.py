"""Where published tables are found: a folder of the user's, the cache, or the source itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mixlaw.datasets.about import Info
from mixlaw.errors import MissingExtraError, RunTableError, StorageError

FOLDER, CACHE = "MIXLAW_DATA", "MIXLAW_CACHE"
"""Environment variables: a folder with the tables as Parquet, and where downloads are kept."""


def local_file(info: Info) -> Path | None:
    """The Parquet file of a table; None where MIXLAW_DATA is not set, or has none.

    Raises: RunTableError: MIXLAW_DATA is no folder, or the table is found nowhere else.
    """
    folder = os.environ.get(FOLDER)
    if folder and not Path(folder).is_dir():
        raise RunTableError(f"{FOLDER} is {folder!r}, which is no folder; correct it or unset it")
    if folder and (path := Path(folder) / info.local).is_file():
        return path
    if not info.files:
        raise RunTableError(
            f"{info.name} is hosted nowhere; set {FOLDER} to a folder that has {info.local}"
        )
    return None


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Its rows. Raises: RunTableError: it is damaged. MissingExtraError: no pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise RunTableError(f"not a whole Parquet file ({error})") from error


def fetch(info: Info) -> list[Path]:
    """The files of a source, downloaded unless the cache has them.

    The commit in the address pins what is served; the files themselves have no checksum here, the
    table that is read from them has. A download that fails leaves nothing in the cache.

    Raises: RunTableError: the source does not answer. StorageError: the cache cannot be written.
        MissingExtraError: no pooch.
    """
    pooch = _import_pooch()
    cache = Path(os.environ.get(CACHE) or pooch.os_cache("mixlaw")).expanduser()
    # At its usual level it tells the user to write file hashes into the code.
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        places = [cache / info.repository / file for file in info.files]
        for address, place in zip(info.addresses, places, strict=True):
            _retrieve(pooch, address, place, info.local)
    finally:
        logger.setLevel(level)
    return places


def _retrieve(pooch: ModuleType, address: str, place: Path, local: str) -> None:
    from requests.exceptions import RequestException

    try:
        pooch.retrieve(address, None, fname=place.name, path=place.parent)
    except RequestException as error:
        reply = error.response
        why = type(error).__name__ if reply is None else f"status {reply.status_code}"
        raise RunTableError(
            f"could not download {address} ({why}); go online, or set {FOLDER} to a folder that "
            f"has {local}"
        ) from None
    except OSError as error:
        raise StorageError(
            f"could not write {place}: {error.strerror or error}; free some space, or set {CACHE} "
            "to another folder"
        ) from error


def forget(files: Sequence[Path]) -> None:
    """Take refused files out of the cache, so that they are downloaded again the next time."""
    for file in files:
        file.unlink(missing_ok=True)


def _import_pooch() -> ModuleType:
    try:
        import pooch
    except ImportError:
        raise MissingExtraError("pooch", "datasets") from None
    return pooch
