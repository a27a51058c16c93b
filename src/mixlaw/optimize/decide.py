"""From a fitted law to a decision: find the mixture to train and gather the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from mixlaw.errors import FitError, InfeasibleError, MixtureError, StudyError
from mixlaw.laws import FittedLaws
from mixlaw.laws.base import Fitted
from mixlaw.laws.bootstrap import Bootstrap
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.regret import FREEDOM, chance_below, regret_bound
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize.curved import without_limit
from mixlaw.optimize.decision import (
    AtOtherScale,
    Comparison,
    Decision,
    Forecast,
    Interval,
    Region,
    Regret,
    RobustOptimum,
    Sensitivity,
)
from mixlaw.optimize.evidence import Distance, distance_from_trained, flat_region, one_percent_more
from mixlaw.optimize.limits import SUPPORT, ActiveBound, Limits, distance_of
from mixlaw.optimize.objective import Forecaster, Objective
from mixlaw.optimize.problem import AtScale, Problem, starting_points
from mixlaw.optimize.robust import Draws, Robust
from mixlaw.optimize.rounding import round_mixture
from mixlaw.optimize.solve import GAP_TOLERANCE, Solution

STEPS = (0.1, 0.3, 0.6, 1.0)
"""How far towards trained mixtures the alternatives to the optimum lie."""

NEARLY = 1e-6
"""Terms so near to the worst one are as bad."""

FLAT = 0.002
"""The flat region: objectives within this share of the recommended mixture's."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be decided, for a law at one scale.

    Attributes:
        fitted: the law; minimised by its gradient.
        objective: what to minimise.
        domains: the law's domains, in any order.
        constraints: what the mixture must respect.
        num_params, train_tokens: the target scale; `train_tokens` also sets epoch caps.
        support: trained weights (n, M) in the order of `fitted.domains`. Each domain stays within
            its smallest and largest trained share, because an optimum far outside is an artefact
            of the formula (docs/decisions.md). None turns the guard off.
        baselines: name -> mixture to compare with; one that breaks the constraints is flagged.
            Objective, floors and distances may name them.
        guard: whether the support guards; else it is only compared with.
    """

    fitted: Forecaster
    objective: Objective
    domains: Sequence[Domain]
    constraints: Constraints
    num_params: float | None
    train_tokens: float | None
    support: np.ndarray | None
    baselines: Mapping[str, Mixture]
    guard: bool = True

    @property
    def guarding(self) -> bool:
        """Whether shares stay within the trained range."""
        return self.guard and self.support is not None

    def scale(self) -> AtScale:
        """The law at the target scale. Raises: MixtureError: domains other than the law's."""
        domains = self.ordered()
        available = _available_tokens(domains, self.train_tokens)
        return AtScale(self.fitted, self.num_params, self.train_tokens, available)

    def ordered(self) -> list[Domain]:
        """The domains in the law's order. Raises: MixtureError: other domains than the law's."""
        return _in_order(self.domains, self.fitted.domains)

    def problem(self) -> Problem:
        """The problem without the support guard.

        Raises: InfeasibleError, MixtureError, StudyError: as `optimize`.
        """
        domains = self.ordered()
        limits = Limits.of(domains, self.constraints, self.train_tokens, self.baselines)
        distance = distance_of(domains, self.constraints, self.baselines)
        near, penalty = self.constraints.near, None
        if distance is not None and near is not None and near.penalty is not None:
            penalty = (without_limit(distance), near.penalty)
        return Problem.of(self.scale(), self.objective, limits, self.baselines, penalty)

    def guarded(self, problem: Problem) -> Problem:
        """The problem within the trained range, where there is a guard."""
        if self.support is None or not self.guard:
            return problem
        return problem.within(problem.limits.guarded(self.support))

    def pressing(self, seed: int) -> np.ndarray:
        """Coefficients (T,) of what is minimised, as the targets press at the optimum: those of the
        worst terms by their multipliers, of the floors by their prices.

        Raises: as `optimize`.
        """
        problem = self.guarded(self.problem())
        solution = problem.solve(self.starts(problem, seed))
        out = solution.weights @ problem.matrix
        for price, floor in zip(
            solution.prices[len(problem.limits.smooth) :], problem.floors, strict=True
        ):
            out[floor.index] += floor.sign * price
        return np.where(np.abs(out) > NEARLY * np.abs(out).max(), out, 0.0)

    def starts(self, problem: Problem, seed: int) -> np.ndarray:
        """Starting points (S, M)."""
        mixtures = [mixture.array(self.fitted.domains) for mixture in self.baselines.values()]
        return starting_points(problem, support=self.support, mixtures=mixtures, seed=seed)


