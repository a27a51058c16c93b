"""The best schedule of given stage shares, under limits of each stage and of the whole run.

The unknowns are the tokens that each stage gives each domain, as shares of all training tokens,
x_sj = share_s p_sj: non-negative and of sum one, so a schedule of S stages of M domains is itself a
mixture of S M parts, and the solver of static mixtures finds it:

    sum_j x_sj = share_s                                     stages
    share_s lower_j <= x_sj <= share_s upper_j, and groups   each stage
    dose_j = sum_s x_sj <= epoch cap, and trained range      the whole run

The problem is not convex for any form but "dose", so it is solved from many starts and no optimum
carries a certificate.

Shapes: S stages, M domains, T targets, K terms of the objective, C limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.mixture import Mixture
from mixlaw.optimize.decide import Question
from mixlaw.optimize.polytope import Polytope
from mixlaw.optimize.problem import AtScale, Problem
from mixlaw.optimize.solve import Solution, Values, minimize_mixture
from mixlaw.schedule import Schedule
from mixlaw.stages.fitting import FittedStages
from mixlaw.stages.points import StagePoints

TILTS = (0.3, 0.9)
"""How far the starts move the last stage towards one domain, the dose kept."""

NUM_RANDOM, NUM_DESCENTS = 16, 6
"""Random starts; and of them and the tilted ones those that are descended from, the best."""

SAME = 1e-5
"""Stages whose shares differ by less are one."""

TOLERANCE = 1e-7
"""Of the gap, relative to the value: no certificate hangs on it."""


@dataclass(frozen=True, eq=False)
class StageProblem:
    """minimise the objective of a schedule whose stages have the shares (S,).

    Attributes:
        fitted: the stage law.
        static: the problem of a static mixture, with its objective, floors and limits.
        scale: the static law at the target scale.
        shares: (S,).
        polytope: of the unknowns (S M,).
    """

    fitted: FittedStages
    static: Problem
    scale: AtScale
    shares: np.ndarray
    polytope: Polytope

    @classmethod
    def of(
        cls, fitted: FittedStages, question: Question, static: Problem, shares: Sequence[float]
    ) -> StageProblem:
        """Args: static: `question.problem()`, without the support guard."""
        lengths = np.array(shares, float)
        polytope = _polytope(fitted, question, static, lengths)
        return cls(fitted, static, question.scale(), lengths, polytope)

    def points(self, unknowns: np.ndarray) -> StagePoints:
        """The schedules (n, S M) at the target scale."""
        n, scale, m = len(unknowns), self.scale, len(self.fitted.domains)
        mixtures = unknowns.reshape(n, len(self.shares), m) / self.shares[:, None]
        size, tokens = (
            np.full(n, np.nan if count is None else count, float)
            for count in (scale.num_params, scale.train_tokens)
        )
        available = scale.available_tokens
        unique = None if available is None else np.tile(available, (n, 1))
        return StagePoints(np.tile(self.shares, (n, 1)), mixtures, size, tokens, unique)

    def at(self, unknowns: np.ndarray) -> Values:
        """What the solver asks for, at (S M,)."""
        static, at = self.static, self.points(unknowns[None])
        value = self.fitted.values(at)[0]
        slope = (self.fitted.slopes(at)[0] / self.shares[:, None]).reshape(len(value), -1)
        parts, part_slopes = static.matrix @ value + static.offset, static.matrix @ slope
        dose, times = self.dose(unknowns), len(self.shares)
        if static.penalty is not None:
            distance, price = static.penalty
            parts = parts + price * distance.value(dose)
            part_slopes = part_slopes + price * np.tile(distance.slope(dose), times)
        limits = [limit.value(dose) for limit in static.limits.smooth]
        rows = [np.tile(limit.slope(dose), times) for limit in static.limits.smooth]
        limits += [f.sign * (value[f.index] - f.worst) for f in static.floors]
        rows += [f.sign * slope[f.index] for f in static.floors]
        empty = np.empty((0, len(unknowns)))
        return Values(parts, part_slopes, np.array(limits), np.stack(rows) if rows else empty)

    def dose(self, unknowns: np.ndarray) -> np.ndarray:
        """(M,)"""
        return unknowns.reshape(len(self.shares), -1).sum(axis=0)

    def cut(self, unknowns: np.ndarray) -> tuple[np.ndarray, float] | None:
        """As `Limits.cut`, of the dose."""
        found = self.static.limits.cut(self.dose(unknowns))
        return found and (np.tile(found[0], len(self.shares)), found[1])

    def solve(self, starts: np.ndarray) -> Solution:
        """The best schedule found from starts (n, S M).

        Raises: InfeasibleError: none keeps the limits. FitError: the law is not finite somewhere.
        """
        return minimize_mixture(
            self.at, self.polytope, starts=starts, convex=False, cut=self.cut, tolerance=TOLERANCE
        )

    def best_of(self, starts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The `NUM_DESCENTS` starts (S M,) of the lowest objective, moved within the limits."""
        inside = np.stack([self.polytope.project(start) for start in starts])
        values = self.fitted.values(self.points(inside))
        reached = (values @ self.static.matrix.T + self.static.offset).max(axis=1)
        return list(inside[np.argsort(reached, kind="stable")[:NUM_DESCENTS]])

    def schedule(self, unknowns: np.ndarray) -> Schedule:
        """Of (S M,); neighbours that agree to `SAME` become their mean, which keeps the dose and
        whatever else is linear."""
        stages: list[tuple[float, np.ndarray]] = []  # share of training, mixture (M,)
        parts = unknowns.reshape(len(self.shares), -1)
        for share, part in zip(self.shares.tolist(), parts, strict=True):
            mixture = part / part.sum()
            if stages and np.allclose(mixture, stages[-1][1], rtol=0, atol=SAME):
                before, other = stages.pop()
                share, mixture = before + share, before * other + share * mixture
                mixture = mixture / share
            stages.append((share, mixture))
        names = self.fitted.domains
        return Schedule.of((share, Mixture.from_array(names, p)) for share, p in stages)


