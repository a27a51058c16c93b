"""How much a decision may lose: the errors of an objective as a random field over mixtures.

    e(r) = t ( sum_k z_k sqrt((K - 1) / K) (f_k(r) - mean f(r)) + own v(r) )

f_k is the law without the mixtures of fold k, z_k standard normal: the first part is the grouped
jackknife's account of what the law does not know, large where few mixtures were trained, and alike
for mixtures that resemble each other. The second is what held-out residuals have beyond it: misfit
and noise, half of it shared with neighbours, half the run's own. One factor t a draw gives
Student's tails with 5 degrees of freedom.

The parts are needed both. Refits alone know nothing of misfit; residuals alone, drawn anew for each
candidate, make the best of many candidates look far better than it can be (docs/decisions.md).

Shapes: n mixtures, m held-out mixtures, M domains, K folds, R draws, T targets. Values are in the
unit of the targets.

Source: the jackknife is Quenouille's and Tukey's; Efron & Stein, Annals of Statistics 9, 1981.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import stdtr

from mixlaw.errors import FitError
from mixlaw.laws.gaussian import Kernel
from mixlaw.laws.points import Points
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT
from mixlaw.laws.uncertainty import LEVEL, HeldOut, held_out_rows
from mixlaw.laws.validation import CrossValidation

FREEDOM = 5
"""Degrees of freedom: held-out errors have heavy tails even after the disagreement of folds."""

SHARED, LONE = Kernel(length=0.3), Kernel(length=0.03)
"""Half of the part that folds do not show is shared with neighbours, half only among mixtures whose
shares differ by a per cent or two; the second half is taken for the noise of runs."""

OWN_SHARES = np.geomspace(0.02, 3, 30)
"""Sizes tried for the part that folds do not show, over the root mean square of the residuals."""

ENOUGH_MIXTURES = 200
"""More held-out mixtures than this say no more about one number."""

JITTER = 1e-6
"""Of a correlation matrix, which mixtures that are all but equal make singular."""

NUM_DRAWS = 1000
MOST_CANDIDATES = 500


class Judged(Protocol):
    """Laws with what their held-out errors say: `FittedLaws` or `LinkedLaws`."""

    @property
    def law(self) -> str: ...

    @property
    def domains(self) -> tuple[str, ...]: ...

    @property
    def within(self) -> HeldOut: ...

    @property
    def beyond(self) -> HeldOut | None: ...

    @property
    def cross_validation(self) -> CrossValidation: ...

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """(n, T) of mixtures (n, M), of domains with (M,) unique tokens."""
        ...

    def of_folds(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """(K, n) of `coefficients (T,) @ targets` by the laws of every fold."""
        ...


@dataclass(frozen=True, eq=False)
class ErrorField:
    """Errors of one objective at one scale, of either sign: the field is symmetric.

    Attributes:
        of_folds: mixtures (n, M) -> the objective by the law of each fold (K, n).
        own: scale of the part that the folds do not show, >= 0.
    """

    of_folds: Callable[[np.ndarray], np.ndarray]
    own: float

    def scales(self, weights: np.ndarray) -> np.ndarray:
        """(n, n) scales of the Student t errors of the difference of each pair of mixtures."""
        spread = (len(folds := self.of_folds(weights)) - 1) * _variances(folds)
        return np.sqrt(spread + self.own**2 * _differences(weights))

    def draws(
        self, weights: np.ndarray, num_draws: int, rng: np.random.Generator, *, noise: bool = True
    ) -> np.ndarray:
        """(R, n) fields at mixtures (n, M), with the noise of runs or without."""
        folds = self.of_folds(weights)
        num_folds, n = folds.shape
        jackknife = np.sqrt((num_folds - 1) / num_folds) * (folds - folds.mean(axis=0))
        covariance = own_covariance(weights, noise=noise) + JITTER * np.eye(n)
        factor = np.linalg.cholesky(covariance)
        field = rng.normal(size=(num_draws, num_folds)) @ jackknife
        field += self.own * rng.normal(size=(num_draws, n)) @ factor.T
        return field * np.sqrt(FREEDOM / rng.chisquare(FREEDOM, num_draws))[:, None]


@dataclass(frozen=True)
class RegretBound:
    """By how much the truth at a decision exceeds that at the best candidate.

    Attributes:
        expected: mean over the field's draws; what better knowledge of the law could gain.
        bound: not exceeded with probability `level`.
        level: of the bound.
    """

    expected: float
    bound: float
    level: float


def error_field(
    fitted: Judged,
    coefficients: np.ndarray,
    num_params: float | None = None,
    train_tokens: float | None = None,
    *,
    available_tokens: np.ndarray | None = None,
) -> ErrorField:
    """The errors of `coefficients (T,) @ targets` at a scale, of domains with (M,) unique tokens.

    The part that folds do not show is learned from the mixture split; away from the trained scales
    it grows to what the scale split found and no further, since the folds disagree more and more
    there already (docs/decisions.md). Without a scale split it grows by `HeldOut.widening`. A level
    error that all mixtures share is no part of it: it changes no decision.

    Raises: FitError: the targets that count were never measured together.
    """
    coefficients = np.asarray(coefficients, float)
    own = _own(fitted, coefficients, fitted.within, MIXTURE_SPLIT)
    held_out = fitted.beyond or fitted.within
    distance = held_out.distance(num_params, train_tokens)
    if distance > 0:
        if fitted.beyond is None:
            far = own * held_out.widening(num_params, train_tokens)
        else:
            far = _own(fitted, coefficients, held_out, SCALE_SPLIT)
        own += min(1.0, distance) * max(0.0, far - own)
    return ErrorField(
        lambda weights: fitted.of_folds(
            coefficients, weights, num_params, train_tokens, available_tokens=available_tokens
        ),
        own,
    )


def probability_better(
    fitted: Judged,
    coefficients: np.ndarray,
    weights: np.ndarray,
    num_params: float | None = None,
    train_tokens: float | None = None,
) -> np.ndarray:
    """(n, n) probability that mixture i is lower than mixture k in `coefficients (T,) @ targets`.

    Of mixtures that resemble each other a small predicted difference is already certain, of unlike
    ones it is not. A mixture and itself: 1/2.

    Args:
        weights: (n, M).
    Raises: FitError: as `error_field`, or the law reads a count that is not given.
    """
    coefficients = np.asarray(coefficients, float)
    weights = np.asarray(weights, float)
    predicted = fitted.predict(weights, num_params, train_tokens) @ coefficients
    scales = error_field(fitted, coefficients, num_params, train_tokens).scales(weights)
    gaps = predicted - predicted[:, None]  # by how much i is predicted lower
    return chance_below(gaps, scales)


def chance_below(gaps: np.ndarray | float, scales: np.ndarray | float) -> Any:
    """Probability that what is predicted lower by `gaps` is lower, with errors of these scales."""
    gaps, scales = np.broadcast_arrays(np.asarray(gaps, float), np.asarray(scales, float))
    # Without any error the sign decides, and equal mixtures are a draw.
    certain = np.where(gaps == 0, 0.0, np.copysign(np.inf, gaps))
    chances = stdtr(FREEDOM, np.divide(gaps, scales, out=certain, where=scales > 0))
    return float(chances) if chances.ndim == 0 else chances


def regret_bound(
    fitted: Judged,
    coefficients: np.ndarray,
    *,
    chosen: np.ndarray,
    candidates: np.ndarray,
    num_params: float | None = None,
    train_tokens: float | None = None,
    available_tokens: np.ndarray | None = None,
    noise: bool = True,
    level: float = LEVEL,
    seed: int = 0,
) -> RegretBound:
    """Bound f(chosen) - min f(candidates) for the true f, `coefficients (T,) @ targets`.

    Args:
        chosen: (M,), whether or not it is predicted best.
        candidates: (n, M) what else could have been chosen: runs that are not trained yet, or
            mixtures that fill the allowed region, with the optimum of every fold's law. Only the
            500 with the lowest predictions, in units of their uncertainty, are looked at.
        available_tokens: (M,) unique tokens of the domains; None where none is repeated.
        noise: whether f is what one run of each candidate would measure; else what it would on
            average, where a lucky run is no better choice.
        level: of the bound, in (0, 1).
        seed: of the draws.
    Raises: FitError: shapes or level are wrong, or as `error_field`.
    """
    coefficients, chosen = np.asarray(coefficients, float), np.asarray(chosen, float)
    candidates = np.asarray(candidates, float)
    if candidates.ndim != 2 or chosen.shape != candidates.shape[1:] or not len(candidates):
        raise FitError(
            f"chosen has shape {chosen.shape} and candidates {candidates.shape}; give (M,) and "
            f"(n, M), n >= 1, with the {len(fitted.domains)} domains of the law"
        )
    if not 0 < level < 1:
        raise FitError(f"the level of the bound is {level}; it must lie between 0 and 1")
    scale = (num_params, train_tokens)
    field = error_field(fitted, coefficients, *scale, available_tokens=available_tokens)
    weights = np.vstack([chosen, _contenders(fitted, field, coefficients, candidates)])
    values = fitted.predict(weights, *scale, available_tokens=available_tokens)
    predicted = values @ coefficients
    truths = predicted + field.draws(weights, NUM_DRAWS, np.random.default_rng(seed), noise=noise)
    regrets = truths[:, 0] - truths.min(axis=1)
    return RegretBound(float(regrets.mean()), float(np.quantile(regrets, level)), level)


def _contenders(
    fitted: Judged, field: ErrorField, coefficients: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """The candidates (at most 500, M) that may be best."""
    if len(candidates) <= MOST_CANDIDATES:
        return candidates
    folds = field.of_folds(candidates)
    spread = (len(folds) - 1) * folds.var(axis=0) + field.own**2
    hope = folds.mean(axis=0) - 2 * np.sqrt(spread)
    return candidates[np.argsort(hope, kind="stable")[:MOST_CANDIDATES]]


def _own(fitted: Judged, coefficients: np.ndarray, held_out: HeldOut, split_name: str) -> float:
    """Scale of what differences of held-out residuals have beyond the disagreement of folds: its
    posterior mean, flat in the logarithm. Pairs count as the m - 1 independent ones among them."""
    held_out.of_objective(coefficients)  # refuses what was never measured together
    validation = fitted.cross_validation
    counts = np.flatnonzero(coefficients)
    known = np.flatnonzero(np.isfinite(held_out.residuals[:, counts]).all(axis=1))
    known = known[np.linspace(0, len(known) - 1, min(len(known), ENOUGH_MIXTURES)).astype(int)]
    rows = held_out_rows(validation, fitted.law, split_name)
    first = [int(rows[k][0]) for k in known]
    runs, pairs = validation.runs, np.triu_indices(len(known), 1)
    at_scale = (
        None if np.isnan(count[first[0]]) else float(count[first[0]])
        for count in (runs.num_params, runs.train_tokens)
    )
    weights = runs.weights[first]
    folds = fitted.of_folds(coefficients, weights, *at_scale)
    jackknife = (len(folds) - 1) * _variances(folds)[pairs]
    residuals = held_out.residuals[np.ix_(known, counts)] @ coefficients[counts]
    errors = residuals[pairs[0]] - residuals[pairs[1]]
    size = float(residuals.std())
    if size == 0:
        return 0.0
    tried = size * OWN_SHARES
    variances = jackknife + tried[:, None] ** 2 * _differences(weights)[pairs]
    tails = np.log1p(errors**2 / (FREEDOM * variances))
    fit = np.mean(-0.5 * np.log(variances) - (FREEDOM + 1) / 2 * tails, axis=1) * (len(known) - 1)
    odds = np.exp(fit - fit.max())
    return float(odds @ tried / odds.sum())


def _variances(folds: np.ndarray) -> np.ndarray:
    """(n, n) variances over folds (K, n) of the difference of each pair of mixtures."""
    centred = folds - folds.mean(axis=0)
    products = centred.T @ centred / len(folds)
    own = np.diagonal(products)
    return np.maximum(own[:, None] + own - 2 * products, 0.0)


def own_covariance(weights: np.ndarray, *, noise: bool) -> np.ndarray:
    """(n, n) of the part that folds do not show at mixtures (n, M), in units of its variance; one
    with the noise of runs."""
    points = Points.at(weights)
    shared = 0.5 * SHARED.matrix(points, points)
    return shared + 0.5 * LONE.matrix(points, points) if noise else shared


def _differences(weights: np.ndarray) -> np.ndarray:
    """(n, n) variances of the difference of each pair, of a field of variance one."""
    return np.maximum(2 - 2 * own_covariance(weights, noise=True), 0.0)
