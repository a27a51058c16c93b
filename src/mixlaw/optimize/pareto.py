"""What one objective costs another: the Pareto front between two or three of them.

Shapes: Q objectives, P points, M domains.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.mixture import Mixture
from mixlaw.optimize.decide import Question
from mixlaw.optimize.objective import Objective
from mixlaw.optimize.problem import Problem

FORMAT_VERSION = 1
_SAME, _ROUNDING = 1e-6, 1e-9
_AUGMENT = 1e-3


@dataclass(frozen=True)
class ParetoFront:
    """Mixtures of which none is better in all objectives.

    Attributes:
        objectives: Q names.
        mixtures: P mixtures, from the best in the first objective to the best in the last.
        values: P rows of Q predicted values, lower is better.
        best: name -> the lowest value that the objective can have within the limits.
    """

    objectives: tuple[str, ...]
    mixtures: tuple[Mixture, ...]
    values: tuple[tuple[float, ...], ...]
    best: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT_VERSION,
            "objectives": list(self.objectives),
            "mixtures": [dict(mixture) for mixture in self.mixtures],
            "values": [list(row) for row in self.values],
            "best": dict(self.best),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParetoFront:
        """Raises: StudyError: written by another format version."""
        if data.get("format") != FORMAT_VERSION:
            raise StudyError(
                f"this Pareto front has format {data.get('format')}, this mixlaw reads "
                f"{FORMAT_VERSION}; run `mixlaw pareto` again"
            )
        return cls(
            tuple(data["objectives"]),
            tuple(Mixture(mixture) for mixture in data["mixtures"]),
            tuple(tuple(row) for row in data["values"]),
            dict(data["best"]),
        )


def pareto(
    question: Question,
    objectives: Mapping[str, Objective],
    *,
    count: int = 11,
    seed: int = 0,
) -> ParetoFront:
    """The front between two or three objectives, in the question's limits and support.

    Each point minimises the largest of the objectives' distances from their own best, in units of
    how far they rise when another one has its best, weighted from one objective to the other
    (augmented Chebyshev scalarisation: Steuer & Choo, Math. Program. 26, 1983). It reaches every
    point of the front, convex or not; weighted sums reach only its hull.

    Args:
        question: its own objective is not used; its floors hold. A price of distance from a
            mixture is left out, a limit on it holds.
        objectives: name -> objective.
        count: points along each edge of the front, its ends included.
        seed: of the random starts for laws that are not convex.
    Raises:
        StudyError: fewer than two objectives or more than three, or fewer than two points.
        InfeasibleError, MixtureError, FitError: as `optimize`.
    """
    if not 2 <= len(objectives) <= 3:
        raise StudyError(f"a Pareto front is between 2 or 3 objectives, not {len(objectives)}")
    if count < 2:
        raise StudyError(f"count is {count}; a front needs at least its 2 ends")
    floors = {name: floor for one in objectives.values() for name, floor in one.floors.items()}
    floors |= question.objective.floors
    problems = []
    for objective in objectives.values():
        problem = replace(question, objective=replace(objective, floors=floors)).problem()
        problems.append(replace(question.guarded(problem), penalty=None))
    starts = question.starts(problems[0], seed)
    ends = np.stack([problem.solve(starts).proportions for problem in problems])
    at_ends = _values(problems, ends)
    best, worst = at_ends.min(axis=0), at_ends.max(axis=0)
    points = [*ends]
    for weights in _weights(len(problems), count):
        between = _scalarised(problems, weights, best, np.maximum(worst - best, 1e-12))
        points.append(between.solve(np.vstack([ends, starts])).proportions)
    kept = _front(np.stack(points), _values(problems, np.stack(points)))
    return ParetoFront(
        objectives=tuple(objectives),
        mixtures=tuple(Mixture.from_array(question.fitted.domains, point) for point, _ in kept),
        values=tuple(tuple(row.tolist()) for _, row in kept),
        best=dict(zip(objectives, best.tolist(), strict=True)),
    )


def _values(problems: Sequence[Problem], points: np.ndarray) -> np.ndarray:
    """(P, Q)."""
    return np.stack([problem.objective(points) for problem in problems], axis=1)


def _weights(number: int, count: int) -> list[np.ndarray]:
    """Interior weights (Q,) on a regular grid of the simplex; the ends are solved apart."""
    steps = count - 1
    grid = itertools.product(range(steps + 1), repeat=number - 1)
    out = [np.array([*row, steps - sum(row)]) / steps for row in grid if sum(row) <= steps]
    return [weights for weights in out if (weights > 0).sum() > 1]


def _scalarised(
    problems: Sequence[Problem], weights: np.ndarray, best: np.ndarray, size: np.ndarray
) -> Problem:
    """max_q of the weighted distances from the best, and a little of their sum, which settles
    ties in favour of the front."""
    matrix = np.concatenate(
        [p.matrix * w / s for p, w, s in zip(problems, weights, size, strict=True)]
    )
    offset = np.concatenate(
        [w * (p.offset - b) / s for p, w, b, s in zip(problems, weights, best, size, strict=True)]
    )
    return replace(
        problems[0],
        matrix=matrix + _AUGMENT * matrix.sum(axis=0),
        offset=offset + _AUGMENT * offset.sum(),
        convex=all(problem.convex for problem in problems),
    )


def _front(points: np.ndarray, values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The points that no other beats in all objectives, each once, by the first objective."""
    size = np.maximum(np.ptp(values, axis=0), _ROUNDING * np.abs(values).max(axis=0) + 1e-12)
    kept: list[int] = []
    for i in np.lexsort(values.T[::-1]):
        beaten = (values <= values[i] - _SAME * size).any(axis=1)
        beaten &= (values <= values[i]).all(axis=1)
        twin = any(np.all(np.abs(values[k] - values[i]) <= _SAME * size) for k in kept)
        if not beaten.any() and not twin:
            kept.append(int(i))
    return [(points[i], values[i]) for i in kept]
