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
from scipy.optimize import least_squares

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


def ridge(weights: np.ndarray, y: np.ndarray, own: int, rng: np.random.Generator) -> Predictor:
    """Ridge of log L on log(r + .01), strength by generalised cross-validation."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(np.logspace(-4, 3, 15)).fit(np.log(weights + 0.01), np.log(y))
    return lambda points: np.exp(model.predict(np.log(points + 0.01)))


@dataclass(frozen=True)
class Formula:
    """A formula to fit by least squares without priors.

    Attributes:
        value: (theta (p,), weights (n, M)) -> (n,).
        slopes: the same -> (n, p).
        starts: (M, y, own, rng) -> starting points.
        huber: residuals beyond this count linearly; None: squared throughout.
    """

    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    slopes: Callable[[np.ndarray, np.ndarray], np.ndarray]
    starts: Callable[[int, np.ndarray, int, np.random.Generator], Sequence[np.ndarray]]
    huber: float | None = None

    def fit(self, weights: np.ndarray, y: np.ndarray, own: int, rng) -> Predictor:
        """The lowest cost over the starts."""
        best, lowest = None, np.inf
        loss = {"loss": "huber", "f_scale": self.huber} if self.huber else {}
        with np.errstate(over="ignore", invalid="ignore"):
            for start in self.starts(weights.shape[1], y, own, rng):
                try:
                    found = least_squares(
                        lambda theta: self.value(theta, weights) - y,
                        start,
                        jac=lambda theta: self.slopes(theta, weights),
                        method="trf",
                        x_scale="jac",
                        max_nfev=300,
                        **loss,
                    )
                except (ValueError, np.linalg.LinAlgError):  # overflow on the way: a lost start
                    continue
                if found.cost < lowest:
                    best, lowest = found.x, found.cost
        if best is None:
            return lambda points: np.full(len(points), y.mean())

        def predict(points: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore"):
                return np.minimum(self.value(best, points), 1e6)

        return predict


NUM_STARTS = 5
HUBER_DELTA = 0.02
"""Of Olmix's and of the authors' fits of M4."""


def _log_linear() -> Formula:
    """`exp(k + t . r)`; with sum r = 1 the k is absorbed by t."""

    def value(theta, r):
        return np.exp(r @ theta)

    def slopes(theta, r):
        return value(theta, r)[:, None] * r

    def starts(m, y, own, rng):
        return [np.log(y.mean()) + 0.5 * rng.normal(size=m) for _ in range(NUM_STARTS)]

    return Formula(value, slopes, starts)


def _m4() -> Formula:
    """`exp(a) + exp(t . r)`: M4 of Ye et al., and what Olmix calls log-linear, its default.

    Their objective (Huber .02, no prior) and their starts: a on a grid from -2 to 1.5, t_own in
    (-1, 0), the others in (0, .1). Their optimiser and its 300 or 6,000 starts are in `authors`;
    Gauss-Newton needs few.

    Sources: github.com/allenai/olmix, fit/utils.py; github.com/yegcjs/mixinglaws.
    """

    def value(theta, r):
        return np.exp(theta[0]) + np.exp(r @ theta[1:])

    def slopes(theta, r):
        constant = np.full((len(r), 1), np.exp(theta[0]))
        return np.hstack([constant, np.exp(r @ theta[1:])[:, None] * r])

    def starts(m, y, own, rng):
        found = []
        for a in np.linspace(-2, 1.5, NUM_STARTS):
            t = 0.1 * rng.random(m)
            if own >= 0:
                t[own] = -rng.random()
            found.append(np.concatenate([[a], t]))
        return found

    return Formula(value, slopes, starts, huber=HUBER_DELTA)


SHARE_FLOOR = 1e-3
"""A share of zero would have an infinite loss in a power law of the share."""


def bimix(weights: np.ndarray, y: np.ndarray, own: int, rng: np.random.Generator) -> Predictor:
    """`A / r_own^alpha`: BiMix at one horizon, where its factor `B / S^beta + C` is a constant.

    It says nothing about a target that is not a domain: there it is the mean. As the paper fits
    it: log-log least squares. Source: arXiv 2405.14908.
    """
    if own < 0:
        return lambda points: np.full(len(points), y.mean())
    x = np.log(np.maximum(weights[:, own], SHARE_FLOOR))
    slope, constant = np.polyfit(x, np.log(y), 1)
    return lambda points: np.exp(constant + slope * np.log(np.maximum(points[:, own], SHARE_FLOOR)))


def _autoscale() -> Formula:
    """`sum_j (N0_j + N r_j)^-gamma_j + L`, fitted to one scale N, with `N0_j = N exp(a_j)`.

    As in Olmix's implementation every domain counts for every target; starts are its start,
    jittered. N (1 billion tokens) only sets the scale on which gamma is measured.
    Source: AutoScale, arXiv 2407.20177.
    """
    log_n = np.log(1e9)

    def terms(theta, r):
        m = r.shape[1]
        base = log_n + np.log(np.exp(theta[:m]) + r)  # (n, M)
        return base, np.exp(-np.exp(theta[m : 2 * m]) * base)

    def value(theta, r):
        return terms(theta, r)[1].sum(axis=1) + np.exp(theta[-1])

    def slopes(theta, r):
        m = r.shape[1]
        base, term = terms(theta, r)
        gamma = np.exp(theta[m : 2 * m])
        share = np.exp(theta[:m]) / (np.exp(theta[:m]) + r)
        constant = np.full((len(r), 1), np.exp(theta[-1]))
        return np.hstack([-gamma * term * share, -gamma * base * term, constant])

    def starts(m, y, own, rng):
        flat = np.concatenate([np.full(m, np.log(1 / m)), np.full(m, np.log(0.1)), [0.0]])
        flat[-1] = np.log(0.5 * y.min())
        return [flat + 0.3 * rng.normal(size=2 * m + 1) for _ in range(2)]

    return Formula(value, slopes, starts)


PEERS: Mapping[str, Callable[[Training], Predictor]] = {
    "LightGBM (RegMix)": per_target(lightgbm),
    "M4 (Olmix default, Ye et al.)": per_target(_m4().fit),
    "log-linear": per_target(_log_linear().fit),
    "GP on sqrt r": per_target(gaussian_process),
    "BiMix": per_target(bimix),
    "AutoScale": per_target(_autoscale().fit),
    "ridge on log r": per_target(ridge),
}
