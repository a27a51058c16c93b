"""How wrong the effect of an order may be, as held-out staged runs tell.

The residual of a held-out schedule has two parts. One is the static law's error at its dose, with
what the laws and the effects of folds disagree by (a covariance: schedules of one dose share it, so
that a pair turned round shows the rest bare). The other is the order's own error, independent of
all others, of variance

    (a unequal)^2 + (b gain)^2 + (c harm)^2

by how unequal the stages are, and by what the order is forecast to gain and to harm: a small effect
is known better than a large one, and a gain better than a harm, which is large where a domain is
dropped early (docs/decisions.md).

Shapes: n schedules, T targets.
"""

from __future__ import annotations

import itertools

import numpy as np

PER_SIZE = np.geomspace(0.02, 3, 12)
"""Values of a that are tried, over the ratio of residuals to sizes."""

PER_EFFECT = np.geomspace(0.03, 2, 12)
"""Values of b and of c that are tried: an effect may be wrong by twice itself."""

ENOUGH_SCHEDULES = 100
"""More say no more about three numbers."""

JITTER = 1e-9
"""On the diagonal of a covariance that schedules of one dose make singular, in its size."""


def reasons_of(coefficients: np.ndarray, sizes: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """(n, 3) unequal, gain and harm of `coefficients (T,) @ targets`, each >= 0.

    What one target gains does not make up for what another loses: both may be wrong.

    Args:
        sizes: (n,) of `points.unequal`.
        effects: (n, T) of the order.
    """
    signed = effects * coefficients
    gain, harm = np.maximum(-signed, 0.0).sum(axis=1), np.maximum(signed, 0.0).sum(axis=1)
    return np.column_stack([sizes, gain, harm])


def own_scales(residuals: np.ndarray, shared: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """(3,) a, b and c: posterior means, flat in the logarithms, normal errors.

    Residuals count in full, not about their mean: an effect that is always judged too large is
    judged wrongly.

    Args:
        residuals: (n,) of held-out schedules.
        shared: (n, n) covariance of what is not the order's own.
        reasons: (n, 3) as `reasons_of`.
    """
    use = np.linspace(0, len(residuals) - 1, min(len(residuals), ENOUGH_SCHEDULES)).astype(int)
    residuals, shared, reasons = residuals[use], shared[np.ix_(use, use)], reasons[use]
    square = float(np.mean(residuals**2))
    if square == 0:
        return np.zeros(3)
    largest = np.sqrt(square / np.mean(reasons[:, 0] ** 2))
    tried = np.array(list(itertools.product(largest * PER_SIZE, PER_EFFECT, PER_EFFECT)))
    jitter = JITTER * max(square, float(np.diagonal(shared).max()))
    shared = shared + jitter * np.eye(len(residuals))
    fit = np.array(
        [_log_density(residuals, shared + np.diag(reasons**2 @ each)) for each in tried**2]
    )
    odds = np.exp(fit - fit.max())
    return odds @ tried / odds.sum()


def _log_density(residuals: np.ndarray, covariance: np.ndarray) -> float:
    """Up to a constant."""
    factor = np.linalg.cholesky(covariance)
    standard = np.linalg.solve(factor, residuals)
    return float(-np.log(np.diagonal(factor)).sum() - 0.5 * standard @ standard)
