"""Minimise a smooth function of a mixture within bounds, with a certificate when it is convex.

A quasi-Newton method made for this polytope: BFGS curvature, and steps that minimise the
quadratic model over the bounds and the sum. At 100 domains it needs about a sixth of the time of
SLSQP, which also stalls before the gap closes (docs/decisions.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from mixlaw.errors import FitError
from mixlaw.optimize.polytope import ON_BOUND, check_bounds, frank_wolfe_gap, project, settle

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Proportions (M,) -> value and gradient (M,)."""

GAP_TOLERANCE = 1e-8
"""Relative to the value: a gap below this ends the search."""

# LAPACK itself: at 20 domains scipy's checks around it would take longer than the solution.
(_solve_positive,) = get_lapack_funcs(("posv",), dtype=np.float64)

_MAX_STEPS = 1000
_ARMIJO = 1e-4  # a step must bring this fraction of what its slope promises
_SHORTEST = 1e-10


@dataclass(frozen=True, eq=False)
class Solution:
    """The best mixture found.

    Attributes:
        proportions: (M,) within the bounds, summing to 1.
        value: the function there.
        gap: no mixture within the bounds is better by more than this (convex functions); None
            when there is no such certificate.
        spread: worst minus best value over the starts; large when a function that is not convex
            has several minima. 0 for a convex function.
        iterations: evaluations of the function, all starts together.
    """

    proportions: np.ndarray
    value: float
    gap: float | None
    spread: float
    iterations: int


def minimize_mixture(
    function: Function, lower: np.ndarray, upper: np.ndarray, *, starts: np.ndarray, convex: bool
) -> Solution:
    """Minimise `function` over {lower <= r <= upper, sum r = 1}.

    Args:
        function: value and gradient at (M,); must be finite within the bounds.
        lower, upper: (M,) proportions.
        starts: (S, M), S >= 1; moved into the bounds when outside. A convex function is solved
            from the best of them, any other from each.
        convex: whether the function is convex, so that the gap is a certificate.
    Raises:
        InfeasibleError: the bounds hold no mixture.
        FitError: the function or its gradient is not finite within the bounds.
    """
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)
    check_bounds(lower, upper)
    problem = _Problem(function, lower, upper)
    points = [project(start, lower, upper) for start in np.atleast_2d(starts)]
    if convex:
        points = [min(points, key=lambda point: problem.at(point)[0])]
    found = [_descend(problem, point) for point in points]
    values = [problem.at(point)[0] for point in found]
    best = int(np.argmin(values))
    return Solution(
        proportions=found[best],
        value=values[best],
        gap=problem.gap(found[best]) if convex else None,
        spread=float(np.ptp(values)),
        iterations=problem.evaluations,
    )