def best_schedule(
    fitted: FittedStages,
    question: Question,
    static: Problem,
    *,
    shares: Sequence[float],
    best_static: np.ndarray,
    seed: int,
) -> tuple[StageProblem, Solution]:
    """The best schedule of stage shares (S,), never worse than a schedule of fewer stages: those in
    which two neighbours are one are solved first, and it starts from them.

    Args: best_static: (M,) where the recursion ends.
    Raises: as `StageProblem.solve`.
    """
    problem = StageProblem.of(fitted, question, static, shares)
    starts = [(problem.shares[:, None] * best_static).reshape(-1)]
    if len(shares) == 1:
        return problem, problem.solve(np.stack(starts))
    if len(shares) > 2:
        for s in range(len(shares) - 1):
            merged = [*shares[:s], shares[s] + shares[s + 1], *shares[s + 2 :]]
            _, fewer = best_schedule(
                fitted, question, static, shares=merged, best_static=best_static, seed=seed
            )
            starts.append(_split(fewer.proportions, problem.shares, s))
    rng = np.random.default_rng(seed)
    random = rng.dirichlet(np.ones(len(best_static)), (NUM_RANDOM, len(shares)))
    tried = [*_tilted(problem.shares, best_static)]
    tried += list((problem.shares[:, None] * random).reshape(NUM_RANDOM, -1))
    starts += problem.best_of(tried)
    return problem, problem.solve(np.stack(starts))


def _split(unknowns: np.ndarray, shares: np.ndarray, s: int) -> np.ndarray:
    """The schedule with its stage s cut into stages s and s + 1 of the shares (S,)."""
    stages = unknowns.reshape(len(shares) - 1, -1)
    both = shares[s : s + 2, None] / shares[s : s + 2].sum() * stages[s]
    return np.concatenate([stages[:s], both, stages[s + 1 :]]).reshape(-1)


def _tilted(shares: np.ndarray, mixture: np.ndarray) -> list[np.ndarray]:
    """(S M,) each: the mixture, and the last stage moved towards one domain at the same dose."""
    out = []
    for tilt in TILTS:
        for unit in np.eye(len(mixture)):
            last = mixture + tilt * (unit - mixture)
            rest = np.maximum(mixture - shares[-1] * last, 0.0)
            before = shares[:-1, None] * rest / max(float(rest.sum()), 1e-12)
            out.append(np.concatenate([before.reshape(-1), shares[-1] * last]))
    return out


def _polytope(
    fitted: FittedStages, question: Question, static: Problem, shares: np.ndarray
) -> Polytope:
    """The linear limits of the unknowns; see the head of this file."""
    domains, constraints = question.ordered(), question.constraints
    lower, upper, allowed = constraints.asked(domains, question.train_tokens)
    least, most = np.zeros(len(domains)), allowed
    if question.guarding:
        assert question.support is not None
        lower = np.maximum(lower, fitted.support.min(axis=0))
        upper = np.minimum(upper, fitted.support.max(axis=0))
        least = question.support.min(axis=0)
        most = np.minimum(most, question.support.max(axis=0))
    m, groups = len(domains), static.limits
    stages = np.eye(len(shares))
    rows = [np.repeat(stages[:-1], m, axis=1), np.tile(np.eye(m), len(shares))]
    low, high = [shares[:-1], least], [shares[:-1], most]
    for row, few, many in zip(groups.rows, groups.least, groups.most, strict=True):
        rows.append(np.kron(stages, row))
        low.append(few * shares)
        high.append(many * shares)
    return Polytope(
        np.outer(shares, lower).reshape(-1),
        np.outer(shares, np.maximum(lower, upper)).reshape(-1),
        np.concatenate(rows),
        np.concatenate(low),
        np.concatenate(high),
    )
