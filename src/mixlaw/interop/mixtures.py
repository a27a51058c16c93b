"""Where a source holds the mixtures of its runs, and in which form."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.columns import PERCENT, SHARES
from mixlaw.interop.frame import Frame, number_of, opened

ROUNDING = 0.004
"""How far the shares of a run may be from a sum of one: sources round them."""

WHOLE = {SHARES: 1.0, PERCENT: 100.0}
"""What the numbers of a mixture sum to, by their unit."""

_SURE = {
    *("weight", "weights", "mixture", "mixtures", "mix", "mixing", "proportion", "proportions"),
    *("ratio", "ratios", "share", "shares", "blend", "percent", "percentage"),
}
_LIKELY = {*("r", "w", "p", "pi", "prob", "probs", "probability", "data", "domain", "train")}
_SEPARATORS = re.compile(r"[/._:\- ]")
_NAMES = ("name", "source_name", "domain", "dataset", "path", "paths", "data_path", "prefix")
_WEIGHTS = ("weight", "target_ratio", "ratio", "proportion", "fraction", "share", "probability")
_SOME_ROWS = 200


def groups(frame: Frame, taken: Collection[str]) -> list[tuple[str, dict[str, str]]]:
    """Columns that may be the shares of a mixture by their names, as (pattern, domain -> column),
    the surest pattern first; whether they sum to one is another question."""
    found: dict[str, dict[str, str]] = {}
    for column in frame.columns:
        if column in taken or not (frame.is_numeric(column) or _is_empty_share(frame, column)):
            continue
        for pattern, domain in _patterns(column):
            found.setdefault(pattern, {})[domain] = column
    ready = [
        (pattern, columns)
        for pattern, columns in found.items()
        if len(columns) > 1 or pattern == "weight/*"
    ]
    return sorted(ready, key=lambda item: -sureness(item[0]))


def sureness(pattern: str) -> int:
    """Whether the words of a pattern speak of a mixture: 0 not, 1 likely, 2 surely, 3 where the
    last word before the domain does, 4 for mixlaw's own."""
    if pattern == "weight/*":
        return 4
    before = _SEPARATORS.split(pattern.partition("*")[0].rstrip("/._:- ").lower())
    words = {*before, *_SEPARATORS.split(pattern.partition("*")[2].lower())}
    if words & _SURE:
        return 3 if before[-1] in _SURE else 2
    return 1 if words & _LIKELY else 0


def _is_empty_share(frame: Frame, column: str) -> bool:
    """Whether a column of a run table of mixlaw is of a domain without any share."""
    return column.startswith("weight/") and not frame.is_mixed(column)


def is_share(column: str) -> bool:
    """Whether a column is called a share of a mixture."""
    return any(sureness(pattern) > 2 for pattern, _ in _patterns(column))


def unit_of(frame: Frame, columns: Sequence[str]) -> str | None:
    """ "shares" or "percent": what all rows that hold any of these sum to, rounded; else None."""
    numbers = {name: frame.numbers(name) for name in columns}
    for some in (slice(0, _SOME_ROWS), slice(None)):
        cells = np.stack([numbers[name][some] for name in columns])
        known = ~np.isnan(cells).all(axis=0)
        if np.nanmin(cells, initial=0.0) < 0 or (some.stop is None and not known.any()):
            return None
        totals = np.nansum(cells[:, known], axis=0)
        fits = [u for u, whole in WHOLE.items() if (abs(totals / whole - 1) <= within()).all()]
        if not fits:
            return None
    return fits[0]


def within() -> float:
    """`ROUNDING`, with what floats add to a sum that is off by just so much."""
    return ROUNDING + 1e-9


def windows(frame: Frame, taken: Collection[str]) -> list[dict[str, str]]:
    """Neighbouring columns without a common name whose rows all sum to 1 or 100: the shortest such
    ones, as domain -> column. Rows must differ, or a sum says nothing."""
    names = [
        name
        for name, cells in frame.columns.items()
        if name not in taken and cells.dtype != object and frame.is_numeric(name)
    ]
    if len(frame) < 3 or not names:
        return []
    cells = np.stack([frame.columns[name][:_SOME_ROWS] for name in names]).astype(float)
    sums = np.concatenate([np.zeros((1, cells.shape[1])), np.nancumsum(cells, axis=0)])
    found: list[tuple[int, int]] = []
    for size in range(2, len(names) + 1):
        for i in range(len(names) - size + 1):
            totals = sums[i + size] - sums[i]
            if not any((abs(totals / whole - 1) <= within()).all() for whole in WHOLE.values()):
                continue
            inside = any(a >= i and b <= i + size for a, b in found)
            some = cells[i : i + size]
            if (
                not inside
                and np.ptp(some, axis=1).max() > 0
                and unit_of(frame, names[i : i + size])
            ):
                found.append((i, i + size))
    return [{name: name for name in names[a:b]} for a, b in found]


def whole_columns(frame: Frame, taken: Collection[str]) -> list[str]:
    """Columns of which each cell holds a mixture: a trainer's list of weights and paths."""
    found = []
    for name, cells in frame.columns.items():
        if name in taken or cells.dtype != object:
            continue
        known = [cell for cell in cells[:_SOME_ROWS] if cell is not None]
        if known and all(weights_of(cell) is not None for cell in known):
            found.append(name)
    return found


