"""Choose one law for all targets by cross-validation, fit it, and forecast with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted
from mixlaw.laws.catalogue import CANDIDATES, ONE_SCALE, load_fitted
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.points import AXES, Points
from mixlaw.laws.uncertainty import HeldOut
from mixlaw.laws.validation import CrossValidation, cross_validate, scale_ids, varying_axes
from mixlaw.runs import VERIFY, RunTable

__all__ = ["CANDIDATES", "FittedLaws", "cross_validate", "fit_laws"]

FORMAT_VERSION = 3
LEVEL = 0.9
RIVAL_ERROR = 2.0
"""A candidate whose normalised error is within this factor of the best one's is a rival."""


@dataclass(frozen=True, eq=False)
class FittedLaws:
    """One law fitted to every target, with what its held-out errors say of its forecasts.

    Attributes:
        law: name of the chosen recipe.
        laws: target -> fitted law.
        domains: M names, the order of weights.
        rivals: name -> target -> fitted law, of the candidates that did nearly as well; where they
            disagree about the level at a new scale, the runs cannot tell which is right.
        held_out: residuals of the deciding split.
        cross_validation: how every candidate did.
        at_largest: how the laws of the mixture alone do at the largest scale; None for a table of
            one scale (where they are the candidates) or too few mixtures there.
        warnings: read them before extrapolating.
    """

    law: str
    laws: Mapping[str, Fitted]
    rivals: Mapping[str, Mapping[str, Fitted]]
    domains: tuple[str, ...]
    held_out: HeldOut
    cross_validation: CrossValidation
    at_largest: CrossValidation | None
    warnings: tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """T names."""
        return tuple(self.laws)

    @property
    def needs(self) -> frozenset[str]:
        """Inputs that the law reads."""
        return next(iter(self.laws.values())).recipe.needs

    @property
    def convex(self) -> bool:
        """Whether every target is convex in the mixture, so that an optimum can be certified."""
        return all(fitted.recipe.convex for fitted in self.laws.values())

    def _points(
        self, weights: np.ndarray, num_params: float | None, train_tokens: float | None
    ) -> Points:
        given = dict(zip(AXES, (num_params, train_tokens), strict=True))
        missing = [axis for axis in AXES if axis in self.needs and given[axis] is None]
        if missing:
            raise FitError(
                f"law {self.law!r} reads {missing}; say at which scale to predict, for example "
                + ", ".join(f"{axis}={self.held_out.largest[axis]:g}" for axis in missing)
            )
        return Points.at(weights, num_params, train_tokens)

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> np.ndarray:
        """Values (n, T) of mixtures (n, M) at one scale.

        Raises: FitError: the law reads a count that is not given.
        """
        points = self._points(weights, num_params, train_tokens)
        return np.stack([fitted.predict(points) for fitted in self.laws.values()], axis=1)

    def gradient(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> np.ndarray:
        """Slopes (n, T, M) in the proportions. Raises: as `predict`."""
        points = self._points(weights, num_params, train_tokens)
        return np.stack([fitted.gradient(points) for fitted in self.laws.values()], axis=1)

    def half_width(
        self,
        coefficients: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        level: float = LEVEL,
    ) -> float:
        """Half width of the interval of `coefficients (T,) @ targets` for a new mixture.

        That of the held-out scale, times `HeldOut.widening` for a target farther away, plus
        `level_doubt`: the held-out residuals hold one draw only of the level error that all
        mixtures share at a new scale, and it may have been a lucky one.
        """
        coefficients = np.asarray(coefficients, float)
        width = self.held_out.half_width(coefficients, level)
        width *= self.held_out.widening(num_params, train_tokens)
        return width + self.level_doubt(coefficients, num_params, train_tokens)

    def level_doubt(
        self,
        coefficients: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> float:
        """Largest difference between the chosen law's level at a scale and a rival's.

        The level is the mean of `coefficients (T,) @ targets` over the trained mixtures.
        """
        trained = self.cross_validation.runs.weights
        points = self._points(trained, num_params, train_tokens)
        levels = [
            sum(
                c * float(np.mean(laws[t].predict(points)))
                for c, t in zip(coefficients, laws, strict=True)
                if c
            )
            for laws in (self.laws, *self.rivals.values())
        ]
        return max(abs(level - levels[0]) for level in levels)

    def probability_better(
        self,
        gap: float,
        coefficients: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> float:
        """Probability that a mixture predicted lower by `gap` in `coefficients (T,) @ targets`
        really is lower; see `HeldOut.probability_better`.

        Farther away than the held-out scale the residuals are taken to grow as intervals do, so
        the gap counts for less.
        """
        gap /= self.held_out.widening(num_params, train_tokens)
        return self.held_out.probability_better(gap, np.asarray(coefficients, float))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an object that predicts bit-identically."""
        return {
            "format": FORMAT_VERSION,
            "law": self.law,
            "domains": list(self.domains),
            "laws": [fitted.to_dict() for fitted in self.laws.values()],
            "rivals": {
                name: [fitted.to_dict() for fitted in laws.values()]
                for name, laws in self.rivals.items()
            },
            "held_out": self.held_out.to_dict(),
            "cross_validation": self.cross_validation.to_dict(),
            "at_largest": self.at_largest and self.at_largest.to_dict(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedLaws:
        """Raises: FitError: another format."""
        if data.get("format") != FORMAT_VERSION:
            raise FitError(
                f"these fitted laws have format {data.get('format')}, this version reads "
                f"{FORMAT_VERSION}; fit again"
            )
        return cls(
            law=data["law"],
            laws=_load_laws(data["laws"]),
            rivals={name: _load_laws(laws) for name, laws in data["rivals"].items()},
            domains=tuple(data["domains"]),
            held_out=HeldOut.from_dict(data["held_out"]),
            cross_validation=CrossValidation.from_dict(data["cross_validation"]),
            at_largest=data["at_largest"] and CrossValidation.from_dict(data["at_largest"]),
            warnings=tuple(data["warnings"]),
        )


def _load_laws(data: Sequence[Mapping[str, Any]]) -> dict[str, Fitted]:
    fitted = [load_fitted(law) for law in data]
    return {law.target: law for law in fitted}


def fit_laws(
    runs: RunTable,
    targets: Sequence[str] | None = None,
    *,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
) -> FittedLaws:
    """Cross-validate the candidates, choose one law for all targets, and fit it to all runs.

    The choice is the lowest normalised error, averaged over targets, on the scale split (the
    mixture split when the table has too few scales). One law for all, so that an objective over
    several targets compares like with like and is convex or not as a whole.

    Args:
        runs: rows of role "verify" are never used; failed ones are left out with a warning.
        targets: default: all of the table.
        candidates: names from `CANDIDATES`; default: all that fit the table's scales.
        seed: of folds and starting points.
    Raises: FitError: too few runs for every candidate, a constant target, and so on.
    """
    used = runs.select(runs.role != VERIFY)
    if len(used) == 0:
        raise FitError(f"all {len(runs)} rows are for verification; train a swarm to learn from")
    targets = tuple(targets or runs.targets)
    validation = cross_validate(used, targets, candidates=candidates, seed=seed)
    axes, ranking = varying_axes(used.done()), validation.ranking()
    name, *others = ranking
    laws = validation.fits[name].full
    rivals = {
        other: validation.fits[other].full
        for other in others
        if axes and ranking[other] <= RIVAL_ERROR * ranking[name]
    }
    held_out = HeldOut.of(validation, name)
    warnings = [text for texts in batch_of(used, targets).warnings for text in texts]
    warnings += [text for fitted in laws.values() for text in fitted.warnings]
    warnings += _scale_warnings(held_out)
    at_largest = _at_largest(used.done(), targets, seed) if axes else None
    return FittedLaws(
        law=name,
        laws=laws,
        rivals=rivals,
        domains=runs.domains,
        held_out=held_out,
        cross_validation=validation,
        at_largest=at_largest,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _at_largest(runs: RunTable, targets: tuple[str, ...], seed: int) -> CrossValidation | None:
    """The laws of the mixture alone on held-out mixtures of the largest scale."""
    scales = scale_ids(runs)
    largest = runs.select(scales == scales.max())
    try:
        return cross_validate(largest, targets, candidates=list(ONE_SCALE), seed=seed)
    except FitError:  # too few mixtures there; the candidates are judged on all scales
        return None


def _scale_warnings(held_out: HeldOut) -> list[str]:
    """What the intervals could not learn from this table."""
    warnings = []
    m = len(held_out.residuals)
    if not held_out.enough_for(LEVEL):
        warnings.append(
            f"only {m} held-out mixtures at the largest scale, too few for a {LEVEL:.0%} conformal "
            "interval; intervals assume normal errors instead"
        )
    for axis in AXES:
        if held_out.spread[axis] == 0:
            warnings.append(f"all runs have the same {axis}, so no law can depend on it")
        elif held_out.reach[axis] == 0:
            warnings.append(
                f"too few values of {axis} to hold the largest out; extrapolation in it is untested"
            )
    return warnings
