"""Maximum a posteriori by multistart Levenberg-Marquardt, with its prior strength by leave-one-out.

    minimise  sum_n ((f(theta)_n - y_n) / s)^2 / noise  +  sum_k ((theta_k - mean_k) / sd_k)^2

`s` is the target's spread and `noise` the variance of an observation as a share of s^2. A fixed
noise is wrong on one table or another, so it is chosen per target by the squared error of
approximate leave-one-mixture-out, walking down `NOISES` while that error falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixlaw.laws.base import Law, Points

NOISES = (25.0, 5.0, 1.0, 0.2, 0.04, 8e-3, 1.6e-3, 3e-4, 1e-5, 1e-7, 1e-9)
FIRST_NOISE = 5
"""Index of the noise tried first; the smallest are only reached by (nearly) noise-free data."""

CLEAR_GAIN = 0.98
"""A weaker prior must lower the left-out error to this share: ties go to the stronger one."""

LOOSE = 1e8
"""A condition number from which the parameters are reported as loose."""

NUM_STARTS = 3
MAX_EVALUATIONS = 200
COARSE, FINE = 1e-2, 1e-4
"""Relative decrease of the cost at which the minimiser stops, among starts and at the end; below
the usual noises the fine one shrinks with the noise, since the data then has more digits."""


@dataclass(frozen=True)
class Start:
    """Where a fit to nearly the same rows ended: a point to begin from, and the noise to keep."""

    theta: np.ndarray
    noise: float


@dataclass(frozen=True)
class Solution:
    """Parameters (p,) and how they were reached; see `base.Diagnostics`."""

    theta: np.ndarray
    noise: float
    rmse: float
    condition: float
    warnings: tuple[str, ...]


class _Problem:
    """Residuals and Jacobian of one (law, rows) with the prior as extra rows."""

    def __init__(self, law: Law, points: Points, y: np.ndarray):
        self.law, self.points, self.y = law, points, y
        self.spread = float(np.std(y))
        self.mean, sd = law.prior(points, y)
        self.held = np.flatnonzero(np.isfinite(sd))
        self.prior_rows = np.zeros((len(self.held), len(sd)))
        self.prior_rows[np.arange(len(self.held)), self.held] = 1 / sd[self.held]
        self._at: bytes | None = None
        self._rows: tuple[np.ndarray, np.ndarray] = (self.y, self.prior_rows)

    def _evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unweighted residuals (n,) and Jacobian (n, p), in units of the spread.

        Cached, since the minimiser asks for both at the same theta.
        """
        key = theta.tobytes()
        if key != self._at:
            values, jacobian = self.law.evaluate(theta, self.points)
            self._rows = ((values - self.y) / self.spread, jacobian / self.spread)
            self._at = key
        return self._rows

    def residuals(self, theta: np.ndarray, noise: float) -> np.ndarray:
        """Weighted residuals, prior rows last."""
        prior = self.prior_rows @ (theta - self.mean)
        return np.concatenate([self._evaluate(theta)[0] * noise**-0.5, prior])

    def jacobian(self, theta: np.ndarray, noise: float) -> np.ndarray:
        """Weighted Jacobian, prior rows last."""
        return np.concatenate([self._evaluate(theta)[1] * noise**-0.5, self.prior_rows])

    def minimise(
        self, theta: np.ndarray, noise: float, tolerance: float = FINE
    ) -> tuple[np.ndarray, float]:
        """A local minimum (p,) and its cost."""
        tolerance *= min(1.0, (noise / NOISES[FIRST_NOISE]) ** 2)
        from scipy.optimize import leastsq  # a quarter second that reading a fit need not pay

        tolerance = max(tolerance, 1e-14)
        # `leastsq` is MINPACK's lmder as `least_squares(method="lm")` is, without a wrapper that
        # takes as long as our small problems.
        found, _, outcome, _, _ = leastsq(  # pyright: ignore[reportAssignmentType]
            lambda t: self.residuals(t, noise),
            theta,
            Dfun=lambda t: self.jacobian(t, noise),
            full_output=True,
            ftol=tolerance,
            xtol=tolerance,
            gtol=1e-14,
            maxfev=MAX_EVALUATIONS,
        )
        return found, 0.5 * float(outcome["fvec"] @ outcome["fvec"])

    def left_out_error(self, theta: np.ndarray, noise: float, blocks: list[np.ndarray]) -> float:
        """Mean squared error of each mixture's rows when that mixture is left out, to first order.

        With the hat matrix H of the linearised fit, leaving out rows g changes their residuals
        from e_g to (I - H_gg)^-1 e_g.
        """
        residuals, jacobian = self.residuals(theta, noise), self.jacobian(theta, noise)
        n = len(self.y)
        q = np.linalg.qr(jacobian)[0][:n]
        total = 0.0
        for block in blocks:  # (groups, rows in each)
            part = q[block]
            kept = np.eye(block.shape[1]) * (1 + 1e-9) - part @ part.transpose(0, 2, 1)
            left_out = np.linalg.solve(kept, residuals[block][..., None])
            total += float(np.sum(left_out**2))
        return total * noise / n

    def condition(self, theta: np.ndarray, noise: float) -> float:
        """Condition number of the weighted Jacobian with unit columns."""
        jacobian = self.jacobian(theta, noise)
        lengths = np.linalg.norm(jacobian, axis=0)
        if not np.all(lengths > 0):
            return float("inf")
        singular = np.linalg.svd(jacobian / lengths, compute_uv=False)
        return float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf")