def weights_of(cell: Any) -> dict[str, float] | None:
    """What one cell says of a mixture, as name or path -> number; None if it says nothing.

    A mapping or its JSON; a list of weights and paths in turn, as Megatron's --data-path, or its
    text; lists of all weights and all paths; pairs; a list of entries with a name and a weight.
    """
    if isinstance(cell, str):
        return _of_text(cell)
    if isinstance(cell, Mapping):
        return _of_pairs(cell.items())
    if not isinstance(cell, list) or not cell:
        return None
    if all(isinstance(part, Mapping) for part in cell):
        return _of_entries(cell)
    if len(cell) == 2 and all(isinstance(part, list) for part in cell):
        first, second = cell
        if len(first) == len(second) and (found := _of_pairs(zip(first, second, strict=True))):
            return found
    if all(isinstance(part, list) and len(part) == 2 for part in cell):
        return _of_pairs(cell)
    if len(cell) % 2 or any(isinstance(part, list | Mapping) for part in cell):
        return None
    return _of_pairs(zip(cell[::2], cell[1::2], strict=True))


def matrix_of(
    frame: Frame, column: str, rename: Mapping[str, str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Domains, and the numbers (n, M) of the mixtures that one column holds; NaN where a cell has
    none. A path is called by its last part, where this is enough to tell the paths apart.

    Raises: RunTableError: a cell that holds no mixture.
    """
    read: dict[str, dict[str, float] | None] = {}
    rows = []
    for i, cell in enumerate(frame.columns[column]):
        key = cell if isinstance(cell, str) else json.dumps(cell, default=str)
        if key not in read:
            read[key] = {} if cell is None or cell != cell else weights_of(cell)
        if (found := read[key]) is None:
            raise RunTableError(
                f"{frame.place(i)}: {column} is {key[:80]}, which is no mixture; it must map "
                "domains to shares, or list weights and paths"
            )
        rows.append(found)
    paths = list(dict.fromkeys(path for found in read.values() if found for path in found))
    names = {path: rename.get(path, short) for path, short in _short(paths).items()}
    names = {path: rename.get(name, name) for path, name in names.items()}
    domains = tuple(dict.fromkeys(names.values()))
    place = {path: domains.index(name) for path, name in names.items()}
    out = np.full((len(frame), len(domains)), np.nan)
    for i, found in enumerate(rows):
        for path, weight in found.items():
            before = out[i, place[path]]
            out[i, place[path]] = weight + (0.0 if np.isnan(before) else before)
    return domains, out


def unit_of_rows(weights: np.ndarray) -> str:
    """The unit of numbers (n, M): "percent" where all rows sum to 100, else "shares"."""
    totals = np.nansum(weights[~np.isnan(weights).all(axis=1)], axis=1)
    off = abs(totals / 100 - 1)
    return PERCENT if len(totals) and (off <= within()).all() else SHARES


def _patterns(column: str) -> Iterator[tuple[str, str]]:
    """("weight/*", "web"), and "data.*.weight" of "data.web.weight"."""
    cuts = [match.end() for match in _SEPARATORS.finditer(column)]
    for cut in cuts:
        if domain := column[cut:]:
            yield f"{column[:cut]}*", domain
    for end in cuts[1:]:
        for cut in [0, *(c for c in cuts if c < end)]:
            if _SEPARATORS.split(column[end:])[0] and (domain := column[cut : end - 1]):
                yield f"{column[:cut]}*{column[end - 1 :]}", domain
    if cuts and (domain := column[: cuts[0] - 1]):
        yield f"*{column[cuts[0] - 1 :]}", domain


def _of_text(text: str) -> dict[str, float] | None:
    if (read := opened(text)) is not text:
        return weights_of(read)
    try:
        parts = shlex.split(text)
    except ValueError:
        return None
    return weights_of(parts) if len(parts) > 1 else None


def _of_pairs(pairs: Any) -> dict[str, float] | None:
    """Pairs of a name and a number, in either order."""
    out: dict[str, float] = {}
    for pair in pairs:
        first, second = pair
        if not isinstance(first, str) or (
            number_of(first) is not None and number_of(second) is None
        ):
            first, second = second, first
        weight = None if isinstance(second, list | Mapping) else number_of(second)
        if not isinstance(first, str) or weight is None:
            return None
        out[first] = out.get(first, 0.0) + weight
    return out or None


def _of_entries(entries: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    pairs = []
    for entry in entries:
        name = next((entry[key] for key in _NAMES if key in entry), None)
        weight = next((entry[key] for key in _WEIGHTS if key in entry), None)
        if isinstance(name, list):
            name = name[0] if name else None
        if not isinstance(name, str) or weight is None:
            return None
        pairs.append((name, weight))
    return _of_pairs(pairs)


def _short(paths: Sequence[str]) -> dict[str, str]:
    """Paths by their last part, without what file formats add; whole where that is ambiguous."""

    def last(path: str, parts: int) -> str:
        whole = "/".join(PurePosixPath(path).parts[-parts:])
        return re.sub(r"(_text)?_document$|\.(jsonl?|parquet|bin|npy|txt)(\.\w+)?$", "", whole)

    for parts in (1, 2):
        found = {path: last(path, parts) if "/" in path else path for path in paths}
        if len(set(found.values())) == len(paths):
            return found
    return {path: path for path in paths}
