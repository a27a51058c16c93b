"""Mixtures to begin from: the recommended one, the baselines, and the best for each target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.mixture import Mixture
from mixlaw.optimize import Objective
from mixlaw.optimize.decide import Question, distinct

RECOMMENDED, BASELINE, BEST = "recommended", "baseline", "best"

MOST_STARTS = 5
"""Searches for the best mixture for a target, of which a page has dozens, beside the one from the
recommended mixture. All that `Question.starts` has found nothing better, and took four times as
long."""


def mixtures_of(question: Question, recommended: Mixture) -> list[dict[str, Any]]:
    """The recommended mixture and every baseline, in the law's order of domains."""
    names = question.fitted.domains
    named = {RECOMMENDED: recommended, **question.baselines}
    return [
        {
            "name": name,
            "kind": RECOMMENDED if k == 0 else BASELINE,
            "shares": mixture.array(names).tolist(),
        }
        for k, (name, mixture) in enumerate(named.items())
    ]


def compared(question: Question) -> list[int]:
    """Which of `mixtures_of` a forecast is compared with: none twice."""
    kept = distinct(question.baselines)
    return [0, *(1 + k for k, name in enumerate(question.baselines) if name in kept)]


def presets(question: Question, mixtures: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """What the page's buttons set, `mixtures` as `mixtures_of`."""
    shown = [{**mixtures[k], "target": None} for k in compared(question)]
    start = np.array(mixtures[0]["shares"])
    for target in question.fitted.targets:
        best = best_for(question, target, start, seed)
        if best is not None:
            shown.append({"name": target, "kind": BEST, "shares": best, "target": target})
    return shown


def best_for(question: Question, target: str, start: np.ndarray, seed: int) -> list[float] | None:
    """The mixture (M,) with the best forecast of one target under the study's limits, floors and
    guard; None where the law explodes. A price for distance, which is in the objective's unit, is
    left out."""
    near, constraints = question.constraints.near, question.constraints
    if near is not None:
        near = replace(near, penalty=None) if near.at_most else None
        constraints = replace(constraints, near=near)
    objective = Objective({target: 1.0}, floors=question.objective.floors)
    one = replace(question, objective=objective, constraints=constraints)
    problem = one.guarded(one.problem())
    starts = one.starts(problem, seed)
    best = starts[np.argsort(problem.objective(starts), kind="stable")[:MOST_STARTS]]
    try:
        found = problem.solve(np.vstack([start, best]))
    except FitError:
        return None
    return found.proportions.tolist()
