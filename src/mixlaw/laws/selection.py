"""Choose one law for all targets by cross-validation, fit it, and forecast with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted
from mixlaw.laws.catalogue import CANDIDATES, DEFAULT_ONE_SCALE, load_fitted
from mixlaw.laws.findings import design_findings, unit_findings
from mixlaw.laws.fitting import batch_of, observed
from mixlaw.laws.intervals import Intervals
from mixlaw.laws.points import AXES, Points
from mixlaw.laws.residual import SUFFIX
from mixlaw.laws.scoring import unscorable
from mixlaw.laws.splits import (
    MIXTURE_SPLIT,
    SCALE_SPLIT,
    make_splits,
    scale_ids,
    varying_axes,
)
from mixlaw.laws.together import Together
from mixlaw.laws.uncertainty import LEVEL, HeldOut, enough_for
from mixlaw.laws.validation import CrossValidation, cross_validate
from mixlaw.runs import VERIFY, RunTable, higher_is_better

__all__ = ["CANDIDATES", "FittedLaws", "cross_validate", "fit_laws"]

FORMAT_VERSION = 5
RIVAL_ERROR = 2.0
"""A candidate whose normalised error is within this factor of the best one's is a rival."""


@dataclass(frozen=True, eq=False)
class FittedLaws(Intervals):
    """One law fitted to every target, with what its held-out errors say of its forecasts.

    Attributes:
        law: name of the chosen recipe.
        laws: target -> fitted law.
        folds: per fold of the mixture split, target -> fitted without the mixtures of that fold.
        domains: M names, the order of weights.
        rivals: name -> target -> fitted law, of the candidates that did nearly as well; where they
            disagree about the level at a new scale, the runs cannot tell which is right.
        within: residuals on held-out mixtures at the trained scales.
        beyond: residuals on held-out mixtures at a held-out scale; None without a scale split.
        cross_validation: how every candidate did.
        at_largest: how the laws of the mixture alone do at the largest scale; None for a table of
            one scale (where they are the candidates) or too few mixtures there.
        warnings: read them before extrapolating.
    """

    law: str
    laws: Mapping[str, Fitted]
    folds: Sequence[Mapping[str, Fitted]]
    rivals: Mapping[str, Mapping[str, Fitted]]
    domains: tuple[str, ...]
    within: HeldOut
    beyond: HeldOut | None
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
        return frozenset().union(*(fitted.recipe.needs for fitted in self.laws.values()))

    @property
    def convex(self) -> bool:
        """Whether every target is convex in the mixture, so that an optimum can be certified."""
        return all(fitted.recipe.convex for fitted in self.laws.values())

    @property
    def decreasing(self) -> bool:
        """Whether no share ever raises a target; a convex law then stays so under repetition."""
        return all(fitted.recipe.decreasing for fitted in self.laws.values())

    @cached_property
    def _together(self) -> Together:
        return Together(list(self.laws.values()))

    def points(
        self,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        available_tokens: np.ndarray | None = None,
    ) -> Points:
        given = dict(zip(AXES, (num_params, train_tokens), strict=True))
        missing = [axis for axis in AXES if axis in self.needs and given[axis] is None]
        if missing:
            raise FitError(
                f"law {self.law!r} reads {missing}; say at which scale to predict, for example "
                + ", ".join(f"{axis}={self.within.largest[axis]:g}" for axis in missing)
            )
        return Points.at(weights, num_params, train_tokens, available_tokens=available_tokens)

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Values (n, T) of mixtures (n, M) at one scale.

        Args:
            available_tokens: (M,) unique tokens per domain, inf where they do not run out;
                repeated ones count for less (`Points.discounted`).
        Raises: FitError: the law reads a count that is not given.
        """
        points = self.points(weights, num_params, train_tokens, available_tokens)
        return self._together.predict(points)

    def gradient(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Slopes (n, T, M) in the proportions. Args and raises: as `predict`."""
        points = self.points(weights, num_params, train_tokens, available_tokens)
        return self._together.gradient(points)

    def of_folds(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        points = self.points(weights, num_params, train_tokens, available_tokens)
        return np.stack([weighted(laws, coefficients, points) for laws in self.folds])

    def levels(
        self, coefficients: np.ndarray, num_params: float | None, train_tokens: float | None
    ) -> list[float]:
        trained = np.unique(self.cross_validation.runs.weights, axis=0)
        points = self.points(trained, num_params, train_tokens)
        return [
            float(np.mean(weighted(laws, coefficients, points)))
            for laws in (self.laws, *self.rivals.values())
        ]

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
            "folds": [[fitted.to_dict() for fitted in laws.values()] for laws in self.folds],
            "within": self.within.to_dict(),
            "beyond": self.beyond and self.beyond.to_dict(),
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
            folds=[_load_laws(laws) for laws in data["folds"]],
            within=HeldOut.from_dict(data["within"]),
            beyond=data["beyond"] and HeldOut.from_dict(data["beyond"]),
            cross_validation=CrossValidation.from_dict(data["cross_validation"]),
            at_largest=data["at_largest"] and CrossValidation.from_dict(data["at_largest"]),
            warnings=tuple(data["warnings"]),
        )


def weighted(laws: Mapping[str, Fitted], coefficients: np.ndarray, points: Points) -> np.ndarray:
    """Values (n,) of `coefficients (T,) @ targets`."""
    terms = (
        c * fitted.predict(points)
        for c, fitted in zip(coefficients, laws.values(), strict=True)
        if c
    )
    return sum(terms, np.zeros(len(points)))