class _Problem:
    """The function with its bounds; counts evaluations and refuses what is not finite."""

    def __init__(self, function: Function, lower: np.ndarray, upper: np.ndarray):
        self.function, self.lower, self.upper = function, lower, upper
        self.evaluations = 0
        self._key, self._last = b"", (0.0, lower)

    def at(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient; the last point is remembered."""
        key = point.tobytes()
        if key != self._key:
            self.evaluations += 1
            value, gradient = self.function(point)
            gradient = np.asarray(gradient, float)
            if not (math.isfinite(value) and np.isfinite(gradient).all()):
                raise FitError(
                    f"the fitted law gives {value} (or a gradient that is not finite) at the "
                    f"proportions {np.round(point, 4).tolist()}; fit it to more runs, or choose "
                    "another law"
                )
            self._key, self._last = key, (float(value), gradient)
        return self._last

    def gap(self, point: np.ndarray) -> float:
        return frank_wolfe_gap(point, self.at(point)[1], self.lower, self.upper)

    def solved(self, point: np.ndarray) -> bool:
        """First-order optimal to the tolerance; for a convex function: optimal."""
        return self.gap(point) <= GAP_TOLERANCE * abs(self.at(point)[0])


def _descend(problem: _Problem, point: np.ndarray) -> np.ndarray:
    """A local minimum near `point` (M,), by BFGS with steps that respect the bounds."""
    # Before any curvature is known: a model whose first step is about a quarter long.
    hessian = 4 * float(np.ptp(problem.at(point)[1])) * np.eye(len(point))
    measured = False
    for _ in range(_MAX_STEPS):
        if problem.solved(point):
            break
        value, gradient = problem.at(point)
        direction = _model_step(problem, point, gradient, hessian)
        trial = _line_search(problem, point, value, gradient, direction)
        if trial is None:  # no progress is left but rounding
            break
        step, turn = trial - point, problem.at(trial)[1] - gradient
        turn = turn - turn.mean()  # curvature along the simplex only
        if not measured and step @ turn > 0:
            hessian = float(turn @ turn) / float(step @ turn) * np.eye(len(point))
            measured = True
        hessian = _bfgs(hessian, step, turn)
        point = trial
    return point


def _model_step(
    problem: _Problem, point: np.ndarray, gradient: np.ndarray, hessian: np.ndarray
) -> np.ndarray:
    """Minimise the quadratic model over the polytope, nearly: a descent direction (M,).

    Domains at a bound that the gradient presses against stay there. The others take the Newton
    step; those it pushes over a bound are fixed on it, on the side with the larger excess first,
    and the step is solved again (variable fixing: Kiwiel, Math. Program. 112, 2008).
    """
    lower, upper = problem.lower - point, problem.upper - point
    at_lower, at_upper = lower >= -ON_BOUND, upper <= ON_BOUND
    inside = ~(at_lower | at_upper)
    price = gradient[inside].mean() if inside.any() else np.median(gradient)
    free = inside | (at_lower & ~at_upper & (gradient < price))
    free |= at_upper & ~at_lower & (gradient > price)
    step = np.zeros_like(point)
    while free.any():
        index = np.flatnonzero(free)
        force = gradient[index] + hessian[index] @ step  # `step` is 0 where free
        right = np.stack([force, np.ones(len(index))], axis=1)
        _, solved, info = _solve_positive(hessian[np.ix_(index, index)], right)
        if info != 0:  # rounding made the model indefinite
            break
        pull, unit = solved.T
        newton = (pull.sum() - step.sum()) / unit.sum() * unit - pull
        excess = np.clip(newton, lower[index], upper[index]) - newton
        if not excess.any():
            step[index] = newton
            break
        over = excess > 0 if excess.sum() > 0 else excess < 0
        step[index[over]] = (newton + excess)[over]
        free[index[over]] = False
    if abs(step.sum()) <= 1e-12 and gradient @ step < 0:
        return step
    # The plain projected gradient step is always one of descent.
    length = len(point) / np.trace(hessian)
    return project(point - length * gradient, problem.lower, problem.upper) - point


def _line_search(
    problem: _Problem,
    point: np.ndarray,
    value: float,
    gradient: np.ndarray,
    direction: np.ndarray,
) -> np.ndarray | None:
    """Backtrack along a direction whose full length stays feasible; None when nothing is gained."""
    slope, length = float(gradient @ direction), 1.0
    while slope < 0 and length > _SHORTEST:
        trial = settle(point + length * direction, problem.lower, problem.upper)
        excess = problem.at(trial)[0] - value - length * slope
        if excess <= (_ARMIJO - 1) * length * slope:
            return trial if problem.at(trial)[0] < value else None
        # Minimum of the parabola through what is known, kept from collapsing.
        length = min(max(-slope * length**2 / (2 * excess), 0.1 * length), 0.5 * length)
    return None


def _bfgs(hessian: np.ndarray, step: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """BFGS update (M, M), damped after Powell so that it stays positive definite."""
    image = hessian @ step
    curvature, expected = float(step @ turn), float(step @ image)
    if curvature < 0.2 * expected:
        share = 0.8 * expected / (expected - curvature)
        turn = share * turn + (1 - share) * image
        curvature = float(step @ turn)
    return hessian + np.outer(turn, turn) / curvature - np.outer(image, image) / expected
