"""Which limits exclude each other: the smallest set of linear limits that no mixture keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

_KEPT = 1e-6  # of a limit's range over the simplex; what HiGHS can tell from rounding
_MARGIN = 1e-4  # at which it also tells a price from a tolerance of its integers
_SECONDS = 5.0


def smallest_conflict(rows: np.ndarray, most: np.ndarray) -> Sequence[int]:
    """Indices of the fewest limits `rows[i] @ r <= most[i]` that no mixture r (r >= 0, sum 1)
    keeps; empty when a mixture keeps all to 1e-6. None of them can be left out; there may be a
    smaller set where limits conflict by less than 1e-4.

    By Farkas' lemma limits conflict when some y >= 0 makes `y @ rows` larger than `y @ most` in
    every domain. The y with the fewest positive entries is found by a small mixed-integer
    programme (Gleeson & Ryan, ORSA Journal on Computing 1990; Chinneck, 2008, ch. 6).

    Args: rows: (I, M); most: (I,).
    """
    sizes = np.abs(rows - rows.mean(axis=1, keepdims=True)).max(axis=1)
    size = np.where(sizes > 0, sizes, 1.0)  # one scale for all prices y
    rows, most = rows / size[:, None], most / size
    everything = list(range(len(rows)))
    if not _conflict(rows, most, everything):
        return []
    chosen = _fewest(rows, most)
    if not _conflict(rows, most, chosen):
        chosen = everything
    for i in list(chosen):
        without = [k for k in chosen if k != i]
        if _conflict(rows, most, without):
            chosen = without
    return chosen


def _conflict(rows: np.ndarray, most: np.ndarray, chosen: Sequence[int]) -> bool:
    """Whether every mixture breaks one of the chosen limits, by the least possible break."""
    if not chosen:
        return False
    m = rows.shape[1]
    found = linprog(
        np.append(np.zeros(m), 1.0),
        A_ub=np.hstack([rows[chosen], -np.ones((len(chosen), 1))]),
        b_ub=most[chosen],
        A_eq=np.append(np.ones(m), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
    )
    return bool(found.fun > _KEPT)


def _fewest(rows: np.ndarray, most: np.ndarray) -> list[int]:
    """The limits with a price in the sparsest proof of a conflict; empty when none was found."""
    count = len(rows)
    # Unknowns: y (I,), z (I,) in {0, 1} with y <= z. Each domain j: y . (rows_j - most) >= margin.
    excess = np.hstack([(rows - most[:, None]).T, np.zeros((rows.shape[1], count))])
    linked = np.hstack([np.eye(count), -np.eye(count)])
    found = milp(
        np.concatenate([np.zeros(count), np.ones(count)]),
        constraints=[
            LinearConstraint(excess, _MARGIN, np.inf),
            LinearConstraint(linked, -np.inf, 0),
        ],
        bounds=Bounds(0, 1),
        integrality=np.concatenate([np.zeros(count), np.ones(count)]),
        options={"time_limit": _SECONDS},
    )
    return [] if found.x is None else np.flatnonzero(found.x[count:] > 0.5).tolist()
