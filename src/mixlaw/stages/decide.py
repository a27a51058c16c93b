"""From a stage law to a decision: the best schedule, against the best static mixture.

Shapes: S stages, M domains, T targets, K terms of the objective.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import stdtrit

from mixlaw.errors import StudyError
from mixlaw.laws.regret import FREEDOM, chance_below
from mixlaw.mixture import SUM_TOLERANCE, Constraints, Domain, Mixture
from mixlaw.optimize import Decision, Interval, Objective, optimize
from mixlaw.optimize.decide import NEARLY, Question
from mixlaw.schedule import Schedule
from mixlaw.stages.decision import Alternative, Gain, ScheduleDecision, ScheduleForecast
from mixlaw.stages.fitting import FittedStages
from mixlaw.stages.forms import BASELINE
from mixlaw.stages.points import unequal
from mixlaw.stages.solve import TOLERANCE, StageProblem, best_schedule

Shares = Sequence[float] | Sequence[Sequence[float]]


def optimize_schedule(
    fitted: FittedStages,
    objective: Objective,
    *,
    domains: Sequence[Domain],
    constraints: Constraints,
    num_params: float | None,
    train_tokens: float | None,
    stage_shares: Shares = (0.8, 0.2),
    baselines: Mapping[str, Mixture] | None = None,
    guard: bool = True,
    level: float = 0.9,
    seed: int = 0,
) -> ScheduleDecision:
    """Find the best schedule, and say whether it is worth its stages.

    Bounds and groups hold in every stage; epoch caps, unique tokens and distances hold for the
    whole run, that is for its dose; floors hold at its end. The staged schedule is recommended only
    where the interval of its gain over the best static mixture lies above zero: it was picked as
    the best of many, so that a gain inside the noise is no gain.

    Args:
        fitted: the stage law; the static optimum is by its static laws.
        objective, domains, constraints, num_params, train_tokens, baselines: as in
            `mixlaw.optimize.optimize`; a granularity is not kept.
        stage_shares: the shares of training of the stages, or several such lists, of which the best
            is taken.
        guard: every stage stays within the shares trained on, throughout or in a stage, and the
            dose within those of static runs.
        level: of the intervals.
        seed: of the random starts.
    Raises:
        InfeasibleError: no mixture keeps constraints, floors and support (then no schedule does).
        MixtureError: domains other than the law's.
        StudyError: shares that do not sum to one, or an objective as in `optimize`.
    """
    alternatives = _alternatives(stage_shares)
    exact = replace(constraints, granularity=None)
    question = Question(
        fitted.static,
        objective,
        domains,
        exact,
        num_params,
        train_tokens,
        fitted.static.cross_validation.runs.weights,
        baselines or {},
        guard,
    )
    static = optimize(
        fitted.static,
        objective,
        domains=domains,
        constraints=exact,
        num_params=num_params,
        train_tokens=train_tokens,
        support=question.support,
        baselines=baselines,
        guard=guard,
        level=level,
        seed=seed,
    )
    return _Decider(fitted, question, static, level, seed).decide(
        alternatives, rounded=constraints.granularity
    )


def _alternatives(stage_shares: Shares) -> list[tuple[float, ...]]:
    """Raises: StudyError: shares that make no schedule."""
    nested = [one for one in stage_shares if isinstance(one, Sequence)]
    flat = [one for one in stage_shares if not isinstance(one, Sequence)]
    if bool(nested) == bool(flat):
        raise StudyError(
            f"stage_shares is {stage_shares!r}; give the stages' shares of training, such as "
            "(0.8, 0.2), or several such lists"
        )
    for shares in nested or [flat]:
        whole = math.fsum(shares) if all(share > 0 for share in shares) else math.nan
        if not abs(whole - 1) <= SUM_TOLERANCE:  # also true for NaN
            raise StudyError(
                f"the stages' shares of training are {list(shares)}; each must be > 0 and they "
                "must sum to 1"
            )
    return list(dict.fromkeys(tuple(map(float, shares)) for shares in nested or [flat]))


class _Decider:
    """One question on its way to a decision."""

    def __init__(
        self, fitted: FittedStages, question: Question, static: Decision, level: float, seed: int
    ):
        self.fitted, self.question, self.static = fitted, question, static
        self.level, self.seed = level, seed
        self.problem = question.problem()
        self.scale = question.scale()
        self.where = (question.num_params, question.train_tokens)

    def decide(
        self, alternatives: Sequence[tuple[float, ...]], rounded: int | None
    ) -> ScheduleDecision:
        best_static = self.static.recommended.array(self.fitted.domains)
        found = []
        for shares in alternatives:
            stages, solution = best_schedule(
                self.fitted,
                self.question,
                self.problem,
                shares=shares,
                best_static=best_static,
                seed=self.seed,
            )
            found.append((solution.value, shares, stages, solution))
        found.sort(key=lambda one: one[0])
        _, _, stages, solution = found[0]
        schedule = stages.schedule(solution.proportions)
        best = Schedule.static(self._best_static(schedule.dose))
        schedule = self._distinct(schedule, best)
        staged, static, same_dose = map(
            self._forecast, (schedule, best, Schedule.static(schedule.dose))
        )
        coefficients = solution.weights @ self.problem.matrix
        over_static = self._gain(staged, static, coefficients)
        dose = schedule.dose.array(self.fitted.domains)
        return ScheduleDecision(
            staged=staged,
            static=static,
            same_dose=same_dose,
            over_static=over_static,
            over_same_dose=self._gain(staged, same_dose, coefficients),
            reason=self._reason(over_static, staged),
            alternatives=tuple(Alternative(shares, value) for value, shares, *_ in found),
            spread=solution.spread,
            active_bounds=self.problem.limits.active(dose),
            form=self.fitted.form,
            law=self.fitted.static.law,
            objective=self.problem.asked,
            level=self.level,
            num_params=self.question.num_params,
            train_tokens=self.question.train_tokens,
            seed=self.seed,
            warnings=self._warnings(schedule, stages, rounded),
        )

    def _best_static(self, dose: Mixture) -> Mixture:
        """The best static mixture known: a law with many minima may show a better one only from the
        dose of a schedule."""
        problem = StageProblem.of(self.fitted, self.question, self.problem, (1.0,))
        known = self.static.recommended.array(self.fitted.domains)
        solution = problem.solve(np.stack([known, dose.array(self.fitted.domains)]))
        value = float(problem.at(known).parts.max())
        if value - solution.value <= 10 * TOLERANCE * max(1.0, abs(value)):
            return self.static.recommended
        return Mixture.from_array(self.fitted.domains, solution.proportions)

    def _distinct(self, schedule: Schedule, static: Schedule) -> Schedule:
        """The schedule, or the best static mixture where the order does not matter or that is as
        good to the solver's accuracy: stages that gain nothing are none."""
        if self.fitted.form == BASELINE:
            return static
        values = self.fitted.predict(
            [schedule, static], *self.where, available_tokens=self.scale.available_tokens
        )
        reached = (values @ self.problem.matrix.T + self.problem.offset).max(axis=1)
        least = TOLERANCE * max(1.0, abs(float(reached[1])))
        return static if reached[1] - reached[0] <= least else schedule

    def _forecast(self, schedule: Schedule) -> ScheduleForecast:
        fitted, question = self.fitted, self.question
        available = self.scale.available_tokens
        values = fitted.predict([schedule], *self.where, available_tokens=available)[0]
        dose = Schedule.static(schedule.dose)
        static = fitted.predict([dose], *self.where, available_tokens=available)[0]
        reached, unordered = (
            float((self.problem.matrix @ each + self.problem.offset).max())
            for each in (values, static)
        )
        return ScheduleForecast(
            schedule=schedule,
            objective=Interval(reached, self._half_width(schedule, values)),
            targets={
                name: Interval(float(values[t]), self._width(schedule, unit))
                for t, (name, unit) in enumerate(
                    zip(fitted.targets, np.eye(len(values)), strict=True)
                )
            },
            order_effect=0.0 if schedule.is_static else reached - unordered,
            epochs=schedule.epochs(question.train_tokens, question.domains)
            if question.train_tokens
            else {},
        )

    def _width(self, schedule: Schedule, coefficients: np.ndarray) -> float:
        widths = self.fitted.half_width(
            coefficients,
            [schedule],
            *self.where,
            level=self.level,
            available_tokens=self.scale.available_tokens,
        )
        return float(widths[0])

    def _half_width(self, schedule: Schedule, values: np.ndarray) -> float:
        """Of the objective: the widest of the terms that are the worst there. Changes from a
        baseline are as sure as that difference."""
        terms = self.problem.matrix @ values + self.problem.offset
        worst = terms >= terms.max() - NEARLY * max(1.0, abs(float(terms.max())))
        rows, relative_to = self.problem.matrix[worst], self.question.objective.relative_to
        if relative_to is None:
            return max(self._width(schedule, row) for row in rows)
        baseline = Schedule.static(self.question.baselines[relative_to])
        return self._quantile() * max(self._scale(schedule, baseline, row) for row in rows)

    def _quantile(self) -> float:
        return float(stdtrit(FREEDOM, (1 + self.level) / 2))

    def _scale(self, one: Schedule, other: Schedule, coefficients: np.ndarray) -> float:
        return self.fitted.difference_scale(
            coefficients,
            (one, other),
            *self.where,
            available_tokens=self.scale.available_tokens,
        )

    def _gain(
        self, staged: ScheduleForecast, other: ScheduleForecast, coefficients: np.ndarray
    ) -> Gain:
        gain = other.objective.value - staged.objective.value
        if staged.schedule == other.schedule:
            return Gain(Interval(0.0, 0.0), 0.5)
        scale = self._scale(staged.schedule, other.schedule, coefficients)
        return Gain(Interval(gain, self._quantile() * scale), chance_below(gain, scale))

    def _reason(self, gain: Gain, staged: ScheduleForecast) -> str:
        value, fitted = gain.interval, self.fitted
        if not np.isfinite(value.half_width):
            return (
                f"static: the staged schedule is forecast {value.value:.4g} lower, but too few "
                "staged runs that measured the objective have tested that forecast"
            )
        if fitted.form == BASELINE:
            return "static: held-out staged runs show no effect of the order of the stages"
        if staged.schedule.is_static:
            return "static: no schedule of these stages is forecast better than a static mixture"
        interval = f"{self.level:.0%} interval {value.low:.4g} to {value.high:.4g}"
        if gain.sure:
            return (
                f"staged: it is forecast {value.value:.4g} lower than the best static mixture "
                f"({interval}, probability {gain.probability:.3f})"
            )
        return (
            f"static: the staged schedule is forecast only {value.value:.4g} lower ({interval}, "
            f"probability {gain.probability:.3f}): inside the noise"
        )

    def _warnings(
        self, schedule: Schedule, stages: StageProblem, rounded: int | None
    ) -> tuple[str, ...]:
        fitted, out = self.fitted, list(self.fitted.warnings)
        size = float(unequal(fitted.at([schedule], *self.where))[0])
        most = float(unequal(fitted.judged).max(initial=0.0))
        if fitted.held_out is not None and size > most:
            out.append(
                f"the stages differ more ({size:.2f}, mean Hellinger distance from the dose) than "
                f"those of any staged run ({most:.2f}): train such a schedule before you rely on it"
            )
        tried = {
            tuple(np.round(row[row > 0], 6)) for row in fitted.staged.shares if (row > 0).sum() > 1
        }
        if tried and tuple(np.round(stages.shares, 6)) not in tried and len(stages.shares) > 1:
            shares = " ".join(f"{share:.4g}" for share in stages.shares)
            out.append(
                f"no staged run had stages of the shares {shares}; the form carries the effect of "
                "the order over to them"
            )
        if rounded is not None:
            out.append(f"the stages are not rounded to multiples of 1/{rounded}")
        if not self.question.guarding:
            out.append("no support guard: the optimum may lie where no mixture was trained")
        return tuple(out)