def optimize(
    fitted: Forecaster,
    objective: Objective,
    *,
    domains: Sequence[Domain],
    constraints: Constraints | None = None,
    num_params: float | None,
    train_tokens: float | None,
    support: np.ndarray | None,
    baselines: Mapping[str, Mixture] | None = None,
    guard: bool = True,
    robust: Robust | None = None,
    scales: Sequence[tuple[float | None, float | None]] = (),
    level: float = 0.9,
    seed: int = 0,
) -> Decision:
    """Find the mixture that the law predicts to be best, within what was asked and trained.

    Args:
        fitted, objective, domains, constraints, num_params, train_tokens, support, baselines,
            guard: the question; see `Question`. Without constraints: none but the guard.
        robust: choose over refits instead of by the one fit.
        scales: others, (num_params, train_tokens), to say how the optimum moves.
        level: of the intervals.
        seed: of the random starts for a problem that is not convex.
    Raises:
        InfeasibleError: no mixture keeps constraints, floors and support; names the smallest set
            of limits that conflict.
        MixtureError: domains other than the law's, or a baseline on an unknown domain.
        StudyError: an objective on a target that was not fitted, or on an unknown baseline.
        FitError: the law gives no finite value somewhere within the bounds.
    """
    if not 0 < level < 1:
        raise StudyError(f"the level of the intervals is {level}; it must lie between 0 and 1")
    question = Question(
        fitted,
        objective,
        domains,
        constraints or Constraints(),
        num_params,
        train_tokens,
        support,
        baselines or {},
        guard,
    )
    return _Decider(question, robust, level, seed).decide(scales)


