"""Mixtures whose shares are multiples of 1 / granularity, and keep the limits."""

from __future__ import annotations

import numpy as np

from mixlaw.errors import InfeasibleError
from mixlaw.mixture import Mixture
from mixlaw.optimize.problem import Problem

_ROUNDS = 200


def round_mixture(problem: Problem, point: np.ndarray, granularity: int) -> np.ndarray:
    """The optimum (M,) by largest remainder, then mended: while some unit moved from one domain to
    another keeps more of the limits, or lowers the objective and breaks none, it is moved.

    Raises: InfeasibleError: no rounded mixture that keeps the limits was found.
    """
    domains = problem.limits.domains
    start = Mixture.from_array(domains, point).rounded(granularity)
    counts = np.round(start.array(domains) * granularity)
    here = _judge(problem, counts[None] / granularity)[0]
    moves = np.eye(len(counts))[:, None] - np.eye(len(counts))  # give to i, take from j
    moves = moves[~np.eye(len(counts), dtype=bool)]
    for _ in range(_ROUNDS):
        trials = counts + moves
        trials = trials[(trials >= 0).all(axis=1)]
        judged = _judge(problem, trials / granularity)
        best = min(range(len(trials)), key=lambda i: tuple(judged[i]))
        if tuple(judged[best]) >= tuple(here):
            break
        counts, here = trials[best], judged[best]
    if here[0] > 0:
        raise InfeasibleError(
            f"no mixture in steps of 1/{granularity} keeps all limits; use a finer granularity"
        )
    return counts / granularity


def _judge(problem: Problem, points: np.ndarray) -> np.ndarray:
    """(n, 2): by how much points (n, M) break the limits, and their objective."""
    limits = problem.limits
    shares = points @ limits.rows.T
    over = [limits.lower - points, points - limits.upper, limits.least - shares]
    over += [shares - limits.most]
    broken = sum(np.maximum(part, 0).sum(axis=1) for part in over)
    for limit in limits.curved:
        broken = broken + np.array([max(limit.value(point), 0) for point in points])
    if problem.floors:
        reached = problem.law_of_floors.predict(points)
        for floor in problem.floors:
            broken = broken + np.maximum(floor.sign * (reached[:, floor.index] - floor.worst), 0)
    return np.stack([np.where(broken > 1e-9, broken, 0.0), problem.objective(points)], axis=1)
