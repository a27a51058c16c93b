"""What outlives an edit of the domains, what must be trained anew, and what reuse costs.

Old runs are carried to the new domains, each exactly or moved with the help of the old law; a few
new runs tell of what no old mixture had, and one law is fitted to all (`refit`). The new runs keep
the ratios among the unaffected domains, which become one *existing* domain (Olmix's mixture reuse),
but the decision from the refitted law is free: freezing it there as well loses more
(docs/decisions.md).

Shapes: n rows, M domains, K units, T targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.design import design
from mixlaw.errors import InfeasibleError, MixtureError, RunTableError
from mixlaw.laws import FittedLaws, Points, fit_laws
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Objective
from mixlaw.optimize.decide import Question
from mixlaw.optimize.objective import Forecaster
from mixlaw.optimize.problem import Problem
from mixlaw.plan.edits import Composition, Edit, Shared, apply_edits, shared_mixtures
from mixlaw.runs import RunTable

FORMAT_VERSION = 1
_LISTS = ("edits", "domains", "affected", "warnings")

EXACT = 1e-6
"""A run is carried exactly when no more than this share of its tokens would stand elsewhere."""

MOVED = 0.5
"""Runs are moved to a shared mixture, with the law's help, up to this share of their tokens.
From .1 to .9 the choice hardly shows."""

RUNS_PER_RATIO = 4
"""New mixtures for each ratio that no old run tells about; more gain little."""

EXISTING = "existing"
WORTH_A_RUN = (0.1, 0.95)
"""Shares of the existing domains in new mixtures, where the bounds allow. A run without an affected
domain tells what is known, and one of nothing else what nobody would train."""


@dataclass(frozen=True, eq=False)
class Carried:
    """Old runs as runs over the new domains.

    Attributes:
        runs: n rows over the new domains.
        kept: (n,) their rows in the old table, ascending.
        misplaced: (n,) share of the run's tokens that stood elsewhere.
        left_out: why -> how many old rows were left out for it.
    """

    runs: RunTable
    kept: np.ndarray
    misplaced: np.ndarray
    left_out: Mapping[str, int]

    @property
    def exact(self) -> np.ndarray:
        """(n,) bool: which rows are the same run under new names."""
        return self.misplaced <= EXACT


def carry_runs(
    runs: RunTable,
    shared: Shared,
    *,
    tolerance: float = EXACT,
    law: FittedLaws | None = None,
) -> Carried:
    """The old runs that are runs over the new domains.

    A run that is no shared mixture can be moved to the nearest one, an error of value that grows
    with the tokens that stand elsewhere. With the old law each value is moved, too, by the ratio of
    the law's values at the two mixtures. That holds since a shared mixture is the same data before
    and after the edits: there the old law, which learned from the removed (merged, revised) domain
    as well, prices the new domains, and the run adds its residual.

    Args:
        runs: over the old domains.
        tolerance: the share of a run's tokens that may stand elsewhere; without a law .003 suits
            tables rounded to three decimals, with one `MOVED`.
        law: fitted to the old runs; targets that it lacks are kept in exact rows only.
    Raises: RunTableError: runs or a law of other domains, or a tolerance outside [0, 1).
    """
    for what, given in (("runs have", runs.domains), ("law has", law and law.domains)):
        if given is not None and tuple(given) != shared.old.domains:
            raise RunTableError(
                f"the {what} the domains {list(given)}, the edits are of "
                f"{list(shared.old.domains)}; both need the same, in the same order"
            )
    if not 0 <= tolerance < 1:
        raise RunTableError(f"the tolerance is {tolerance}; it must lie in [0, 1)")
    units, misplaced = shared.old.reduce(runs.weights)
    keep = misplaced <= max(tolerance, EXACT)
    kept = np.flatnonzero(keep)
    there = replace(runs.select(kept), weights=shared.old.expand(units[keep]))
    values = runs.values[kept]
    if law is not None:
        moved = misplaced[kept] > EXACT
        values[moved] *= _ratios(law, there.select(moved), runs.select(kept[moved]))
    available = shared.old.unit_tokens(there.available_tokens)
    carried = replace(
        there,
        domains=shared.new.domains,
        weights=shared.new.expand(units[keep]),
        available_tokens=shared.new.domain_tokens(available),
        values=values,
    )
    return Carried(carried, kept, misplaced[kept], _why_left_out(runs.weights[~keep], shared))


def _ratios(law: FittedLaws, there: RunTable, here: RunTable) -> np.ndarray:
    """(n, T) the law's values at one table's points over those at another's."""
    ratios = np.full(here.values.shape, np.nan)
    for t, target in enumerate(here.targets):
        if target in law.targets:
            predict = law.laws[target].predict
            ratios[:, t] = predict(Points.of(there)) / predict(Points.of(here))
    return ratios


