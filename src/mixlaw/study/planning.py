"""What a study asks to be run next, and what it is told: the face for people with their own
trainer.

`asked.json` holds every run that was asked for; those that the table has by now are done, the
others are pending and are not asked for again.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mixlaw.errors import FitError, RunTableError, StudyError
from mixlaw.files import read_json, write_json
from mixlaw.laws import fit_laws
from mixlaw.mixture import Domain, Mixture
from mixlaw.optimize.limits import Limits
from mixlaw.optimize.objective import Objective
from mixlaw.plan.budget import BudgetPlan, plan_budget
from mixlaw.plan.proposals import Plan, Proposal, propose
from mixlaw.plan.question import Question, RunScale
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.schedule import Schedule
from mixlaw.study.config import StudyConfig
from mixlaw.study.deciding import Deciding, Scale, baselines

ASKED = "asked.json"
MOST_ASKED = 200
ANSWERS = 2e-3
"""How far a run's proportions may lie from those asked for: trainers round them, Levanter to
multiples of 1/2048, and those that count samples to one of them."""
NUM_AMONG = 600
"""Mixtures that are weighed where limits are more than bounds on domains."""


@dataclass(frozen=True, eq=False)
class Planning:
    """What may be run next in a study.

    Attributes:
        domains: with the tokens of the big run.
        runs: finished so far, without those for verification; None for none.
    """

    config: StudyConfig
    domains: Sequence[Domain]
    runs: RunTable | None

    @cached_property
    def scales(self) -> list[RunScale]:
        """What a new run may have: what the study says, else the sizes that it trains at their
        longest horizon, else the scales of the runs so far; one, unknown, where nothing tells."""
        config, runs = self.config, self.runs
        if config.plan.scales:
            return [RunScale(scale.num_params, scale.train_tokens) for scale in config.plan.scales]
        if config.training is not None:
            return [
                RunScale(float(config.num_params(name)), float(config.longest_tokens(name)))
                for name in config.training.sizes
            ]
        if runs is None:
            return [RunScale()]
        last: dict[float, float] = {}
        for size, tokens in zip(runs.num_params.tolist(), runs.train_tokens.tolist(), strict=True):
            last[size] = max(last.get(size, tokens), tokens)
        if any(np.isnan([size, tokens]).any() for size, tokens in last.items()):
            return [RunScale()]
        return [RunScale(size, tokens) for size, tokens in sorted(last.items())]

    @property
    def target(self) -> RunScale:
        """The scale of the decision; unknown where the runs' scales are."""
        return RunScale() if self.scales == [RunScale()] else self._big_run

    @property
    def _big_run(self) -> RunScale:
        return RunScale(self.config.target_params, self.config.target.train_tokens)

    def plan(self, count: int, pending: Sequence[Proposal]) -> Plan:
        """The next runs worth doing, where `pending` ones will be done.

        Raises: StudyError: an objective on scores, which no plan is made for; and as `propose`.
        """
        objective = self.config.objective.build()
        named = (*objective.targets, *objective.floors)
        if scores := [target for target in named if higher_is_better(target)]:
            raise StudyError(
                f"runs are planned for losses, and the objective names the scores {scores}; give "
                "the losses that they follow as the objective of a study of their own"
            )
        if not 1 <= count <= MOST_ASKED:
            raise StudyError(f"{count} runs were asked for; ask for 1 to {MOST_ASKED} at a time")
        limits = self._limits()
        among = None
        if len(limits.rows) or limits.curved:
            among = limits.sample(NUM_AMONG, np.random.default_rng(self.config.seed))
        question = Question(
            [domain.name for domain in self.domains],
            self._coefficients(objective),
            (limits.lower, limits.upper),
            self.scales,
            self.target if self.target != RunScale() else None,
            among=among,
            laws=self.config.fit.laws,
        )
        plan = propose(
            self.runs,
            question,
            count,
            pending=[(asked.mixture, asked.scale) for asked in pending],
            threshold=self.config.plan.threshold,
            seed=self.config.seed,
        )
        return self._beside_the_decision(plan)

    def _beside_the_decision(self, plan: Plan) -> Plan:
        """The plan, saying why its mixture and regret are not those of the decision."""
        if plan.recommended is None:
            return plan
        unguarded = ""
        if self.config.optimize.guard:
            unguarded = " without the support guard, as new runs widen the trained range"
        told = f"the plan's mixture and regret are of its own belief{unguarded}"
        return replace(plan, reason=f"{plan.reason}; {told}; the decision is of mixlaw optimize")

    def _limits(self) -> Limits:
        """What a run and the decision must keep. Raises: InfeasibleError, MixtureError."""
        tokens = self.config.target.train_tokens
        mixtures = baselines(self.config, self.domains, tokens)
        return Limits.of(self.domains, self.config.constraints.build(), tokens, mixtures)

    def _coefficients(self, objective: Objective) -> Mapping[str, float]:
        """Target -> coefficient of the objective that runs are planned for: the objective's own,
        or where it is not linear or has floors, what it comes to at its optimum, with the floors at
        their prices. With too few runs for a law, the mean of the targets.

        Raises: InfeasibleError: no mixture keeps limits and floors.
        """
        plain = objective.linear and objective.relative_to is None and not objective.floors
        if plain or self.runs is None:
            return objective.shares
        scale = Scale(self.config.target_params, self.config.target.train_tokens)
        try:
            wanted = list(dict.fromkeys((*objective.targets, *objective.floors)))
            laws = self.config.fit.laws
            fitted = fit_laws(self.runs, wanted, candidates=laws, seed=self.config.seed)
            deciding = Deciding(self.config, fitted, self.runs, self.domains, scale)
            found = deciding.question().pressing(self.config.seed)
        except FitError:
            return objective.shares
        return {target: c for target, c in zip(fitted.targets, found, strict=True) if c}

    def ask(self, count: int, folder: Path) -> Plan:
        """As `plan`, with what was asked for before pending; remembered in the folder."""
        plan = self.next(count, folder)
        if not plan.stop:
            self.remember(plan, folder)
        return plan

    def next(self, count: int, folder: Path) -> Plan:
        """As `ask`, without remembering it."""
        return self.plan(count, still_pending(read_asked(folder), self.runs))

    def remember(self, plan: Plan, folder: Path) -> None:
        """What was asked for is not asked for again."""
        write_asked(folder, [*still_pending(read_asked(folder), self.runs), *plan.proposals])

    def budget(self, flops: float) -> BudgetPlan:
        """What a budget buys.

        Raises: StudyError: the study names no big run; and as `mixlaw.plan.budget.plan_budget`.
        """
        if self._big_run.flops is None:
            raise StudyError(
                f"a budget is for proxies of a big run, and the study's target is {self._big_run}; "
                "give target: {num_params: ..., train_tokens: ...}"
            )
        known = [scale for scale in self.scales if scale.flops] or None
        runs = self.runs if known else None
        return plan_budget(
            flops,
            num_domains=len(self.domains),
            target=self._big_run,
            scales=known,
            runs=runs,
            objective=None if runs is None else self.config.objective.build().shares,
        )


