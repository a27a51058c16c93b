"""Ranks, without scipy.stats, whose import costs half a second."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """(k,) ranks, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of (k,) and (k,); 0 where one of them is constant, since that ranks nothing."""
    a, b = (r - r.mean() for r in (ranks(a), ranks(b)))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0
