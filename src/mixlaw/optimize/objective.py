"""What to minimise: a weighted mean of targets, and what a fitted law must offer for it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixlaw.errors import StudyError


class Forecaster(Protocol):
    """A law fitted to every target, as far as a decision needs it (`mixlaw.laws.FittedLaws`).

    Shapes: n mixtures, M domains in the order of `domains`, T targets in that of `targets`.
    """

    @property
    def law(self) -> str:
        """Name of the law."""
        ...

    @property
    def domains(self) -> tuple[str, ...]: ...

    @property
    def targets(self) -> tuple[str, ...]: ...

    @property
    def convex(self) -> bool:
        """Whether every target is convex in the mixture."""
        ...

    @property
    def decreasing(self) -> bool:
        """Whether no share ever raises a target, so that repetition leaves it convex."""
        ...

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None,
    ) -> np.ndarray:
        """Values (n, T) of mixtures (n, M), of domains with (M,) unique tokens."""
        ...

    def gradient(
        self,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None,
    ) -> np.ndarray:
        """Slopes (n, T, M) in the proportions."""
        ...

    def half_width(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        level: float,
    ) -> np.ndarray:
        """Half widths (n,) of the intervals of `coefficients (T,) @ targets` at mixtures (n, M);
        infinite when unknown."""
        ...

    def probability_better(
        self,
        gap: float,
        coefficients: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> float:
        """Probability that a mixture predicted lower by `gap` in `coefficients @ targets` is."""
        ...


@dataclass(frozen=True)
class Objective:
    """The weighted mean of targets, to be minimised.

    Attributes:
        weights: target ("metric/target") -> weight > 0; rescaled to sum to 1.
    Raises: StudyError: no target, a weight that is not finite and positive, or two metrics.
    """

    weights: Mapping[str, float]

    def __post_init__(self):
        if not self.weights:
            raise StudyError("the objective names no target; give at least one, such as loss/web")
        for target, weight in self.weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise StudyError(
                    f"the objective's weight of {target!r} is {weight}; it must be finite and "
                    "> 0 (leave a target out to ignore it)"
                )
        metrics = sorted({target.partition("/")[0] for target in self.weights})
        if len(metrics) > 1:
            raise StudyError(
                f"the objective mixes the metrics {metrics}, whose units differ, so their mean "
                "means nothing; name all targets in one of them"
            )
        total = math.fsum(self.weights.values())
        scaled = {target: weight / total for target, weight in self.weights.items()}
        object.__setattr__(self, "weights", scaled)  # the dataclass is frozen

    def coefficients(self, targets: Sequence[str]) -> np.ndarray:
        """Weights (T,) in the order of `targets`; 0 for those that do not count.

        Raises: StudyError: a weight on a target that is not among them.
        """
        for name in self.weights:
            if name not in targets:
                near = difflib.get_close_matches(name, targets, n=1, cutoff=0)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise StudyError(
                    f"the objective names {name!r}, which was not fitted{hint} "
                    f"known targets: {list(targets)}"
                )
        return np.array([self.weights.get(target, 0.0) for target in targets])
