"""Mixtures within linear limits: lower <= r <= upper, sum r = 1, least <= rows r <= most.

All arrays are (M,), or (G, M) for G rows such as bounds on groups of domains. The small dense
quadratic programmes of this room are solved by DAQP, a dual active-set method (Arnstrom, Bemporad
and Axehill, IEEE TAC 2022): exact to rounding, with multipliers, in microseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import daqp
import numpy as np

from mixlaw.errors import InfeasibleError

ON_BOUND = 1e-14
"""A proportion this near to a bound is on it."""

SLACK = 1e-9
"""A limit broken by less than this is kept: rounding of what the user typed."""

_SOLVED, _INACCURATE, _INFEASIBLE = 1, 2, -1
_EQUAL = 5  # DAQP's mark of an equality


@dataclass(frozen=True, eq=False)
class Polytope:
    """Attributes:
    lower, upper: (M,) proportions.
    rows: (G, M); least, most: (G,) limits of `rows @ r`; infinite where there is none.
    """

    lower: np.ndarray
    upper: np.ndarray
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    least: np.ndarray = field(default_factory=lambda: np.empty(0))
    most: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self):
        lower, upper = np.asarray(self.lower, float), np.asarray(self.upper, float)
        rows = np.asarray(self.rows, float).reshape(-1, len(lower))
        for name, value in {"lower": lower, "upper": upper, "rows": rows}.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    def __len__(self) -> int:
        """M."""
        return len(self.lower)

    def with_rows(self, rows: np.ndarray, least: np.ndarray, most: np.ndarray) -> Polytope:
        """These limits and further rows."""
        return replace(
            self,
            rows=np.concatenate([self.rows, np.atleast_2d(rows)]),
            least=np.concatenate([self.least, np.atleast_1d(least)]),
            most=np.concatenate([self.most, np.atleast_1d(most)]),
        )

    def check(self) -> None:
        """Raise InfeasibleError unless some mixture lies within the limits."""
        if not (self.lower <= self.upper).all():  # also true for NaN
            j = int(np.argmin(self.upper - self.lower))
            raise InfeasibleError(
                f"domain number {j} has lower bound {self.lower[j]:g} above its upper bound "
                f"{self.upper[j]:g}; lower the first or raise the second"
            )
        if not (self.lower.sum() <= 1 + SLACK and self.upper.sum() >= 1 - SLACK):
            raise InfeasibleError(
                f"the lower bounds sum to {self.lower.sum():.6f} and the upper to "
                f"{self.upper.sum():.6f}; 1 must lie between; relax the bounds"
            )
        _ = self.centre

    @cached_property
    def centre(self) -> np.ndarray:
        """The mixture within the limits that is nearest to uniform."""
        return self.project(np.full(len(self), 1 / len(self)))

    @cached_property
    def _matrix(self) -> np.ndarray:
        """(1 + G, M): the sum, then the rows."""
        return np.vstack([np.ones(len(self)), self.rows])

    def step_limits(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Limits of a step d from a point (M,), in DAQP's form: matrix (1 + G, M) and lower and
        upper limits (M + 1 + G,) of `d` and of `matrix @ d`."""
        value = self.rows @ point
        lower = np.concatenate([self.lower - point, [0.0], self.least - value])
        upper = np.concatenate([self.upper - point, [0.0], self.most - value])
        return self._matrix, np.minimum(lower, upper), upper

    def project(self, point: np.ndarray) -> np.ndarray:
        """The nearest mixture within the limits (Euclidean).

        Raises: InfeasibleError: there is none.
        """
        inside = np.clip(point, self.lower, self.upper)
        matrix, lower, upper = self.step_limits(inside)
        lower[len(self)] = upper[len(self)] = 1 - math.fsum(inside)
        step = quadratic(np.eye(len(self)), inside - point, matrix, lower, upper, equal=len(self))
        if step is None:
            raise InfeasibleError(
                "no mixture lies within the bounds and the limits on groups; relax them"
            )
        return self.settle(inside + step[0])

    def settle(self, point: np.ndarray) -> np.ndarray:
        """Remove rounding: snap to the bounds, and give what the sum lacks to whoever is farthest
        inside his."""
        point = np.where(point <= self.lower + ON_BOUND, self.lower, np.minimum(point, self.upper))
        rest = 1 - math.fsum(point)
        room = self.upper - point if rest > 0 else point - self.lower
        inside = np.minimum(self.upper - point, point - self.lower)
        # Preferably to one well inside its bounds, so that who is on a bound stays on it.
        j = int(np.argmax(inside if inside.max() > abs(rest) else room))
        point[j] = min(max(point[j] + rest, self.lower[j]), self.upper[j])
        return point

    def gap(self, point: np.ndarray, gradient: np.ndarray, prices: np.ndarray) -> float:
        """An upper bound (>= 0) of gradient . (point - s) over the mixtures s within the limits.

        For any `prices` (G,): the rows leave the limits and enter the gradient at their prices
        (> 0: the upper limit presses, < 0: the lower one), which can only widen the range of s;
        what is left, bounds and sum, is solved greedily and exactly. With the multipliers of the
        optimum as prices it is the Frank-Wolfe gap itself (Jaggi, ICML 2013).
        """
        value = self.rows @ point
        limit = np.where(prices > 0, self.most, self.least)
        used = (prices != 0) & np.isfinite(limit)  # rounding may price a limit that is not there
        prices = np.where(used, prices, 0.0)
        # prices . (rows s - limit) <= 0 for every s within the limits
        slack = float(prices[used] @ (value - limit)[used])
        # Both sum to 1, so centring changes nothing but keeps digits when slopes are large.
        priced = gradient + prices @ self.rows
        priced = priced - priced.mean()
        return max(0.0, float(priced @ (point - self.extreme(priced))) - slack)

    def extreme(self, gradient: np.ndarray) -> np.ndarray:
        """argmin of gradient . s over bounds and sum alone: fill up the cheapest domains first."""
        order = np.argsort(gradient, kind="stable")
        room = (self.upper - self.lower)[order]
        before = np.cumsum(room) - room
        out = self.lower.copy()
        out[order] += np.minimum(np.maximum(1 - self.lower.sum() - before, 0), room)
        return out


def quadratic(
    hessian: np.ndarray,
    linear: np.ndarray,
    matrix: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    equal: int,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Minimise x H x / 2 + linear x within lower <= (x, matrix x) <= upper.

    Args:
        hessian: (n, n) positive semi-definite; linear: (n,); matrix: (m, n).
        lower, upper: (n + m,).
        equal: index among the limits of the one equality.
        start: multipliers (n + m,) of a similar problem.
    Returns: x (n,) and multipliers (n + m,), positive where an upper limit presses; None when the
        limits hold no x.
    """
    sense = np.zeros(len(upper), np.int32)
    sense[equal] = _EQUAL
    x, _, flag, info = daqp.solve(
        hessian,
        linear,
        matrix,
        np.minimum(upper, 1e30),
        np.maximum(lower, -1e30),
        sense,
        primal_tol=1e-11,
        dual_start=start,
    )
    if flag not in (_SOLVED, _INACCURATE):
        return None
    return np.asarray(x), np.asarray(info["lam"])
