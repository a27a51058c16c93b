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
from dataclasses import dataclass, replace
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

Cut = Callable[[np.ndarray], tuple[np.ndarray, float] | None]
"""Proportions (M,) -> a row (M,) and the least that `row @ r` may be for any r within the limits,
which the proportions break; None where they keep all."""

GAP_TOLERANCE = 1e-8
"""Relative to the value: a gap below this ends the search."""

BROKEN = 1e-9
"""A curved limit g(r) <= 0 is kept when g(r) is at most this."""

_MAX_STEPS = 500
_ARMIJO = 1e-4  # a step must bring this fraction of what the model promises
_SHORTEST = 1e-10
_DEAREST = 1e6  # how far the penalty may rise
_BENT = 0.1
_LEAST_SIZE = 1e-3  # of a value near 0, in how much the parts change over the simplex
_RIDGE = 1e-6  # of the median curvature


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
        converged: whether the search ended because the gap was small enough, not for want of
            progress.
    """

    proportions: np.ndarray
    value: float
    gap: float | None
    spread: float
    weights: np.ndarray
    prices: np.ndarray
    evaluations: int
    converged: bool


def minimize_mixture(
    function: Function,
    polytope: Polytope,
    *,
    starts: np.ndarray,
    convex: bool,
    curvature: Curvature | None = None,
    cut: Cut | None = None,
    tolerance: float = GAP_TOLERANCE,
) -> Solution:
    """Minimise the largest part of `function` over the polytope, its limits kept.

    Args:
        function: finite within the polytope.
        starts: (S, M), S >= 1; moved into the polytope. A convex problem is solved from the best
            of them, any other from each.
        convex: whether all parts and limits are convex, so that the gap is a certificate.
        curvature: cuts the steps to about a quarter; None: BFGS learns it on the way.
        cut: further limits that have edges, so that no slope describes them nearby; they are kept
            by adding one linear limit after another where the optimum breaks them (Kelley, J. SIAM
            1960).
        tolerance: the gap, relative to the value, at which the search ends.
    Raises:
        InfeasibleError: the limits hold no mixture (for a problem that is not convex: none was
            found).
        FitError: a value or slope is not finite within the polytope.
    """
    polytope.check()
    evaluations = 0
    while True:
        problem = _Problem(function, polytope, curvature, convex=convex, tolerance=tolerance)
        solution = _minimize(problem, starts)
        evaluations += solution.evaluations
        found = cut and cut(solution.proportions)
        if not found:
            return replace(solution, evaluations=evaluations)
        polytope = polytope.with_rows(found[0], np.array(found[1]), np.array(np.inf))
        starts = np.vstack([solution.proportions, starts])


def _minimize(problem: _Problem, starts: np.ndarray) -> Solution:
    """The best mixture found within the polytope."""
    polytope, convex = problem.polytope, problem.convex
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
        converged=best.converged,
    )


class _Problem:
    """The function with its polytope; counts evaluations and refuses what is not finite."""

    def __init__(
        self,
        function: Function,
        polytope: Polytope,
        curvature: Curvature | None,
        *,
        convex: bool,
        tolerance: float,
    ):
        self.function, self.polytope, self.curvature = function, polytope, curvature
        self.convex, self.tolerance = convex, tolerance
        self.penalty = 0.0
        self.scale = 1.0  # by how much the parts change over the simplex, about
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


def _spread(values: Values) -> float:
    """By how much a part changes over the simplex, to first order."""
    return float(np.ptp(values.part_slopes, axis=1).max())


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
    converged: bool


class _Step(NamedTuple):
    """A step (M,) with the model's merit after it, the worst linearised limit that it breaks, and
    multipliers."""

    direction: np.ndarray
    model: float
    short: float
    weights: np.ndarray
    prices: np.ndarray
    row_prices: np.ndarray


def _descend(problem: _Problem, point: np.ndarray) -> _State:
    """A local minimum near `point` (M,)."""
    values = problem.at(point)
    problem.scale = problem.penalty = max(_spread(values), 1e-12)
    problem.multipliers = None
    model = _Model(problem, values)
    best: _State | None = None
    blind = math.inf
    for _ in range(_MAX_STEPS):
        values = problem.at(point)
        hessian = model.at(point)
        step = _model_step(problem, point, hessian, values)
        state = _judge(problem, point, values, step)
        if best is None or (state.broken, state.gap) <= (max(best.broken, BROKEN), best.gap):
            best = state
        if state.converged:
            break
        trial = _line_search(problem, point, hessian, values, step)
        if trial is None:
            # Near the optimum the merit no longer tells a step from rounding, but the gap does.
            if state.gap > 0.5 * blind:
                break
            blind, trial = state.gap, problem.polytope.settle(point + step.direction)
        model.learn(trial - point, _slope(problem.at(trial), step) - _slope(values, step), step)
        point = trial
    assert best is not None
    return best


class _Model:
    """Curvature (M, M) of the Lagrangian: exact, or learned on the way."""

    def __init__(self, problem: _Problem, values: Values):
        m, k, c = values.part_slopes.shape[1], len(values.parts), len(values.limits)
        self.exact = problem.curvature
        # Before any curvature is known: a model whose first step is about a quarter long.
        self.learned, self.measured = 4 * problem.scale * np.eye(m), False
        self.weights, self.prices = np.full(k, 1 / k), np.zeros(c)
        self.scale, self.convex = problem.scale, problem.convex

    def at(self, point: np.ndarray) -> np.ndarray:
        if self.exact is None:
            return self.learned
        hessian = self.exact(point, self.weights, self.prices)
        return _positive(hessian, self.scale, sure=self.convex)

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


def _positive(hessian: np.ndarray, scale: float, *, sure: bool) -> np.ndarray:
    """The nearest safely positive definite curvature: directions that bend down bend up as much,
    unless it is sure that none does. A linear problem, of slopes about `scale`, gets a little."""
    hessian = (hessian + hessian.T) / 2
    # The median, since a distance bends without bound where a domain has next to nothing.
    size = max(float(np.sort(np.abs(hessian.diagonal()))[len(hessian) // 2]), 0.01 * scale)
    ridge = _RIDGE * size * np.eye(len(hessian))
    if sure:
        return hessian + ridge
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
    kept = broken(values)
    enough = problem.tolerance * max(abs(value), _LEAST_SIZE * problem.scale)
    return _State(
        point,
        value,
        kept,
        max(0.0, gap),
        step.weights,
        step.prices,
        converged=kept <= BROKEN and gap <= enough,
    )


def _model_step(problem: _Problem, point: np.ndarray, hessian: np.ndarray, values: Values) -> _Step:
    """Minimise the model over the polytope: the largest linearised part, and curvature, with the
    linearised limits kept. Where these conflict, the worst of them is broken at the price of the
    penalty, which rises while that gains little.
    """
    problem.scale = max(problem.scale, _spread(values))
    step = _programme(problem, point, hessian, values, values, elastic=False)
    if step is not None:
        price = float(step.prices.sum())
        if price > 0:  # a penalty far above the price would only shorten the steps
            problem.penalty = min(max(problem.penalty, 2 * price), 20 * price)
        return step
    enough = max(BROKEN, 0.5 * broken(values))
    while len(values.limits):
        step = _programme(problem, point, hessian, values, values, elastic=True)
        if step is None:
            break
        if step.short <= enough or problem.penalty >= _DEAREST * problem.scale:
            return step
        problem.penalty *= 10
    return _stay(point, values, problem.polytope)  # rounding made the model indefinite


def _programme(
    problem: _Problem,
    point: np.ndarray,
    hessian: np.ndarray,
    slopes: Values,
    levels: Values,
    *,
    elastic: bool,
) -> _Step | None:
    """The quadratic programme of a step; None when its limits conflict.

    Args: slopes: values at the point; levels: those that the linear parts start from, which
        differ from `slopes` in a second-order correction.

    Further unknowns, in units of the problem's scale so that the programme is well conditioned:
    t, the largest part less its level now, where there are several; s >= 0, the worst broken limit,
    where it is elastic.
    """
    m, k, c = len(point), len(levels.parts), len(levels.limits)
    matrix, lower, upper = problem.polytope.step_limits(point)
    top, scale, several = float(levels.parts.max()), problem.scale, k > 1
    n, t = m + several + elastic, m
    parts = slice(len(matrix), len(matrix) + k * several)
    limits = slice(parts.stop, parts.stop + c)
    bound, rows, low, high = hessian / scale, matrix, lower, upper
    cost = np.zeros(n) if several else slopes.part_slopes[0] / scale
    if several or c:
        bound, rows = np.zeros((n, n)), np.zeros((limits.stop, n))
        bound[:m, :m] = hessian / scale
        rows[: len(matrix), :m], rows[limits, :m] = matrix, slopes.limit_slopes
        low, high = np.full(n + len(rows), -np.inf), np.full(n + len(rows), np.inf)
        low[:m], high[:m] = lower[:m], upper[:m]
        low[n : n + len(matrix)], high[n : n + len(matrix)] = lower[m:], upper[m:]
        high[n + limits.start :] = -levels.limits
    if several:
        # Bending t changes only how the parts weigh against the curvature, and nothing at t = 0.
        rows[parts, :m], rows[parts, t] = slopes.part_slopes / scale, -1
        high[n + parts.start : n + parts.stop] = (top - levels.parts) / scale
        bound[t, t], cost[t] = _BENT, 1
    if elastic:
        cost = cost if several else np.append(cost, 0.0)
        rows[limits, -1], low[n - 1] = -1, 0
        bound[-1, -1] = cost[-1] = problem.penalty / scale
    solved = problem.quadratic(bound, cost, rows, low, high, equal=n)
    if solved is None:
        return None
    unknowns, multipliers = solved
    direction, multipliers = unknowns[:m], multipliers[n:]
    weights, prices = np.ones(1), np.maximum(multipliers[limits], 0) * scale
    row_prices = multipliers[1 : len(matrix)] * scale
    if several:
        weights = np.maximum(multipliers[parts], 0)
        total = weights.sum()
        if not total > 0:
            return None
        weights, prices, row_prices = weights / total, prices / total, row_prices / total
    short = float(max(0.0, (levels.limits + slopes.limit_slopes @ direction).max(initial=0.0)))
    model = float((levels.parts + slopes.part_slopes @ direction).max())
    model += problem.penalty * short + 0.5 * float(direction @ hessian @ direction)
    return _Step(direction, model, short, weights, prices, row_prices)


def _stay(point: np.ndarray, values: Values, polytope: Polytope) -> _Step:
    """No step, with multipliers that certify little."""
    weights = np.eye(len(values.parts))[int(np.argmax(values.parts))]
    none = np.zeros(len(values.limits))
    return _Step(0 * point, math.inf, broken(values), weights, none, np.zeros(len(polytope.rows)))


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
            if corrected is not None and merit - problem.merit(corrected) >= _ARMIJO * promised:
                return corrected
        # Minimum of the parabola through what is known, kept from collapsing.
        excess = reached - merit + length * promised
        length = min(max(promised * length**2 / (2 * excess), 0.1 * length), 0.5 * length)
    return None


def _corrected(
    problem: _Problem, point: np.ndarray, hessian: np.ndarray, values: Values, trial: np.ndarray
) -> np.ndarray | None:
    """A step that knows how far the parts and limits bent away from their lines at `trial`; None
    when the limits then conflict."""
    moved, there = trial - point, problem.at(trial)
    levels = there._replace(
        parts=there.parts - values.part_slopes @ moved,
        limits=there.limits - values.limit_slopes @ moved,
    )
    step = _programme(problem, point, hessian, values, levels, elastic=False)
    return step and problem.polytope.settle(point + step.direction)


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
