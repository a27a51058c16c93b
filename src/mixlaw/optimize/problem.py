"""An objective at one scale under limits, as the solver wants it: values, slopes and curvature.

Shapes: n mixtures, M domains, T targets, K terms of the objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mixlaw.errors import InfeasibleError, StudyError
from mixlaw.mixture import Mixture
from mixlaw.optimize.curved import Distance
from mixlaw.optimize.limits import FLOOR, ActiveBound, Limits, conflict_words
from mixlaw.optimize.objective import Forecaster, Objective, check_targets
from mixlaw.optimize.solve import BROKEN, Solution, Values, minimize_mixture
from mixlaw.runs import higher_is_better

_STEP = 1e-6
_MOST_LINES = 50
_NEAR = 1e-7
_EXPLAINED_FROM = 3  # starting points: an explanation need not be the deepest
_MOST_NUMBERS = 1_000_000
"""Curvature comes from differences of slopes while a set of them holds no more numbers than this;
beyond, BFGS is faster."""


class Law(Protocol):
    """Values and slopes of T targets, or of T targets of many draws one after another."""

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) of mixtures (n, M)."""
        ...

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, M)."""
        ...


@dataclass(frozen=True, eq=False)
class AtScale:
    """A fitted law at the target scale.

    Attributes:
        available_tokens: (M,) unique tokens; None where no domain can be repeated.
    """

    fitted: Forecaster
    num_params: float | None
    train_tokens: float | None
    available_tokens: np.ndarray | None

    @property
    def convex(self) -> bool:
        """Whether every target is convex: repetition keeps only a falling law so."""
        return self.fitted.convex and (self.available_tokens is None or self.fitted.decreasing)

    def predict(self, weights: np.ndarray) -> np.ndarray:
        return self.fitted.predict(
            weights, self.num_params, self.train_tokens, available_tokens=self.available_tokens
        )

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return self.fitted.gradient(
            weights, self.num_params, self.train_tokens, available_tokens=self.available_tokens
        )

    def half_width(self, coefficients: np.ndarray, weights: np.ndarray, level: float) -> float:
        """Of `coefficients (T,) @ targets` at one mixture (1, M)."""
        widths = self.fitted.half_width(
            coefficients,
            weights,
            self.num_params,
            self.train_tokens,
            level=level,
            available_tokens=self.available_tokens,
        )
        return float(widths[0])

    def difference_scale(self, coefficients: np.ndarray, weights: np.ndarray) -> float:
        """Of the error of what two mixtures (2, M) differ by in `coefficients (T,) @ targets`."""
        return self.fitted.difference_scale(
            coefficients,
            weights,
            self.num_params,
            self.train_tokens,
            available_tokens=self.available_tokens,
        )


@dataclass(frozen=True)
class _Floor:
    """`sign * law(r)[index] <= sign * worst`; the sign is -1 for a score."""

    target: str
    index: int
    sign: float
    worst: float

    @property
    def label(self) -> str:
        return f"{self.target} {'at least' if self.sign < 0 else 'at most'} {self.worst:.4g}"


@dataclass(frozen=True, eq=False)
class Problem:
    """minimise max_k (matrix @ law(r) + offset)_k + penalty(r) within the limits and floors.

    Attributes:
        asked: the objective, with what its changes are relative to.
        matrix, offset: (K, T), (K,) over the law's targets.
        law_of_floors: the law that the floors are about; `law`, unless that one has many draws.
        penalty: a distance and its price.
        convex: whether all of it is.
    """

    asked: Objective
    law: Law
    law_of_floors: Law
    matrix: np.ndarray
    offset: np.ndarray
    limits: Limits
    floors: tuple[_Floor, ...]
    penalty: tuple[Distance, float] | None
    convex: bool

    @classmethod
    def of(
        cls,
        scale: AtScale,
        objective: Objective,
        limits: Limits,
        mixtures: Mapping[str, Mixture],
        penalty: tuple[Distance, float] | None = None,
    ) -> Problem:
        """Args: mixtures: the baselines that the objective and its floors may name.
        Raises: StudyError: a target or baseline that is not known.
        """
        targets = scale.fitted.targets

        def forecast(name: str) -> np.ndarray:
            if name not in mixtures:
                raise StudyError(
                    f"the objective names the baseline {name!r}; known are {sorted(mixtures)}"
                )
            return scale.predict(mixtures[name].array(scale.fitted.domains)[None])[0]

        check_targets(objective.targets, targets)
        if objective.relative_to is not None:
            reference = forecast(objective.relative_to).tolist()
            objective = objective.relative(dict(zip(targets, reference, strict=True)))
        matrix, offset = objective.terms(targets)
        check_targets(tuple(objective.floors), targets)
        floors = []
        for target, floor in objective.floors.items():
            t = targets.index(target)
            level = forecast(floor.than)[t] if isinstance(floor.than, str) else floor.than
            sign = -1.0 if higher_is_better(target) else 1.0
            floors.append(_Floor(target, t, sign, float(level + sign * floor.slack)))
        return cls(
            asked=objective,
            law=scale,
            law_of_floors=scale,
            matrix=matrix,
            offset=offset,
            limits=limits,
            floors=tuple(floors),
            penalty=penalty,
            convex=scale.convex
            and limits.convex
            and np.all(matrix >= 0).item()
            and all(floor.sign > 0 for floor in floors),
        )

    def objective(self, weights: np.ndarray) -> np.ndarray:
        """(n,) of mixtures (n, M), without the penalty."""
        return (self.law.predict(weights) @ self.matrix.T + self.offset).max(axis=1)

    def terms(self, weights: np.ndarray) -> np.ndarray:
        """(n, K) of mixtures (n, M)."""
        return self.law.predict(weights) @ self.matrix.T + self.offset

    def at(self, point: np.ndarray) -> Values:
        """What the solver asks for, at proportions (M,)."""
        value, slope = self.law.predict(point[None])[0], self.law.gradient(point[None])[0]
        parts, part_slopes = self.matrix @ value + self.offset, self.matrix @ slope
        if self.penalty is not None:
            distance, price = self.penalty
            parts = parts + price * distance.value(point)
            part_slopes = part_slopes + price * distance.slope(point)
        limits = [np.array([limit.value(point)]) for limit in self.limits.smooth]
        limit_slopes = [limit.slope(point)[None] for limit in self.limits.smooth]
        if self.floors:
            if self.law_of_floors is not self.law:
                value = self.law_of_floors.predict(point[None])[0]
                slope = self.law_of_floors.gradient(point[None])[0]
            limits.append(np.array([f.sign * (value[f.index] - f.worst) for f in self.floors]))
            limit_slopes.append(np.stack([f.sign * slope[f.index] for f in self.floors]))
        return Values(
            parts,
            part_slopes,
            np.concatenate(limits) if limits else np.empty(0),
            np.concatenate(limit_slopes) if limit_slopes else np.empty((0, len(point))),
        )

    def bend(self, point: np.ndarray, weights: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Curvature (M, M) of the Lagrangian, by differences of the slopes."""
        steps = np.vstack([point, point + _STEP * np.eye(len(point))])
        out = _turn(self.law, steps, weights @ self.matrix)
        c = len(self.limits.smooth)
        if np.any(prices[c:] > 0):
            coefficients = np.zeros(self.law_of_floors.predict(point[None]).shape[1])
            for price, floor in zip(prices[c:], self.floors, strict=True):
                coefficients[floor.index] += price * floor.sign
            out += _turn(self.law_of_floors, steps, coefficients)
        diagonal = np.zeros(len(point))
        for price, limit in zip(prices[:c], self.limits.smooth, strict=True):
            diagonal += price * limit.bend(point)
        if self.penalty is not None:
            diagonal += self.penalty[1] * self.penalty[0].bend(point)
        return out + np.diag(diagonal)

    @property
    def bends(self) -> bool:
        """Whether `bend` is worth its time."""
        return self.matrix.shape[1] * len(self.limits.domains) ** 2 <= _MOST_NUMBERS

    def solve(self, starts: np.ndarray) -> Solution:
        """The best mixture found from starting points (S, M).

        Raises: InfeasibleError: no mixture keeps all limits; names the smallest set of limits
            that conflict, where all of them are convex.
        """
        try:
            return minimize_mixture(
                self.at,
                self.limits.polytope,
                starts=starts,
                convex=self.convex,
                curvature=self.bend if self.bends else None,
                cut=self.limits.cut,
            )
        except InfeasibleError:
            self._explain(starts)
            raise

    def _explain(self, starts: np.ndarray) -> None:
        """Raise InfeasibleError with the limits that conflict.

        A convex limit stands for the lines that touch it: where the worst limit is broken least,
        then at the nearest mixture that keeps all lines so far, until the lines conflict.
        """

        def worst(point: np.ndarray) -> Values:
            values = self.at(point)
            return values._replace(
                parts=values.limits,
                part_slopes=values.limit_slopes,
                limits=np.empty(0),
                limit_slopes=np.empty((0, len(point))),
            )

        polytope = self.limits.polytope
        point = polytope.project(starts[0])
        if len(self.at(point).limits):
            few = starts[:_EXPLAINED_FROM]
            found = minimize_mixture(worst, polytope, starts=few, convex=self.convex)
            point = found.proportions
        lines: list[tuple[str, np.ndarray, float]] = []
        for _ in range(_MOST_LINES):
            touching = self._lines(point)
            if not touching:
                break
            lines += touching
            self.limits.explain(*lines)
            _, rows, most = zip(*touching, strict=True)
            polytope = polytope.with_rows(
                np.stack(rows), np.full(len(rows), -np.inf), np.array(most)
            )
            try:
                point = polytope.project(point)
            except InfeasibleError:  # they conflict by next to nothing
                break
        raise InfeasibleError(conflict_words(self._broken(point)))

    def _lines(self, point: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
        """Each convex limit and floor as the line that touches it at (M,): label, row (M,), and
        the most that `row @ r` may be."""
        out = [
            (limit.label, slope := limit.slope(point), float(slope @ point) - limit.value(point))
            for limit in self.limits.curved
            if limit.convex
        ]
        if self.floors and self.convex:
            values, c = self.at(point), len(self.limits.smooth)
            rows = zip(
                self.floors, values.limit_slopes[c:], values.limits[c:].tolist(), strict=True
            )
            out += [(floor.label, slope, float(slope @ point) - v) for floor, slope, v in rows]
        return out

    def _broken(self, point: np.ndarray) -> list[str]:
        """Labels of the limits and floors that (M,) breaks."""
        floors = self.at(point).limits[len(self.limits.smooth) :]
        values = [limit.value(point) for limit in self.limits.curved]
        limits = zip((*self.limits.curved, *self.floors), [*values, *floors], strict=True)
        return [limit.label for limit, value in limits if value > BROKEN]

    def active(self, point: np.ndarray) -> tuple[ActiveBound, ...]:
        """The bounds, limits and floors that proportions (M,) sit on."""
        found = list(self.limits.active(point))
        if self.floors:
            reached = self.law_of_floors.predict(point[None])[0]
            for floor in self.floors:
                room = floor.sign * (floor.worst - reached[floor.index])
                if room <= _NEAR * max(1.0, abs(floor.worst)):
                    side = "lower" if floor.sign < 0 else "upper"
                    found.append(ActiveBound(floor.target, side, FLOOR, floor.worst))
        return tuple(found)

    def violations(self, mixture: Mixture) -> tuple[str, ...]:
        """One phrase for each limit or floor that the mixture breaks."""
        out = list(self.limits.violations(mixture))
        if self.floors:
            point = mixture.array(self.limits.domains)
            reached = self.law_of_floors.predict(point[None])[0]
            out += [
                f"{floor.target} {reached[floor.index]:.4g}, its floor: {floor.label}"
                for floor in self.floors
                if floor.sign * (reached[floor.index] - floor.worst) > _NEAR
            ]
        return tuple(out)

    def keeps(self, point: np.ndarray) -> bool:
        """Whether proportions (M,) keep the limits and floors."""
        return not self.violations(Mixture.from_array(self.limits.domains, point))

    def within(self, limits: Limits) -> Problem:
        """The same objective and floors under other limits."""
        return replace(self, limits=limits, convex=self.convex and limits.convex)


def _turn(law: Law, steps: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Second derivatives (M, M) of `coefficients @ law`, from slopes at a point and its
    neighbours (1 + M, M)."""
    slopes = np.einsum("t,ntm->nm", coefficients, law.gradient(steps))
    return (slopes[1:] - slopes[0]) / _STEP


def starting_points(
    problem: Problem,
    *,
    support: np.ndarray | None,
    mixtures: Sequence[np.ndarray],
    seed: int,
) -> np.ndarray:
    """Starting points (S, M): uniform, the given ones (M,), the best trained, and random ones for
    a problem with many minima."""
    num_domains = len(problem.limits.domains)
    starts = [np.full((1, num_domains), 1 / num_domains)]
    starts += [np.asarray(mixture)[None] for mixture in mixtures]
    if support is not None:
        starts.append(support[np.argsort(problem.objective(support))[:4]])
    if not problem.convex:
        starts.append(np.random.default_rng(seed).dirichlet(np.ones(num_domains), 12))
    return np.concatenate(starts)
