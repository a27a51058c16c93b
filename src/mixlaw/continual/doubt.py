"""How far a further run may lie from a fitted form: errors of the fit, of the form and of the seed.

All variances are of logarithms. Errors of a share are common to its rows (horizons share a trunk,
and what the form misses there they all miss); errors of a seed are common to all shares (its data
order, its initial weights), so they shift the whole curve. Both are read from the rows:

    share   mean over inner shares of |r e|, r the residual of the fit and e that of the fit
            without that share: between the two, as one is too small and the other too large
    seed    variance of the seeds' mean differences from their cells (rows alike but for the seed)
    run     variance of what is left within the cells

The covariance of theta is that of the posterior, H^-1 (G + P) H^-1, with the sum of squares in its
middle replaced by the clusters', G (Liang and Zeger's sandwich; P is the prior's precision).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.continual.table import SHARE_DIGITS, ContinuedRuns
from mixlaw.laws.base import FittedLaw, Law
from mixlaw.laws.points import scale_levels
from mixlaw.laws.problems import Problems


@dataclass(frozen=True, eq=False)
class Doubt:
    """Of one form.

    Attributes:
        covariance: (T, p, p) of theta.
        noise: (T,) variance of a further run around the form.
    """

    covariance: np.ndarray
    noise: np.ndarray


def doubt_of(
    table: ContinuedRuns, law: Law, fitted: Sequence[FittedLaw], left_out: np.ndarray
) -> Doubt:
    """Args: left_out: (T, n) logarithms of what was predicted without each row's share."""
    observed = np.log(table.ratio)
    predicted = np.log(np.stack([each.predict(table.points) for each in fitted]))
    parts = np.array(
        [
            _variances(table, r, e)
            for r, e in zip(observed - predicted, observed - left_out, strict=True)
        ]
    )
    share, seed, run = parts.T
    covariance = _sandwich(table, law, fitted, share, seed)
    return Doubt(covariance, np.maximum(share, run) + seed)


def _variances(table: ContinuedRuns, residual: np.ndarray, left_out: np.ndarray):
    """(share, seed, run) variances of one target from residuals (n,); see above."""
    known = np.isfinite(residual) & table.inner
    residual, left_out, seeds = residual[known], left_out[known], table.seed[known]
    cells = _cells(table)[known]
    cells = np.unique(cells, return_inverse=True)[1].reshape(-1)
    in_cell, without = _means(residual, cells), _means(left_out, cells)
    share_of_cell = _means(table.share_ids[known].astype(float), cells)
    shares = np.unique(share_of_cell, return_inverse=True)[1].reshape(-1)
    share = float(_means(np.abs(in_cell * without), shares).mean())
    rest = residual - in_cell[cells]
    repeats = len(rest) - len(in_cell)
    if repeats == 0:
        return share, 0.0, 0.0
    seeds = np.unique(seeds, return_inverse=True)[1].reshape(-1)
    of_seed = _means(rest, seeds)
    # Seeds that occur in one share only show nothing that shares have in common.
    several = np.array([len(set(cells[seeds == s])) > 1 for s in range(len(of_seed))])
    of_seed = np.where(several, of_seed, 0.0)
    common = several.sum()
    seed = float((of_seed**2).sum() / (common - 1)) if common > 1 else 0.0
    left = rest - of_seed[seeds]
    return share, seed, float((left**2).sum() / max(1, repeats - max(0, common - 1)))


def _cells(table: ContinuedRuns) -> np.ndarray:
    """(n,) integers, equal for rows that differ in their seed only."""
    points = table.points
    scales = (points.num_params, points.train_tokens, table.rewarm)
    keys = np.stack([*points.weights.T, *map(scale_levels, scales)], axis=1)
    return np.unique(np.round(keys, SHARE_DIGITS), axis=0, return_inverse=True)[1].reshape(-1)


def _means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.bincount(groups, values) / np.bincount(groups)


def _sandwich(
    table: ContinuedRuns,
    law: Law,
    fitted: Sequence[FittedLaw],
    share: np.ndarray,
    seed: np.ndarray,
) -> np.ndarray:
    """(T, p, p)."""
    problems = Problems(law, table.batch())
    theta = np.stack([each.theta for each in fitted])
    noise = np.array([each.diagnostics.noise for each in fitted])
    every = np.arange(len(theta))
    _, _, hessian = problems.normal(theta, every, noise)
    _, jacobian = problems.residuals(theta, every, slice(0, len(table)))
    middle = problems.precision.copy()
    unit = (problems.spread * noise) ** 2
    seeds = np.unique(table.seed, return_inverse=True)[1].reshape(-1)
    for groups, variance in ((table.share_ids, share), (seeds, seed)):
        members = np.eye(groups.max() + 1)[groups]  # (n, groups)
        pulls = np.einsum("ng,tnp->tgp", members, jacobian)
        middle += (variance / unit)[:, None, None] * pulls.transpose(0, 2, 1) @ pulls
    inverse = np.linalg.inv(hessian)
    return inverse @ middle @ inverse
