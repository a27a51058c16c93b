"""Intervals and certainty from held-out residuals.

The residual of a held-out mixture carries all that a forecast lacks: the mixture was not trained
on and, on the scale split, neither was the scale, whose level error all mixtures share. So
intervals are conformal over mixtures, one residual per mixture: its rows (seeds) share their data
order and would count the same error twice.
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
from mixlaw.laws.scoring import blanks, column_means
from mixlaw.laws.splits import scale_ids
from mixlaw.laws.validation import CrossValidation

LEVEL = 0.9
"""Nominal level of intervals and bounds, where none is given."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out residuals of one law on one split.

    Attributes:
        targets: T names.
        residuals: (m, T) predicted less observed, one row per held-out mixture; NaN where a
            target was not measured.
        fold: (m,) which fold held the mixture out.
        reach: axis -> log ratio that the split extrapolated over; 0 where it did not.
        smallest, largest: axis -> range of the values trained on; NaN when unknown.
    """

    targets: tuple[str, ...]
    residuals: np.ndarray
    fold: np.ndarray
    reach: Mapping[str, float]
    smallest: Mapping[str, float]
    largest: Mapping[str, float]

    @classmethod
    def of(cls, validation: CrossValidation, candidate: str, split_name: str) -> HeldOut:
        """The residuals at the largest scale of the split that has two mixtures or more, since it
        is nearest to a forecast."""
        runs, split = validation.runs, validation.splits[split_name]
        rows = validation.residuals(candidate, split_name)
        of_mixture = held_out_rows(validation, candidate, split_name)
        fold_of_row = np.select([test for _, test in split.folds], range(len(split.folds)), -1)
        counts = {axis: getattr(Points.of(runs), axis) for axis in AXES}
        known = {axis: count[np.isfinite(count)] for axis, count in counts.items()}
        return cls(
            targets=validation.targets,
            residuals=np.stack([column_means(rows[at]) for at in of_mixture]),
            fold=fold_of_row[[at[0] for at in of_mixture]],
            reach=dict(split.reach),
            smallest={a: float(c.min()) if len(c) else math.nan for a, c in known.items()},
            largest={a: float(c.max()) if len(c) else math.nan for a, c in known.items()},
        )

    def of_objective(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (k,) of `coefficients (T,) @ targets`, and their folds (k,).

        Raises: FitError: fewer than two held-out mixtures have all the targets that count.
        """
        counts = np.flatnonzero(coefficients)
        usable = np.isfinite(self.residuals[:, counts]).all(axis=1)
        if usable.sum() < 2:
            raise FitError(
                f"fewer than two held-out mixtures have all of "
                f"{[self.targets[t] for t in counts]}; errors of an objective need runs on which "
                "its targets were measured together: use fewer targets, or measure them on the "
                "same runs"
            )
        residuals = self.residuals[np.ix_(usable, counts)] @ coefficients[counts]
        return residuals, self.fold[usable]

    def distance(self, num_params: float | None, train_tokens: float | None) -> float:
        """How far a scale lies outside those trained on, in log N and log D, over the distance
        that the split extrapolated; over the spread of the trained values (or log 2, when all are
        equal) along an axis that it did not extrapolate."""
        target = dict(zip(AXES, (num_params, train_tokens), strict=True))
        reach = math.hypot(*self.reach.values())
        squared = 0.0
        for axis, count in target.items():
            if count is None or math.isnan(self.largest[axis]):
                continue
            above, below = count / self.largest[axis], self.smallest[axis] / count
            outside = max(0.0, math.log(above), math.log(below))
            spread = math.log(self.largest[axis] / self.smallest[axis])
            squared += (
                outside / (reach if self.reach[axis] > 0 else max(spread, math.log(2)))
            ) ** 2
        return math.sqrt(squared)

    def widening(self, num_params: float | None, train_tokens: float | None) -> float:
        """How much wider an interval must be at a target scale than at the held-out one (>= 1):
        by the distance where the split extrapolated, else one more for every unit of it."""
        distance = self.distance(num_params, train_tokens)
        return max(1.0, distance) if any(self.reach.values()) else 1.0 + distance

    def half_width(
        self, coefficients: np.ndarray, level: float, folds: np.ndarray | None = None
    ) -> np.ndarray:
        """Half widths (q,) of intervals of `coefficients (T,) @ targets`.

        Args:
            folds: (K, q) what the law of each fold predicts for q mixtures: where folds disagree
                the interval is wider (CV+, Barber et al. 2021, arXiv 1905.02928). None: one
                width (1,) for all mixtures (split conformal).

        With too few mixtures for the level, a Student t quantile times the root mean square of
        the residuals (about zero, not about their mean: a shared level error is an error).

        Raises: FitError: a level outside (0, 1), or as `of_objective`.
        """
        if not 0 < level < 1:
            raise FitError(
                f"the level of the intervals is {level}; it must lie between 0 and 1, as 0.9 does "
                "for 90%"
            )
        residuals, fold = self.of_objective(coefficients)
        size, m = np.abs(residuals), len(residuals)
        center = np.zeros((m, 1)) if folds is None else folds[fold]
        if enough_for(level, m):
            upper = np.sort(center + size[:, None], axis=0)[math.ceil((m + 1) * level) - 1]
            lower = np.sort(center - size[:, None], axis=0)[m - math.ceil((m + 1) * level)]
            return (upper - lower) / 2
        variance = float(np.mean(size**2)) * (1 + 1 / m) + np.var(center, axis=0)
        return np.sqrt(variance) * float(stdtrit(max(1, m - 1), (1 + level) / 2))

    def to_dict(self) -> dict[str, Any]:
        return {
            "targets": list(self.targets),
            "residuals": blanks(self.residuals),
            "fold": self.fold.tolist(),
            "reach": dict(self.reach),
            "smallest": _blank_counts(self.smallest),
            "largest": _blank_counts(self.largest),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeldOut:
        smallest, largest = (
            {k: math.nan if v is None else v for k, v in data[end].items()}
            for end in ("smallest", "largest")
        )
        residuals = np.array(data["residuals"], float)
        fold = np.array(data["fold"], int)
        return cls(tuple(data["targets"]), residuals, fold, dict(data["reach"]), smallest, largest)


def held_out_rows(validation: CrossValidation, candidate: str, split_name: str) -> list[np.ndarray]:
    """Indices of the rows of each held-out mixture, at the largest scale of the split that has two
    mixtures or more: the residuals of `HeldOut.of` are their means."""
    scales, ids = scale_ids(validation.runs), validation.runs.mixture_ids()
    usable = np.isfinite(validation.residuals(candidate, split_name)).any(axis=1)
    levels = np.unique(scales[usable])
    shared = [s for s in levels if len(np.unique(ids[usable & (scales == s)])) > 1]
    usable &= scales == max(shared, default=levels.max())
    return [np.flatnonzero(usable & (ids == k)) for k in np.unique(ids[usable])]


def enough_for(level: float, num_mixtures: int) -> bool:
    """Whether a conformal quantile of this level exists: ceil((m + 1) level) <= m."""
    return math.ceil((num_mixtures + 1) * level) <= num_mixtures


def _blank_counts(counts: Mapping[str, float]) -> dict[str, float | None]:
    """Counts with None for NaN, which JSON lacks."""
    return {axis: None if math.isnan(count) else count for axis, count in counts.items()}
