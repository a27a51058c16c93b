"""What an edit of the domains costs: which runs are kept, which are needed, what reuse saves.

Shapes: n rows, M domains, K units, T targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.design import design
from mixlaw.errors import InfeasibleError, MixtureError, StudyError
from mixlaw.laws import FittedLaws
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Objective
from mixlaw.optimize.decide import Question
from mixlaw.optimize.objective import Forecaster
from mixlaw.optimize.problem import Problem
from mixlaw.plan.edits import Composition, Edit, Shared, apply_edits, shared_mixtures
from mixlaw.plan.reuse import MOVED, Carried, UnitLaw, carry_runs, freeze
from mixlaw.runs import RunTable, higher_is_better

FORMAT_VERSION = 1
_LISTS = ("edits", "domains", "affected", "warnings")

RUNS_PER_RATIO = 4
"""New mixtures for each ratio that no old run tells about; more gain little."""

WORTH_A_RUN = (0.1, 0.95)
"""Shares of the existing domains in new mixtures, where the bounds allow. A run without an affected
domain tells what is known, and one of nothing else what nobody would train."""


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
        StudyError: an objective on a target that was not fitted, or on scores.
    """
    counting = dict.fromkeys([*objective.targets, *objective.floors])
    if scores := [target for target in counting if higher_is_better(target)]:
        raise StudyError(
            f"edits are planned for losses, and the objective or a floor names the scores "
            f"{scores}; plan them in a study of the losses that the scores follow"
        )
    named = {domain.name: domain for domain in domains}
    if set(named) != set(fitted.domains):
        raise MixtureError(
            f"the law has the domains {list(fitted.domains)}, given are {list(named)}; edits are "
            "of exactly the law's domains"
        )
    domains = [named[name] for name in fitted.domains]
    shared, after = shared_mixtures(domains, edits), apply_edits(domains, edits)
    if len(after) < 2:
        raise MixtureError(
            f"the edits leave {[domain.name for domain in after]}; a mixture to decide needs two "
            "domains or more, keep another"
        )
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
