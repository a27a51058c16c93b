"""A stack: laws of one target added up with the shares that held-out predictions call for.

On public tables it never beat its best part by more than it lost elsewhere (docs/decisions.md), so
it competes only when it is named among the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixlaw.laws.base import Fitted
from mixlaw.laws.combination import STACK, FittedSum
from mixlaw.laws.splits import Split

PULL = 0.3
"""Pull of the shares towards equal ones, as a share of the mean squared error of the best part."""


def stack_shares(predictions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Shares (k,) >= 0 that sum to one, of k laws.

    Minimises the squared relative error of `shares @ predictions` plus a pull towards equal shares.

    Args:
        predictions: (k, m) held-out predictions; values: (m,) observed.
    """
    from scipy.optimize import nnls  # slow to import: see nested

    errors = np.log(predictions) - np.log(values)
    scale = max(float(np.sqrt(np.min(np.mean(errors**2, axis=1)))), 1e-12)
    k, m = errors.shape
    pull = np.sqrt(PULL) * np.eye(k)
    sum_to_one = np.full((1, k), 1e4)
    # The errors of a sum are the sum of the errors, since the shares sum to one.
    left = np.concatenate([errors.T / (scale * np.sqrt(m)), pull, sum_to_one])
    right = np.concatenate([np.zeros(m), np.full(k, np.sqrt(PULL) / k), [1e4]])
    shares = nnls(left, right)[0]
    return shares / shares.sum()


def stacked_predictions(
    predictions: np.ndarray, values: np.ndarray, split: Split
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out predictions (n,) of a stack of one target, and its shares (folds, k): each fold's
    rows are predicted with the shares that the other folds call for.

    Args:
        predictions: (k, n) of the parts, NaN where not held out; values: (n,).
    """
    known = np.isfinite(predictions).all(axis=0) & np.isfinite(values)
    shares = []
    out = np.full(len(values), np.nan)
    for _, test in split.folds:
        others = known & ~test
        if not others.any():
            others = known
        shares.append(stack_shares(predictions[:, others], values[others]))
        out[test] = shares[-1] @ predictions[:, test]
    return out, np.array(shares)


def fitted_stack(
    parts: Sequence[Mapping[str, Fitted]], shares: Mapping[str, np.ndarray]
) -> dict[str, Fitted]:
    """Target -> the sum of its parts' laws with its shares (k,)."""
    return {
        target: FittedSum(STACK, target, tuple(laws[target] for laws in parts), share)
        for target, share in shares.items()
    }
