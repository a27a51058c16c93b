"""Where a law is evaluated: mixtures, counts, and the unique tokens behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mixlaw.runs import RunTable

MIXTURE, NUM_PARAMS, TRAIN_TOKENS = "mixture", "num_params", "train_tokens"
AXES = (NUM_PARAMS, TRAIN_TOKENS)
"""The inputs that make a scale."""

Axes = Mapping[str, float]
"""The counts that a law of scale reads -> the count at which its amplitudes are quoted."""

SAME_SCALE = 0.02
"""Sizes or horizons within 2 % of each other count as one (a last checkpoint is often repeated)."""


@dataclass(frozen=True)
class Points:
    """Where a law is evaluated.

    Attributes:
        weights: (n, M) proportions.
        num_params, train_tokens: (n,) counts; NaN when unknown.
    """

    weights: np.ndarray
    num_params: np.ndarray
    train_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def of(cls, table: RunTable) -> Points:
        """The points of a run table, row by row."""
        return cls(table.weights, table.num_params, table.train_tokens)

    @classmethod
    def at(
        cls, weights: np.ndarray, num_params: float | None = None, train_tokens: float | None = None
    ) -> Points:
        """Mixtures (n, M) at one scale; an unknown count is None."""
        weights = np.atleast_2d(np.asarray(weights, float))
        n = len(weights)
        unknown = [np.nan if count is None else count for count in (num_params, train_tokens)]
        return cls(weights, np.full(n, unknown[0], float), np.full(n, unknown[1], float))

    @cached_property
    def distinct_mixtures(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The different mixtures (m, M), and which of them each row has (n,); None: each its own.

        A mixture term is the same for every size, horizon and seed, and a fit asks for it hundreds
        of times.
        """
        mixtures, which = np.unique(self.weights, axis=0, return_inverse=True)
        if len(mixtures) > 0.7 * len(self):
            return self.weights, None
        return mixtures, which.reshape(-1)

    def select(self, keep: np.ndarray | slice) -> Points:
        """Points by boolean mask, index array or slice."""
        return replace(
            self,
            weights=self.weights[keep],
            num_params=self.num_params[keep],
            train_tokens=self.train_tokens[keep],
        )


def scale_levels(counts: np.ndarray) -> np.ndarray:
    """(n,) integers: which of the ascending distinct sizes (or horizons) each row has.

    Neighbours within `SAME_SCALE` share a level; rows of unknown count get -1.
    """
    known = np.isfinite(counts)
    distinct, inverse = np.unique(counts[known], return_inverse=True)
    new_level = np.diff(distinct, prepend=distinct[:1]) > SAME_SCALE * distinct
    levels = np.full(len(counts), -1)
    levels[known] = np.cumsum(new_level)[inverse]
    return levels
