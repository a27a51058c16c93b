"""How held-out predictions compare with what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.points import scale_levels
from mixlaw.laws.ranking import ranks
from mixlaw.laws.splits import FEWEST_MIXTURES, Split, scale_ids, varying_axes
from mixlaw.runs import RunTable


@dataclass(frozen=True, eq=False)
class Scores:
    """One candidate's held-out predictions on one split.

    Attributes:
        predictions: (n, T) aligned with the table; NaN where not held out.
        mae, mae_of_mean: (T,) mean absolute error, and that of predicting the mean of the other
            mixtures' rows at the same scale.
        spearman: (T,) rank correlation over mixtures (their seeds averaged) within a scale,
            averaged over scales.
        normalised_error: (T,) mean squared error over that of predicting the mean.
    """

    predictions: np.ndarray
    mae: np.ndarray
    mae_of_mean: np.ndarray
    spearman: np.ndarray
    normalised_error: np.ndarray


def score(
    predictions: np.ndarray, runs: RunTable, targets: tuple[str, ...], split: Split
) -> Scores:
    """Compare held-out predictions (n, T) with the table.

    Raises: FitError: a target has no held-out value to compare with.
    """
    values = np.stack([runs.column(target) for target in targets], axis=1)
    scales = scale_ids(runs)
    means = _means_of_others(values, scales, split)
    held = np.isfinite(predictions) & np.isfinite(values) & np.isfinite(means)
    errors = np.where(held, predictions - values, 0.0)
    mean_errors = np.where(held, means - values, 0.0)
    count = held.sum(axis=0)
    if not np.all(np.any(mean_errors, axis=0)):
        bare = [target for t, target in enumerate(targets) if not np.any(mean_errors[:, t])]
        raise FitError(
            f"the {split.name} split of {bare} has no held-out value that another mixture of the "
            "same scale could be compared with; train at least two mixtures at the largest scale"
        )
    return Scores(
        predictions=predictions,
        mae=np.abs(errors).sum(axis=0) / count,
        mae_of_mean=np.abs(mean_errors).sum(axis=0) / count,
        spearman=_spearman_within(predictions, values, held, scales, runs.mixture_ids()),
        normalised_error=(errors**2).sum(axis=0) / (mean_errors**2).sum(axis=0),
    )


def _means_of_others(values: np.ndarray, scales: np.ndarray, split: Split) -> np.ndarray:
    """(n, T) what "predict the mean" says of the held-out rows, NaN elsewhere: it is given each
    scale's own level, the mean of the other mixtures there."""
    means = np.full_like(values, np.nan)
    for _, test in split.folds:
        for scale in np.unique(scales[test]):
            at = scales == scale
            means[at & test] = column_means(values[at & ~test])
    return means


def unscorable(
    runs: RunTable, targets: Sequence[str], splits: Mapping[str, Split]
) -> dict[str, str]:
    """The targets that cannot be cross-validated, whatever the law -> why.

    Args:
        runs: finished rows, those of the splits.
    """
    ids, scales = runs.mixture_ids(), scale_ids(runs)
    levels = {axis: scale_levels(getattr(runs, axis)) for axis in varying_axes(runs)}
    out = {}
    for target in targets:
        values = runs.column(target)
        known = np.isfinite(values)
        if not known.any():
            out[target] = "never measured"
        elif np.ptp(values[known]) == 0:
            first = values[known][0]
            out[target] = f"constant ({first:g} in all {known.sum()} rows)"
        elif not known.all():
            for split in splits.values():
                if why := _thin(values, known, ids, scales, levels, split):
                    out[target] = f"measured in {known.sum()} of {len(runs)} rows, and {why}"
                    break
    return out


def _thin(
    values: np.ndarray,
    known: np.ndarray,
    ids: np.ndarray,
    scales: np.ndarray,
    levels: Mapping[str, np.ndarray],
    split: Split,
) -> str:
    """Why the values of one target are too few for a split; "" where they are not."""
    where = f"when a fold of the {split.name} split is held out"
    for train, _ in split.folds:
        left = known & train
        mixtures = len(np.unique(ids[left]))
        if mixtures < FEWEST_MIXTURES:
            return f"{mixtures} mixtures with a value are left {where} ({FEWEST_MIXTURES} needed)"
        if np.ptp(values[left]) == 0:
            return f"it does not vary {where}"
        for axis, level in levels.items():
            if np.ptp(level[left]) == 0:
                return f"only one {axis} with a value is left {where}"
    means = _means_of_others(values[:, None], scales, split)[:, 0]
    if not np.any(np.abs(values - means)[known & np.isfinite(means)] > 0):
        return f"no held-out value of the {split.name} split can be compared with another mixture's"
    return ""


def column_means(values: np.ndarray) -> np.ndarray:
    """(T,) means of the known values (k, T); NaN where there is none."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _spearman_within(
    predictions: np.ndarray,
    values: np.ndarray,
    held: np.ndarray,
    scales: np.ndarray,
    mixtures: np.ndarray,
) -> np.ndarray:
    """(T,) rank correlation within each scale of three mixtures or more, averaged over scales.

    Seeds of one mixture are averaged first: their order is noise that no law can rank. A scale
    where the predictions (or the values) are all equal ranks nothing and counts as 0.
    """
    out = np.zeros(values.shape[1])
    for t in range(values.shape[1]):
        found = []
        for scale in np.unique(scales[held[:, t]]):
            at = held[:, t] & (scales == scale)
            _, mixture = np.unique(mixtures[at], return_inverse=True)
            seeds = np.bincount(mixture)
            if len(seeds) < 3:
                continue
            ranked = [
                ranks(np.bincount(mixture, side[at, t]) / seeds) for side in (predictions, values)
            ]
            a, b = (rank - rank.mean() for rank in ranked)
            norm = np.sqrt((a @ a) * (b @ b))
            found.append(a @ b / norm if norm > 0 else 0.0)
        out[t] = np.mean(found) if found else 0.0
    return out


def blanks(table: np.ndarray) -> list[list[float | None]]:
    """A table with None for NaN, which JSON lacks."""
    return [[None if np.isnan(v) else float(v) for v in row] for row in table]
