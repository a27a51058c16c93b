"""Staged runs of a known truth: later tokens weigh as (share of training done)^(rate - 1)."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Objective
from mixlaw.runs import RunTable
from mixlaw.schedule import Schedule
from mixlaw.stages import FittedStages, ScheduleDecision, fit_stages, optimize_schedule

NAMES = ("code", "docs", "web")
TARGETS = ("loss/code", "loss/docs", "loss/qa")
SIZE, HORIZONS = 1e5, (2.5e5, 5e5, 1e6)
USE = np.array([[4.0, 0.5, 0.5], [0.4, 3.0, 0.8], [1.0, 1.5, 0.6]])
RATE = 2.5
DOMAINS = [Domain("code", 200_000), Domain("docs", 2_000_000), Domain("web", 2_000_000)]
"""Code is scarce: a fifth of a run's tokens."""


def static_truth(weights: np.ndarray, train_tokens: float) -> np.ndarray:
    """(n, T) of mixtures (n, M)."""
    data = 0.05 + np.sqrt(weights + 1e-3) @ USE.T
    return 1.0 + (data * np.sqrt(train_tokens / 1e6)) ** -0.45


def truth(schedule: Schedule, train_tokens: float, rate: float) -> np.ndarray:
    """(T,)"""
    ends = np.append(schedule.starts[1:], 1.0)
    weights = ends**rate - schedule.starts**rate
    return static_truth((weights @ schedule.array(NAMES))[None], train_tokens)[0]


def mixtures(count: int, seed: int) -> list[Mixture]:
    draws = np.random.default_rng(seed).dirichlet(np.ones(len(NAMES)), count)
    return [Mixture.from_array(NAMES, draw) for draw in draws]


def schedules(count: int, seed: int = 1, share: float = 0.8) -> list[Schedule]:
    pairs = zip(mixtures(count, seed), mixtures(count, seed + 50), strict=True)
    return [Schedule.of([(share, one), (1 - share, other)]) for one, other in pairs]


def rows(whole: list[Schedule], rate: float, *, noise=0.002, horizons=HORIZONS, seed=0):
    """One run per schedule, measured at every horizon."""
    rng = np.random.default_rng(seed)
    out = []
    for i, schedule in enumerate(whole):
        for tokens in horizons:
            seen = schedule.until(tokens / horizons[-1])
            found = truth(seen, tokens, rate) * np.exp(noise * rng.normal(size=len(TARGETS)))
            row = {"run": f"{seed}-{i}", "num_params": SIZE, "train_tokens": tokens}
            row |= {f"weight/{name}": seen.dose.get(name, 0.0) for name in NAMES}
            row |= dict(zip(TARGETS, found.tolist(), strict=True))
            row |= {} if seen.is_static else {"schedule": json.dumps(seen.to_list())}
            out.append(row)
    return out


def table(staged: int = 8, rate: float = RATE, **options) -> RunTable:
    """20 static runs and some staged ones."""
    static = rows([Schedule.static(mixture) for mixture in mixtures(20, 0)], rate, **options)
    return RunTable.from_rows(static + rows(schedules(staged), rate, seed=1, **options))


def static_laws(runs: RunTable) -> FittedLaws:
    many = len(np.unique(runs.train_tokens)) > 1
    return fit_laws(runs.static(), candidates=["effective-chinchilla" if many else "effective"])


def decide(fitted: FittedStages, objective: Objective | None = None, **changes) -> ScheduleDecision:
    """A schedule for the scale of the table, where code is scarce: a fifth of a run's tokens."""
    arguments = {
        "domains": DOMAINS,
        "constraints": Constraints(max_epochs=1.0),
        "num_params": SIZE,
        "train_tokens": HORIZONS[-1],
    }
    return optimize_schedule(
        fitted, objective or Objective({"loss/code": 1.0}), **{**arguments, **changes}
    )


@pytest.fixture(scope="session")
def recency():
    """The stage law of runs whose truth weighs later tokens more."""
    runs = table()
    return fit_stages(runs, static_laws(runs))


@pytest.fixture(scope="session")
def orderless():
    """The stage law of runs whose order does not matter."""
    runs = table(rate=1.0)
    return fit_stages(runs, static_laws(runs))


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    helpers = (truth, static_truth, mixtures, schedules, rows, table, static_laws, decide)
    constants = {
        "names": NAMES,
        "targets": TARGETS,
        "size": SIZE,
        "horizons": HORIZONS,
        "domains": DOMAINS,
    }
    return SimpleNamespace(rate=RATE, **constants, **{f.__name__: f for f in helpers})
