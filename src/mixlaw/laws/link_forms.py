"""Forms of a link from loss to score, and their fit.

    sigmoid        score = floor + span / (1 + exp(rate (L - middle)))
    exponential    score = floor + span exp(-rate (L - middle))

Both fall with the loss L, whatever their parameters. The exponential is Gadre et al.'s
`error = eps - k exp(-gamma L)` with `error = 1 - score`: eps = 1 - floor, gamma = rate and
k = span exp(rate middle).

Sources: Gadre et al., arXiv 2403.08540; Bhagia et al., arXiv 2412.04403.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

SIGMOID, EXPONENTIAL = "sigmoid", "exponential"
MOST_EXPONENT = 50.0
"""An exponential is cut off here: far below the losses that it saw, it would overflow."""


def _sigmoid(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = expit(z)
    return value, value * expit(-z)


def _exponential(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = np.exp(np.minimum(z, MOST_EXPONENT))
    return value, np.where(z < MOST_EXPONENT, value, 0.0)


CURVES: Mapping[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    SIGMOID: _sigmoid,
    EXPONENTIAL: _exponential,
}
"""Form -> rising curve and its derivative at z = rate (middle - L)."""

CURVE_SCRIPTS: Mapping[str, str] = {
    SIGMOID: "(z) => 1 / (1 + Math.exp(-z))",
    EXPONENTIAL: f"(z) => Math.exp(Math.min(z, {MOST_EXPONENT}))",
}
"""Form -> the curve in JavaScript, for a page."""

PRIORS: Mapping[str, tuple[np.ndarray, np.ndarray]] = {
    SIGMOID: (np.array([0.0, np.log(1.5), np.log(1.5), 0.0]), np.array([1.0, 1.0, 1.0, 2.0])),
    EXPONENTIAL: (np.array([0.0, np.log(0.4), np.log(0.7), 0.0]), np.ones(4)),
}
"""Form -> means and standard deviations of theta (see `Problems`); the floor's mean is set below
the lowest score."""

LEAST_FLOOR = 0.05
"""Of the range of the scores: where the lowest is zero, the prior's floor is this."""

MIDDLES = (0.0, -2.0, 2.0)
"""Where the search for a sigmoid starts, in standard deviations from the mean loss."""

FIRST_NOISE, NOISE_ROWS = 0.01, 2.0
"""Noise variance before the first fit, as a share of the squared range, and how many rows it
counts for later: a handful of rows can be met exactly, and must not switch the priors off."""

ROUNDS, MAX_STEPS, TOLERANCE, MOST_DAMPING = 3, 60, 1e-6, 1e10
DIAGONAL = np.arange(4)
FARTHEST = 25.0
"""No parameter of theta goes farther from 0."""


@dataclass(frozen=True)
class Link:
    """A score as a falling function of a loss.

    Attributes:
        form: "sigmoid" or "exponential".
        losses: target -> share; L is their weighted mean.
        floor: >= 0, the score at an endless loss.
        span: > 0, how far above it a sigmoid ends, and where an exponential is at L = middle.
        rate: > 0, per unit of loss.
        middle: a loss.
    """

    form: str
    losses: Mapping[str, float]
    floor: float
    span: float
    rate: float
    middle: float

    def score(self, loss: np.ndarray) -> np.ndarray:
        """Scores, of the shape of `loss`."""
        return self.floor + self.span * CURVES[self.form](self.rate * (self.middle - loss))[0]

    def slope(self, loss: np.ndarray) -> np.ndarray:
        """Derivatives in the loss, <= 0."""
        curve = CURVES[self.form](self.rate * (self.middle - loss))
        return -self.rate * self.span * curve[1]

    def shares(self, targets: Sequence[str]) -> np.ndarray:
        """(T,) shares in the order of the losses."""
        return np.array([self.losses.get(target, 0.0) for target in targets])

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "losses": dict(self.losses)}


def fit_form(
    form: str, loss: np.ndarray, score: np.ndarray, use: np.ndarray, *, floor: float | None
) -> np.ndarray:
    """Floor, span, rate and middle (C, B, 4) of maximum a posteriori links of one form.

    Args:
        loss: (C, n) candidates for L.
        score: (n,).
        use: (C, B, n) sets of rows, in which loss and score vary; the first is sought from several
            starts, and the others from where that ends.
        floor: None where it is to be fitted.
    """
    middles = np.array(MIDDLES if form == SIGMOID else (0.0,))
    starts = len(middles)
    first = Problems(form, loss.repeat(starts, 0), score, use[:, 0].repeat(starts, 0), floor)
    start = first.mean.copy()
    start[:, 3] = np.tile(middles, len(loss))
    theta, cost = first.fit(start)
    best = np.argmin(cost.reshape(-1, starts), axis=1) + starts * np.arange(len(loss))
    num_sets = use.shape[1]
    flat = use.reshape(-1, use.shape[2])
    every = Problems(form, loss.repeat(num_sets, 0), score, flat, floor)
    theta, _ = every.fit(theta[best].repeat(num_sets, 0))
    return every.parameters(theta).reshape(-1, num_sets, 4)


