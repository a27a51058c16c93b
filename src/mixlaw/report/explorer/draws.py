"""As many refits of the study's laws as the page has room for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.points import Points
from mixlaw.laws.portable import Portable, portable
from mixlaw.laws.selection import FittedLaws
from mixlaw.report.explorer.places import Counts, Places
from mixlaw.study import Study
from mixlaw.study.exploring import refits

MOST_BYTES = 1_200_000
"""What all laws together may take of a page that stays below 2 MB, about: some letters of a refit
take two bytes."""

FEWEST = 20
"""Fewer refits than this say too little."""

MOST_MIXTURES, MOST_SCALES = 12, 12
"""Trained mixtures, and scales, at which the rounded refits forecast as they did before."""

DOUBLE = 32 / 3
"""Letters of a number in a page, of which a refit takes one."""


@dataclass(frozen=True)
class Drawn:
    """Refits for the page.

    Attributes:
        page: draw by draw, the laws of the targets that count; None: there are none.
        targets: which of the fitted losses these are.
        count: R.
        note: why there are fewer than were asked for.
    """

    page: Portable | None
    targets: tuple[int, ...]
    count: int
    note: str | None

    @property
    def data(self) -> dict[str, Any] | None:
        """JSON-able, for the engine."""
        if self.page is None:
            return None
        return {"laws": self.page.data, "targets": list(self.targets), "count": self.count}


def drawn(
    study: Study,
    fitted: FittedLaws | LinkedLaws,
    terms: np.ndarray,
    places: Places,
    num_draws: int,
    *,
    taken: int = 0,
) -> Drawn:
    """Refits of the losses that the terms (C, T) of the objective count.

    Args: num_draws: how many are asked for; taken: bytes of the page's other laws.
    """
    laws = fitted.laws if isinstance(fitted, LinkedLaws) else fitted
    scales = places.counts()
    counts = np.flatnonzero(np.any(terms != 0, axis=0))
    targets = tuple(int(t) for t in counts)

    def none(note: str | None) -> Drawn:
        return Drawn(None, targets, 0, note)

    if num_draws == 0:
        return none(None)
    if targets[-1] >= len(laws.targets):
        return none("the objective counts scores, and only the laws of losses are refitted")
    one = portable([laws.laws[laws.targets[t]] for t in targets], scales=scales)
    size = len(json.dumps(one.data["groups"]))
    # Each number has its middle and step, in four bytes each.
    room = max(0, int((MOST_BYTES - taken - size) * DOUBLE // size))
    if room < FEWEST:
        return none(f"the page has room for {room} refits of this law only, which say too little")
    count = min(num_draws, room)
    try:
        draws = refits(study, count).draws
    except FitError as error:
        return none(f"the law cannot be refitted: {error}")
    made: list[Fitted] = [draw[laws.targets[t]] for draw in draws for t in targets]
    note = None
    if count < num_draws:
        note = f"the page has room for {count} of the {num_draws} refits asked for"
    return Drawn(
        portable(made, scales=scales, around=_around(laws, scales, places.fixed)),
        targets,
        count,
        note,
    )


def _around(laws: FittedLaws, scales: Sequence[Counts], target: Counts) -> Points:
    """Trained mixtures at the target and at scales all over what the page reaches: away from these
    points the errors of rounding are free to grow."""
    trained = np.unique(laws.cross_validation.runs.weights, axis=0)
    mixtures = trained[_spread(len(trained), MOST_MIXTURES)]
    counts = [target, *(scales[k] for k in _spread(len(scales), MOST_SCALES))]
    weights = np.tile(mixtures, (len(counts), 1))
    return Points(weights, *np.repeat(np.array(counts, float), len(mixtures), axis=0).T)


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of the first `count` whole numbers, with both ends."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))
