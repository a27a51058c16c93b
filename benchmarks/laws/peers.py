"""What others use, behind one face: `Training` (weights, values, rng) -> a predictor.

Every peer sees the training rows only: where a recipe stops early or has a hyperparameter, it is
chosen on a part of them. Values must be complete. Positive amplitudes enter as logs.

Shapes: n runs, M domains, T targets.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares, minimize
from scipy.special import huber

MOST = 1e6
"""A forecast that diverges is cut here, so that tables stay finite."""

Predictor = Callable[[np.ndarray], np.ndarray]
"""Weights (k, M) -> values (k, T)."""


@dataclass(frozen=True)
class Training:
    """What a peer may look at.

    Attributes:
        weights: (n, M).
        values: (n, T).
        own: (T,) index of each target's own domain, -1 where it has none.
        rng: of starting points and of the validation rows.
    """

    weights: np.ndarray
    values: np.ndarray
    own: np.ndarray
    rng: np.random.Generator


def per_target(fit_one: Callable[[np.ndarray, np.ndarray, int, np.random.Generator], Predictor]):
    """A peer from a recipe for one target: (weights, y (n,), own, rng) -> predictor of (k,)."""

    def peer(training: Training) -> Predictor:
        fitted = [
            fit_one(training.weights, y, own, training.rng)
            for y, own in zip(training.values.T, training.own, strict=True)
        ]
        return lambda weights: np.stack([predict(weights) for predict in fitted], axis=1)

    return peer


VALIDATION_SHARE = 0.2
LIGHTGBM = {
    "boosting": "gbdt",
    "objective": "regression",
    "metric": ["l2"],
    "seed": 42,
    "learning_rate": 1e-2,
    "verbosity": -1,
    "num_threads": 1,
}
LIGHTGBM_ROUNDS, LIGHTGBM_PATIENCE = 1000, 3


def lightgbm(weights: np.ndarray, y: np.ndarray, own: int, rng: np.random.Generator) -> Predictor:
    """RegMix: gradient-boosted trees, other hyperparameters at LightGBM's defaults.

    They stop early on the very rows that they are scored on. Here a fifth of the training rows is
    held out to find the number of rounds, then all rows are fitted for that many. (With 20 rows to
    a leaf, the default, fewer than 40 rows give a constant.)

    Source: github.com/sail-sg/regmix, regression_fitting/regression.ipynb.
    """
    from lightgbm import Dataset, early_stopping, train

    order = rng.permutation(len(y))
    held = max(1, round(VALIDATION_SHARE * len(y)))
    test, rest = order[:held], order[held:]
    learned = Dataset(weights[rest], y[rest])
    stop = early_stopping(LIGHTGBM_PATIENCE, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a constant fit has no split to stop at
        probe = train(
            LIGHTGBM,
            learned,
            LIGHTGBM_ROUNDS,
            valid_sets=[Dataset(weights[test], y[test], reference=learned)],
            callbacks=[stop],
        )
        model = train(LIGHTGBM, Dataset(weights, y), max(1, probe.best_iteration))
    return model.predict


def gaussian_process(
    weights: np.ndarray, y: np.ndarray, own: int, rng: np.random.Generator
) -> Predictor:
    """GP on sqrt(r): one RBF and noise by marginal likelihood.

    Source: Olmix (github.com/allenai/olmix, fit/utils.py, GPRegressor), with its bounds and with
    2 restarts for its 10; it takes r, but sqrt(r) does better on every table here.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(1.0, (1e-2, 1e2))
    kernel += WhiteKernel(0.1, (1e-5, 1e1))
    seed = int(rng.integers(2**31))
    model = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=2, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters at their bounds: a line a target
        model.fit(np.sqrt(weights), y)
    return lambda points: model.predict(np.sqrt(points))


RIDGE_FLOORS = (3e-4, 1e-3, 3e-3, 1e-2)


