"""What surrounds an optimum: where the mixture is free, what each domain buys, distances.

Shapes: n mixtures, M domains, T targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from mixlaw.mixture import Mixture
from mixlaw.optimize.problem import Problem
from mixlaw.optimize.solve import Values, minimize_mixture

PERCENT = 0.01
_ENDS = 1e-3  # of a share: how accurately an end of the flat region is found


def flat_region(
    problem: Problem, best: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest share (M,), (M,) of each domain among the mixtures whose objective is
    within `tolerance` of that of the optimum `best` (M,), all limits kept.

    Each end is the optimum of its own problem, in which the other domains move as they like; all
    ends at once are rarely within the tolerance. For a problem that is not convex it is what can be
    reached from the optimum.
    """
    most = float(problem.at(best).parts.max()) + tolerance
    k = len(problem.matrix)
    ends = np.empty((2, len(best)))
    for j, unit in enumerate(np.eye(len(best))):
        for end, sign in enumerate((1.0, -1.0)):

            def at(point: np.ndarray, sign: float = sign, unit: np.ndarray = unit) -> Values:
                values = problem.at(point)
                return Values(
                    np.array([sign * float(unit @ point)]),
                    sign * unit[None],
                    np.concatenate([values.parts - most, values.limits]),
                    np.concatenate([values.part_slopes, values.limit_slopes]),
                )

            def bend(point: np.ndarray, _: np.ndarray, prices: np.ndarray) -> np.ndarray:
                return problem.bend(point, prices[:k], prices[k:])

            found = minimize_mixture(
                at,
                problem.limits.polytope,
                starts=best[None],
                convex=problem.convex,
                curvature=bend if problem.bends else None,
                cut=problem.limits.cut,
                tolerance=_ENDS,
            )
            ends[end, j] = found.proportions[j]
    return np.minimum(ends[0], best), np.maximum(ends[1], best)


def one_percent_more(problem: Problem, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the objective (M,) and the targets (M, T) change when each domain in turn gets one
    percentage point more (the last, up to 1) and the others give in proportion.

    Limits are not regarded: a domain at its cap shows what the cap costs.
    """
    more = np.minimum(PERCENT, 1 - point)
    rest = np.where(point < 1, (1 - point - more) / np.maximum(1 - point, 1e-300), 1.0)
    moved = point * rest[:, None]
    np.fill_diagonal(moved, point + more)
    both = np.vstack([point, moved])
    objective, targets = problem.objective(both), problem.law_of_floors.predict(both)
    return objective[1:] - objective[0], targets[1:] - targets[0]


@dataclass(frozen=True)
class Distance:
    """How far a mixture lies from those trained.

    Attributes:
        nearest: Hellinger distance (0 to 1) to the nearest trained mixture.
        typical: median distance of a trained mixture to its own nearest neighbour.
        largest: the largest of those.
    """

    nearest: float
    typical: float
    largest: float

    @property
    def far(self) -> bool:
        """Farther from every trained mixture than any of those is from its neighbours."""
        return self.nearest > self.largest


def distance_from_trained(
    mixture: Mixture, names: tuple[str, ...], support: np.ndarray
) -> Distance:
    """Of a mixture from the trained ones (n, M)."""
    trained = np.sqrt(np.unique(np.round(support, 9), axis=0))
    own = np.sqrt(mixture.array(names))[None]
    nearest = float(cdist(own, trained).min()) / np.sqrt(2)
    if len(trained) < 2:
        return Distance(nearest, 0.0, 0.0)
    apart = cdist(trained, trained)
    np.fill_diagonal(apart, np.inf)
    neighbours = apart.min(axis=1) / np.sqrt(2)
    return Distance(nearest, float(np.median(neighbours)), float(neighbours.max()))
