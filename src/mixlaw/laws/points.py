"""Where a law is evaluated: mixtures, counts, and the unique tokens behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mixlaw.errors import FitError
from mixlaw.runs import RunTable

MIXTURE, NUM_PARAMS, TRAIN_TOKENS = "mixture", "num_params", "train_tokens"
AXES = (NUM_PARAMS, TRAIN_TOKENS)
"""The inputs that make a scale."""

Axes = Mapping[str, float]
"""The counts that a law of scale reads -> the count at which its amplitudes are quoted."""

SAME_SCALE = 0.02
"""Sizes or horizons within 2 % of each other count as one (a last checkpoint is often repeated)."""

FEW = 256
"""So few points cost less than finding out which of them are the same mixture."""

REPETITIONS = 15.39
"""R*: repeated tokens lose their worth as exp(-repetitions / R*). Muennighoff et al., "Scaling
data-constrained language models", arXiv 2305.16264, section 5."""


@dataclass(frozen=True)
class Points:
    """Where a law is evaluated.

    Attributes:
        weights: (n, M) proportions.
        num_params, train_tokens: (n,) counts; NaN when unknown.
        available_tokens: (n, M) unique tokens of each domain, inf where they do not run out; None
            when none does.
    """

    weights: np.ndarray
    num_params: np.ndarray
    train_tokens: np.ndarray
    available_tokens: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def of(cls, table: RunTable) -> Points:
        """The points of a run table, row by row."""
        available = table.available_tokens if np.isfinite(table.available_tokens).any() else None
        return cls(table.weights, table.num_params, table.train_tokens, available)

    @classmethod
    def at(
        cls,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> Points:
        """Mixtures (n, M) at one scale, with the unique tokens (M,) of the domains; a count that
        is unknown is None.

        Raises: FitError: unique tokens without the tokens trained on.
        """
        weights = np.atleast_2d(np.asarray(weights, float))
        n = len(weights)
        size, tokens = (
            np.full(n, np.nan if count is None else count, float)
            for count in (num_params, train_tokens)
        )
        if available_tokens is None or not np.isfinite(available_tokens).any():
            return cls(weights, size, tokens)
        if train_tokens is None:
            raise FitError(
                "available_tokens says how often data is repeated only together with "
                "train_tokens; give both or neither"
            )
        unique = np.tile(np.asarray(available_tokens, float), (n, 1))
        return cls(weights, size, tokens, unique)

    @cached_property
    def discounted(self) -> Points:
        """The same points with the shares that repeated data is worth, which may sum to less than
        one: of e > 1 epochs over U unique tokens, U + U R* (1 - exp(-(e - 1) / R*)) tokens.

        The worth is a concave function of the share, so a law that is convex in the mixture and
        falls with every share stays convex. Source: arXiv 2305.16264, eq. 5; see `REPETITIONS`.
        """
        if self.available_tokens is None:
            return self
        repeated = np.maximum(0.0, self._epochs - 1)
        worth = np.minimum(self._epochs, 1) - REPETITIONS * np.expm1(-repeated / REPETITIONS)
        share = worth / np.maximum(self._epochs, 1e-300)
        weights = self.weights * np.where(self._epochs > 1, share, 1.0)
        return replace(self, weights=weights, available_tokens=None)

    @cached_property
    def discount_slopes(self) -> np.ndarray:
        """(n, M) derivatives of the discounted shares in the shares."""
        if self.available_tokens is None:
            return np.ones_like(self.weights)
        return np.exp(-np.maximum(0.0, self._epochs - 1) / REPETITIONS)

    @cached_property
    def _epochs(self) -> np.ndarray:
        assert self.available_tokens is not None
        return self.weights * self.train_tokens[:, None] / self.available_tokens

    @cached_property
    def distinct_mixtures(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The different mixtures (m, M), and which of them each row has (n,); None: each its own.

        A mixture term is the same for every size, horizon and seed, and a fit asks for it hundreds
        of times.
        """
        if len(self) <= FEW:
            return self.weights, None
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
            available_tokens=None if self.available_tokens is None else self.available_tokens[keep],
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
