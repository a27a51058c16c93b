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
from mixlaw.interop.roles import snake

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
_OF = re.compile(
    r"(?:share|fraction|proportion|weight|ratio|percent|percentage|%)[ _]of[ _](?=\S)", re.I
)
"""Before a domain, in words: "share of web"."""
_NAMES = ("name", "source_name", "domain", "dataset", "path", "paths", "data_path", "prefix")
_WEIGHTS = ("weight", "target_ratio", "ratio", "proportion", "fraction", "share", "probability")
_CUTS = 12
"""Places, from either end of a name, at which a domain's may begin."""
_SOME_ROWS = 200
_EXACT = 1e-6
"""How far sums are from one that were not rounded, but in their last digit."""

LEAST_ROWS = 3
"""Of which sums say that columns are a mixture."""

_SETTINGS = re.compile(
    r"(?:^|_)(?:lr|learning_rate|weight_decay|wd|dropout|warmup|beta_?[12]|eps|epsilon|momentum"
    r"|clip|temperature|label_smoothing|ema|init_std|precision|loss_scale)"
    r"(?:_(?:ratio|fraction|steps|rate|factor|min|max|norm))?$"
)
"""Of a training, that stand beside shares and are none."""


def groups(frame: Frame, taken: Collection[str]) -> list[tuple[str, dict[str, str]]]:
    """Columns that may be the shares of a mixture by their names, as (pattern, domain -> column),
    the surest pattern first; whether they sum to one is another question."""
    found: dict[str, dict[str, str]] = {}
    for column in frame.columns:
        if column in taken or is_setting(column):
            continue
        if not (frame.is_numeric(column) or _is_empty_share(frame, column)):
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
    if _OF.match(pattern):
        return 3
    before = _SEPARATORS.split(pattern.partition("*")[0].rstrip("/._:- ").lower())
    words = {*before, *_SEPARATORS.split(pattern.partition("*")[2].lower())}
    if words & _SURE:
        return 3 if before[-1] in _SURE else 2
    return 1 if words & _LIKELY else 0


def _is_empty_share(frame: Frame, column: str) -> bool:
    """Whether a column of a run table of mixlaw is of a domain without any share."""
    return column.startswith("weight/") and not frame.is_mixed(column)


def is_setting(column: str) -> bool:
    """Whether a column is called a setting of training, as weight_decay, and no domain of mixlaw's
    own."""
    return not column.startswith("weight/") and bool(_SETTINGS.search(snake(column)))


def is_share(column: str) -> bool:
    """Whether a column is called a share of a mixture."""
    return not is_setting(column) and any(sureness(p) > 2 for p, _ in _patterns(column))


def unit_of(frame: Frame, columns: Sequence[str]) -> str | None:
    """ "shares" or "percent": what all rows that hold any of these sum to, rounded; else None."""
    numbers = {name: frame.numbers(name) for name in columns}
    for some in (slice(0, _SOME_ROWS), slice(None)):
        cells = np.stack([numbers[name][some] for name in columns])
        known = ~np.isnan(cells).all(axis=0)
        if np.nanmin(cells, initial=0.0) < 0 or np.isinf(cells).any():
            return None
        if some.stop is None and not known.any():
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
    """Neighbouring columns without a common name whose rows all sum to 1 or 100, as domain ->
    column; several where it is not clear which. Rows must differ, or a sum says nothing.

    Sums that are exact decide before those that rounding explains. Of the columns that fit so, all
    are taken: a domain may have no share in any row.
    """
    names = [
        name
        for name, cells in frame.columns.items()
        if name not in taken and not is_setting(name) and cells.dtype != object
    ]
    if len(frame) < LEAST_ROWS or not names:
        return []
    cells = np.stack([frame.columns[name][:_SOME_ROWS] for name in names]).astype(float)
    found: list[list[str]] = []
    for whole in WHOLE.values():
        for first, last in _stretches(cells / whole):
            part = np.nan_to_num(cells[first:last] / whole)
            for i, j in _summing(part):
                some = [k for k in range(i, j) if not _adds_nothing(part, i, j, k)]
                chosen = [names[first + k] for k in some]
                if np.ptp(part[some], axis=1).max() > 0 and unit_of(frame, chosen):
                    found.append(chosen)
    return [{name: name for name in chosen} for chosen in found]


def _stretches(cells: np.ndarray) -> list[tuple[int, int]]:
    """Neighbouring columns (N, n) of which each could be shares."""
    low, high = np.nanmin(cells, axis=1, initial=0.0), np.nanmax(cells, axis=1, initial=0.0)
    fits = (low >= 0) & (high <= 1 + within()) & ~np.isnan(cells).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], fits, [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a > 1]


def _summing(cells: np.ndarray) -> list[tuple[int, int]]:
    """The widest stretches [i, j) of columns (N, n), none negative, of which all rows sum to one:
    exactly, or elsewhere within `ROUNDING`. Several that overlap where it is not clear which: where
    none holds the others, or a column at an end is the same in all rows and may be no share."""
    sums = np.concatenate([np.zeros((1, cells.shape[1])), np.cumsum(cells, axis=0)])
    found = _widest(sums, _EXACT)
    for i, j in _widest(sums, within()):
        if any(a < j and i < b for a, b in found):
            continue
        found.append((i, j))
        varied = i + np.flatnonzero((np.ptp(cells[i:j], axis=1) > 0) | ~cells[i:j].any(axis=1))
        a, b = int(varied.min(initial=j)), int(varied.max(initial=i)) + 1
        if (a, b) != (i, j) and a < b and (np.abs(sums[b] - sums[a] - 1) <= within()).all():
            found.append((a, b))
    return found


def _widest(sums: np.ndarray, within: float) -> list[tuple[int, int]]:
    """Stretches [i, j) that sum to one, of running sums (N + 1, n), that no other such one holds.

    Sums only grow, so the ends that fit a beginning lie between two bounds, found by bisection.
    """
    starts = np.arange(len(sums))
    least, most = np.zeros(len(sums), int), np.full(len(sums), len(sums))
    for row in sums.T:
        least = np.maximum(least, np.searchsorted(row, row + 1 - within, side="left"))
        most = np.minimum(most, np.searchsorted(row, row + 1 + within, side="right") - 1)
    fits = (least <= most) & (most - starts > 1)
    found: list[tuple[int, int]] = []
    for i in np.flatnonzero(fits):
        if not found or most[i] > found[-1][1]:
            found.append((int(i), int(most[i])))
    return found


def _adds_nothing(cells: np.ndarray, i: int, j: int, k: int) -> bool:
    """Whether a column of the stretch [i, j) is above zero, the same in all rows, and without it
    the sums are exact."""
    if not cells[k].max() or np.ptp(cells[k]):
        return False
    return bool((np.abs(cells[i:j].sum(axis=0) - cells[k] - 1) <= _EXACT).all())


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
    if spoken := _OF.match(column):
        yield f"{column[: spoken.end()]}*", column[spoken.end() :]
        return
    cuts = [match.end() for match in _SEPARATORS.finditer(column)]
    if len(cuts) > 2 * _CUTS:
        cuts = [*cuts[:_CUTS], *cuts[-_CUTS:]]
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
