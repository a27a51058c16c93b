"""Minimise the largest of some smooth functions of a mixture under limits, with a certificate.

    minimise  max_k f_k(r)  over  lower <= r <= upper, sum r = 1, least <= rows r <= most, g(r) <= 0

Sequential quadratic programming: curvature of the Lagrangian (exact where it is given, else BFGS),
steps by an exact quadratic programme, an exact penalty for `g`, and a second-order correction where
curved limits would reject a good step (Nocedal & Wright, Numerical Optimization, 2006, ch. 18). One
function f_1 and no `g` is the common case.

The multipliers give the certificate. For any weights w >= 0 of sum 1 and prices v >= 0

    min over the limits of max_k f_k  >=  w . f(r) + v . g(r) - gap of (w . f + v . g) at r

when all f_k and g are convex, where the last term is the Frank-Wolfe gap over the linear limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixlaw.errors import FitError, InfeasibleError
from mixlaw.optimize.polytope import Polytope, quadratic


class Values(NamedTuple):
    """What a problem is worth at one mixture.

    Attributes:
        parts: (K,) of which the largest is minimised, K >= 1; part_slopes: (K, M).
        limits: (C,) each to be <= 0; limit_slopes: (C, M).
    """

    parts: np.ndarray
    part_slopes: np.ndarray
    limits: np.ndarray
    limit_slopes: np.ndarray


Function = Callable[[np.ndarray], Values]
"""Proportions (M,) -> values."""

Curvature = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Proportions (M,), weights (K,), prices (C,) -> second derivatives (M, M) of
`weights @ parts + prices @ limits`."""

GAP_TOLERANCE = 1e-8
"""Relative to the value: a gap below this ends the search."""

BROKEN = 1e-9
"""A curved limit g(r) <= 0 is kept when g(r) is at most this."""

_MAX_STEPS = 500
_ARMIJO = 1e-4  # a step must bring this fraction of what the model promises
_SHORTEST = 1e-10
_DEAREST = 1e9
_RIDGE = 1e-6  # of the mean curvature


@dataclass(frozen=True, eq=False)
class Solution:
    """The best mixture found.

    Attributes:
        proportions: (M,) within the limits, summing to 1.
        value: the largest part there.
        gap: no mixture within the limits is better by more than this (convex problems); None
            when there is no such certificate.
        spread: worst minus best value over the starts; large when a problem that is not convex
            has several minima. 0 for a convex one.
        weights: (K,) >= 0, sum 1: how much each part counts at the optimum.
        prices: (C,) >= 0: what each curved limit costs, in the value per unit of the limit.
        evaluations: of the function, all starts together.
    """

    proportions: np.ndarray
    value: float
    gap: float | None
    spread: float
    weights: np.ndarray
    prices: np.ndarray
    evaluations: int


def minimize_mixture(
    function: Function,
    polytope: Polytope,
    *,
    starts: np.ndarray,
    convex: bool,
    curvature: Curvature | None = None,
) -> Solution:
    """Minimise the largest part of `function` over the polytope, its limits kept.

    Args:
        function: finite within the polytope.
        starts: (S, M), S >= 1; moved into the polytope. A convex problem is solved from the best
            of them, any other from each.
        convex: whether all parts and limits are convex, so that the gap is a certificate.
        curvature: cuts the steps to about a quarter; None: BFGS learns it on the way.
    Raises:
        InfeasibleError: the limits hold no mixture (for a problem that is not convex: none was
            found).
        FitError: a value or slope is not finite within the polytope.
    """
    polytope.check()
    problem = _Problem(function, polytope, curvature)
    points = [polytope.project(start) for start in np.atleast_2d(starts)]
    if convex:
        points = [min(points, key=problem.merit)]
    found = [_descend(problem, point) for point in points]
    kept = [state for state in found if state.broken <= BROKEN]
    if not kept:
        least = min(found, key=lambda state: state.broken)
        raise InfeasibleError(
            f"no mixture keeps all limits: one of them is broken by {least.broken:.3g} at best; "
            "relax it"
        )
    best = min(kept, key=lambda state: state.value)
    return Solution(
        proportions=best.point,
        value=best.value,
        gap=best.gap if convex else None,
        spread=max(state.value for state in kept) - best.value,
        weights=best.weights,
        prices=best.prices,
        evaluations=problem.evaluations,
    )


class _Problem:
    """The function with its polytope; counts evaluations and refuses what is not finite."""

    def __init__(self, function: Function, polytope: Polytope, curvature: Curvature | None):
        self.function, self.polytope, self.curvature = function, polytope, curvature
        self.penalty = 0.0
        self.multipliers: np.ndarray | None = None  # of the last quadratic programme
        self.evaluations = 0
        self._key, self._last = b"", None

    def at(self, point: np.ndarray) -> Values:
        """The last point is remembered."""
        key = point.tobytes()
        if self._last is None or key != self._key:
            self.evaluations += 1
            values = self.function(point)
            if not all(np.isfinite(part).all() for part in values):
                raise FitError(
                    f"the fitted law gives {values.parts} (or a slope that is not finite) at the "
                    f"proportions {np.round(point, 4).tolist()}; fit it to more runs, or choose "
                    "another law"
                )
            self._key, self._last = key, values
        return self._last

    def quadratic(self, *programme: np.ndarray, equal: int):
        """As `polytope.quadratic`, from the multipliers of the last one."""
        solved = quadratic(*programme, equal=equal, start=self.multipliers)
        if solved is None and self.multipliers is not None:
            solved = quadratic(*programme, equal=equal)
        self.multipliers = solved and solved[1]
        return solved

    def merit(self, point: np.ndarray) -> float:
        values = self.at(point)
        return float(values.parts.max()) + self.penalty * broken(values)


