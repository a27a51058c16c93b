"""Intervals and certainty from held-out residuals.

The residual of a held-out mixture at the held-out scale carries all that a forecast lacks: the
mixture was not trained on, the scale was not trained on, and the level error that every mixture
shares at a new scale is in it. So intervals are conformal over mixtures (Vovk et al. 2005), one
residual per mixture: its rows (seeds) share their data order and would count the same error twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from mixlaw.errors import FitError
from mixlaw.laws.points import AXES, Points
from mixlaw.laws.validation import CrossValidation, scale_ids


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out residuals of the chosen law on the deciding split.

    Attributes:
        residuals: (m, T) predicted less observed, one row per held-out mixture.
        reach: axis -> log ratio that the split extrapolated over; 0 where it did not.
        smallest, largest: axis -> range of the values trained on; NaN when unknown.
        spread: axis -> log ratio of the largest to the smallest value trained on.
    """

    residuals: np.ndarray
    reach: Mapping[str, float]
    smallest: Mapping[str, float]
    largest: Mapping[str, float]
    spread: Mapping[str, float]

    @classmethod
    def of(cls, validation: CrossValidation, candidate: str) -> HeldOut:
        """From the deciding split. On the mixture split of several scales the residuals are those
        at the largest one, since it is nearest to a forecast."""
        runs, split = validation.runs, validation.splits[validation.deciding_split]
        rows = validation.residuals(candidate, split.name)
        usable = np.isfinite(rows).all(axis=1)
        scales = scale_ids(runs)
        if len(np.unique(runs.mixture_ids()[usable])) < 2:
            raise FitError(
                f"fewer than two held-out mixtures have all of {list(validation.targets)}; errors "
                "of an objective need runs on which its targets were measured together: fit fewer "
                "targets, or measure them on the same runs"
            )
        usable &= scales == scales[usable].max()
        ids = runs.mixture_ids()
        means = [rows[usable & (ids == k)].mean(axis=0) for k in np.unique(ids[usable])]
        points = Points.of(runs)
        known = {axis: getattr(points, axis) for axis in AXES}
        known = {axis: counts[np.isfinite(counts)] for axis, counts in known.items()}
        return cls(
            residuals=np.array(means),
            reach=dict(split.reach),
            smallest={a: float(c.min()) if len(c) else math.nan for a, c in known.items()},
            largest={a: float(c.max()) if len(c) else math.nan for a, c in known.items()},
            spread={
                a: float(np.log(c.max() / c.min())) if len(c) else 0.0 for a, c in known.items()
            },
        )

    def widening(self, num_params: float | None, train_tokens: float | None) -> float:
        """How much wider an interval must be at a target scale than at the held-out one (>= 1).

        The distance outside the range of trained scales, in log N and log D, over the distance that
        the split extrapolated; where it extrapolated nothing, 1 plus the distance over the
        spread of the trained values (or over log 2, when all are equal).
        """
        target = dict(zip(AXES, (num_params, train_tokens), strict=True))
        squared = 0.0
        beyond_split = 1.0
        reach = math.hypot(*self.reach.values())
        for axis, count in target.items():
            if count is None or math.isnan(self.largest[axis]):
                continue
            above, below = count / self.largest[axis], self.smallest[axis] / count
            beyond = max(0.0, math.log(above), math.log(below))
            if self.reach[axis] > 0:
                squared += beyond**2
            else:
                beyond_split += beyond / max(self.spread[axis], math.log(2))
        return beyond_split * max(1.0, math.sqrt(squared) / reach if reach > 0 else 1.0)

    def enough_for(self, level: float) -> bool:
        """Whether a conformal quantile of this level exists: ceil((m + 1) level) <= m."""
        m = len(self.residuals)
        return math.ceil((m + 1) * level) <= m

    def half_width(self, coefficients: np.ndarray, level: float) -> float:
        """Half width of the interval of `sum_t coefficients_t target_t` at the held-out scale.

        The conformal quantile of |residual|, with its finite-sample correction; with too few
        mixtures for the level, a Student t quantile times their root mean square (about zero, not
        about their mean: a shared level error is an error).
        """
        size = np.abs(self.residuals @ coefficients)
        m = len(size)
        if self.enough_for(level):
            return float(np.sort(size)[math.ceil((m + 1) * level) - 1])
        rms = math.sqrt(float(np.mean(size**2)) * (1 + 1 / m))
        return rms * float(stdtrit(max(1, m - 1), (1 + level) / 2))

    def probability_better(self, gap: float, coefficients: np.ndarray) -> float:
        """Probability that a mixture predicted lower by `gap` is lower.

        Over ordered pairs of held-out mixtures, how often the difference of their residuals is
        below the gap; errors that all mixtures share cancel. Shrunk towards 1/2 as if by one more
        mixture, so that it is never 0 or 1.
        """
        residual = self.residuals @ coefficients
        m = len(residual)
        difference = (residual[:, None] - residual)[~np.eye(m, dtype=bool)]
        share = (np.sum(difference < gap) + 0.5 * np.sum(difference == gap)) / len(difference)
        return float((share * m + 0.5) / (m + 1))

    def to_dict(self) -> dict[str, Any]:
        return {
            "residuals": self.residuals.tolist(),
            "reach": dict(self.reach),
            "smallest": _blanks(self.smallest),
            "largest": _blanks(self.largest),
            "spread": dict(self.spread),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeldOut:
        smallest, largest = (
            {k: math.nan if v is None else v for k, v in data[end].items()}
            for end in ("smallest", "largest")
        )
        residuals = np.array(data["residuals"], float)
        return cls(residuals, dict(data["reach"]), smallest, largest, dict(data["spread"]))


def _blanks(counts: Mapping[str, float]) -> dict[str, float | None]:
    """Counts with None for NaN, which JSON lacks."""
    return {axis: None if math.isnan(count) else count for axis, count in counts.items()}
