"""Atomic files and content hashes: the only way mixlaw's artefacts reach the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixlaw.errors import StorageError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it is synced and renamed over `path`.

    A reader therefore sees the old file or the whole new one, whenever the writer is killed.
    Raises: StorageError: the disk is full or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}; "
            "free some space or choose another folder, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically. Raises: ValueError: a NaN or infinity (JSON has neither)."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that mixlaw wrote. Raises: ValueError: it holds something else, or NaN."""
    return parse_json(path.read_bytes(), parse_constant=_refuse_constant)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """As `json.loads`. Raises: ValueError: no JSON, or nested deeper than any that is meant."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} stands where a number is to be")


def digest(data: Any) -> str:
    """A 16-digit hash of JSON-able data; equal for equal values, whatever the key order."""
    text = json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A 16-digit hash of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]
