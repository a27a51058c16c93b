"""Which limits exclude each other: the smallest set of linear limits that no mixture keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

_MARGIN = 1e-6  # what HiGHS can tell from rounding


def smallest_conflict(rows: np.ndarray, most: np.ndarray) -> Sequence[int]:
    """Indices of the fewest limits `rows[i] @ r <= most[i]` that no mixture r (r >= 0, sum 1)
    keeps; empty when a mixture keeps all to 1e-6.

    By Farkas' lemma limits conflict when some y >= 0 makes `y @ rows` larger than `y @ most` in
    every domain. The y with the fewest positive entries is found by a small mixed-integer
    programme (Gleeson & Ryan, ORSA Journal on Computing 1990; Chinneck, 2008, ch. 6).

    Args: rows: (I, M); most: (I,).
    """
    sizes = np.abs(rows - rows.mean(axis=1, keepdims=True)).max(axis=1)
    size = np.where(sizes > 0, sizes, 1.0)  # one scale for all prices y
    rows, most = rows / size[:, None], most / size
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
        options={"time_limit": 10.0},
    )
    if found.x is None:
        return []
    return [int(i) for i in np.flatnonzero(found.x[count:] > 0.5)]
