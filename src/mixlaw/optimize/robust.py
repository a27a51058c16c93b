"""An optimum that is not an artefact of one fit: over the laws of a bootstrap.

Shapes: R draws, T targets, K terms of the objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.laws.bootstrap import Bootstrap
from mixlaw.laws.points import Points
from mixlaw.laws.together import Together
from mixlaw.optimize.problem import AtScale, Problem
from mixlaw.optimize.solve import Solution

MEAN, WORST = "mean", "worst"
_ROUNDS, _STARTS = 20, 4


@dataclass(frozen=True, eq=False)
class Robust:
    """Minimise over refits to resampled mixtures instead of the one fit.

    Attributes:
        bootstrap: the refits.
        over: "mean", "worst", or a quantile in (0, 1) of the draws: .9 is the objective that 90 %
            of them keep below.
    """

    bootstrap: Bootstrap
    over: str | float = MEAN

    def __post_init__(self):
        if self.over not in (MEAN, WORST) and not (
            isinstance(self.over, float) and 0 < self.over < 1
        ):
            raise StudyError(
                f"the robust optimum is over {self.over!r}; use {MEAN!r}, {WORST!r} or a quantile "
                "between 0 and 1"
            )

    def solve(
        self, problem: Problem, scale: AtScale, starts: np.ndarray
    ) -> tuple[Problem, Solution]:
        """The problem over all draws, and its optimum from starting points (S, M).

        The mean is taken of each term; the worst and the quantile of the objective. A quantile is
        not convex: from each optimum the draws below it are kept, and their worst is minimised,
        which never raises the quantile, until nothing changes.
        """
        draws = Draws(self.bootstrap, scale)
        count, targets = len(self.bootstrap.draws), len(self.bootstrap.draws[0])
        if np.any(problem.matrix[:, targets:]):
            raise StudyError(
                "the robust optimum is over refits of the losses; leave scores out of its objective"
            )
        terms = problem.matrix[:, :targets]
        if self.over == MEAN:
            mean = replace(problem, law=draws, matrix=np.tile(terms, count) / count)
            return mean, mean.solve(starts)
        each = np.zeros((count, len(terms), count, targets))
        each[np.arange(count), :, np.arange(count)] = terms
        every = replace(
            problem,
            law=draws,
            matrix=each.reshape(-1, count * targets),
            offset=np.tile(problem.offset, count),
        )
        if self.over == WORST:
            return every, every.solve(starts)
        return self._quantile(every, count, starts)

    def _quantile(self, every: Problem, count: int, starts: np.ndarray) -> tuple[Problem, Solution]:
        found = [self._descend(every, count, start[None]) for start in starts[:_STARTS]]
        best = min(found, key=lambda solution: solution.value)
        spread = max(solution.value for solution in found) - best.value
        return replace(every, convex=False), replace(best, spread=spread)

    def _descend(self, every: Problem, count: int, start: np.ndarray) -> Solution:
        """A local minimum of the quantile near a starting point (1, M)."""
        number = math.ceil(float(self.over) * count)
        row_of = np.arange(len(every.matrix)).reshape(count, -1)  # draw, term
        point, best = every.limits.polytope.project(start[0])[None], None
        for _ in range(_ROUNDS):
            of_draw = every.terms(point)[0].reshape(count, -1).max(axis=1)
            kept = np.sort(np.argsort(of_draw, kind="stable")[:number])
            rows = row_of[kept].ravel()
            part = replace(every, matrix=every.matrix[rows], offset=every.offset[rows])
            found = part.solve(point)
            of_draw = every.terms(found.proportions[None])[0].reshape(count, -1).max(axis=1)
            value = float(np.sort(of_draw)[number - 1])
            if best is not None and value >= best.value - 1e-9 * abs(best.value):
                break
            best = replace(found, value=value, gap=None)
            point = found.proportions[None]
        assert best is not None
        return best


class Draws:
    """The laws of a bootstrap at one scale: T targets of each draw, one draw after another."""

    def __init__(self, bootstrap: Bootstrap, scale: AtScale):
        self.scale = scale
        self.laws = Together([law for draw in bootstrap.draws for law in draw.values()])

    def _points(self, weights: np.ndarray) -> Points:
        scale = self.scale
        return Points.at(
            weights,
            scale.num_params,
            scale.train_tokens,
            available_tokens=scale.available_tokens,
        )

    def predict(self, weights: np.ndarray) -> np.ndarray:
        return self.laws.predict(self._points(weights))

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return self.laws.gradient(self._points(weights))
