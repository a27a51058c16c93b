"""Long tables made wide: a row for each measurement becomes a column for each thing measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import Frame, joint_codes, plural
from mixlaw.interop.roles import COUNTED, STEPS, TOKENS, find, find_all, snake

KEYS = (
    "metric",
    "metric_name",
    "variable",
    "target",
    "key",
    "tag",
    "task",
    "eval",
    "benchmark",
    "valid_domain",
    "validation_domain",
    "eval_domain",
    "dataset",
    "subset",
    "domain",
    "source",
)
"""Columns that say what a row measures; several are joined with a slash, in this order."""

VALUES = ("value", "values", "metric_value", "result")
"""Columns of measurements of anything."""

MEASURES = (
    *("loss", "val_loss", "valid_loss", "validation_loss", "eval_loss", "bpb", "error", "score"),
    *("ppl", "perplexity", "weight", "weights", "share", "proportion", "ratio", "percent"),
)
"""Columns of measurements of their own name."""


def widened(frame: Frame) -> Frame:
    """A table of rows (run, step, what, value) with a column for each "what"; any other as it is.

    A column "loss" beside a column "domain" becomes "loss/<domain>". Columns that differ between
    the rows of one run and step, and are not measured, are left out.

    Raises: RunTableError: one thing measured twice, with two values.
    """
    names = {snake(name): name for name in frame.columns}
    keys = [names[k] for k in KEYS if k in names and _tells_apart(frame, names[k])]
    values = [
        names[v] for v in (*VALUES, *MEASURES) if v in names and _holds_numbers(frame, names[v])
    ]
    general = any(snake(value) in VALUES for value in values)
    if general and not keys:  # one thing is measured throughout
        keys = [names[k] for k in KEYS if k in names and frame.columns[names[k]].dtype == object][
            :1
        ]
    if not keys or not values:
        return frame
    index = _index(frame, [*keys, *values])
    others = [name for name in frame.columns if name not in (*keys, *values)]
    key = joint_codes([frame.codes(name) for name in keys])
    if (
        index
        and not general
        and len(frame)
        == 1 + max((rows := joint_codes([frame.codes(name) for name in index])).tolist())
    ):
        numbers = [name for name in others if name not in index]
        if numbers and _crosses(joint_codes([frame.codes(name) for name in numbers]), key):
            raise RunTableError(
                f"{frame.place(0)}: {', '.join(keys)} seems to say what is measured in each row, "
                f"but by {', '.join(index)} each row is a run of its own; add a column of runs and "
                f"leave out what differs within them, or, if {keys[0]} says something else, give "
                "it another name"
            )
        return frame  # every row is a run or a checkpoint of its own: the table is wide
    if not index:
        if not others:
            return frame
        rows = joint_codes([frame.codes(name) for name in others])
        if not _crosses(rows, key):
            return frame
        index = others
    rows = joint_codes([frame.codes(name) for name in index])
    _refuse_unnamed(frame, keys, values)
    first, rows = _in_order(rows)
    labels = _labels(frame, keys, key)
    measured, merged = {}, 0
    for name in values:
        wide, twice = _spread(frame, name, rows, key)
        merged += twice
        prefix = "" if snake(name) in VALUES else f"{name}/"
        measured |= {f"{prefix}{label}": wide[:, j] for j, label in enumerate(labels)}
    kept, dropped = {}, []
    for name, cells in frame.columns.items():
        if name in index or _constant(frame, name, first, rows):
            kept[name] = cells[first]
        elif name not in keys and name not in values:
            dropped.append(name)
    notes = [f"a long table: {', '.join(keys)} says what {', '.join(values)} measures"]
    if merged:
        notes.append(f"merged {plural(merged, 'row')} that repeated a measurement")
    if dropped:
        notes.append(f"left out, since they differ within a run and step: {', '.join(dropped)}")
    kept = {k: v for k, v in kept.items() if k not in keys and k not in values}
    return frame.select(
        first,
        columns=kept | measured,
        logged=find(frame, (*STEPS, *TOKENS)) is not None,
        notes=(*frame.notes, *notes),
    )


def _tells_apart(frame: Frame, name: str) -> bool:
    """Whether a column is text or whole numbers, of at least two kinds."""
    cells = frame.columns[name]
    named = cells.dtype == np.int64 or (cells.dtype == object and not frame.is_numeric(name))
    return named and frame.codes(name).max() > 0


def _holds_numbers(frame: Frame, name: str) -> bool:
    """Whether a column holds some; text among them is an error when they are read."""
    return frame.is_numeric(name) or frame.is_mixed(name)


def _crosses(rows: np.ndarray, key: np.ndarray) -> bool:
    """Whether groups of rows have several keys, each once."""
    pairs = joint_codes([rows, key])
    return rows.max() + 1 < len(rows) and pairs.max() + 1 == len(rows)


def _refuse_unnamed(frame: Frame, keys: Sequence[str], values: Sequence[str]) -> None:
    """Raises: RunTableError: a measurement of which nothing says what it is."""
    empty = np.all([frame.texts(name) == None for name in keys], axis=0)  # noqa: E711
    measured = np.any([~np.isnan(frame.numbers(name)) for name in values], axis=0)
    if (wrong := np.flatnonzero(empty & measured)).size:
        raise RunTableError(
            f"{frame.place(int(wrong[0]))}: {', '.join(keys)} is empty, so nothing says what "
            "was measured; fill it in, or leave the row out"
        )


def _index(frame: Frame, others: Sequence[str]) -> list[str]:
    """Columns that say of which run and step a row is: texts, and counts by their names."""
    counts = find_all(frame, COUNTED)
    return [
        name
        for name, cells in frame.columns.items()
        if name not in others and (name in counts or cells.dtype == object)
    ]


def _in_order(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each group, and the groups of the rows, numbered as they first appear."""
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[codes.reshape(-1)]


def _labels(frame: Frame, keys: Sequence[str], key: np.ndarray) -> list[str]:
    """What each code of the joined keys is called."""
    first = np.unique(key, return_index=True)[1]
    parts = [frame.texts(name)[first] for name in keys]
    return ["/".join(str(part) for part in label) for label in zip(*parts, strict=True)]


def _spread(frame: Frame, name: str, rows: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, int]:
    """(groups, keys) one measure, NaN where there is none, and how many rows repeat another.

    Raises: RunTableError: two values of one group and key.
    """
    values = frame.numbers(name)
    known = np.flatnonzero(~np.isnan(values))
    wide = np.full((rows.max() + 1, key.max() + 1), np.nan)
    wide[rows[known], key[known]] = values[known]
    other = known[wide[rows[known], key[known]] != values[known]]
    if len(other):
        i = int(other[0])
        same = (rows[known] == rows[i]) & (key[known] == key[i])
        j = int(known[same][-1])
        raise RunTableError(
            f"{frame.place(i)} and {frame.place(j)} measure the same thing with two values of "
            f"{name}, {values[i]:g} and {values[j]:g}; keep one, or add a column that tells the "
            "runs apart"
        )
    return wide, len(known) - int((~np.isnan(wide)).sum())


def _constant(frame: Frame, name: str, first: np.ndarray, rows: np.ndarray) -> bool:
    codes = frame.codes(name)
    return bool((codes == codes[first][rows]).all())