class Problems:
    """B links of one form, each of its own losses (B, n), rows used (B, n) and units.

    theta (B, 4) holds the logs of floor, span and rate, and the middle: losses in standard
    deviations from their mean, scores in ranges. Weak priors keep what few rows cannot tell within
    reason. A floor that is known is subtracted, and the middle of an exponential, which only
    rescales its span, stays at the mean loss.
    """

    def __init__(
        self, form: str, loss: np.ndarray, score: np.ndarray, use: np.ndarray, floor: float | None
    ):
        self.curve, self.use = CURVES[form], use.astype(float)
        self.num_rows = self.use.sum(axis=1)
        loss, score = np.where(use, loss, 0.0), np.where(use, score, 0.0)
        self.center = loss.sum(axis=1) / self.num_rows
        offset = self.use * (loss - self.center[:, None])
        self.spread = np.sqrt((offset**2).sum(axis=1) / self.num_rows)
        self.x = offset / self.spread[:, None]
        low = np.where(use, score, np.inf).min(axis=1)
        self.range = np.where(use, score, -np.inf).max(axis=1) - low
        self.base, self.has_floor = (0.0, 1.0) if floor is None else (floor, 0.0)
        self.y = self.use * (score - self.base) / self.range[:, None]
        self.free = np.array([self.has_floor, 1.0, 1.0, form == SIGMOID])
        mean, self.sd = PRIORS[form]
        self.mean = np.tile(mean, (len(use), 1))
        self.mean[:, 0] = np.log(np.maximum(0.8 * low / self.range, LEAST_FLOOR))

    def evaluate(self, theta: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (b, n) and their derivatives (b, n, 4) for the problems `which`."""
        floor, span, rate = np.exp(theta[:, :3]).T[:, :, None]
        z = rate * (theta[:, 3:] - self.x[which])
        value, slope = self.curve(z)
        columns = [floor + 0 * z, span * value, span * slope * z, span * slope * rate]
        return self.has_floor * floor + span * value, np.stack(columns, axis=2) * self.free

    def parameters(self, theta: np.ndarray) -> np.ndarray:
        """(B, 4) floor, span, rate and middle in the units of the table."""
        floor, span, rate = np.exp(theta[:, :3]).T
        middle = self.center + theta[:, 3] * self.spread
        floor = self.base + self.has_floor * floor * self.range
        return np.stack([floor, span * self.range, rate / self.spread, middle], axis=1)

    def fit(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best theta (B, 4) near a start, and minus twice its log posterior (B,).

        Parameters and noise variance are improved in turn.
        """
        noise, every = np.full(len(theta), FIRST_NOISE), np.arange(len(theta))
        for _ in range(ROUNDS):
            theta = self.minimise(theta, noise)
            squares = ((self.use * (self.evaluate(theta, every)[0] - self.y)) ** 2).sum(axis=1)
            noise = (squares + NOISE_ROWS * FIRST_NOISE) / (self.num_rows + NOISE_ROWS)
        penalty = (((theta - self.mean) / self.sd) ** 2).sum(axis=1)
        return theta, (self.num_rows + NOISE_ROWS) * np.log(noise) + penalty

    def minimise(self, theta: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Levenberg-Marquardt on all problems at once, at given noise (B,)."""
        theta, active = theta.copy(), np.arange(len(theta))
        cost, gradient, matrix = self.normal(theta, active, noise)
        damping = np.full(len(theta), 1e-3)
        for _ in range(MAX_STEPS):
            damped = matrix[active]
            damped[:, DIAGONAL, DIAGONAL] *= 1 + damping[active, None]
            step = -np.linalg.solve(damped, gradient[active, :, None])[:, :, 0]
            trial = np.clip(theta[active] + step, -FARTHEST, FARTHEST)
            found = self.normal(trial, active, noise[active])
            fall = cost[active] - found[0]
            better = fall > 0
            taken = active[better]
            theta[taken] = trial[better]
            cost[taken], gradient[taken], matrix[taken] = (part[better] for part in found)
            damping[active] *= np.where(better, 0.2, 4.0)
            going = (np.abs(fall) > TOLERANCE * cost[active]) & (damping[active] < MOST_DAMPING)
            active = active[going]
            if len(active) == 0:
                break
        return theta

    def normal(
        self, theta: np.ndarray, which: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cost (b,), its half gradient (b, 4) and Gauss-Newton matrix (b, 4, 4)."""
        values, jacobian = self.evaluate(theta, which)
        use = self.use[which]
        residual, jacobian = use * (values - self.y[which]), jacobian * use[:, :, None]
        transposed = jacobian.transpose(0, 2, 1) / noise[:, None, None]
        offset = (theta - self.mean[which]) / self.sd
        gradient = (transposed @ residual[:, :, None])[:, :, 0] + offset / self.sd
        cost = (residual**2).sum(axis=1) / noise + (offset**2).sum(axis=1)
        return cost, gradient, transposed @ jacobian + np.diag(self.sd**-2)