def broken(values: Values) -> float:
    """By how much the worst limit is broken; 0 when all are kept."""
    return max(0.0, float(values.limits.max(initial=0.0)))


@dataclass
class _State:
    """Where a descent stands: the point and what the last quadratic programme said of it."""

    point: np.ndarray
    value: float
    broken: float
    gap: float
    weights: np.ndarray
    prices: np.ndarray


class _Step(NamedTuple):
    """A step (M,) with the model's merit after it, and multipliers."""

    direction: np.ndarray
    model: float
    weights: np.ndarray
    prices: np.ndarray
    row_prices: np.ndarray


def _descend(problem: _Problem, point: np.ndarray) -> _State:
    """A local minimum near `point` (M,)."""
    values = problem.at(point)
    scale = max(float(np.ptp(values.part_slopes, axis=1).max()), 1e-12)
    problem.penalty = 10 * scale if len(values.limits) else 0.0
    problem.multipliers = None
    model = _Model(problem, scale, values)
    best: _State | None = None
    for _ in range(_MAX_STEPS):
        values = problem.at(point)
        hessian = model.at(point)
        step = _model_step(problem, point, hessian, values, values)
        state = _judge(problem, point, values, step)
        if best is None or (state.broken, state.gap) <= (max(best.broken, BROKEN), best.gap):
            best = state
        if state.broken <= BROKEN and state.gap <= GAP_TOLERANCE * max(abs(state.value), 1e-12):
            break
        trial = _line_search(problem, point, hessian, values, step)
        if trial is None:  # no progress is left but rounding
            break
        model.learn(trial - point, _slope(problem.at(trial), step) - _slope(values, step), step)
        point = trial
    assert best is not None
    return best


class _Model:
    """Curvature (M, M) of the Lagrangian: exact, or learned on the way."""

    def __init__(self, problem: _Problem, scale: float, values: Values):
        m, k, c = values.part_slopes.shape[1], len(values.parts), len(values.limits)
        self.exact = problem.curvature
        # Before any curvature is known: a model whose first step is about a quarter long.
        self.learned, self.measured = 4 * scale * np.eye(m), False
        self.weights, self.prices = np.full(k, 1 / k), np.zeros(c)

    def at(self, point: np.ndarray) -> np.ndarray:
        if self.exact is None:
            return self.learned
        return _positive(self.exact(point, self.weights, self.prices))

    def learn(self, moved: np.ndarray, turned: np.ndarray, step: _Step) -> None:
        """From a step (M,) and the change of the Lagrangian's slope (M,) along it."""
        self.weights, self.prices = step.weights, step.prices
        if self.exact is not None:
            return
        turned = turned - turned.mean()  # curvature along the simplex only
        if not self.measured and moved @ turned > 0:
            size = float(turned @ turned) / float(moved @ turned)
            self.learned, self.measured = size * np.eye(len(moved)), True
        self.learned = _bfgs(self.learned, moved, turned)


def _positive(hessian: np.ndarray) -> np.ndarray:
    """The nearest safely positive definite curvature: directions that bend down bend up as much."""
    hessian = (hessian + hessian.T) / 2
    size = max(float(np.trace(np.abs(hessian))) / len(hessian), 1e-12)
    ridge = _RIDGE * size * np.eye(len(hessian))
    try:
        np.linalg.cholesky(hessian + 0.5 * ridge)
        return hessian + ridge
    except np.linalg.LinAlgError:
        bends, axes = np.linalg.eigh(hessian)
        return (axes * np.maximum(np.abs(bends), _RIDGE * size)) @ axes.T + ridge


def _slope(values: Values, step: _Step) -> np.ndarray:
    """Gradient (M,) of the Lagrangian with the step's multipliers."""
    return step.weights @ values.part_slopes + step.prices @ values.limit_slopes


def _judge(problem: _Problem, point: np.ndarray, values: Values, step: _Step) -> _State:
    """The point with its certificate."""
    value = float(values.parts.max())
    gap = problem.polytope.gap(point, _slope(values, step), step.row_prices)
    gap += value - float(step.weights @ values.parts) - float(step.prices @ values.limits)
    return _State(point, value, broken(values), max(0.0, gap), step.weights, step.prices)