def ridge(weights: np.ndarray, y: np.ndarray, own: int, rng: np.random.Generator) -> Predictor:
    """Ridge of log L on log(r + floor), floor and strength by exact leave-one-out."""
    from sklearn.linear_model import RidgeCV

    models = {
        floor: RidgeCV(np.logspace(-4, 4, 17)).fit(np.log(weights + floor), np.log(y))
        for floor in RIDGE_FLOORS
    }
    floor = max(models, key=lambda floor: models[floor].best_score_)
    return lambda points: np.exp(models[floor].predict(np.log(points + floor)))


@dataclass(frozen=True)
class Formula:
    """A formula to fit by least squares without priors.

    Attributes:
        value: (theta (p,), weights (n, M)) -> (n,).
        slopes: the same -> (n, p).
        starts: (M, y, own, rng) -> starting points.
        bounds: (M, y) -> lower and upper (p,); None: theta is free.
    """

    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    slopes: Callable[[np.ndarray, np.ndarray], np.ndarray]
    starts: Callable[[int, np.ndarray, int, np.random.Generator], Sequence[np.ndarray]]
    bounds: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None

    def fit(self, weights: np.ndarray, y: np.ndarray, own: int, rng) -> Predictor:
        """The lowest cost over the starts."""
        best, lowest = None, np.inf
        free = {"x_scale": "jac"}
        options = {"bounds": self.bounds(weights.shape[1], y)} if self.bounds else free
        with np.errstate(over="ignore", invalid="ignore"):
            for start in self.starts(weights.shape[1], y, own, rng):
                try:
                    found = least_squares(
                        lambda theta: self.value(theta, weights) - y,
                        start,
                        jac=lambda theta: self.slopes(theta, weights),
                        method="trf",
                        max_nfev=300,
                        **options,
                    )
                except (ValueError, np.linalg.LinAlgError):  # overflow on the way: a lost start
                    continue
                if found.cost < lowest:
                    best, lowest = found.x, found.cost
        if best is None:
            return lambda points: np.full(len(points), y.mean())

        def predict(points: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore"):
                return np.minimum(self.value(best, points), MOST)

        return predict


EXP_DELTA, EXP_STARTS, EXP_ITERATIONS = 0.05, 6, 1000


def _exponential(*, constant: bool):
    """`exp(a) + exp(k + t . r)`: M4 of Ye et al., also what Olmix calls log-linear, its default;
    or without its constant.

    The authors' Huber cost, starts (a sample of their 6,000) and L-BFGS of memory 10 for at most
    1,000 iterations, by scipy. There is no prior, but L-BFGS stops long before the optimum, which
    regularises: least squares to the end is worse (.71 for .82 in rank on ten tasks of dclm_swarm
    at 75 runs). The torch recipe itself (`authors.fit_m4`) is as accurate, at 10 times the time:
    Spearman .822 there (this .820), .814 and .958 on six targets of regmix_pile at 32 and 128 runs
    (this .871 and .964).

    Sources: github.com/yegcjs/mixinglaws, law.py; github.com/allenai/olmix, fit/utils.py.
    """

    def level(theta):
        return np.exp(theta[0]) if constant else 0.0

    def fit(weights: np.ndarray, y: np.ndarray, own: int, rng: np.random.Generator) -> Predictor:
        def cost(theta):
            with np.errstate(over="ignore", invalid="ignore"):
                term = np.exp(theta[1] + weights @ theta[2:])
                residual = level(theta) + term - y
                clipped = np.clip(residual, -EXP_DELTA, EXP_DELTA)
                slope = clipped * term
                head = [clipped.sum() * level(theta), slope.sum()]
                return huber(EXP_DELTA, residual).sum(), np.concatenate([head, slope @ weights])

        best, lowest = None, np.inf
        options = {"maxcor": 10, "maxiter": EXP_ITERATIONS, "maxfun": 5 * EXP_ITERATIONS}
        for _ in range(EXP_STARTS):
            grid = [rng.choice(np.linspace(-2, 1.5, 10)), rng.choice(np.linspace(-10, 1, 20))]
            start = np.concatenate([grid, 0.1 * rng.random(weights.shape[1])])
            found = minimize(cost, start, jac=True, method="L-BFGS-B", options=options)
            if found.fun < lowest:
                best, lowest = found.x, found.fun

        def predict(points: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore"):
                return np.minimum(level(best) + np.exp(best[1] + points @ best[2:]), MOST)

        return predict

    return fit


SHARE_FLOOR = 1e-3
"""A share of zero would have an infinite loss in a power law of the share."""


def bimix(weights: np.ndarray, y: np.ndarray, own: int, rng: np.random.Generator) -> Predictor:
    """`A / r_own^alpha`: BiMix at one horizon, where its factor `B / S^beta + C` is a constant.

    As the paper fits it: log-log least squares. It says nothing about a target that is not a
    domain; there it is the mean. Source: arXiv 2405.14908.
    """
    if own < 0:
        return lambda points: np.full(len(points), y.mean())
    x = np.log(np.maximum(weights[:, own], SHARE_FLOOR))
    slope, constant = np.polyfit(x, np.log(y), 1)
    return lambda points: np.exp(constant + slope * np.log(np.maximum(points[:, own], SHARE_FLOOR)))


def _bimix_sum() -> Formula:
    """`sum_j A_j r_j^-alpha_j`: Olmix's extension of BiMix to targets that are not domains.

    With their bounds and start. Source: github.com/allenai/olmix, fit/utils.py, BimixRegressor.
    """

    def terms(theta, r):
        m = r.shape[1]
        log_r = np.log(np.maximum(r, SHARE_FLOOR))
        powers = np.exp(-theta[m:] * log_r)
        return log_r, powers, theta[:m] * powers

    def value(theta, r):
        return terms(theta, r)[2].sum(axis=1)

    def slopes(theta, r):
        log_r, powers, term = terms(theta, r)
        return np.hstack([powers, -log_r * term])

    def starts(m, y, own, rng):
        return [np.concatenate([np.full(m, y.mean() / m), np.full(m, 1.0)])]

    def bounds(m, y):
        return np.zeros(2 * m), np.full(2 * m, np.inf)

    return Formula(value, slopes, starts, bounds)


def _autoscale() -> Formula:
    """`sum_j (N0_j + N r_j)^-gamma_j + L` at one scale N, with `N0_j = a_j N`.

    As in Olmix's implementation every domain counts for every target, with its bounds and start.
    The formula has no amplitudes, so the unit of N matters: in tokens every term is below one, and
    the fit is poor (MAE .37 on regmix_pile at 128 runs); in units of N itself, as here, .18.
    Sources: arXiv 2407.20177; github.com/allenai/olmix, fit/utils.py, AutoscaleRegressor.
    """

    def terms(theta, r):
        m = r.shape[1]
        base = theta[:m] + r  # (n, M)
        return base, base ** -theta[m : 2 * m]

    def value(theta, r):
        return terms(theta, r)[1].sum(axis=1) + theta[-1]

    def slopes(theta, r):
        m = r.shape[1]
        base, term = terms(theta, r)
        constant = np.ones((len(r), 1))
        return np.hstack([-theta[m : 2 * m] * term / base, -np.log(base) * term, constant])

    def starts(m, y, own, rng):
        return [np.concatenate([np.full(m, 1 / m), np.full(m, 0.5), [0.1 * y.min()]])]

    def bounds(m, y):
        upper = np.full(2 * m + 1, np.inf)
        upper[-1] = y.min()
        return np.concatenate([np.full(2 * m, 1e-12), [0.0]]), upper

    return Formula(value, slopes, starts, bounds)


PEERS: Mapping[str, Callable[[Training], Predictor]] = {
    "LightGBM (RegMix)": per_target(lightgbm),
    "M4 (Ye et al.; Olmix default)": per_target(_exponential(constant=True)),
    "log-linear": per_target(_exponential(constant=False)),
    "GP on sqrt r": per_target(gaussian_process),
    "BiMix": per_target(bimix),
    "BiMix, summed (Olmix)": per_target(_bimix_sum().fit),
    "AutoScale": per_target(_autoscale().fit),
    "ridge on log r": per_target(ridge),
}