class _Decider:
    """One question on its way to a decision."""

    def __init__(self, question: Question, robust: Robust | None, level: float, seed: int):
        self.question, self.robust, self.level, self.seed = question, robust, level, seed
        self.scale = question.scale()
        self.free = question.problem()
        self.problem = question.guarded(self.free)
        self.names = question.fitted.domains

    def decide(self, scales: Sequence[tuple[float | None, float | None]]) -> Decision:
        question, problem = self.question, self.problem
        starts = question.starts(problem, self.seed)
        single = problem.solve(starts)
        solution, robust = self._robustly(single, starts)
        unguarded = None
        if question.support is not None and question.guard:
            # Starting from the guarded optimum too, a law with many minima cannot end above it.
            unguarded = self.free.solve(np.vstack([single.proportions, starts]))
        point, rounding_cost = self._rounded(solution.proportions)
        recommended = self._forecast(Mixture.from_array(self.names, point))
        # Several terms that are worst together count as the multipliers say: no mixture is better
        # in the worst term without being better in this mean of them.
        coefficients = single.weights @ problem.matrix
        comparisons = {
            name: self._compare(self._forecast(mixture), recommended, coefficients)
            for name, mixture in distinct(question.baselines).items()
        }
        active = problem.active(solution.proportions)
        distance = None
        if question.support is not None:
            distance = distance_from_trained(recommended.mixture, self.names, question.support)
        others, impossible = self._at_others(scales, recommended.mixture)
        return Decision(
            forecast=recommended,
            baselines=comparisons,
            gap=solution.gap,
            spread=solution.spread,
            active_bounds=active,
            unguarded=unguarded and Mixture.from_array(self.names, unguarded.proportions),
            guard_cost=unguarded and max(0.0, single.value - unguarded.value),
            distance=distance,
            regret=self._regret(point, coefficients),
            region=self._region(point),
            sensitivities=self._sensitivities(point),
            scales=others,
            robust=robust,
            rounding_cost=rounding_cost,
            law=question.fitted.law,
            objective=problem.asked,
            level=self.level,
            num_params=question.num_params,
            train_tokens=question.train_tokens,
            seed=self.seed,
            warnings=_warnings(solution, active, comparisons, distance, guarded=question.guarding)
            + impossible,
        )

    def _robustly(
        self, single: Solution, starts: np.ndarray
    ) -> tuple[Solution, RobustOptimum | None]:
        if self.robust is None:
            return single, None
        starts = np.vstack([single.proportions, starts])
        _, solution = self.robust.solve(self.problem, self.scale, starts)
        optimum = RobustOptimum(
            over=self.robust.over,
            num_draws=len(self.robust.bootstrap.draws),
            value=solution.value,
            single=Mixture.from_array(self.names, single.proportions),
        )
        return solution, optimum

    def _rounded(self, point: np.ndarray) -> tuple[np.ndarray, float | None]:
        granularity = self.question.constraints.granularity
        if granularity is None:
            return point, None
        rounded = round_mixture(self.problem, point, granularity)
        exact, after = self.problem.objective(np.stack([point, rounded]))
        return rounded, float(after - exact)

    def _forecast(self, mixture: Mixture) -> Forecast:
        question, scale = self.question, self.scale
        weights = mixture.array(self.names)[None]
        values = scale.predict(weights)[0]
        terms = self.problem.matrix @ values + self.problem.offset
        single, support = np.eye(len(values)), question.support
        return Forecast(
            mixture=mixture,
            objective=Interval(float(terms.max()), self._half_width(terms, weights)),
            targets={
                name: Interval(float(values[i]), scale.half_width(single[i], weights, self.level))
                for i, name in enumerate(question.fitted.targets)
            },
            epochs=mixture.epochs(question.train_tokens, question.domains)
            if question.train_tokens
            else {},
            violations=self.free.violations(mixture),
            extrapolates=() if support is None else outside_support(mixture, self.names, support),
        )

    def _half_width(self, terms: np.ndarray, weights: np.ndarray) -> float:
        """Of the objective at one mixture (1, M), whose terms are (K,): the widest of those that
        are the worst there. Changes from a baseline are as sure as that difference."""
        worst = terms >= terms.max() - NEARLY * max(1.0, abs(float(terms.max())))
        rows = self.problem.matrix[worst]
        if self.question.objective.relative_to is None:
            return max(self.scale.half_width(row, weights, self.level) for row in rows)
        baseline = self.question.baselines[self.question.objective.relative_to]
        both = np.vstack([weights, baseline.array(self.names)])
        quantile = float(stdtrit(FREEDOM, (1 + self.level) / 2))
        return quantile * max(self.scale.difference_scale(row, both) for row in rows)

    def _compare(
        self, baseline: Forecast, recommended: Forecast, coefficients: np.ndarray
    ) -> Comparison:
        gain = baseline.objective.value - recommended.objective.value
        both = np.stack([one.mixture.array(self.names) for one in (recommended, baseline)])
        chance = chance_below(gain, self.scale.difference_scale(coefficients, both))
        return Comparison(baseline, gain, float(chance))

    def _regret(self, point: np.ndarray, coefficients: np.ndarray) -> Regret | None:
        """Against mixtures that keep the limits: what the law of each fold thinks best, and steps
        from the optimum towards trained mixtures."""
        fitted, support = self.question.fitted, self.question.support
        if not isinstance(fitted, FittedLaws | LinkedLaws) or support is None:
            return None
        points = [point[None], *(point + step * (support - point) for step in STEPS)]
        if isinstance(fitted, FittedLaws):
            points += [self._best_of_fold(fold, point) for fold in fitted.folds]
        candidates = np.concatenate(points)
        kept = candidates[[self.problem.keeps(candidate) for candidate in candidates]]
        found = regret_bound(
            fitted,
            coefficients,
            chosen=point,
            candidates=kept if len(kept) else point[None],
            num_params=self.question.num_params,
            train_tokens=self.question.train_tokens,
            available_tokens=self.scale.available_tokens,
            noise=False,
            level=self.level,
            seed=self.seed,
        )
        return Regret(found.expected, found.bound, found.level)

    def _best_of_fold(self, fold: Mapping[str, Fitted], point: np.ndarray) -> np.ndarray:
        """(1, M)"""
        one = replace(self.problem, law=Draws(Bootstrap([fold]), self.scale))
        try:
            return one.solve(point[None]).proportions[None]
        except FitError:  # a fold's law may explode somewhere; then it proposes nothing
            return point[None]

    def _region(self, point: np.ndarray) -> Region:
        value = float(self.problem.objective(point[None])[0])
        tolerance = FLAT * (1.0 if self.question.objective.relative_to else abs(value))
        low, high = flat_region(self.problem, point, tolerance)
        ends = zip(low.tolist(), high.tolist(), strict=True)
        return Region(tolerance, dict(zip(self.names, ends, strict=True)))

    def _sensitivities(self, point: np.ndarray) -> dict[str, Sensitivity]:
        objective, targets = one_percent_more(self.problem, point)
        return {
            name: Sensitivity(
                float(objective[j]),
                dict(zip(self.question.fitted.targets, targets[j].tolist(), strict=True)),
            )
            for j, name in enumerate(self.names)
        }

    def _at_others(
        self, scales: Sequence[tuple[float | None, float | None]], recommended: Mixture
    ) -> tuple[tuple[AtOtherScale, ...], tuple[str, ...]]:
        """The optima, and a warning for each scale at which no mixture keeps the limits."""
        found, impossible = [], []
        for scale in scales:
            try:
                found.append(self._at_other(scale, recommended))
            except InfeasibleError as error:
                counts = " and ".join(f"{count:.3g}" for count in scale if count)
                impossible.append(f"at the scale {counts}: {error}")
        return tuple(found), tuple(impossible)

    def _at_other(
        self, scale: tuple[float | None, float | None], recommended: Mixture
    ) -> AtOtherScale:
        num_params, train_tokens = scale
        question = replace(self.question, num_params=num_params, train_tokens=train_tokens)
        problem = question.guarded(question.problem())
        solution = problem.solve(question.starts(problem, self.seed))
        here = problem.objective(recommended.array(self.names)[None])
        mixture = Mixture.from_array(self.names, solution.proportions)
        objective = float(problem.objective(solution.proportions[None])[0])
        return AtOtherScale(num_params, train_tokens, mixture, objective, float(here[0]))


