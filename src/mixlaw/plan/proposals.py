"""Which runs to do next, and when more would not change the decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from mixlaw.design.sampling import candidate_pool
from mixlaw.design.space import distinct, farthest_first
from mixlaw.errors import FitError, StudyError
from mixlaw.laws.gaussian import Kernel
from mixlaw.laws.points import SAME_SCALE, Points
from mixlaw.laws.selection import FittedLaws, fit_laws
from mixlaw.mixture import Mixture
from mixlaw.optimize.polytope import Polytope
from mixlaw.optimize.solve import Values, minimize_mixture
from mixlaw.plan.beliefs import believe
from mixlaw.plan.knowledge import Belief
from mixlaw.plan.plans import Plan, Proposal
from mixlaw.plan.question import Question, RunScale, cost
from mixlaw.runs import VERIFY, RunTable

THRESHOLD = 0.001
"""In the unit of the objective: nats per token, bits per byte."""

Pending = Sequence[tuple[Mixture, RunScale]]

NUM_SPREAD, NUM_NEAR = 256, 64
NEAR = (0.05, 0.15, 0.4)
"""Mixtures all over the space, and those between the predicted optimum and random others: by how
much they lean to the others."""

MOST_DECISIONS, MOST_PLACES = 512, 1200
"""Mixtures to decide among, and places to run at, of which the covariance is formed."""

SMOOTH, ROUGH = Kernel(0.8), 0.1
"""What the first mixtures take the objective for: its kernel, and a variance of noise."""

SAME_SHARES = 1e-4
"""Mixtures are not proposed again when no proportion differs by more: tables round."""


def fewest_mixtures(num_domains: int) -> int:
    """Spread-out mixtures to run before a law is asked which is next."""
    return max(6, num_domains // 2 + 4)


def propose(
    runs: RunTable | None,
    question: Question,
    count: int,
    *,
    pending: Pending = (),
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> Plan:
    """Choose the next runs by what they are expected to change in the decision, per FLOP.

    With `fewest_mixtures` or more, the belief of `beliefs.believe` about the objective at the
    target scale says what every (mixture, scale) would teach (`Belief.gains`); each choice is made
    as if those before it, and the pending runs, had been done. Where runs that are good per FLOP
    would not change the decision, the dearer ones that might are proposed instead. With fewer
    mixtures, those at the cheapest scale from which the others can be told best.

    Args:
        runs: finished so far; None for none. Rows of role "verify" are not used.
        count: how many runs to propose; fewer when there is nothing else to run.
        pending: (mixture, scale) of runs asked for and not finished.
        threshold: proposals that together are expected to lower the objective by less are not
            worth doing.
        seed: of folds, resamples and candidates; the same arguments give the same plan.
    Raises:
        StudyError: a count or threshold that makes no sense, an objective on a target that the runs
            lack, or a law that reads counts which the scales do not give.
        FitError: runs that no law can be fitted to, though there are enough of them.
    """
    if count < 1:
        raise StudyError(f"a plan of {count} runs was asked for; it needs at least 1")
    if not (math.isfinite(threshold) and threshold >= 0):
        raise StudyError(f"the threshold is {threshold}; it must be finite and >= 0")
    known = _Known.of(runs, question, pending)
    needed = fewest_mixtures(len(question.domains))
    if known.num_mixtures < needed:
        why = f"{known.num_mixtures} mixtures are finished, {needed} let a law say what is next"
        return _first(question, known, count, why, seed)
    assert runs is not None
    try:
        fitted = fit_laws(runs, list(question.objective), candidates=question.laws, seed=seed)
    except FitError as error:
        if known.num_mixtures > len(question.domains) + 3:
            raise
        return _first(question, known, count, f"too few runs for a law ({error})", seed)
    _check_counts(fitted, question)
    return _Planner.of(fitted, question, known, seed).plan(count, threshold)


@dataclass(frozen=True, eq=False)
class _Known:
    """What need not be proposed: finished and pending runs.

    Attributes:
        weights: (p, M); num_params, train_tokens: (p,), NaN where unknown; pending ones last.
        num_pending: how many those are.
        num_mixtures: distinct ones that are finished.
    """

    weights: np.ndarray
    num_params: np.ndarray
    train_tokens: np.ndarray
    num_pending: int
    num_mixtures: int

    @classmethod
    def of(cls, runs: RunTable | None, question: Question, pending: Pending) -> _Known:
        names = tuple(question.domains)
        asked = Points(
            np.array([mixture.array(names) for mixture, _ in pending]).reshape(-1, len(names)),
            np.array([scale.num_params or np.nan for _, scale in pending]),
            np.array([scale.train_tokens or np.nan for _, scale in pending]),
        )
        if runs is None or not len(runs):
            return cls(asked.weights, asked.num_params, asked.train_tokens, len(pending), 0)
        if runs.domains != names:
            raise StudyError(
                f"the runs have the domains {list(runs.domains)}, the question {list(names)}; "
                "give both the same, in the same order"
            )
        question.coefficients(runs.targets)
        table = runs.select(runs.role != VERIFY).trained()
        return cls(
            np.concatenate([table.weights, asked.weights]),
            np.concatenate([table.num_params, asked.num_params]),
            np.concatenate([table.train_tokens, asked.train_tokens]),
            len(pending),
            len(np.unique(table.done().mixture_ids())),
        )

    def has(self, mixtures: np.ndarray, scale: RunScale) -> np.ndarray:
        """(n,) which of the mixtures (n, M) were run, or are pending, at a scale."""
        at = np.ones(len(self.weights), bool)
        for counts, count in (
            (self.num_params, scale.num_params),
            (self.train_tokens, scale.train_tokens),
        ):
            if count is not None:  # an unknown count of a run may be this one
                at &= ~(np.abs(counts / count - 1) > SAME_SCALE)
        if not at.any():
            return np.zeros(len(mixtures), bool)
        nearest = cdist(mixtures, self.weights[at], "chebyshev").min(axis=1)
        return nearest <= SAME_SHARES


def _check_counts(fitted: FittedLaws, question: Question) -> None:
    for scale in (question.target_scale, *question.scales):
        missing = sorted(axis for axis in fitted.needs if getattr(scale, axis, 0.0) is None)
        if missing:
            raise StudyError(
                f"the law {fitted.law!r} of these runs reads {missing}, which {scale} lacks; give "
                "the target and every scale of the question their counts"
            )


def _first(question: Question, known: _Known, count: int, why: str, seed: int) -> Plan:
    """Mixtures at the cheapest scale from which the others can be told best."""
    scale = min(question.scales, key=cost)
    pool = _all_over(question, max(NUM_SPREAD, 4 * count), seed)
    pool = pool[~known.has(pool, scale)]
    if not len(pool):
        return Plan((), None, None, None, True, f"{why}, and nothing is left to run")
    if len(pool) > (most := max(MOST_DECISIONS, 4 * count)):
        pool = pool[np.random.default_rng(seed).choice(len(pool), most, replace=False)]
    chosen = _representative(pool, min(count, len(pool)), distinct(known.weights))
    text = "stands for the mixtures that are unlike those run so far"
    return Plan(
        proposals=tuple(_proposal(question, pool[i], scale, None, text) for i in chosen),
        recommended=None,
        expected_regret=None,
        expected_gain=None,
        stop=False,
        reason=f"{why}; until then mixtures from which the others can be told best",
    )


def _representative(pool: np.ndarray, count: int, start: np.ndarray) -> list[int]:
    """Indices of mixtures, each the one whose run would narrow a smooth function over the pool
    most, in total variance, after those before it and runs at `start` (s, M).

    Unlike maximin it does not begin with the corners, where laws fit worst (docs/decisions.md).
    """
    points = Points.at(np.concatenate([pool, start]))
    belief = Belief(np.zeros(len(pool)), SMOOTH.matrix(points, points), np.full(len(points), ROUGH))
    belief = belief.observed_all(range(len(pool), len(points)))
    chosen: list[int] = []
    for _ in range(count):
        narrowed = (belief.slopes(np.arange(len(pool))) ** 2).sum(axis=1)
        narrowed[chosen] = -1.0
        chosen.append(int(np.argmax(narrowed)))
        belief = belief.observed(chosen[-1])
    return chosen


def _all_over(question: Question, size: int, seed: int) -> np.ndarray:
    """(n, M) mixtures of the whole space, or all that are allowed."""
    if question.among is not None:
        return distinct(question.allowed)
    centre = np.full(len(question.domains), 1 / len(question.domains))
    return candidate_pool(question.space, size, prior=centre, rng=np.random.default_rng(seed))


def _proposal(
    question: Question, weights: np.ndarray, scale: RunScale, gain: float | None, reason: str
) -> Proposal:
    mixture = Mixture.from_array(tuple(question.domains), weights)
    return Proposal(mixture, scale.num_params, scale.train_tokens, scale.flops, gain, reason)


@dataclass(frozen=True, eq=False)
class _Planner:
    """Candidates and what is believed of them.

    Attributes:
        belief: over the mixtures (n, M) at the target scale, then over the places.
        runnable: (r,) indices of the belief's places that can be run.
        scale_of: (r,) index into the question's scales; weights: (r, M).
    """

    question: Question
    warnings: tuple[str, ...]
    mixtures: np.ndarray
    belief: Belief
    runnable: np.ndarray
    scale_of: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, fitted: FittedLaws, question: Question, known: _Known, seed: int) -> _Planner:
        coefficients = question.coefficients(fitted.targets)
        target = question.target_scale
        mixtures = _candidates(fitted, coefficients, question, seed)
        level = fitted.predict(mixtures, target.num_params, target.train_tokens) @ coefficients
        mixtures = mixtures[_thinned(mixtures, level, MOST_DECISIONS)]
        level = fitted.predict(mixtures, target.num_params, target.train_tokens) @ coefficients
        few = mixtures[_thinned(mixtures, level, MOST_PLACES // len(question.scales))]
        at_scale = [few[~known.has(few, scale)] for scale in question.scales]
        first_pending = len(known.weights) - known.num_pending
        waiting = Points(known.weights, known.num_params, known.train_tokens).select(
            slice(first_pending, None)
        )
        blocks = [(mixtures, target), *zip(at_scale, question.scales, strict=True)]
        places = _joined([Points.at(w, *_counts(s)) for w, s in blocks] + [waiting])
        belief = believe(fitted, coefficients, places, len(mixtures), seed=seed)
        belief = belief.observed_all(range(len(places) - known.num_pending, len(places)))
        sizes = [len(weights) for weights in at_scale]
        return cls(
            question=question,
            warnings=fitted.warnings,
            mixtures=mixtures,
            belief=belief,
            runnable=len(mixtures) + np.arange(sum(sizes)),
            scale_of=np.repeat(np.arange(len(sizes)), sizes),
            weights=np.concatenate(at_scale),
        )

    def plan(self, count: int, threshold: float) -> Plan:
        """The best batch per FLOP, or by gain alone where that one is not worth doing."""
        costs = np.array([cost(scale) for scale in self.question.scales])[self.scale_of]
        batch = self._batch(count, costs)
        total = self.belief.joint_gain([self.runnable[i] for i, _ in batch])
        if total < threshold and len(set(costs)) > 1:
            dear = self._batch(count, np.ones_like(costs))
            gain = self.belief.joint_gain([self.runnable[i] for i, _ in dear])
            if gain >= threshold:
                batch, total = dear, gain
        stop = total < threshold
        return Plan(
            proposals=tuple(self._propose(i, gain) for i, gain in batch),
            recommended=Mixture.from_array(
                tuple(self.question.domains), self.mixtures[self.belief.decision]
            ),
            expected_regret=self.belief.regret(),
            expected_gain=total,
            stop=stop,
            reason=self._reason(len(batch), total, threshold),
            warnings=self.warnings,
        )

    def _batch(self, count: int, costs: np.ndarray) -> list[tuple[int, float]]:
        """Up to `count` (index of a place, its gain), each after those before it."""
        belief, left, batch = self.belief, np.ones(len(costs), bool), []
        while len(batch) < count and left.any():
            open_ = np.flatnonzero(left)
            gains = belief.gains(self.runnable[open_])
            best = int(np.argmax(gains / costs[open_]))
            place = int(open_[best])
            batch.append((place, float(gains[best])))
            belief = belief.observed(int(self.runnable[place]))
            left[place] = False
        return batch

    def _propose(self, place: int, gain: float) -> Proposal:
        scale = self.question.scales[self.scale_of[place]]
        away = np.abs(self.weights[place] - self.mixtures[self.belief.decision]).sum() / 2
        where = "the recommended mixture" if away < 0.01 else f"{away:.0%} of tokens moved from it"
        text = f"{where}, at {scale}: expected to lower the objective by {gain:.2g}"
        return _proposal(self.question, self.weights[place], scale, gain, text)

    def _reason(self, found: int, total: float, threshold: float) -> str:
        runs = "run is" if found == 1 else f"{found} runs is"
        if found == 0:
            return "everything that may be run has been: nothing is left that could change it"
        if total < threshold:
            return (
                f"the expected gain of the best next {runs} {total:.2g} < threshold "
                f"{threshold:g}: so few runs are not worth doing; more at once may be"
            )
        return f"the expected gain of the best next {runs} {total:.2g} >= threshold {threshold:g}"


def _counts(scale: RunScale) -> tuple[float | None, float | None]:
    return scale.num_params, scale.train_tokens


def _joined(parts: Sequence[Points]) -> Points:
    return Points(
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.num_params for part in parts]),
        np.concatenate([part.train_tokens for part in parts]),
    )


def _candidates(
    fitted: FittedLaws, coefficients: np.ndarray, question: Question, seed: int
) -> np.ndarray:
    """(n, M) mixtures: those allowed, or all over the space, the predicted optimum, and between."""
    spread = _all_over(question, NUM_SPREAD, seed)
    if question.among is not None:
        return spread
    counts = _counts(question.target_scale)

    def objective(point: np.ndarray) -> Values:
        value = fitted.predict(point[None], *counts) @ coefficients
        slope = coefficients @ fitted.gradient(point[None], *counts)
        return Values(value, slope, np.empty(0), np.empty((0, len(point))))

    starts = spread[np.argsort(fitted.predict(spread, *counts) @ coefficients)[:4]]
    convex = fitted.convex and bool((coefficients >= 0).all())
    space = Polytope(question.space.lower, question.space.upper)
    best = minimize_mixture(objective, space, starts=starts, convex=convex).proportions
    rng = np.random.default_rng(seed)
    others = spread[rng.integers(len(spread), size=NUM_NEAR)]
    lean = rng.choice(NEAR, NUM_NEAR)[:, None]
    near = (1 - lean) * best + lean * others  # convex: within the bounds
    return distinct(np.concatenate([best[None], near, spread]))


def _thinned(mixtures: np.ndarray, level: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most so many mixtures: half of them the lowest, the others far apart."""
    if len(mixtures) <= most:
        return np.arange(len(mixtures))
    order = np.argsort(level, kind="stable")
    low, rest = order[: most // 2], order[most // 2 :]
    far, _ = farthest_first(mixtures[rest], most - len(low), start=mixtures[low])
    return np.concatenate([low, rest[far]])