def _why_left_out(weights: np.ndarray, shared: Shared) -> dict[str, int]:
    """Reason -> rows; a row counts under the domain with most of its misplaced tokens."""
    units, _ = shared.old.reduce(weights)
    names = list(shared.old.domains)
    found: dict[str, int] = {}
    away = np.abs(weights - shared.old.expand(units))
    at = [j for j, name in enumerate(names) if name in shared.reasons]
    for row in away[:, at]:
        reason = shared.reasons[names[at[int(np.argmax(row))]]]
        found[reason] = found.get(reason, 0) + 1
    return found


def refit(
    fitted: FittedLaws,
    shared: Shared,
    new_runs: RunTable | None = None,
    *,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
) -> FittedLaws:
    """The laws of the new domains, from the old runs that can be carried and the new ones.

    Args:
        fitted: the old laws, with the runs that they were fitted to.
        new_runs: over the new domains, those of `EditPlan.new_mixtures` for example; None where the
            old runs tell all.
        candidates: as `fit_laws`.
    Raises:
        RunTableError: new runs of other domains, or none at all that can be used.
        FitError: as `fit_laws`.
    """
    old = fitted.cross_validation.runs
    carried = carry_runs(old, shared, tolerance=MOVED, law=fitted)
    names = [f"carried/{run}" for run in carried.runs.run]
    rows = replace(carried.runs, run=np.array(names, str)).rows()
    if new_runs is not None:
        if set(new_runs.domains) != set(shared.new.domains):
            raise RunTableError(
                f"the new runs have the domains {list(new_runs.domains)}, after the edits there "
                f"are {list(shared.new.domains)}; both need the same"
            )
        rows += new_runs.rows()
    if not rows:
        raise RunTableError(
            f"none of the {len(old)} old rows can be carried ({dict(carried.left_out)}) and there "
            "are no new ones; train some"
        )
    runs = RunTable.from_rows(rows)
    return fit_laws(runs, fitted.targets, candidates=candidates, seed=seed)