def _model_step(
    problem: _Problem, point: np.ndarray, hessian: np.ndarray, slopes: Values, levels: Values
) -> _Step:
    """Minimise the model over the polytope: largest linearised part, penalty of the worst
    linearised limit, and curvature.

    Args: slopes: values at the point; levels: those that the linear parts start from, which
        differ from `slopes` in a second-order correction.
    """
    m, k, c = len(point), len(levels.parts), len(levels.limits)
    matrix, lower, upper = problem.polytope.step_limits(point)
    if k == 1 and c == 0:
        solved = problem.quadratic(hessian, slopes.part_slopes[0], matrix, lower, upper, equal=m)
        if solved is None:  # rounding made the model indefinite
            return _stay(point, slopes, problem.polytope)
        direction, multipliers = solved
        model = float(levels.parts[0] + slopes.part_slopes[0] @ direction)
        model += 0.5 * float(direction @ hessian @ direction)
        none = np.empty(0)
        return _Step(direction, model, np.ones(1), none, multipliers[m + 1 :])
    while True:
        # Further unknowns: t, the largest part (less its level now), and s >= 0, the worst
        # broken limit.
        top = float(levels.parts.max())
        bound = np.zeros((m + 2, m + 2))
        bound[:m, :m] = hessian
        bound[m, m] = bound[m + 1, m + 1] = 1e-9 * np.trace(hessian) / m
        rows = np.block(
            [
                [matrix, np.zeros((len(matrix), 2))],
                [slopes.part_slopes, -np.ones((k, 1)), np.zeros((k, 1))],
                [slopes.limit_slopes, np.zeros((c, 1)), -np.ones((c, 1))],
            ]
        )
        free = np.full(k + c, -np.inf)
        low = np.concatenate([lower[:m], [-np.inf, 0.0], lower[m:], free])
        high = np.concatenate(
            [upper[:m], [np.inf, np.inf], upper[m:], top - levels.parts, -levels.limits]
        )
        cost = np.concatenate([np.zeros(m), [1.0, problem.penalty]])
        solved = problem.quadratic(bound, cost, rows, low, high, equal=m + 2)
        if solved is None:
            return _stay(point, slopes, problem.polytope)
        unknowns, multipliers = solved
        short = unknowns[m + 1]
        # A linearised limit is broken because the penalty is too low, or cannot be kept.
        if short <= 1e-12 or problem.penalty >= _DEAREST:
            break
        problem.penalty *= 10
    direction = unknowns[:m]
    multipliers = multipliers[m + 2 :]
    row_prices, rest = multipliers[1 : len(matrix)], multipliers[len(matrix) :]
    weights, prices = np.maximum(rest[:k], 0), np.maximum(rest[k:], 0)
    total = weights.sum()
    weights = weights / total if total > 0 else np.eye(k)[int(np.argmax(levels.parts))]
    model = top + float(unknowns[m]) + problem.penalty * float(short)
    model += 0.5 * float(direction @ hessian @ direction)
    return _Step(direction, model, weights, prices, row_prices)


def _stay(point: np.ndarray, values: Values, polytope: Polytope) -> _Step:
    """No step, with multipliers that certify little."""
    weights = np.eye(len(values.parts))[int(np.argmax(values.parts))]
    none = np.zeros(len(values.limits))
    return _Step(0 * point, math.inf, weights, none, np.zeros(len(polytope.rows)))


def _line_search(
    problem: _Problem, point: np.ndarray, hessian: np.ndarray, values: Values, step: _Step
) -> np.ndarray | None:
    """Backtrack along a step whose full length stays in the polytope; None when nothing is
    gained."""
    merit = problem.merit(point)
    promised, length = merit - step.model, 1.0
    direction, curved = step.direction, len(values.parts) > 1 or len(values.limits) > 0
    while promised > 0 and length > _SHORTEST:
        trial = problem.polytope.settle(point + length * direction)
        reached = problem.merit(trial)
        if merit - reached >= _ARMIJO * length * promised:
            return trial if reached < merit else None
        if curved and length == 1.0:
            corrected = _corrected(problem, point, hessian, values, trial)
            if merit - problem.merit(corrected) >= _ARMIJO * promised:
                return corrected
        # Minimum of the parabola through what is known, kept from collapsing.
        excess = reached - merit + length * promised
        length = min(max(promised * length**2 / (2 * excess), 0.1 * length), 0.5 * length)
    return None


def _corrected(
    problem: _Problem, point: np.ndarray, hessian: np.ndarray, values: Values, trial: np.ndarray
) -> np.ndarray:
    """A step that knows how far the parts and limits bent away from their lines at `trial`."""
    moved, there = trial - point, problem.at(trial)
    levels = there._replace(
        parts=there.parts - values.part_slopes @ moved,
        limits=there.limits - values.limit_slopes @ moved,
    )
    step = _model_step(problem, point, hessian, values, levels)
    return problem.polytope.settle(point + step.direction)


def _bfgs(hessian: np.ndarray, step: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """BFGS update (M, M), damped after Powell so that it stays positive definite."""
    image = hessian @ step
    curvature, expected = float(step @ turn), float(step @ image)
    if expected <= 0:
        return hessian
    if curvature < 0.2 * expected:
        share = 0.8 * expected / (expected - curvature)
        turn = share * turn + (1 - share) * image
        curvature = float(step @ turn)
    return hessian + np.outer(turn, turn) / curvature - np.outer(image, image) / expected
