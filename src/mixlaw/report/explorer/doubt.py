"""What a page must know of held-out errors to give the intervals and chances that Python gives.

Shapes: G places (scales), T targets, K folds, C terms of the objective, m held-out mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted
from mixlaw.laws.coding import coded
from mixlaw.laws.link_forms import Link
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.points import AXES, Points
from mixlaw.laws.regret import error_field
from mixlaw.laws.selection import FittedLaws
from mixlaw.laws.uncertainty import enough_for
from mixlaw.report.explorer.places import Counts

Laws = FittedLaws | LinkedLaws

FAR = 1e12
"""So many times the largest count trained, no extrapolation is untested only in part."""


def within_data(fitted: Laws, level: float) -> dict[str, Any]:
    """The residuals on held-out mixtures at the trained scales, and Student's quantiles by the
    number of mixtures, while these are too few for a conformal one."""
    held_out = fitted.within
    few = [m for m in range(len(held_out.fold) + 1) if not enough_for(level, m)]
    return {
        "residuals": coded(held_out.residuals, "f32"),
        "fold": held_out.fold.tolist(),
        "student": [float(stdtrit(max(1, m - 1), (1 + level) / 2)) for m in few],
    }


def far_widths(fitted: Laws, rows: np.ndarray, level: float) -> dict[str, str] | None:
    """Half widths of `rows (., T) @ targets` on the scale split, NaN where too few mixtures have
    what counts; None without that split."""
    beyond = fitted.beyond
    if beyond is None:
        return None

    def width(row: np.ndarray) -> float:
        try:
            return float(beyond.half_width(row, level)[0])
        except FitError:
            return np.nan

    return coded(np.array([width(row) for row in rows]))


def distances(fitted: Laws, places: Sequence[Counts]) -> tuple[list[float], list[float]]:
    """How far from the trained scales each place is, and how much wider intervals are there."""
    held_out = fitted.beyond or fitted.within
    far = [held_out.distance(*place) for place in places]
    return far, [held_out.widening(*place) for place in places]


def rival_levels(fitted: Laws, places: Sequence[Counts]) -> np.ndarray:
    """(G, rivals, T) by how much each rival's mean over the trained mixtures differs from the
    chosen law's; zero within the trained scales, where nobody asks."""
    laws = fitted.laws if isinstance(fitted, LinkedLaws) else fitted
    links = fitted.links if isinstance(fitted, LinkedLaws) else {}
    out = np.zeros((len(places), len(laws.rivals), len(fitted.targets)))
    away = np.flatnonzero(distances(fitted, places)[0])
    if not (len(away) and len(laws.rivals)):
        return out
    trained = np.unique(laws.cross_validation.runs.weights, axis=0)
    counts = np.array([[np.nan if c is None else c for c in places[g]] for g in away.tolist()])
    points = Points(np.tile(trained, (len(away), 1)), *np.repeat(counts, len(trained), axis=0).T)

    def levels(of: Mapping[str, Fitted]) -> np.ndarray:
        values = _values(of, [fitted.link for fitted in links.values()], points)
        return values.reshape(len(away), len(trained), -1).mean(axis=1)

    chosen = levels(laws.laws)
    for r, rival in enumerate(laws.rivals.values()):
        out[away, r] = levels(rival) - chosen
    return out


def _values(laws: Mapping[str, Fitted], links: Sequence[Link], points: Points) -> np.ndarray:
    """(n, T): losses, then scores."""
    losses = np.stack([law.predict(points) for law in laws.values()], axis=1)
    scores = [link.score(losses @ link.shares(tuple(laws))) for link in links]
    return np.column_stack([losses, *scores])


def own_scales(fitted: Laws, rows: np.ndarray, places: Sequence[Counts]) -> np.ndarray:
    """(G, C) `ErrorField.own` of the terms `rows (G, C, T)` at each place.

    It is proportional to the row, so a term whose weights keep their ratios at all places is
    looked at twice only: within the trained scales, and far from them.
    """
    far, widening = (np.array(column) for column in distances(fitted, places))
    largest = [fitted.within.largest[axis] for axis in AXES]
    near_at = [None if np.isnan(count) else count for count in largest]
    far_at = [None if count is None else FAR * count for count in near_at]
    out = np.empty(rows.shape[:2])
    for c in range(rows.shape[1]):
        sizes = np.linalg.norm(rows[:, c], axis=1)
        directions = rows[:, c] / sizes[:, None]
        if not np.allclose(directions, directions[0], rtol=0, atol=1e-14):
            out[:, c] = [
                error_field(fitted, row, *place).own
                for row, place in zip(rows[:, c], places, strict=True)
            ]
            continue
        near = error_field(fitted, directions[0], *near_at).own
        if fitted.beyond is None:
            wide = near * widening
        else:
            wide = error_field(fitted, directions[0], *far_at).own if far.any() else near
        out[:, c] = sizes * (near + np.minimum(1, far) * np.maximum(0, wide - near))
    return out