@dataclass(frozen=True, eq=False)
class UnitLaw:
    """A law of M domains as a law of K units made of them: a `Forecaster`.

    Fixed ratios are linear, so a convex law stays convex and a decreasing one decreasing.
    """

    fitted: Forecaster
    composition: Composition

    @property
    def law(self) -> str:
        return self.fitted.law

    @property
    def domains(self) -> tuple[str, ...]:
        return self.composition.names

    @property
    def targets(self) -> tuple[str, ...]:
        return self.fitted.targets

    @property
    def convex(self) -> bool:
        return self.fitted.convex

    @property
    def decreasing(self) -> bool:
        return self.fitted.decreasing

    def _tokens(self, available_tokens: np.ndarray | None) -> np.ndarray | None:
        if available_tokens is None:
            return None
        return self.composition.domain_tokens(available_tokens)

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Values (n, T) of mixtures of units (n, K), with (K,) unique tokens."""
        full, tokens = self.composition.expand(weights), self._tokens(available_tokens)
        return self.fitted.predict(full, num_params, train_tokens, available_tokens=tokens)

    def gradient(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Slopes (n, T, K)."""
        full, tokens = self.composition.expand(weights), self._tokens(available_tokens)
        slopes = self.fitted.gradient(full, num_params, train_tokens, available_tokens=tokens)
        return slopes @ self.composition.matrix

    def half_width(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        level: float,
    ) -> np.ndarray:
        """Half widths (n,)."""
        full = self.composition.expand(weights)
        return self.fitted.half_width(coefficients, full, num_params, train_tokens, level=level)

    def probability_better(
        self,
        gap: float,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> float:
        full = self.composition.expand(weights)
        return self.fitted.probability_better(gap, coefficients, full, num_params, train_tokens)


def freeze(mixture: Mixture, free: Sequence[str], *, domains: Sequence[str]) -> Composition:
    """One unit of the domains that are not `free`, at the mixture's ratios, and each free domain.

    The unit is called "existing", with a prime for every domain that already is. It is missing
    where all domains are free.

    Raises: MixtureError: the mixture has nothing of the domains that are to be frozen.
    """
    frozen = {name: mixture.get(name, 0.0) for name in domains if name not in free}
    units: dict[str, Mapping[str, float]] = {name: {name: 1.0} for name in free}
    if frozen:
        if not sum(frozen.values()) > 0:
            raise MixtureError(
                f"the mixture has nothing of {list(frozen)}, so they have no ratios to freeze"
            )
        name = EXISTING
        while name in domains:
            name += "'"
        units = {name: dict(Mixture.from_weights(frozen)), **units}
    return Composition(tuple(domains), units)


@dataclass(frozen=True)
class FreezingLoss:
    """What frozen ratios are expected to lose in the objective.

    An old law cannot price a domain that it never saw, but it can play the edit with those that it
    did: leave some out, decide without them, freeze those ratios, and let only the share of what
    was left out move. The optimum of all domains at once is lower by the loss.

    Attributes:
        mean, worst: over the groups of domains left out.
        probes: how many groups.
    """

    mean: float
    worst: float
    probes: int


@dataclass(frozen=True)
class EditPlan:
    """What to keep, what to train, and what that saves and costs.

    Objectives are the old law's, so costs are predictions in the objective's unit.

    Attributes:
        edits: one phrase each.
        domains: after the edits.
        affected: domains of which no old run tells; empty: the old law prices every new mixture.
        kept: the last mixture at the nearest mixture that is one before and after.
        interim: the best such mixture by the old law: what to train where no new run is paid for.
        edit_cost: how much higher the objective is predicted at `interim` than at the last mixture.
        keeping_cost: how much higher it is at `kept` than at `interim`.
        freezing: what frozen ratios lose where domains are affected; None: none is, or there are
            too few domains to probe.
        exact_rows, moved_rows: old rows that are carried as they are, or with the law's help.
        left_out: why -> how many rows were left out.
        new_mixtures: to be trained for `refit`.
        recompute_mixtures: how many a new swarm takes, at as many for each domain as the old one.
        flops_per_mixture: 6 N D, summed over the sizes and seeds that the old swarm trained a
            mixture at; None where it lacks the counts.
        reuse: whether to; else train a new swarm.
        reason: why.
        warnings: what the predictions leave out.
    """

    edits: tuple[str, ...]
    domains: tuple[str, ...]
    affected: tuple[str, ...]
    kept: Mixture
    interim: Mixture
    edit_cost: float
    keeping_cost: float
    freezing: FreezingLoss | None
    exact_rows: int
    moved_rows: int
    left_out: Mapping[str, int]
    new_mixtures: tuple[Mixture, ...]
    recompute_mixtures: int
    flops_per_mixture: float | None
    reuse: bool
    reason: str
    warnings: tuple[str, ...] = ()

    @property
    def runs_saved(self) -> int:
        """Mixtures that need not be trained; negative when reuse takes more."""
        return self.recompute_mixtures - len(self.new_mixtures)

    @property
    def flops_saved(self) -> float | None:
        """Floating-point operations of those."""
        return None if self.flops_per_mixture is None else self.runs_saved * self.flops_per_mixture

    @property
    def expected_loss(self) -> float:
        """How much higher the objective is expected with all ratios kept than with all free.

        `refit` leaves them free, and loses less.
        """
        return self.keeping_cost + (self.freezing.mean if self.freezing else 0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal plan."""
        return {
            "format": FORMAT_VERSION,
            **vars(self),
            **{name: list(getattr(self, name)) for name in _LISTS},
            "kept": dict(self.kept),
            "interim": dict(self.interim),
            "freezing": self.freezing and vars(self.freezing).copy(),
            "left_out": dict(self.left_out),
            "new_mixtures": [dict(mixture) for mixture in self.new_mixtures],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EditPlan:
        """Raises: MixtureError: written by another format version."""
        fields = dict(data)
        version = fields.pop("format", None)
        if version != FORMAT_VERSION:
            raise MixtureError(
                f"this edit plan has format {version}, this mixlaw reads {FORMAT_VERSION}; "
                "plan again"
            )
        fields |= {name: tuple(fields[name]) for name in _LISTS}
        fields |= {name: Mixture(fields[name]) for name in ("kept", "interim")}
        fields["freezing"] = fields["freezing"] and FreezingLoss(**fields["freezing"])
        fields["new_mixtures"] = tuple(Mixture(shares) for shares in fields["new_mixtures"])
        return cls(**fields)


def plan_edit(
    fitted: FittedLaws,
    mixture: Mixture,
    edits: Sequence[Edit],
    *,
    domains: Sequence[Domain],
    objective: Objective,
    constraints: Constraints | None = None,
    num_params: float | None = None,
    train_tokens: float | None = None,
    runs_per_ratio: int = RUNS_PER_RATIO,
    seed: int = 0,
) -> EditPlan:
    """Plan the least training after a change of domains.

    Args:
        fitted: the old laws, with the runs that they were fitted to.
        mixture: the last decision's, over the old domains.
        domains: the old ones, in any order.
        constraints: on the new domains.
        num_params, train_tokens: the target scale, as `optimize`.
        runs_per_ratio: new mixtures for each ratio that no old run tells about.
        seed: of the new mixtures and of the groups that are probed.
    Raises:
        MixtureError: edits that make no sense (`apply_edits`), or domains other than the law's.
        InfeasibleError: no mixture that the old law prices satisfies the constraints.
        StudyError: an objective on a target that was not fitted.
    """
    named = {domain.name: domain for domain in domains}
    if set(named) != set(fitted.domains):
        raise MixtureError(
            f"the law has the domains {list(fitted.domains)}, given are {list(named)}; edits are "
            "of exactly the law's domains"
        )
    domains = [named[name] for name in fitted.domains]
    shared, after = shared_mixtures(domains, edits), apply_edits(domains, edits)
    constraints = constraints or Constraints()
    problem = _Problem(objective, num_params, train_tokens, seed)
    runs = fitted.cross_validation.runs
    whole = _Space(domains, np.zeros(len(domains)), np.ones(len(domains)))
    new = _Space(after, *constraints.bounds(after, train_tokens))
    units = new.of_units(shared.new)
    law = UnitLaw(fitted, shared.old)
    support = shared.old.reduce(runs.weights)[0]
    kept_units = shared.old.reduce_mixture(mixture)
    before = problem.pose(fitted, whole, runs.weights, mixture)
    here = problem.pose(law, units, support, kept_units)
    best = here.best()
    carried = carry_runs(runs, shared, tolerance=MOVED, law=fitted)
    unknown = len(after) - len(units.domains)
    interim = shared.new.expand_mixture(best)
    mixtures = _new_mixtures(interim, shared, new, runs_per_ratio * unknown, seed)
    swarm = len(set(runs.mixture_ids().tolist()))
    recompute = math.ceil(swarm * len(after) / len(domains))
    reuse, reason = _advice(shared, carried, len(mixtures), recompute)
    return EditPlan(
        edits=tuple(str(edit) for edit in edits),
        domains=shared.new.domains,
        affected=shared.affected,
        kept=shared.new.expand_mixture(kept_units),
        interim=interim,
        edit_cost=before.value(shared.old.expand_mixture(best)) - before.value(mixture),
        keeping_cost=here.value(kept_units) - here.value(best),
        freezing=_freezing_loss(law, units, support, unknown, problem),
        exact_rows=int(carried.exact.sum()),
        moved_rows=int((~carried.exact).sum()),
        left_out=carried.left_out,
        new_mixtures=mixtures,
        recompute_mixtures=recompute,
        flops_per_mixture=_flops_per_mixture(runs),
        reuse=reuse,
        reason=reason,
        warnings=_unseen(constraints),
    )


@dataclass(frozen=True, eq=False)
class _Space:
    """Domains and the proportions (M,) that each may have."""

    domains: Sequence[Domain]
    lower: np.ndarray
    upper: np.ndarray

    @property
    def names(self) -> list[str]:
        return [domain.name for domain in self.domains]

    @property
    def constraints(self) -> Constraints:
        names = self.names
        return Constraints(
            {n: float(b) for n, b in zip(names, self.lower, strict=True) if b > 0},
            {n: float(b) for n, b in zip(names, self.upper, strict=True) if b < 1},
        )

    def of_units(self, composition: Composition) -> _Space:
        """The units as domains; bounds on a domain in no unit are not seen.

        Raises: InfeasibleError: ratios that keep two bounds apart.
        """
        inside = composition.matrix > 0
        ratio = np.where(inside, composition.matrix, 1.0)
        lower = np.where(inside, self.lower[:, None] / ratio, 0.0).max(axis=0)
        upper = np.where(inside, self.upper[:, None] / ratio, 1.0).min(axis=0)
        tokens = [float(domain.available_tokens or np.inf) for domain in self.domains]
        tokens = composition.unit_tokens(np.array(tokens)).tolist()
        for unit, low, high in zip(composition.units, lower, upper, strict=True):
            if low > high + 1e-12:
                raise InfeasibleError(
                    f"at the ratios in {unit!r} ({dict(composition.units[unit])}) the bounds of "
                    f"its domains need a proportion of at least {low:.4g} and at most {high:.4g}; "
                    "widen them, or train a new swarm"
                )
        units = [
            Domain(unit, int(count) if np.isfinite(count) else None)
            for unit, count in zip(composition.names, tokens, strict=True)
        ]
        return _Space(units, lower, np.maximum(lower, upper))

    def without(self, names: Sequence[str]) -> _Space:
        """The same domains, some of which get nothing."""
        upper = np.where([name in names for name in self.names], 0.0, self.upper)
        return replace(self, upper=upper)


@dataclass(frozen=True)
class _Problem:
    """What is minimised, and where."""

    objective: Objective
    num_params: float | None
    train_tokens: float | None
    seed: int

    def pose(self, law: Forecaster, space: _Space, support: np.ndarray, given: Mixture) -> _Posed:
        """An objective or floor that is relative to some baseline is taken relative to `given`."""
        floors = (floor.than for floor in self.objective.floors.values())
        named = {self.objective.relative_to, *floors}
        question = Question(
            fitted=law,
            objective=self.objective,
            domains=space.domains,
            constraints=space.constraints,
            num_params=self.num_params,
            train_tokens=self.train_tokens,
            support=support,
            baselines={name: given for name in named if isinstance(name, str)},
        )
        return _Posed(question, question.guarded(question.problem()), self.seed)


@dataclass(frozen=True, eq=False)
class _Posed:
    """The problem for one law."""

    question: Question
    problem: Problem
    seed: int

    def best(self) -> Mixture:
        """The optimum. Raises: InfeasibleError: there is none."""
        solution = self.problem.solve(self.question.starts(self.problem, self.seed))
        return Mixture.from_array(self.question.fitted.domains, solution.proportions)

    def value(self, mixture: Mixture) -> float:
        """The objective."""
        at = mixture.array(self.question.fitted.domains)[None]
        return float(self.problem.objective(at)[0])


def _new_mixtures(
    interim: Mixture, shared: Shared, space: _Space, count: int, seed: int
) -> tuple[Mixture, ...]:
    """Mixtures of the existing domains, frozen at `interim`, with the affected ones."""
    if not shared.affected:
        return ()
    frozen = freeze(interim, shared.affected, domains=shared.new.domains)
    units = space.of_units(frozen)
    lower, upper = units.lower, units.upper
    if len(frozen.names) > len(shared.affected):
        least, most = WORTH_A_RUN
        most = min(upper[0], max(most, lower[0], 1 - upper[1:].sum() / 2))
        lower[0], upper[0] = max(lower[0], min(least, most)), most
    chosen = design(frozen.names, count, bounds=(lower, upper), seed=seed)
    return tuple(frozen.expand_mixture(mixture) for mixture in chosen)


def _freezing_loss(
    law: UnitLaw, space: _Space, support: np.ndarray, size: int, problem: _Problem
) -> FreezingLoss | None:
    """See `FreezingLoss`: groups of `size` units are left out, each unit once or twice."""
    names = np.array(space.names)
    if size == 0 or len(names) - size < 2:
        return None
    order = np.random.default_rng(problem.seed).permutation(len(names))
    # Where every mixture has some of a domain, the support must still allow none of it.
    with_none = np.vstack([support, np.zeros_like(support)])
    uniform = Mixture.uniform(space.names)
    losses = []
    for first in range(0, len(names), size):
        group = [str(names[j]) for j in np.take(order, range(first, first + size), mode="wrap")]
        try:
            before = problem.pose(law, space.without(group), with_none, uniform).best()
            frozen = freeze(before, group, domains=law.domains)
            one = problem.pose(
                UnitLaw(law, frozen),
                space.of_units(frozen),
                frozen.reduce(support)[0],
                frozen.reduce_mixture(before),
            )
            every = problem.pose(law, space, with_none, before)
            losses.append(max(0.0, one.value(one.best()) - every.value(every.best())))
        except InfeasibleError:  # the constraints need a domain of this group
            continue
    if not losses:
        return None
    return FreezingLoss(float(np.mean(losses)), float(max(losses)), len(losses))


def _unseen(constraints: Constraints) -> tuple[str, ...]:
    """Constraints that units cannot have."""
    unseen = {
        "groups": constraints.groups,
        "near": constraints.near,
        "min_unique_tokens": constraints.min_unique_tokens,
        "max_unique_tokens": constraints.max_unique_tokens,
    }
    return tuple(
        f"the plan does not see the constraint {name}: its interim mixture and new mixtures may "
        "break it, and its costs leave it out"
        for name, given in unseen.items()
        if given
    )


def _advice(shared: Shared, carried: Carried, new: int, recompute: int) -> tuple[bool, str]:
    """Whether to reuse, and why."""
    count = len(carried.kept)
    if not shared.affected:
        return True, "the old law prices every mixture of the new domains: no run is needed"
    names = ", ".join(shared.affected)
    if new >= recompute:
        return False, (
            f"{new} runs are needed to learn about {names}, a new swarm takes {recompute}"
        )
    if count < len(shared.new.names):
        return False, (
            f"only {count} old rows can be carried, fewer than the {len(shared.new.names)} domains "
            "that are to be reused"
        )
    return True, (
        f"{count} old rows tell about all but {names}, which {new} runs add to them; a new swarm "
        f"takes {recompute}"
    )


def _flops_per_mixture(runs: RunTable) -> float | None:
    """6 N D of the longest row of each run, over the mixtures."""
    flops = 6 * runs.num_params * runs.train_tokens
    if np.isnan(flops).any():
        return None
    total = sum(float(flops[runs.run == run].max()) for run in np.unique(runs.run))
    return total / len(set(runs.mixture_ids().tolist()))
