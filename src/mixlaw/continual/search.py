"""Searches over the share, a number from 0 to 1: a grid, of which one cell is cut finer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Of = Callable[[np.ndarray], np.ndarray]
"""A function of shares (q,)."""

GRID, ZOOM, ROUNDS = 400, 32, 6
"""Cells of the first grid, of the next ones, and how often: to 1e-11."""


def reach(holds: Of, most: float) -> float:
    """How far from 0 to `most` a condition that holds at 0 holds without a break.

    At 0 itself it is not asked, since there rounding may decide it.
    """
    if most <= 0:
        return 0.0
    low, high, cells = 0.0, most, GRID
    for _ in range(ROUNDS):
        cut = np.linspace(low, high, cells + 1)
        broken = np.flatnonzero(~holds(cut[1:]))
        if len(broken) == 0:
            return float(high)
        low, high, cells = cut[broken[0]], cut[broken[0] + 1], ZOOM
    return float(low)


def least(objective: Of, low: float, high: float) -> float:
    """The share from `low` to `high` of least objective."""
    cells, best = GRID, low
    for _ in range(ROUNDS):
        cut = np.linspace(low, high, cells + 1)
        at = int(np.argmin(objective(cut)))
        best = float(cut[at])
        low, high, cells = cut[max(0, at - 1)], cut[min(cells, at + 1)], ZOOM
    return best
