"""What the report and the terminal say in sentences; numbers and names are `plots.words`."""

from __future__ import annotations

from mixlaw.optimize.decision import Regret
from mixlaw.optimize.evidence import Distance
from mixlaw.optimize.objective import WORST, Objective
from mixlaw.plots.words import (
    correlation,
    count,
    interval,
    listing,
    number_of,
    objective_unit,
    percent,
    plain,
    scale_words,
    short_count,
    signed,
    target_names,
    unit_of,
    value,
)
from mixlaw.runs import higher_is_better

__all__ = [
    "against",
    "correlation",
    "count",
    "distance_words",
    "interval",
    "listing",
    "number_of",
    "objective_unit",
    "objective_words",
    "over_words",
    "percent",
    "plain",
    "regret_words",
    "scale_words",
    "sentence",
    "short_count",
    "signed",
    "target_names",
    "unit_of",
    "value",
]

EQUAL_WEIGHTS = 1e-9


def objective_words(objective: Objective) -> str:
    """ "the mean loss on docs and cython" with the unit."""
    weights = objective.weights
    members = {name: f"the family {plain(name)}" for name in objective.families}
    names = {**target_names([n for n in weights if n not in members]), **members}
    kinds = set(map(higher_is_better, objective.targets))
    kind = "loss" if kinds == {False} else "score" if kinds == {True} else "value"
    if objective.relative_to is not None:
        kind = f"change of the {kind}"
    equal = max(weights.values()) - min(weights.values()) < EQUAL_WEIGHTS
    parts = (n if equal else f"{n} ({percent(weights[t])})" for t, n in names.items())
    if len(weights) == 1:
        what = f"the {kind} on {next(iter(names.values()))}"
    elif objective.over == WORST:
        what = f"the worst {kind} of {listing(parts)}"
    else:
        what = f"the {'' if equal else 'weighted '}mean {kind} on {listing(parts)}"
    return f"{what} ({objective_unit(objective)}, lower is better)"


def against(gain: float, name: str, digits: int = 3) -> str:
    """ "0.072 lower than natural", also when it is higher."""
    side = "lower" if gain >= 0 else "HIGHER"
    return f"{abs(gain):.{digits}f} {side} than {plain(name)}"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def over_words(over: str | float) -> str:
    """Over what a robust decision minimises: "the mean", "the 90% quantile"."""
    return f"the {over:.0%} quantile" if isinstance(over, float) else f"the {over}"


def regret_words(regret: Regret) -> str:
    """How far from the best allowed mixture the recommended one may be."""
    return (
        f"the mixture is expected to be {regret.expected:.2g} from the best allowed mixture, and "
        f"{regret.level:.0%} sure to be within {regret.bound:.2g}"
    )


def distance_words(distance: Distance) -> str:
    """How far from the trained mixtures it lies."""
    return (
        f"the mixture lies {distance.nearest:.2f} from the nearest trained one (Hellinger "
        f"distance, 0 to 1); trained ones lie {distance.typical:.2f} from theirs in the median, "
        f"{distance.largest:.2f} at most"
    )
