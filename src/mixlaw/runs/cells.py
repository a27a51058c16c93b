"""Cells of run tables: read, checked, and named with their row when they are wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mixlaw.errors import MixtureError, RunTableError
from mixlaw.files import parse_json
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
"""How far the weights of a row may lie from the dose of its schedule; tables round."""


def higher_is_better(target: str) -> bool:
    """Whether `metric/name` is a score rather than a loss."""
    return target.partition("/")[0] in HIGHER_IS_BETTER


def number(row: Mapping[str, Any], key: str, index: int) -> float | None:
    """A cell of the row of an index from 0; None for an empty one. Raises: RunTableError: text."""
    cell = row.get(key)
    if cell is None or cell == "":
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise RunTableError(f"row {index + 1}: {key} is {cell!r}; it must be a number") from None


def schedule_of(row: Mapping[str, Any], index: int, sum_tolerance: float) -> Schedule | None:
    """The schedule of a row, also one that never changes; None for an empty cell.

    Args:
        sum_tolerance: sums in it that are this near to 1 are rescaled to it.
    Raises: RunTableError: it is no JSON, or no schedule.
    """
    cell = row.get("schedule")
    if cell is None or cell == "":
        return None
    try:
        given = parse_json(cell) if isinstance(cell, str) else cell
    except ValueError as error:
        raise RunTableError(
            f"row {index + 1}: schedule is {cell!r}, which is no JSON ({error}); it must be "
            "[[share of training, {domain: proportion}], ...]"
        ) from error
    try:
        return Schedule.from_list(given, sum_tolerance=sum_tolerance)
    except MixtureError as error:
        raise RunTableError(f"row {index + 1}: schedule: {error}") from error


def with_dose(
    row: Mapping[str, Any], index: int, schedule: Schedule | None, sum_tolerance: float
) -> Mapping[str, Any]:
    """A row whose weights are the dose of its schedule, if it has one.

    Args:
        sum_tolerance: how far a table rounds, that is how far its weights may lie from the dose.
    Raises: RunTableError: they lie further.
    """
    if schedule is None:
        return row
    tolerance = max(DOSE_TOLERANCE, sum_tolerance)
    dose = {f"weight/{name}": share for name, share in schedule.dose.items()}
    dose = {key: 0.0 for key in row if str(key).startswith("weight/")} | dose
    for key, expected in dose.items():
        given = number(row, key, index)
        if given is not None and not abs(given - expected) <= tolerance:  # also so for NaN
            raise RunTableError(
                f"row {index + 1}: {key} is {given}, its schedule gives {expected:.6g} over the "
                "whole run; the weights of a scheduled run are its dose, or left empty"
            )
    return {**row, **dose}


def starts(
    rows: Sequence[Mapping[str, Any]], targets: Sequence[str], columns: Sequence[str]
) -> np.ndarray:
    """(n, T) the targets at step 0; NaN where a cell is empty, or its column missing.

    Raises: RunTableError: a column of no target, or a value that is none of its metric.
    """
    given = {c.removeprefix("start/") for c in columns if c.startswith("start/")}
    if strangers := sorted(given - set(targets)):
        raise RunTableError(f"start/ columns of {strangers}, which are no targets of the table")
    return np.stack(
        [positive(rows, f"start/{t}", or_zero=higher_is_better(t)) for t in targets], axis=1
    )


def seed_of(row: Mapping[str, Any], index: int) -> int:
    """0 for an empty cell. Raises: RunTableError: no whole number."""
    found = number(row, "seed", index) or 0.0
    if not (math.isfinite(found) and found.is_integer()):
        raise RunTableError(f"row {index + 1}: seed is {found}; it must be a whole number")
    return int(found)


def positive(rows: Sequence[Mapping[str, Any]], key: str, *, or_zero: bool = False) -> np.ndarray:
    """(n,) finite numbers above zero (or zero); NaN where the cell is empty.

    Raises: RunTableError: something else.
    """
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
    """(n, M) unique tokens of each domain; inf where a cell is empty: they do not run out.

    Raises: RunTableError: a column of no domain, no count, or a row without train_tokens.
    """
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
    """(n, M) proportions, 0 where a cell is empty; sums this near to 1 are rescaled to it.

    Raises: RunTableError: a negative proportion, or another sum.
    """
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


def strings(
    rows: Sequence[Mapping[str, Any]], key: str, default: Callable[[int], str]
) -> np.ndarray:
    """(n,) text; of the row's index by `default` where the cell is empty."""
    return np.array([str(row.get(key) or default(i)) for i, row in enumerate(rows)])


def blank(value: float) -> float | None:
    """None for NaN, which an empty cell stands for."""
    return None if np.isnan(value) else float(value)


def whole(value: float) -> int | float | None:
    """`blank`, without a fraction of zero."""
    if np.isnan(value):
        return None
    return int(value) if float(value).is_integer() else float(value)
