"""How many proxies of which sizes a budget buys, and how well they will tell mixtures apart.

The error variance of the objective at the target, over its variance over mixtures, is taken as

    E(m) + DRIFT * sum over the steps of the ladder, from its smallest size to the target, of the
    step's length in e-folds times u(mixtures trained above the step)

with m mixtures in all: `E(m) = E_1 (m / M)^-b` is what is still unknown of the mixture at a scale
trained at, DRIFT what one e-fold changes in the order of mixtures, and u the share of that which m
mixtures on the far side leave unknown. All of it is measured (constants below).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.laws.selection import fit_laws
from mixlaw.plan.beliefs import DRIFT, Trained
from mixlaw.plan.proposals import fewest_mixtures
from mixlaw.plan.question import Question, RunScale
from mixlaw.runs import VERIFY, RunTable, higher_is_better

LEARNING = (0.21, 1.01)
"""E_1 and b: mean squared error on mixtures not trained over their variance, of the mean target of
regmix_pile, slimpajama_tasks, dclm_swarm and dmsl_slimpajama at 122M, .7 to 8 mixtures a domain;
single swarms lie within a factor of 2. `python -m benchmarks decide planner` measures it."""

REGRET = 0.62
"""Regret of the mixture predicted best, over (error variance / standard deviation over mixtures),
in the same runs: .62 over all, .64 in the median."""

FEW_SHOT = 0.57
"""u(m) = (1 + m)^-.57: normalised errors at 937M of laws of 122M moved by 4, 8 and 16 runs there,
.032, .024 and .018 (docs/decisions.md), over the .08 that DRIFT gives for two e-folds."""

LADDER = (1000, 300, 100, 30, 10)
TOKENS_PER_PARAMETER = 20
"""Sizes below the target where the user names none. Hoffmann et al., arXiv 2203.15556."""

SPLITS = {1: ((1.0,),), 2: ((0.75, 0.25), (0.5, 0.5)), 3: ((0.6, 0.25, 0.15),)}
"""Number of sizes -> shares of the budget that are tried, smallest size first."""

FEWEST_ABOVE = 3
"""Mixtures that a larger size must have."""

MOST_PER_DOMAIN = 16
"""More mixtures than this a domain are beyond what was measured; a larger size is better."""

QUANTILE = 1.645
"""Of the normal distribution: intervals hold 90 %."""

WORTH_SPENDING = 0.05
"""What is left of a budget is mentioned above this share of it."""

NOTICEABLE = 0.02
"""Half widths within 2 % count as equal; the simpler allocation is then preferred."""

SPREADS = "standard deviations of the objective over mixtures"
OBJECTIVE = "the objective's unit"


@dataclass(frozen=True)
class Proxies:
    """Runs of one scale: how many different mixtures, what all of them cost, and their share of
    the budget."""

    num_params: float
    train_tokens: float
    num_runs: int
    flops: float
    share: float


@dataclass(frozen=True)
class Allocation:
    """One way to spend a budget.

    Attributes:
        proxies: smallest size first.
        half_width: of the 90 % interval of how far one mixture's objective at the target lies from
            the mean over mixtures, whose error (of level, shared by all) is not in it: the interval
            of the objective itself is wider, and so, by up to sqrt 2, is that of the difference of
            two mixtures.
        expected_regret: of the mixture then predicted best.
        tells_level: whether it has the three sizes from which a law of scale can be tested on a
            held-out one; with fewer, mixtures can be compared but their losses not forecast.
    """

    proxies: tuple[Proxies, ...]
    half_width: float
    expected_regret: float
    tells_level: bool

    @property
    def flops(self) -> float:
        return sum(group.flops for group in self.proxies)

    @property
    def name(self) -> str:
        groups = (
            f"{g.num_runs} x {short_count(g.num_params)} parameters x "
            f"{short_count(g.train_tokens)} tokens"
            for g in self.proxies
        )
        return ", ".join(groups)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "proxies": [vars(group).copy() for group in self.proxies]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Allocation:
        return cls(**{**data, "proxies": tuple(Proxies(**group) for group in data["proxies"])})


@dataclass(frozen=True)
class BudgetPlan:
    """What a budget buys.

    Attributes:
        flops: the budget.
        recommended: the allocation with the smallest expected regret.
        alternatives: all that were weighed, each once, best first, the recommended one too.
        unit: of half widths and regrets: `SPREADS` without runs, `OBJECTIVE` with them.
        reason: why this one, and why money is left where it is.
        source: where the expected errors come from.
    """

    flops: float
    target: RunScale
    recommended: Allocation
    alternatives: tuple[Allocation, ...]
    unit: str
    reason: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal plan."""
        return {
            **vars(self),
            "target": vars(self.target).copy(),
            "recommended": self.recommended.to_dict(),
            "alternatives": [item.to_dict() for item in self.alternatives],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BudgetPlan:
        fields = {
            "target": RunScale(**data["target"]),
            "recommended": Allocation.from_dict(data["recommended"]),
            "alternatives": tuple(Allocation.from_dict(item) for item in data["alternatives"]),
        }
        return cls(**{**data, **fields})


def short_count(number: float) -> str:
    """147456 -> "147k"."""
    for letter, unit in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"


def default_scales(target: RunScale) -> tuple[RunScale, ...]:
    """Sizes a thousandth to a tenth of the target's, at 20 tokens a parameter (but no more tokens
    than the target has)."""
    num_params, train_tokens = _counts(target)
    sizes = [num_params / ratio for ratio in LADDER]
    return tuple(RunScale(n, min(TOKENS_PER_PARAMETER * n, train_tokens)) for n in sizes)


def plan_budget(
    flops: float,
    *,
    num_domains: int,
    target: RunScale,
    scales: Sequence[RunScale] | None = None,
    runs: RunTable | None = None,
    objective: Mapping[str, float] | None = None,
) -> BudgetPlan:
    """Weigh one, two and three sizes of proxies against one another.

    Args:
        flops: to spend on new proxies, at 6 N D a run.
        num_domains: M.
        scales: sizes and horizons that proxies may have; None: `default_scales`.
        runs: finished ones. They count as mixtures that need not be trained, and their held-out
            error, extrapolated along the measured learning curve, replaces the public tables'.
        objective: target -> coefficient, with `runs` (`Question.objective`).
    Raises:
        StudyError: a budget below the least that makes sense (which it states), scales without
            counts or above the target, runs without an objective, or one on scores.
        FitError: runs that no law can be fitted to.
    """
    if num_domains < 2:
        raise StudyError(f"num_domains is {num_domains}; a mixture to choose needs at least 2")
    if not (math.isfinite(flops) and flops > 0):
        raise StudyError(f"the budget is {flops} FLOPs; it must be finite and > 0")
    ladder = sorted(scales or default_scales(target), key=lambda scale: scale.flops or 0.0)
    _check_ladder(ladder, target)
    outlook = _Outlook.of(num_domains, target, runs, objective)
    needed = max(FEWEST_ABOVE, fewest_mixtures(num_domains) - outlook.trained)
    least = needed * _flops(ladder[0])
    if flops < least:
        raise StudyError(
            f"a budget of {flops:.3g} FLOPs buys {flops / _flops(ladder[0]):.1f} runs of "
            f"{ladder[0]}; the least that makes sense is {needed} of them, {least:.3g} FLOPs: "
            "raise the budget, or name smaller scales"
        )
    found = [
        outlook.expect(sizes, counts, flops)
        for k, splits in SPLITS.items()
        for sizes in combinations(ladder, k)
        for split in splits
        if (counts := _counts_of(sizes, split, flops, num_domains, needed))
    ]
    found = list(dict.fromkeys(found))  # shares that are capped at the same runs
    found.sort(key=lambda item: (item.expected_regret, item.flops))
    best = found[0].expected_regret
    near = [item for item in found if item.expected_regret <= (1 + NOTICEABLE) * best]
    recommended = min(near, key=lambda item: (len(item.proxies), item.flops))
    return BudgetPlan(
        flops=float(flops),
        target=target,
        recommended=recommended,
        alternatives=tuple(found),
        unit=outlook.unit,
        reason=f"{_reason(recommended, found, outlook.unit)}"
        f"{_left_over(recommended, flops, num_domains, ladder[-1])}",
        source=outlook.source,
    )


def _counts(scale: RunScale) -> tuple[float, float]:
    if scale.num_params is None or scale.train_tokens is None:
        raise StudyError(f"a budget needs num_params and train_tokens of every scale; got {scale}")
    return scale.num_params, scale.train_tokens


def _flops(scale: RunScale) -> float:
    _counts(scale)
    assert scale.flops is not None
    return scale.flops


def _check_ladder(ladder: Sequence[RunScale], target: RunScale) -> None:
    for scale in ladder:
        if any(c > 1.001 * t for c, t in zip(_counts(scale), _counts(target), strict=True)):
            raise StudyError(
                f"the proxies of {scale} exceed the target, {target}, in size or tokens; name "
                "scales at or below it"
            )


def _counts_of(
    sizes: Sequence[RunScale],
    split: Sequence[float],
    flops: float,
    num_domains: int,
    needed: int,
) -> list[int]:
    """Mixtures at each size for shares of the budget; empty where they are too few."""
    counts = [
        min(int(flops * share / _flops(size)), MOST_PER_DOMAIN * num_domains)
        for size, share in zip(sizes, split, strict=True)
    ]
    return counts if sum(counts) >= needed and min(counts) >= FEWEST_ABOVE else []


def e_folds(below: RunScale, above: RunScale) -> float:
    """Length of a step in log N and log D."""
    ratios = (math.log(a / b) for a, b in zip(_counts(above), _counts(below), strict=True))
    return math.hypot(*ratios)


@dataclass(frozen=True, eq=False)
class _Outlook:
    """What is expected of errors.

    Attributes:
        target: its scale.
        trained: how many mixtures are trained already.
        scales: the longest horizon of each size of each of these.
        first, exponent: E(m) = first * m^-exponent.
        spread: standard deviation of the objective over mixtures, in `unit`.
    """

    target: RunScale
    trained: int
    scales: tuple[RunScale, ...]
    first: float
    exponent: float
    spread: float
    unit: str
    source: str

    @classmethod
    def of(
        cls,
        num_domains: int,
        target: RunScale,
        runs: RunTable | None,
        objective: Mapping[str, float] | None,
    ) -> _Outlook:
        first, exponent = LEARNING
        if runs is None:
            source = (
                "no runs: the errors are those of public tables of runs at as many mixtures a "
                "domain, and single swarms lie within a factor of 2 of them"
            )
            first *= num_domains**exponent
            return cls(target, 0, (), first, exponent, 1.0, SPREADS, source)
        if not objective:
            raise StudyError(
                "runs were given without an objective; say what the decision minimises"
            )
        scores = [target for target in objective if higher_is_better(target)]
        if scores:
            raise StudyError(
                f"a budget is planned for losses, and the objective names the scores {scores}; "
                "give the losses that they follow as the objective of a study of their own"
            )
        if len(runs.domains) != num_domains:
            raise StudyError(
                f"num_domains is {num_domains}, but the runs have {len(runs.domains)}: "
                f"{list(runs.domains)}"
            )
        bounds = (np.zeros(num_domains), np.ones(num_domains))
        question = Question(runs.domains, objective, bounds, scales=(target,))
        question.coefficients(runs.targets)
        fitted = fit_laws(runs, list(objective))
        told = Trained.of(fitted, question.coefficients(fitted.targets))
        m = told.num_mixtures
        # A held-out run shows its own noise too, which more runs do not lower.
        shown = float(np.mean(told.held_out**2))
        error = max(shown - (told.noise or 0.0), 0.1 * shown) / told.spread
        source = (
            f"{m} trained mixtures: their held-out error now, {error:.2g} of the variance over "
            "mixtures, falls with their number as on public tables"
        )
        scales = _scales_of(runs.select(runs.role != VERIFY).done())
        spread = math.sqrt(told.spread)
        first = error * m**exponent
        return cls(target, m, scales, first, exponent, spread, OBJECTIVE, source)

    def expect(self, sizes: Sequence[RunScale], counts: Sequence[int], flops: float) -> Allocation:
        """The errors after `counts` more mixtures at each size."""
        at = [*self.scales]
        for size, count in zip(sizes, counts, strict=True):
            at += [size] * count
        error = self.first * (self.trained + sum(counts)) ** -self.exponent
        variance = error + DRIFT * self._unknown_steps(at)
        groups = (
            Proxies(*_counts(size), count, count * _flops(size), count * _flops(size) / flops)
            for size, count in zip(sizes, counts, strict=True)
        )
        return Allocation(
            proxies=tuple(groups),
            half_width=QUANTILE * math.sqrt(variance) * self.spread,
            expected_regret=REGRET * min(variance, 1.0) * self.spread,
            tells_level=len({scale.num_params for scale in at}) >= 3,
        )

    def _unknown_steps(self, at: Sequence[RunScale]) -> float:
        """E-folds from the smallest trained scale to the target, each step times the share that
        the mixtures above it leave unknown."""
        rungs = sorted(set(at), key=_flops)
        number = [at.count(rung) for rung in rungs]
        total = 0.0
        for k, rung in enumerate(rungs):
            above = rungs[k + 1] if k + 1 < len(rungs) else self.target
            seen = sum(number[k + 1 :])
            total += e_folds(rung, above) * (1 + seen) ** -FEW_SHOT
        return total


def _scales_of(runs: RunTable) -> tuple[RunScale, ...]:
    """The longest horizon of every mixture at every size. Raises: StudyError: counts unknown."""
    longest: dict[tuple[int, float], float] = {}
    counts = zip(runs.mixture_ids(), runs.num_params, runs.train_tokens, strict=True)
    for mixture, num_params, train_tokens in counts:
        if not (math.isfinite(num_params) and math.isfinite(train_tokens)):
            raise StudyError(
                "some of the runs have no num_params or train_tokens, so their distance to the "
                "target is unknown; fill these columns in"
            )
        key = int(mixture), float(num_params)
        longest[key] = max(float(train_tokens), longest.get(key, 0.0))
    return tuple(RunScale(num_params, tokens) for (_, num_params), tokens in longest.items())


def _reason(best: Allocation, found: Sequence[Allocation], unit: str) -> str:
    unit = f"in {unit}" if unit == OBJECTIVE else unit
    text = f"smallest expected regret ({best.expected_regret:.2g} {unit})"
    one = [item for item in found if len(item.proxies) == 1]
    if len(best.proxies) > 1 and one:
        text += f"; the best single size, {one[0].name}, has {one[0].expected_regret:.2g}"
    elif len(best.proxies) == 1 and len(found) > len(one):
        text += "; further sizes would take mixtures away without bringing as much"
    if not best.tells_level:
        text += "; with fewer than three sizes mixtures can be compared, but losses not forecast"
    return text


def _left_over(best: Allocation, flops: float, num_domains: int, largest: RunScale) -> str:
    """What the cap on mixtures leaves of the budget; nothing where it leaves little."""
    left, most = flops - best.flops, MOST_PER_DOMAIN * num_domains
    if left < WORTH_SPENDING * flops or all(group.num_runs < most for group in best.proxies):
        return ""
    text = (
        f"; {left:.2g} FLOPs ({left / flops:.0%} of the budget) are left over: a size gets at most "
        f"{most} mixtures ({MOST_PER_DOMAIN} a domain), as more are beyond what was measured"
    )
    if best.proxies[-1].num_params < _counts(largest)[0]:
        return f"{text}, and no way to spend them lowers the regret by more than {NOTICEABLE:.0%}"
    return f"{text}; larger proxies (plan: scales of a study) can use them"