def _blocks(groups: np.ndarray) -> list[np.ndarray]:
    """Row indices of each group, stacked by group size: a list of (groups, size) arrays."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    sizes = sorted({len(rows) for rows in members})
    return [np.stack([rows for rows in members if len(rows) == size]) for size in sizes]


def solve(
    law: Law,
    points: Points,
    y: np.ndarray,
    *,
    groups: np.ndarray,
    seed: int = 0,
    warm: Start | None = None,
) -> Solution:
    """Fit theta, choosing the noise on the way.

    Args:
        points: n points; y: (n,) observed values, not all equal.
        groups: (n,) integers, equal for rows left out together.
        seed: of the starting points.
        warm: begin here only, and keep its noise: a trait of the target, not of the rows.
    """
    problem = _Problem(law, points, y)
    if warm is None:
        rng, noise = np.random.default_rng(seed), NOISES[FIRST_NOISE]
        starts = [problem.mean] + [law.start(points, y, rng) for _ in range(NUM_STARTS - 1)]
        found = [problem.minimise(start, noise, COARSE) for start in starts]
        theta = problem.minimise(min(found, key=lambda pair: pair[1])[0], noise)[0]
        theta, noise = _choose_noise(problem, theta, FIRST_NOISE, _blocks(groups))
    else:
        noise = warm.noise
        theta = problem.minimise(warm.theta, noise)[0]
    condition = problem.condition(theta, noise)
    residuals = law.predict(theta, points) - y
    warnings = ()
    if condition > LOOSE:
        warnings = (f"law {law.name}: loose parameters, condition number {condition:.1e}",)
    return Solution(theta, noise, float(np.sqrt(np.mean(residuals**2))), condition, warnings)


def _choose_noise(
    problem: _Problem, theta: np.ndarray, step: int, blocks: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Walk along `NOISES` from `step`, towards less noise, else more, while the error falls."""
    error = problem.left_out_error(theta, NOISES[step], blocks)
    first = step
    for direction, share in ((1, CLEAR_GAIN), (-1, 1.0)):
        while 0 <= step + direction < len(NOISES):
            trial = problem.minimise(theta, NOISES[step + direction])[0]
            trial_error = problem.left_out_error(trial, NOISES[step + direction], blocks)
            if not trial_error < share * error:
                break
            step, theta, error = step + direction, trial, trial_error
        if step != first:
            break  # it fell on this side, so the other side is worse
    return theta, NOISES[step]
