"""Atomic files, content hashes and safe parsers: how mixlaw's artefacts reach the disk, and text
of others the program."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

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


MOST_VALUES = 1_000_000
"""Of a YAML file, with what its aliases stand for written out: a few lines can mean billions."""


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """As `yaml.safe_load`.

    Args: loader: a stricter one.
    Raises: ValueError: in one line, what keeps it from being YAML, or one that is meant.
    """
    reader = None
    try:
        reader = loader(text)
        node = reader.get_single_node()
        if node is None:
            return None
        if _num_values(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return reader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply, or in itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except (yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        # The latter of values that are not what their tags say: `!!bool maybe`.
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    finally:
        if reader is not None:
            reader.dispose()


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """With each alias counted as what it stands for; endless ones recurse without end."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_num_values(part, known) for part in parts)
    return known[id(node)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} stands where a number is to be")


def digest(data: Any) -> str:
    """A 16-digit hash of JSON-able data; equal for equal values, whatever the key order."""
    text = json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


SEAL = "seal"
"""Key of a digest of all the rest of a file: what a disk, or a hand, has altered is not used. It is
no signature."""


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON reads it back (tuples are lists, keys are text), with its seal."""
    plain = parse_json(json.dumps(data))
    return {**plain, SEAL: _seal(plain)}


def is_altered(data: dict[str, Any]) -> bool:
    """Whether something that was sealed is no longer what it was."""
    return SEAL in data and data[SEAL] != _seal(data)


def _seal(data: dict[str, Any]) -> str:
    return digest({key: value for key, value in data.items() if key != SEAL})


def file_digest(path: Path) -> str:
    """A 16-digit hash of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]
