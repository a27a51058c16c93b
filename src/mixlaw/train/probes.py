"""What short bursts on tilted mixtures tell of the domains, and the step that follows from it.

The dynamic law is log-linear: where L_i is target i and p_j the share of domain j,
d log L_i / d step = - sum_j A_ij p_j. So the objective, sum_i w_i L_i, falls by sum_j g_j p_j per
step, where g_j = sum_i w_i L_i A_ij is the gain of domain j, and w_i L_i the weighted level of i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bursts:
    """What a member drew and measured in the probes of a round.

    Attributes:
        steps: (bursts,) how long each was.
        shares: (bursts, M) as drawn.
        rates: (bursts, T) fall of the log of each target per step.
    """

    steps: np.ndarray
    shares: np.ndarray
    rates: np.ndarray


def fit_law(bursts: Bursts) -> np.ndarray:
    """The law (T, M) by least squares."""
    root = np.sqrt(bursts.steps)[:, None]
    return np.linalg.lstsq(bursts.shares * root, bursts.rates * root)[0].T


def gains(law: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How fast each domain (M,) lowers the objective, by the law (T, M) at weighted levels (T,)."""
    return (levels[:, None] * law).sum(axis=0)


def trust(bursts: Bursts, levels: np.ndarray, mixture: np.ndarray) -> float:
    """How far bursts tell the domains' gains apart, from 0 (all noise) to 1.

    One minus the noise of the gains' differences, as the residuals of their fit foretell it, in
    terms of their size: the shrinkage of James & Stein (1961).

    Args:
        levels: (T,) weighted, of the targets.
        mixture: (M,) whose progress the gains differ from, and by which they are weighted.
    """
    steps, shares, gain = bursts.steps, bursts.shares, gains(fit_law(bursts), levels)
    freedom = len(steps) - np.linalg.matrix_rank(shares)
    differ = np.eye(len(mixture)) - mixture  # (M, M): gains to differences
    size = (mixture * (differ * gain).sum(axis=1) ** 2).sum()
    if freedom == 0 or size == 0:
        return 0.0
    residuals = (bursts.rates * levels).sum(axis=1) - (shares * gain).sum(axis=1)
    variance = (steps * residuals**2).sum() / freedom
    spread = differ @ np.linalg.pinv(shares.T @ (steps[:, None] * shares)) @ differ.T
    return float(max(0.0, 1 - variance * (mixture * np.diag(spread)).sum() / size))


def bounded(wanted: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """Shares (M,) within bounds, of sum 1, nearest to those wanted; None: there are none.

    Nearest in relative entropy, in which it is clip(c wanted) for the c that gives the sum.
    """
    if low.sum() > 1 + 1e-12 or high.sum() < 1 - 1e-12:
        return None
    some = wanted > 0
    least, most = 0.0, float((high[some] / wanted[some]).max())
    for _ in range(100):
        middle = (least + most) / 2
        enough = np.clip(middle * wanted, low, high).sum() >= 1
        least, most = (least, middle) if enough else (middle, most)
    return np.clip(most * wanted, low, high)
