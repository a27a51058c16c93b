"""Cells of run tables: read, checked, and named with their row when they are wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixlaw.errors import MixtureError, RunTableError
from mixlaw.schedule import Schedule

UNITS = {
    "loss": "nats per token",
    "bpb": "bits per byte",
    "error": "share of wrong answers",
    "score": "score, higher is better",
}
"""The metric is the prefix of a target's name (`bpb/code`) and fixes its unit.

All but scores are fitted as losses: above zero, lower is better. A score (zero or above) is
forecast through its link to a loss, see `laws.links`."""

HIGHER_IS_BETTER = frozenset({"score"})

DOSE_TOLERANCE = 1e-4
"""How far the weights of a scheduled run may lie from its dose; tables round."""


def higher_is_better(target: str) -> bool:
    """Whether `metric/name` is a score rather than a loss."""
    return target.partition("/")[0] in HIGHER_IS_BETTER


def number(row: Mapping[str, Any], key: str, index: int) -> float | None:
    """None for an empty cell. Raises: RunTableError: text."""
    cell = row.get(key)
    if cell is None or cell == "":
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise RunTableError(f"row {index + 1}: {key} is {cell!r}; it must be a number") from None


def schedule_of(row: Any, index: int) -> Schedule | None:
    """None for an empty cell and for a schedule that never changes.

    Raises: RunTableError: something else.
    """
    cell = row.get("schedule") if isinstance(row, Mapping) else None
    if cell is None or cell == "":
        return None
    try:
        found = Schedule.from_list(json.loads(cell) if isinstance(cell, str) else cell)
    except (MixtureError, ValueError) as error:
        raise RunTableError(f"row {index + 1}: {error}") from error
    return None if found.is_static else found


def with_dose(row: Any, index: int, schedule: Schedule | None) -> Any:
    """A row whose weights are the dose of its schedule. Raises: RunTableError: they are not."""
    if schedule is None:
        return row
    dose = {f"weight/{name}": share for name, share in schedule.dose.items()}
    for key in dict.fromkeys([*dose, *(key for key in row if str(key).startswith("weight/"))]):
        given, expected = number(row, key, index), dose.get(key, 0.0)
        if given is not None and abs(given - expected) > DOSE_TOLERANCE:
            raise RunTableError(
                f"row {index + 1}: {key} is {given}, its schedule gives {expected:.6g} over the "
                "whole run; the weights of a scheduled run are its dose, or left empty"
            )
    return {**row, **dose}


def starts(
    rows: Sequence[Mapping[str, Any]], targets: Sequence[str], columns: Sequence[str]
) -> np.ndarray:
    given = {c.removeprefix("start/") for c in columns if c.startswith("start/")}
    if strangers := sorted(given - set(targets)):
        raise RunTableError(f"start/ columns of {strangers}, which are no targets of the table")
    return np.stack(
        [positive(rows, f"start/{t}", or_zero=higher_is_better(t)) for t in targets], axis=1
    )


def seed_of(row: Mapping[str, Any], index: int) -> int:
    found = number(row, "seed", index) or 0.0
    if not (math.isfinite(found) and found.is_integer()):
        raise RunTableError(f"row {index + 1}: seed is {found}; it must be a whole number")
    return int(found)


def positive(rows: Sequence[Mapping[str, Any]], key: str, *, or_zero: bool = False) -> np.ndarray:
    """(n,) finite numbers above zero; NaN where the cell is empty."""
    out = np.full(len(rows), np.nan)
    for i, row in enumerate(rows):
        found = number(row, key, i)
        if found is None:
            continue
        if not (math.isfinite(found) and (found > 0 or (or_zero and found == 0))):
            raise RunTableError(
                f"row {i + 1}: {key} is {found}; it must be finite and >{'=' * or_zero} 0 "
                "(leave the cell empty when it was not measured)"
            )
        out[i] = found
    return out


def available(
    rows: Sequence[Mapping[str, Any]], domains: Sequence[str], columns: Sequence[str]
) -> np.ndarray:
    out = np.full((len(rows), len(domains)), np.nan)
    given = {c.removeprefix("available_tokens/") for c in columns if c.startswith("available_t")}
    if strangers := sorted(given - set(domains)):
        raise RunTableError(f"available_tokens of {strangers}, which have no weight/ column")
    for domain in given:
        out[:, domains.index(domain)] = positive(rows, f"available_tokens/{domain}")
    limited = np.isfinite(out).any(axis=1)
    unknown = np.flatnonzero(limited & np.isnan(positive(rows, "train_tokens")))
    if len(unknown):
        raise RunTableError(
            f"row {unknown[0] + 1} has available_tokens but no train_tokens; epochs need both"
        )
    return np.where(np.isnan(out), np.inf, out)


def weights_of(
    rows: Sequence[Mapping[str, Any]], domains: Sequence[str], sum_tolerance: float
) -> np.ndarray:
    out = np.zeros((len(rows), len(domains)))
    for i, row in enumerate(rows):
        for j, domain in enumerate(domains):
            share = number(row, f"weight/{domain}", i) or 0.0
            if not (math.isfinite(share) and share >= 0):
                raise RunTableError(
                    f"row {i + 1}: the proportion of {domain!r} is {share}; "
                    "it must be finite and >= 0"
                )
            out[i, j] = share
    totals = out.sum(axis=1)
    worst = int(np.argmax(np.abs(totals - 1)))
    if abs(totals[worst] - 1) > sum_tolerance:
        raise RunTableError(
            f"row {worst + 1}: the proportions sum to {totals[worst]:.6f}; they must sum to 1 "
            f"within {sum_tolerance:g} (raise sum_tolerance if the source rounded them)"
        )
    return out / totals[:, None]


def strings(rows: Sequence[Mapping[str, Any]], key: str, default) -> np.ndarray:
    return np.array([str(row.get(key) or default(i)) for i, row in enumerate(rows)])


def blank(value: float) -> float | None:
    """None for NaN, which an empty cell stands for."""
    return None if np.isnan(value) else float(value)


def whole(value: float) -> int | float | None:
    """`blank`, without a fraction of zero."""
    if np.isnan(value):
        return None
    return int(value) if float(value).is_integer() else float(value)