def read_asked(folder: Path) -> list[Proposal]:
    """Every run that was asked for. Raises: StudyError: the file is damaged."""
    path = folder / ASKED
    if not path.exists():
        return []
    try:
        return [Proposal.from_dict(item) for item in read_json(path)]
    except (ValueError, TypeError, KeyError) as error:
        raise StudyError(
            f"{path} is damaged ({error}); delete it, and runs that are not told yet may be asked "
            "for again"
        ) from error


def write_asked(folder: Path, asked: Sequence[Proposal]) -> None:
    write_json(folder / ASKED, [proposal.to_dict() for proposal in asked])


def still_pending(asked: Sequence[Proposal], runs: RunTable | None) -> list[Proposal]:
    """Those that the table does not have; a run told twice answers for two.

    A trainer rounds the mixture that it was told, so a run answers for one that is near.
    """
    if runs is None:
        return list(asked)
    left, out = np.ones(len(runs), bool), []
    for proposal in asked:
        shares = proposal.mixture.array(runs.domains)
        here = left & (np.abs(runs.weights - shares) <= ANSWERS).all(axis=1)
        for counts, count in (
            (runs.num_params, proposal.num_params),
            (runs.train_tokens, proposal.train_tokens),
        ):
            if count is not None:
                here &= np.abs(counts - count) <= 0.02 * count
        if here.any():
            left &= runs.run != runs.run[int(np.argmax(here))]
        else:
            out.append(proposal)
    return out


def told(
    mixture: Mixture | Schedule,
    targets: Mapping[str, float],
    *,
    num_params: float | None,
    train_tokens: float | None,
    seed: int,
    so_far: RunTable | None,
    domains: Sequence[str],
) -> RunTable:
    """One run as a table, under an id that those so far do not have.

    Raises: RunTableError, MixtureError: a target or domain that makes no sense.
    """
    schedule = mixture if isinstance(mixture, Schedule) else Schedule.static(mixture)
    shares = schedule.dose.array(domains)
    taken = set() if so_far is None else set(so_far.run.tolist())
    first = 0 if so_far is None else len(so_far)
    number = next(n for n in itertools.count(first) if f"told{n}" not in taken)
    row = {
        "run": f"told{number}",
        "label": f"told{number}",
        "seed": seed,
        "num_params": num_params,
        "train_tokens": train_tokens,
        **{f"weight/{name}": share for name, share in zip(domains, shares, strict=True)},
        "schedule": None if schedule.is_static else schedule.to_list(),
        **targets,
    }
    table = RunTable.from_rows([row])
    strange = [name for name in targets if name not in table.targets]
    if strange:
        raise RunTableError(
            f"{strange} are no targets; name each by its metric, such as loss/web or score/quiz"
        )
    return table
