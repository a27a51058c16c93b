"""Intervals and certainty of an objective, whatever forecasts it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from mixlaw.laws.regret import Judged, chance_below, error_field
from mixlaw.laws.uncertainty import LEVEL, HeldOut


class Intervals(ABC):
    """Intervals and certainty of an objective, `coefficients (T,) @ targets`, from held-out
    residuals and from the disagreement of fits.

    Attributes:
        within: residuals on held-out mixtures at the trained scales.
        beyond: residuals on held-out mixtures at a held-out scale; None without a scale split.
    """

    within: HeldOut
    beyond: HeldOut | None

    @abstractmethod
    def of_folds(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """(K, n) the objective of mixtures (n, M) by the fit of each fold of the mixture split."""

    @abstractmethod
    def levels(
        self, coefficients: np.ndarray, num_params: float | None, train_tokens: float | None
    ) -> list[float]:
        """The mean objective over the trained mixtures, by the chosen law and then each rival."""

    def half_width(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        level: float = LEVEL,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Half widths (n,) of the intervals of `coefficients (T,) @ targets` at mixtures (n, M).

        Within the trained scales, CV+ over held-out mixtures. Away from them it grows to the width
        that the scale split found necessary, times `HeldOut.widening`, plus `level_doubt`: the
        split holds one draw only of the level error that all mixtures share at a new scale, and it
        may have been a lucky one.

        Raises: FitError: a level outside (0, 1), or the targets that count were never measured
            together.
        """
        coefficients = np.asarray(coefficients, float)
        folds = self.of_folds(
            coefficients, weights, num_params, train_tokens, available_tokens=available_tokens
        )
        near = self.within.half_width(coefficients, level, folds)
        held_out = self.beyond or self.within
        distance = held_out.distance(num_params, train_tokens)
        if distance == 0:
            return near
        far = near if self.beyond is None else self.beyond.half_width(coefficients, level)
        far = far * held_out.widening(num_params, train_tokens)
        far = far + self.level_doubt(coefficients, num_params, train_tokens)
        return near + min(1.0, distance) * np.maximum(0.0, far - near)

    def level_doubt(
        self,
        coefficients: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> float:
        """Largest difference between the chosen law's level at a scale and a rival's.

        The level is the mean of `coefficients (T,) @ targets` over the trained mixtures.
        """
        levels = self.levels(np.asarray(coefficients, float), num_params, train_tokens)
        return max(abs(level - levels[0]) for level in levels)

    def difference_scale(
        self: Judged,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> float:
        """Scale of the Student t error (`regret.FREEDOM`) of what two mixtures (2, M) differ by in
        `coefficients (T,) @ targets`; see `regret.ErrorField`."""
        field = error_field(
            self,
            np.asarray(coefficients, float),
            num_params,
            train_tokens,
            available_tokens=available_tokens,
        )
        return float(field.scales(weights)[0, 1])

    def probability_better(
        self: Judged,
        gap: float,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> float:
        """Probability that of two mixtures (2, M) the one predicted lower by `gap` in
        `coefficients (T,) @ targets` really is, at a scale."""
        field = error_field(self, np.asarray(coefficients, float), num_params, train_tokens)
        return chance_below(gap, float(field.scales(weights)[0, 1]))
