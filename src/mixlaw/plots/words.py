"""Numbers and names as people read them, in pictures, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mixlaw.optimize.decision import Interval
from mixlaw.optimize.objective import Objective
from mixlaw.plan.budget import short_count
from mixlaw.runs import UNITS, higher_is_better

__all__ = [
    "correlation",
    "count",
    "interval",
    "listing",
    "number_of",
    "objective_unit",
    "percent",
    "plain",
    "rewarm_words",
    "scale_words",
    "short",
    "short_count",
    "signed",
    "target_names",
    "unit_of",
    "value",
]


def plain(name: str) -> str:
    """A name without control characters, line breaks and invisible direction marks."""
    return "".join(c if c.isprintable() else " " for c in str(name)).strip() or "?"


def short(name: str, most: int = 22) -> str:
    """A name that fits a picture."""
    name = plain(name)
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


WRITTEN_OUT = 1e7
"""Counts below it are written out, others shortened."""


def count(number: float) -> str:
    """Written out below ten million, shortened above."""
    return f"{number:,.0f}" if number < WRITTEN_OUT else short_count(number)


def scale_words(num_params: float | None, train_tokens: float | None) -> str:
    """ "147,456 parameters and 184,320 tokens"; both written out, or both shortened."""
    said = {"parameters": num_params, "tokens": train_tokens}
    known = {what: n for what, n in said.items() if n is not None and np.isfinite(n)}
    written = count if max(known.values(), default=0) < WRITTEN_OUT else short_count
    parts = (f"{written(number)} {what}" for what, number in known.items())
    return " and ".join(parts) or "the scale of the runs"


def percent(share: float) -> str:
    """A share in words: "75%", "3.1%", "0.42%"."""
    number = 100 * share
    if 0 < number < 0.005:
        return "<0.01%"
    digits = 0 if number >= 9.95 or number == 0 else 1 if number >= 0.995 else 2
    return f"{number:.{digits}f}%"


def value(number: float) -> str:
    """A loss, for a table."""
    return f"{number:.4f}" if np.isfinite(number) else "unknown"


def signed(number: float) -> str:
    """With its sign."""
    return f"{number:+z.4f}".replace("-", "−")


def correlation(number: float) -> str:
    """A rank correlation."""
    return f"{number:.3f}".replace("-", "−")


def interval(found: Interval) -> str:
    """Value ± half width."""
    if not np.isfinite(found.half_width):
        return f"{found.value:z.4f} ± unknown"
    return f"{found.value:z.4f} ± {found.half_width:.4f}"


def listing(items: Iterable[str], most: int = 6) -> str:
    """ "a, b and c", or "a, b and 12 more"."""
    items = list(items)
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" and {items[-1]}"


def number_of(how_many: int, thing: str) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{how_many:,} {thing}" + ("" if how_many == 1 else "s")


def unit_of(targets: Iterable[str]) -> str:
    """The unit that targets share."""
    units = {UNITS[target.partition("/")[0]] for target in targets}
    return units.pop() if len(units) == 1 else "mixed units"


def target_names(targets: Sequence[str]) -> dict[str, str]:
    """Target -> its name for people: without the metric, where all have the same."""
    bare = len({target.partition("/")[0] for target in targets}) == 1
    return {t: plain(t.partition("/")[2] if bare else t) for t in targets}


def objective_unit(objective: Objective) -> str:
    """What the objective is counted in."""
    if objective.relative_to is not None:
        return f"relative change from {plain(objective.relative_to)}"
    scores = any(map(higher_is_better, objective.targets))
    return "minus the score" if scores else unit_of(objective.targets)


def rewarm_words(rewarm: float) -> str:
    """How high the learning rate rises again."""
    if rewarm == 1:
        return "re-warmed to the usual rate"
    return f"re-warmed to {rewarm:g} of the usual rate"
