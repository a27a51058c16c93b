"""Geometry of {lower <= r <= upper, sum r = 1}: its extreme points, gap and projection.

All arrays are (M,). Linear functions are minimised greedily and exactly: no solver is needed.
"""

from __future__ import annotations

import math

import numpy as np

from mixlaw.errors import InfeasibleError

ON_BOUND = 1e-14
"""A proportion this near to a bound is on it."""


def check_bounds(lower: np.ndarray, upper: np.ndarray) -> None:
    """Raise InfeasibleError unless some mixture lies within the bounds."""
    if not (lower <= upper).all():  # also true for NaN
        j = int(np.argmin(upper - lower))
        raise InfeasibleError(
            f"domain number {j} has lower bound {lower[j]:g} above its upper bound {upper[j]:g}; "
            "lower the first or raise the second"
        )
    if not (lower.sum() <= 1 + 1e-9 and upper.sum() >= 1 - 1e-9):
        raise InfeasibleError(
            f"the lower bounds sum to {lower.sum():.6f} and the upper to {upper.sum():.6f}; "
            "1 must lie between; relax the bounds"
        )


def extreme(gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """argmin of gradient . s over the polytope: fill up the cheapest domains first."""
    order = np.argsort(gradient, kind="stable")
    room = (upper - lower)[order]
    before = np.cumsum(room) - room
    out = lower.copy()
    out[order] += np.minimum(np.maximum(1 - lower.sum() - before, 0), room)
    return out


def frank_wolfe_gap(
    point: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> float:
    """max of gradient . (point - s) over the polytope; >= 0.

    For a convex f it bounds the distance to the optimum: f(point) - min f <= gap.
    Source: Jaggi, "Revisiting Frank-Wolfe", ICML 2013.
    """
    # Both sum to 1, so centring changes nothing but keeps digits when slopes are large.
    centred = gradient - gradient.mean()
    return max(0.0, float(centred @ (point - extreme(centred, lower, upper))))


def project(point: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The nearest mixture within the bounds (Euclidean): clip(point - shift) with sum 1.

    The sum falls with the shift and is linear between kinks; bisection over the sorted kinks
    brackets the root, and the bracket is solved exactly.
    """
    kinks = np.sort(np.concatenate([point - upper, point - lower]))
    first, last = 0, len(kinks) - 1
    while last - first > 1:
        middle = (first + last) // 2
        above = np.clip(point - kinks[middle], lower, upper).sum() >= 1
        first, last = (middle, last) if above else (first, middle)
    high, low = (float(np.clip(point - kinks[k], lower, upper).sum()) for k in (first, last))
    share = (high - 1) / (high - low) if high > low else 0.0
    shift = kinks[first] + min(max(share, 0.0), 1.0) * (kinks[last] - kinks[first])
    return settle(point - shift, lower, upper)


def settle(point: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Remove rounding: snap to the bounds, and give what the sum lacks to whoever has most room."""
    point = np.where(point <= lower + ON_BOUND, lower, np.minimum(point, upper))
    rest = 1 - math.fsum(point)
    room = upper - point if rest > 0 else point - lower
    inside = np.minimum(upper - point, point - lower)
    # Preferably to one well inside its bounds, so that who is on a bound stays on it.
    j = int(np.argmax(inside if inside.max() > abs(rest) else room))
    point[j] = min(max(point[j] + rest, lower[j]), upper[j])
    return point
