"""What the study asks, for the page: objective, limits and floors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from mixlaw.laws.gaussian import FLOOR
from mixlaw.laws.regret import FREEDOM, LONE, SHARED
from mixlaw.optimize import Objective
from mixlaw.optimize.decide import NEARLY, Question
from mixlaw.optimize.limits import EPOCH_CAP, Limits, distance_of
from mixlaw.optimize.polytope import SLACK
from mixlaw.runs import higher_is_better


def constants(level: float) -> dict[str, Any]:
    """Tolerances and lengths of the library, and Student's quantile for a level. The three without
    a name are written out in decide.outside_support, optimize.problem and optimize.curved."""
    return {
        "floor": FLOOR,
        "shared_length": SHARED.length,
        "lone_length": LONE.length,
        "nearly": NEARLY,
        "slack": SLACK,
        "support_slack": 1e-6,
        "floor_slack": 1e-7,
        "least_share": 1e-9,
        "epoch_cap": EPOCH_CAP,
        "quantile": float(stdtrit(FREEDOM, (1 + level) / 2)),
    }


def terms_of(objective: Objective, targets: Sequence[str]) -> np.ndarray:
    """(C, T) the terms in the values of the targets; of changes, in values over their reference."""
    if objective.relative_to is not None:
        objective = objective.relative(dict.fromkeys(objective.targets, 1.0))
    return objective.terms(targets)[0]


def terms_at(question: Question, terms: np.ndarray) -> np.ndarray:
    """(C, T) the terms in the targets' own units at the question's scale."""
    name = question.objective.relative_to
    if name is None:
        return terms
    weights = question.baselines[name].array(question.fitted.domains)[None]
    reference = question.scale().predict(weights)[0]
    return np.where(terms == 0, 0.0, terms / np.abs(reference))


def multipliers(question: Question, terms: np.ndarray, seed: int) -> list[float]:
    """(C,) how much each term counts at the optimum, as `Decision` compares mixtures."""
    if len(terms) == 1:
        return [1.0]
    problem = question.guarded(question.problem())
    return problem.solve(question.starts(problem, seed)).weights.tolist()


def floors(question: Question, names: Sequence[str]) -> list[dict[str, Any]]:
    """Args: names: of the mixtures that the page knows, among which a floor's baseline is."""
    out = []
    for target, floor in question.objective.floors.items():
        named = isinstance(floor.than, str)
        out.append(
            {
                "target": question.fitted.targets.index(target),
                "sign": -1 if higher_is_better(target) else 1,
                "than": None if named else floor.than,
                "mixture": names.index(str(floor.than)) if named else None,
                "slack": floor.slack,
            }
        )
    return out


def bounds(question: Question) -> dict[str, Any]:
    """The limits, without the epoch caps, which depend on the tokens, and without the guard."""
    domains, constraints = question.ordered(), question.constraints
    lower, upper, _ = constraints.asked(domains, question.train_tokens)
    linear = replace(
        constraints, max_epochs=None, near=None, min_unique_tokens=None, max_unique_tokens=None
    )
    uncapped = Limits.of(domains, linear, None)
    names = [domain.name for domain in domains]
    tokens = {False: constraints.min_unique_tokens, True: constraints.max_unique_tokens}
    near = distance_of(domains, constraints, question.baselines)
    return {
        "low": lower.tolist(),
        "high": upper.tolist(),
        "low_reason": list(uncapped.lower_reason),
        "high_reason": list(uncapped.upper_reason),
        "max_epochs": [constraints.epoch_cap(name) for name in names],
        "groups": [
            {
                "name": name,
                "members": [names.index(member) for member in group.domains],
                "low": group.lower,
                "high": group.upper,
            }
            for name, group in constraints.groups.items()
        ],
        "unique_tokens": [
            {"tokens": count, "upper": upper} for upper, count in tokens.items() if count
        ],
        "near": {
            "name": near.name,
            "shares": near.other.tolist(),
            "measure": near.measure,
            "at_most": near.at_most,
        }
        if near is not None and near.at_most
        else None,
    }
