"""What fitted laws leave open about a decision, as a `knowledge.Belief`.

    f(r, s) = law(r, s) + u(r, s) + g(r) + d(r, s)

over mixtures r and scales s: u is the spread of refits to resampled mixtures, g what no parameter
of the law can express, d by how much mixtures change their order away from the scales trained on.
A run shows f plus noise. Shapes: n mixtures, k places (mixture, scale), m trained mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from mixlaw.laws.bootstrap import Bootstrap, bootstrap
from mixlaw.laws.gaussian import Kernel
from mixlaw.laws.points import AXES, Points
from mixlaw.laws.selection import FittedLaws
from mixlaw.laws.splits import MIXTURE_SPLIT, scale_ids
from mixlaw.plan.knowledge import Belief

NUM_REFITS = 48

LENGTHS = (0.4, 0.8)
AMPLITUDES = np.geomspace(0.03, 3, 9)
"""What is tried for g and the noise: the kernel's length, and the variance of both together over
the mean squared held-out residual."""

NOISE_SHARE = 0.3
"""Of that variance, where no runs are repeated: mixtures lie too far apart to tell g from noise."""

AMPLITUDE_SD = 1.0
"""Prior of the log of that amplitude around 0: a few residuals can be small by luck."""

FEWEST_REPEATS = 3
"""Degrees of freedom from which repeated runs tell the noise."""

DRIFT = 0.04
"""Share of the variance over mixtures that a scale one e-fold of size or horizon away does not
explain: median of 10 pairs of sizes 1.5 e-folds or more apart, of dmsl_slimpajama, 5Mix, RedPajama
and tiny_env_swarm; the quartiles of all 22 pairs are .025 and .08. `python -m benchmarks decide
planner` measures it."""

DRIFT_WORTH = 8
"""Held-out mixtures that outweigh DRIFT where a swarm has its own scale split."""

MOST_TRAINED = 700
"""Trained mixtures that g is conditioned on; of more, those fitted lowest."""

_DIGITS = 1e-6
"""Relative to the objective: noise below this is not told from rounding."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The finished runs, one entry a mixture.

    Attributes:
        points: m <= `MOST_TRAINED`, the first row of each mixture; runs: (m,) rows of each.
        num_mixtures: all of them.
        gaps: (m,) observed less fitted, mean over rows.
        held_out: (m,) observed less predicted by the fold without the mixture.
        spread: variance of the fitted objective over mixtures.
        noise: variance of runs repeated at one scale; None with too few.
    """

    points: Points
    num_mixtures: int
    runs: np.ndarray
    gaps: np.ndarray
    held_out: np.ndarray
    spread: float
    noise: float | None

    @classmethod
    def of(cls, fitted: FittedLaws, coefficients: np.ndarray) -> Trained:
        validation = fitted.cross_validation
        counts = np.flatnonzero(coefficients)
        weights = coefficients[counts]
        values = validation.values()[:, counts] @ weights
        errors = validation.residuals(fitted.law, MIXTURE_SPLIT)[:, counts] @ weights
        known = (validation.runs.status == "done") & np.isfinite(values) & np.isfinite(errors)
        runs, values, errors = validation.runs.select(known), values[known], errors[known]
        points = Points.of(runs)
        predicted = Bootstrap([fitted.laws]).objective(coefficients, points)[0]
        ids = np.unique(runs.mixture_ids(), return_inverse=True)[1].reshape(-1)
        _, first, rows = np.unique(ids, return_index=True, return_counts=True)
        lowest = np.sort(np.argsort(predicted[first], kind="stable")[:MOST_TRAINED])
        return cls(
            points=points.select(first[lowest]),
            num_mixtures=len(first),
            runs=rows[lowest],
            gaps=(np.bincount(ids, values - predicted) / rows)[lowest],
            held_out=(np.bincount(ids, -errors) / rows)[lowest],
            spread=float(np.var(predicted[first])),
            noise=_noise_of_repeats(values, ids, scale_ids(runs)),
        )


def _noise_of_repeats(values: np.ndarray, mixtures: np.ndarray, scales: np.ndarray) -> float | None:
    cells = np.unique(np.stack([mixtures, scales]), axis=1, return_inverse=True)[1].reshape(-1)
    count = np.bincount(cells)
    freedom = int((count - 1).sum())
    if freedom < FEWEST_REPEATS:
        return None
    around = values - (np.bincount(cells, values) / count)[cells]
    return float((around**2).sum() / freedom)


@dataclass(frozen=True)
class Misfit:
    """The kernel and variance of g, and the variance of the noise."""

    kernel: Kernel
    variance: float
    noise: float

    @classmethod
    def learn(cls, trained: Trained, spread: np.ndarray, level: float) -> Misfit:
        """The likeliest for the held-out residuals, given the covariance of u (m, m) there."""
        errors = trained.held_out
        size = max(float(np.mean(errors**2)), (_DIGITS * level) ** 2)
        best: tuple[float, Misfit] | None = None
        for misfit, amplitude in cls._grid(size, trained.noise):
            covariance = spread + misfit.variance * misfit.kernel.matrix(
                trained.points, trained.points
            )
            root = np.linalg.cholesky(covariance + np.diag(misfit.noise / trained.runs))
            whitened = np.linalg.solve(root, errors)
            likelihood = -0.5 * whitened @ whitened - np.log(np.diagonal(root)).sum()
            score = float(likelihood - 0.5 * (np.log(amplitude) / AMPLITUDE_SD) ** 2)
            if best is None or score > best[0]:
                best = score, misfit
        assert best is not None
        return best[1]

    @classmethod
    def _grid(cls, size: float, noise: float | None) -> Iterator[tuple[Misfit, float]]:
        """What is tried, with the amplitude of each."""
        for length, amplitude in product(LENGTHS, AMPLITUDES):
            both, kernel = amplitude * size, Kernel(length)
            if noise is None:
                yield cls(kernel, (1 - NOISE_SHARE) * both, NOISE_SHARE * both), amplitude
            else:
                yield cls(kernel, both, max(noise, 1e-3 * size)), amplitude


def believe(
    fitted: FittedLaws,
    coefficients: np.ndarray,
    places: Points,
    num_decisions: int,
    *,
    seed: int,
) -> Belief:
    """The joint belief of `coefficients (T,) @ targets` over k places.

    Args:
        places: the first `num_decisions` are the mixtures to decide among, at the target scale.
        seed: of the resamples.
    """
    refits = bootstrap(fitted, num_draws=NUM_REFITS, seed=seed)
    law = Bootstrap([fitted.laws])
    trained = Trained.of(fitted, coefficients)

    def deviations(points: Points) -> np.ndarray:
        values = refits.objective(coefficients, points)
        return (values - values.mean(axis=0)) / np.sqrt(NUM_REFITS - 1)

    at_trained, at_places = deviations(trained.points), deviations(places)
    mean = law.objective(coefficients, places.select(slice(0, num_decisions)))[0]
    misfit = Misfit.learn(trained, at_trained.T @ at_trained, float(np.abs(mean).mean()))
    own = misfit.variance * misfit.kernel.matrix(trained.points, trained.points)
    across = misfit.variance * misfit.kernel.matrix(places, trained.points)
    told = np.linalg.solve(own + np.diag(misfit.noise / trained.runs), across.T).T
    between = misfit.kernel.matrix(places, places)
    covariance = at_places.T @ at_places + misfit.variance * between - told @ across.T
    away = e_folds_away(fitted, places)
    drift = _drift_rate(fitted, coefficients, trained)
    covariance += drift * np.minimum(away[:, None], away) * between
    return Belief(
        mean=mean + told[:num_decisions] @ trained.gaps,
        covariance=covariance,
        noise=np.full(len(places), misfit.noise),
    )


def e_folds_away(fitted: FittedLaws, places: Points) -> np.ndarray:
    """(k,) how far each scale lies outside the trained ones, in log N and log D; an unknown count
    is taken for one that was trained."""
    squared = np.zeros(len(places))
    for axis in AXES:
        count = getattr(places, axis)
        low, high = fitted.within.smallest[axis], fitted.within.largest[axis]
        outside = np.maximum(np.log(count / high), np.log(low / count))
        squared += np.where(np.isfinite(outside), np.maximum(outside, 0.0), 0.0) ** 2
    return np.sqrt(squared)


def _drift_rate(fitted: FittedLaws, coefficients: np.ndarray, trained: Trained) -> float:
    """Variance of d for each e-fold: `DRIFT`, corrected by what the scale split found."""
    assumed = DRIFT * trained.spread
    if fitted.beyond is None:
        return assumed
    far = fitted.beyond.of_objective(coefficients)[0]
    near = fitted.within.of_objective(coefficients)[0]
    reach = math.hypot(*fitted.beyond.reach.values())
    # A level error that all mixtures share decides nothing, hence variances about the mean.
    found = max(0.0, float(np.var(far) - np.var(near))) / reach
    return (len(far) * found + DRIFT_WORTH * assumed) / (len(far) + DRIFT_WORTH)
