"""As many refits of the study's laws as the page has room for."""

from __future__ import annotations

import json
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

MOST_BYTES = 1_150_000
"""What the refits may take of a page that stays below 2 MB."""

FEWEST = 20
"""Fewer refits than this say too little."""

MOST_AROUND = 100
"""Trained mixtures at which the rounded refits forecast as they did before."""

DOUBLE = 8
"""Bytes of a number that a refit stores in one."""


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
) -> Drawn:
    """Refits of the losses that the terms (C, T) of the objective count.

    Args: num_draws: how many are asked for.
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
    room = int(MOST_BYTES // (len(json.dumps(one.data["groups"])) / DOUBLE))
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
        portable(made, scales=scales, around=_around(laws, places.fixed)), targets, count, note
    )


def _around(laws: FittedLaws, scale: Counts) -> Points:
    """Trained mixtures at a scale."""
    trained = np.unique(laws.cross_validation.runs.weights, axis=0)
    places = np.linspace(0, len(trained) - 1, min(MOST_AROUND, len(trained))).astype(int)
    return Points.at(trained[places], *scale)
