"""Searches over the share, a number from 0 to 1: a grid, whose right cell is cut finer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Of = Callable[[np.ndarray], np.ndarray]
"""A function of shares (q,)."""

GRID, ZOOM, ROUNDS = 400, 32, 6
"""Cells of the first grid, of the next ones, and how often: to 1e-11."""


def largest(holds: Of) -> float:
    """The largest share at which a condition holds; 0 when it holds nowhere."""
    grid = np.linspace(0.0, 1.0, GRID + 1)
    found = np.flatnonzero(holds(grid))
    if len(found) == 0 or found[-1] == GRID:
        return 0.0 if len(found) == 0 else 1.0
    low, high = grid[found[-1]], grid[found[-1] + 1]
    for _ in range(ROUNDS):
        cut = np.linspace(low, high, ZOOM + 1)
        last = np.flatnonzero(holds(cut[:-1])).max(initial=0)
        low, high = cut[last], cut[last + 1]
    return float(low)


def reach(holds: Of, most: float) -> float:
    """How far from 0 to `most` a condition holds without a break; it holds at 0."""
    if most == 0:
        return 0.0
    broken = np.flatnonzero(~holds(np.linspace(0.0, most, GRID + 1)))
    if len(broken) == 0:
        return most
    until = most * max(int(broken[0]), 1) / GRID
    return until * largest(lambda steps: holds(until * steps))


def least(objective: Of) -> float:
    """The share of least objective."""
    low, high, cells, best = 0.0, 1.0, GRID, 0.0
    for _ in range(ROUNDS):
        cut = np.linspace(low, high, cells + 1)
        at = int(np.argmin(objective(cut)))
        best = float(cut[at])
        low, high, cells = cut[max(0, at - 1)], cut[min(cells, at + 1)], ZOOM
    return best