def _load_laws(data: Sequence[Mapping[str, Any]]) -> dict[str, Fitted]:
    fitted = [load_fitted(law) for law in data]
    return {law.target: law for law in fitted}


def fit_laws(
    runs: RunTable,
    targets: Sequence[str] | None = None,
    *,
    also: Sequence[str] = (),
    candidates: Sequence[str] | None = None,
    seed: int = 0,
) -> FittedLaws:
    """Cross-validate the candidates, choose one law for all targets, and fit it to all runs.

    The choice is the lowest normalised error, averaged over targets, on the scale split (the
    mixture split when the table has too few scales). One law for all, so that an objective over
    several targets compares like with like and is convex or not as a whole.

    Args:
        runs: rows of role "verify" are never used; failed ones are left out with a warning, and
            missing ones without.
        targets: those that must be fitted; default: none, and all losses are in `also`.
        also: those that are fitted where the runs carry them, else left out with a warning.
        candidates: names from `CANDIDATES`; default: all that fit the table's scales.
        seed: of folds and starting points.
    Raises: FitError: too few runs for every candidate, a constant target, a score, and so on.
    """
    used = runs.select(runs.role != VERIFY).trained()
    if len(used) == 0:
        raise FitError(
            f"all {len(runs)} rows are for verification or of runs without a result; train a swarm "
            "to learn from"
        )
    warnings = []
    if targets is None:
        targets, also = (), [target for target in runs.targets if not higher_is_better(target)]
    targets, left_out = _usable_targets(used.done(), targets, also, seed)
    warnings += left_out
    found = [*design_findings(used.done()), *unit_findings(used.done(), targets)]
    warnings += [finding.text for finding in found]
    validation = cross_validate(used, targets, candidates=candidates, seed=seed)
    axes, ranking = varying_axes(used.done()), validation.ranking()
    name = validation.choice()
    laws = validation.fits[name].full
    rivals = {
        other: validation.fits[other].full
        for other in ranking
        if _formula(other) != _formula(name) and ranking[other] <= RIVAL_ERROR * ranking[name]
    }
    within = HeldOut.of(validation, name, MIXTURE_SPLIT)
    beyond = None
    if SCALE_SPLIT in validation.splits:
        beyond = HeldOut.of(validation, name, SCALE_SPLIT)
    warnings += [text for texts in batch_of(used, targets).warnings for text in texts]
    warnings += [text for fitted in laws.values() for text in fitted.warnings]
    warnings += _scale_warnings(used, within, beyond)
    at_largest = _at_largest(used.done(), targets, seed) if axes else None
    return FittedLaws(
        law=name,
        laws=laws,
        folds=validation.fits[name].folds[MIXTURE_SPLIT],
        rivals=rivals,
        domains=runs.domains,
        within=within,
        beyond=beyond,
        cross_validation=validation,
        at_largest=at_largest,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _formula(name: str) -> str:
    """The law without its residual process: with it, it is no second opinion."""
    return name.removesuffix(SUFFIX)


def _usable_targets(
    runs: RunTable, required: Sequence[str], also: Sequence[str], seed: int
) -> tuple[tuple[str, ...], list[str]]:
    """The targets to fit, in the order given, and a warning for each one left out.

    Raises: FitError: a required target cannot be cross-validated, or none can.
    """
    wanted = list(dict.fromkeys((*also, *required)))
    if scores := [target for target in wanted if higher_is_better(target)]:
        raise FitError(
            f"{scores} are scores, higher is better, and laws are of losses; fit the losses and "
            "then links.fit_links, or store error/<task> = 1 - score"
        )
    if not wanted:
        raise FitError(f"the table has scores only ({list(runs.targets)}); measure a loss, too")
    observed(runs, wanted)  # refuses what is not there, or is no loss
    bad = unscorable(runs, wanted, make_splits(runs, seed=seed))
    for target in required:
        if target in bad:
            raise FitError(
                f"{target!r} cannot be cross-validated, since it is {bad[target]}; check the "
                "column, measure it on more runs, or leave it out"
            )
    usable = tuple(target for target in wanted if target not in bad)
    if not usable:
        reasons = "; ".join(f"{target}: {why}" for target, why in bad.items())
        raise FitError(f"no target of the {len(runs)} finished rows can be fitted: {reasons}")
    return usable, [f"{target}: left out, since it is {why}" for target, why in bad.items()]


def _at_largest(runs: RunTable, targets: tuple[str, ...], seed: int) -> CrossValidation | None:
    """The laws of the mixture alone on held-out mixtures of the largest scale."""
    scales = scale_ids(runs)
    largest = runs.select(scales == scales.max())
    try:
        return cross_validate(largest, targets, candidates=list(DEFAULT_ONE_SCALE), seed=seed)
    except FitError:  # too few mixtures there; the candidates are judged on all scales
        return None


def _scale_warnings(runs: RunTable, within: HeldOut, beyond: HeldOut | None) -> list[str]:
    """What the intervals could not learn from this table."""
    warnings = []
    m = len((beyond or within).residuals)
    if not enough_for(LEVEL, m):
        warnings.append(
            f"only {m} held-out mixtures at the largest scale, too few for a {LEVEL:.0%} conformal "
            "interval; intervals assume normal errors instead"
        )
    axes = varying_axes(runs.done())
    for axis in AXES:
        if axis not in axes:
            warnings.append(f"all runs have the same {axis}, so no law can depend on it")
        elif beyond is None or beyond.reach[axis] == 0:
            warnings.append(
                f"too few values of {axis} to hold the largest out; extrapolation in it is untested"
            )
    return warnings