def distinct(mixtures: Mapping[str, Mixture]) -> dict[str, Mixture]:
    """Without those that are the same as one before them (UniMax is uniform where no cap binds)."""
    out: dict[str, Mixture] = {}
    for name, mixture in mixtures.items():
        names = list(mixture)
        twins = (m for m in out.values() if set(m) == set(names))
        if not any(np.allclose(twin.array(names), mixture.array(names)) for twin in twins):
            out[name] = mixture
    return out


def _in_order(domains: Sequence[Domain], names: Sequence[str]) -> list[Domain]:
    """The domains in the law's order."""
    given = {domain.name: domain for domain in domains}
    missing, strangers = sorted(set(names) - set(given)), sorted(set(given) - set(names))
    if missing or strangers or len(given) != len(domains):
        raise MixtureError(
            f"the law was fitted on the domains {list(names)}, but {missing} are missing and "
            f"{strangers} are new (or one is named twice); pass exactly the law's domains"
        )
    return [given[name] for name in names]


def _available_tokens(domains: Sequence[Domain], train_tokens: float | None) -> np.ndarray | None:
    """(M,) unique tokens; None where no domain can be repeated."""
    tokens = np.array([float(d.available_tokens or np.inf) for d in domains])
    return tokens if train_tokens and np.any(tokens < train_tokens) else None


def outside_support(mixture: Mixture, names: Sequence[str], support: np.ndarray) -> tuple[str, ...]:
    """One phrase for each domain whose share lies outside those of the trained mixtures (n, M)."""
    least, most = support.min(axis=0), support.max(axis=0)
    return tuple(
        f"{name} {share:.4g}, trained {low:.4g} to {high:.4g}"
        for name, share, low, high in zip(names, mixture.array(names), least, most, strict=True)
        if not low - 1e-6 <= share <= high + 1e-6
    )


def _warnings(
    solution: Solution,
    active: Sequence[ActiveBound],
    comparisons: Mapping[str, Comparison],
    distance: Distance | None,
    *,
    guarded: bool,
) -> tuple[str, ...]:
    """What a reader should know before he trusts the decision."""
    out = []
    if solution.gap is None:
        apart = f"differ by up to {solution.spread:.3g}" if solution.spread > 0 else "agree"
        out.append(
            "the problem is not convex in the mixture: the optimum carries no certificate "
            f"(optima from different starts {apart})"
        )
    elif not solution.converged and solution.gap > 100 * GAP_TOLERANCE * abs(solution.value):
        out.append(f"the solver stopped early: a mixture lower by {solution.gap:.3g} may exist")
    if not guarded:
        out.append("no support guard: the optimum may lie where no mixture was trained")
    if distance is not None and distance.far:
        out.append(
            f"the recommended mixture is {distance.nearest:.2f} (Hellinger) from the nearest "
            "trained one, farther than any of those is from its neighbour "
            f"({distance.largest:.2f}): train mixtures there before you rely on it"
        )
    edges = [f"{b.domain} ({b.side} {b.bound:.4g})" for b in active if b.reason == SUPPORT]
    if edges:
        out.append(
            f"at the edge of the trained range: {', '.join(edges)}; the optimum may lie beyond, "
            "train mixtures there to know"
        )
    for name, comparison in comparisons.items():
        if comparison.forecast.violations:
            broken = "; ".join(comparison.forecast.violations)
            out.append(f"the baseline {name!r} breaks the constraints: {broken}")
        if comparison.forecast.extrapolates:
            outside = "; ".join(comparison.forecast.extrapolates)
            out.append(
                f"the baseline {name!r} lies outside the trained range ({outside}): its forecast, "
                "and the gain over it, is a guess"
            )
    return tuple(out)
