"""A schedule as trained at the target scale: against static mixtures, and against online ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError, StudyError
from mixlaw.mixture import Domain, Mixture
from mixlaw.optimize import Objective
from mixlaw.runs import RunTable
from mixlaw.schedule import Online, Schedule
from mixlaw.stages import ScheduleDecision, ScheduleForecast
from mixlaw.study.verification import Verification, compare, objective_values

STAGED, STATIC, SAME_DOSE = "staged", "static", "same dose"
"""A schedule, and what it is compared with: the best static mixture, and the one of its dose."""

ONLINE = "online"
FORMAT_VERSION = 1

ROOM = 0.9
"""An online run begins with at most this share of the epochs allowed, so that it can move."""


@dataclass(frozen=True)
class Adapted:
    """Runs that adapted their own mixture; nothing is forecast of them.

    Attributes:
        observed: objective by seed.
        gains: label -> its objective minus the online run's, by shared seed; only of those that
            finished one.
        schedules: what became of the mixture, by seed.
    """

    observed: tuple[float, ...]
    gains: Mapping[str, tuple[float, ...]]
    schedules: tuple[Schedule, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.observed) / len(self.observed)

    def to_dict(self) -> dict[str, Any]:
        return {
            "observed": list(self.observed),
            "gains": {name: list(by_seed) for name, by_seed in self.gains.items()},
            "schedules": [schedule.to_list() for schedule in self.schedules],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Adapted:
        return cls(
            observed=tuple(data["observed"]),
            gains={name: tuple(by_seed) for name, by_seed in data["gains"].items()},
            schedules=tuple(map(Schedule.from_list, data["schedules"])),
        )


@dataclass(frozen=True)
class ScheduleVerification:
    """What the larger model said of a schedule.

    Attributes:
        compared: predicted against observed; "staged" first, with its gains over the others.
        online: None where no online run was asked for.
    """

    compared: Verification
    online: Adapted | None = None

    def to_dict(self) -> dict[str, Any]:
        online = self.online and self.online.to_dict()
        return {"compared": self.compared.to_dict(), "online": online}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScheduleVerification:
        online = data["online"] and Adapted.from_dict(data["online"])
        return cls(Verification.from_dict(data["compared"]), online)


def compared(decision: ScheduleDecision) -> dict[str, ScheduleForecast]:
    """What is trained at the target scale, by label, the staged schedule first."""
    return {STAGED: decision.staged, STATIC: decision.static, SAME_DOSE: decision.same_dose}


def verify_schedule(decision: ScheduleDecision, runs: RunTable) -> ScheduleVerification:
    """Predicted against observed: the staged schedule, and its gain over the static mixtures.

    Args: runs: labelled as in `compared`, and "online"; several seeds each.
    Raises: RunTableError: as `verification.compare`.
    """
    gains = {STATIC: decision.over_static, SAME_DOSE: decision.over_same_dose}
    predicted = {name: gain.interval.value for name, gain in gains.items()}
    found = compare(compared(decision), predicted, decision.objective, runs)
    online = None
    if np.any(runs.label == ONLINE):
        online = _adapted(runs, decision.objective, (STAGED, STATIC))
    return ScheduleVerification(found, online)


def _adapted(runs: RunTable, objective: Objective, others: Sequence[str]) -> Adapted:
    done = runs.done()
    last = done.select(done.train_tokens == done.train_tokens.max())
    by_seed: dict[str, dict[int, float]] = {}
    for name in (ONLINE, *others):
        of_name = last.select(last.label == name)
        scores = objective_values(of_name, objective).tolist()
        by_seed[name] = dict(sorted(zip(of_name.seed.tolist(), scores, strict=True)))
    mine = by_seed[ONLINE]
    if not mine:
        raise RunTableError("no finished online run; leave --online out")
    shared = {name: [seed for seed in mine if seed in by_seed[name]] for name in others}
    rows = last.select(last.label == ONLINE)
    order = np.argsort(rows.seed)
    return Adapted(
        observed=tuple(mine.values()),
        gains={
            name: tuple(by_seed[name][seed] - mine[seed] for seed in seeds)
            for name, seeds in shared.items()
            if seeds
        },
        schedules=tuple(_seen(rows, i) for i in order.tolist()),
    )


def _seen(runs: RunTable, i: int) -> Schedule:
    found: Schedule | None = runs.schedule[i]
    return Schedule.static(runs.mixture(i)) if found is None else found


def online_settings(
    decision: ScheduleDecision, max_epochs: float | Mapping[str, float] | None
) -> Online:
    """The objective and the epoch cap of a study for a run that adapts itself.

    Of the worst of several terms: their mean. Raises: StudyError: a cap per domain.
    """
    if isinstance(max_epochs, Mapping):
        raise StudyError(
            "an online run keeps one cap on epochs for all domains, and constraints.max_epochs is "
            "per domain; leave --online out, or give one number"
        )
    targets = decision.objective.targets
    weights = zip(targets, decision.objective.coefficients(targets).tolist(), strict=True)
    return Online(dict(weights), max_epochs=max_epochs)


def online_start(
    static: Mixture, domains: Sequence[Domain], train_tokens: float, max_epochs: float | None
) -> Mixture:
    """The best static mixture, with room below the epoch cap: a run that begins at the cap has no
    tokens left to probe with.

    Args: domains: with the tokens that the run draws from.
    """
    if max_epochs is None:
        return static
    seen = static.epochs(train_tokens, domains)
    most = {n: static[n] * ROOM * max_epochs / e for n, e in seen.items() if e > ROOM * max_epochs}
    return static.replace(**most)
