"""Maximum a posteriori by Levenberg-Marquardt, with its prior strength by leave-one-out; batched.

    minimise  sum_n u_n ((f(theta)_n - y_n) / s)^2 / noise  +  sum_k ((theta_k - mean_k) / sd_k)^2

`u` is the weight of a row, `s` the target's spread and `noise` the variance of an observation as a
share of s^2. A fixed noise is wrong on one table or another, so it is chosen per problem by the
squared error of approximate leave-one-mixture-out, walking down `NOISES` while that error falls.

All problems of a batch take their steps together: normal equations are formed for as many problems
and rows at a time as fit in cache, so memory is bounded and no loop runs over targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixlaw.laws.base import Batch, Law

NOISES = (25.0, 5.0, 1.0, 0.2, 0.04, 8e-3, 1.6e-3, 3e-4, 1e-5, 1e-7, 1e-9)
FIRST_NOISE = 5
"""Index of the noise tried first; the smallest are only reached by (nearly) noise-free data."""

CLEAR_GAIN = 0.98
"""A weaker prior must lower the left-out error to this share: ties go to the stronger one."""

NUM_STARTS = 3
MAX_STEPS = 100
COARSE, FINE = 1e-2, 1e-4
"""Relative decrease of the cost at which the minimiser stops, among starts and at the end; below
the usual noises the fine one shrinks with the noise, since the data then has more digits."""

FIRST_DAMPING, MOST_DAMPING = 1e-3, 1e10

CHUNK = 300_000
"""Numbers of a Jacobian formed at a time: it should stay in cache."""


@dataclass(frozen=True)
class Start:
    """Where a fit to nearly the same rows ended.

    Attributes:
        theta: (p,), a point to begin from.
        noise: to begin the choice from, or to keep.
        keep_noise: take the noise as it is, as a resample of the same rows may.
    """

    theta: np.ndarray
    noise: float
    keep_noise: bool = False


@dataclass(frozen=True)
class Solution:
    """Parameters (B, p) and how they were reached (B,); see `base.Diagnostics`."""

    theta: np.ndarray
    noise: np.ndarray
    rmse: np.ndarray
    condition: np.ndarray


class _Problems:
    """Normal equations of B problems of one law."""

    def __init__(self, law: Law, batch: Batch):
        self.law, self.points, self.y, self.use = law, batch.points, batch.y, batch.use
        self.own = batch.own if len(batch) and batch.own[0] >= 0 else None
        total = self.use.sum(axis=1)
        level = (self.use * self.y).sum(axis=1) / total
        deviation = np.where(self.use > 0, self.y - level[:, None], 0.0)
        self.spread = np.sqrt((self.use * deviation**2).sum(axis=1) / total)
        self.total = total
        self.level = level
        self.mean, sd = self.law_of(np.arange(len(batch))).prior(self.points, level)
        self.precision = sd**-2.0
        groups = np.unique(batch.mixture_ids, return_inverse=True)[1]
        self.blocks = _blocks(groups)

    def law_of(self, which: np.ndarray) -> Law:
        """The law specialised to some of the problems."""
        return self.law.for_targets(None if self.own is None else self.own[which])

    def chunks(self, which: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """Slices of `which` and of the rows whose Jacobians are small enough."""
        n, p = self.y.shape[1], self.mean.shape[1]
        rows = max(1, min(n, CHUNK // p))
        problems = max(1, CHUNK // (rows * p))
        for first in range(0, len(which), problems):
            for row in range(0, n, rows):
                yield slice(first, first + problems), slice(row, row + rows)

    def residuals(
        self, theta: np.ndarray, which: np.ndarray, rows: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (b, rows) and Jacobian (b, rows, p) in units of the spread, times sqrt(use)."""
        whole = rows.start == 0 and rows.stop >= len(self.points)
        points = self.points if whole else self.points.select(rows)
        values, jacobian = self.law_of(which).evaluate(theta, points)
        use = np.sqrt(self.use[which, rows]) / self.spread[which, None]
        residual = np.where(use > 0, (values - self.y[which, rows]) * use, 0.0)
        return residual, jacobian * use[:, :, None]

    def normal(self, theta: np.ndarray, which: np.ndarray, noise: np.ndarray):
        """Cost (b,), its half gradient (b, p) and Gauss-Newton matrix (b, p, p)."""
        offset = theta - self.mean[which]
        precision = self.precision[which]
        cost = (precision * offset**2).sum(axis=1)
        gradient = precision * offset
        p = theta.shape[1]
        matrix = np.zeros((len(theta), p, p))
        matrix[:, np.arange(p), np.arange(p)] = precision
        for part, rows in self.chunks(which):
            residual, jacobian = self.residuals(theta[part], which[part], rows)
            weight = 1 / noise[part]
            transposed = jacobian.transpose(0, 2, 1)
            cost[part] += weight * (residual**2).sum(axis=1)
            gradient[part] += weight[:, None] * (transposed @ residual[:, :, None])[:, :, 0]
            matrix[part] += weight[:, None, None] * (transposed @ jacobian)
        return cost, gradient, matrix

    def minimise(
        self, theta: np.ndarray, which: np.ndarray, noise: np.ndarray, tolerance: float = FINE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Local minima (b, p) from theta (b, p) and their costs (b,), for the problems `which`.

        Marquardt's scaling, Nielsen's damping (Madsen, Nielsen, Tingleff 2004, algorithm 3.16).
        """
        stop = np.maximum(tolerance * np.minimum(1.0, (noise / NOISES[FIRST_NOISE]) ** 2), 1e-14)
        theta = theta.copy()
        cost, gradient, matrix = self.normal(theta, which, noise)
        damping, growth = np.full(len(theta), FIRST_DAMPING), np.full(len(theta), 2.0)
        active = np.arange(len(theta))
        for _ in range(MAX_STEPS):
            scale = np.diagonal(matrix[active], axis1=1, axis2=2) + 1e-300
            damped = matrix[active].copy()
            diagonal = np.arange(theta.shape[1])
            damped[:, diagonal, diagonal] += damping[active, None] * scale
            step = -_solve(damped, gradient[active])
            # of the quadratic model, step.(damping * scale * step - gradient)
            promised = (step * (damping[active, None] * scale * step - gradient[active])).sum(1)
            trial = theta[active] + step
            trial_cost, trial_gradient, trial_matrix = self.normal(
                trial, which[active], noise[active]
            )
            fall = cost[active] - trial_cost
            better = fall > 0
            settled = promised <= stop[active] * cost[active]
            settled |= better & (fall <= stop[active] * cost[active])
            taken = active[better]
            theta[taken], cost[taken] = trial[better], trial_cost[better]
            gradient[taken], matrix[taken] = trial_gradient[better], trial_matrix[better]
            ratio = fall[better] / np.maximum(promised[better], 1e-300)
            damping[taken] *= np.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3)
            growth[taken] = 2.0
            refused = active[~better]
            damping[refused] *= growth[refused]
            growth[refused] *= 2
            active = active[~settled & (damping[active] < MOST_DAMPING)]
            if len(active) == 0:
                break
        return theta, cost

    def left_out_error(self, theta: np.ndarray, which: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(b,) mean squared error of each mixture's rows when that mixture is left out, to first
        order: with the hat matrix H of the linearised fit, leaving out rows g changes their
        residuals from e_g to (I - H_gg)^-1 e_g.
        """
        _, _, matrix = self.normal(theta, which, noise)
        p = theta.shape[1]
        total = np.zeros(len(theta))
        one = max(1, CHUNK // (p * len(self.points)))
        for first in range(0, len(theta), one):
            part = slice(first, first + one)
            residual, jacobian = self.residuals(
                theta[part], which[part], slice(0, len(self.points))
            )
            inverse = _inverse_root(matrix[part] * noise[part, None, None])
            q = jacobian @ inverse
            for block in self.blocks:
                total[part] += _left_out(residual[:, block], q[:, block])
        return total / self.total[which]

    def condition(self, theta: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(B,) condition numbers of the weighted Jacobian with unit columns."""
        _, _, matrix = self.normal(theta, np.arange(len(theta)), noise)
        length = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
        length = np.where(length > 0, length, np.inf)
        values = np.linalg.eigvalsh(matrix / (length[:, :, None] * length[:, None, :]))
        smallest = np.maximum(values[:, 0], values[:, -1] * 1e-17)
        return np.sqrt(values[:, -1] / smallest)

    def rmse(self, theta: np.ndarray) -> np.ndarray:
        """(B,) root mean squared residual in the target's unit."""
        every = np.arange(len(theta))
        total = np.zeros(len(theta))
        for part, rows in self.chunks(every):
            residual, _ = self.residuals(theta[part], every[part], rows)
            total[part] += (residual**2).sum(axis=1)
        return self.spread * np.sqrt(total / self.total)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions (b, p) of positive definite systems."""
    try:
        return np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:  # one of them is singular to the last digit
        return np.stack(
            [np.linalg.lstsq(m, r, rcond=None)[0] for m, r in zip(matrix, right, strict=True)]
        )


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """R (b, p, p) with R R^T the inverse of positive definite matrices."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, values[:, -1:] * 1e-16)
    return vectors * values[:, None, :] ** -0.5


def _left_out(residual: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(b,) summed squared left-out residuals of groups: residual (b, G, g), q (b, G, g, p)."""
    g, p = q.shape[2:]
    if g == 1:
        kept = 1 + 1e-9 - (q[:, :, 0] ** 2).sum(axis=2)
        return ((residual[:, :, 0] / np.maximum(kept, 1e-9)) ** 2).sum(axis=1)
    transposed = q.transpose(0, 1, 3, 2)
    if g <= p:
        kept = np.eye(g) * (1 + 1e-9) - q @ transposed
        left_out = np.linalg.solve(kept, residual[..., None])
    else:  # the same through the p by p matrix (Woodbury)
        kept = np.eye(p) * (1 + 1e-9) - transposed @ q
        inner = np.linalg.solve(kept, transposed @ residual[..., None])
        left_out = residual[..., None] + q @ inner
    return (left_out**2).sum(axis=(1, 2, 3))


def _blocks(groups: np.ndarray) -> list[np.ndarray]:
    """Row indices of each group, stacked by group size: a list of (groups, size) arrays."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    sizes = sorted({len(rows) for rows in members})
    return [np.stack([rows for rows in members if len(rows) == size]) for size in sizes]


def solve(
    law: Law, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
) -> Solution:
    """Fit theta for every problem, choosing the noise on the way.

    Args:
        batch: B problems, all with an own domain or all without; no constant target.
        seed: of the random starting points.
        starts: where to begin, one per problem; default (and for None): the prior's mean and
            random points around it, of which the best is kept.
    """
    problems = _Problems(law, batch)
    num_problems = len(batch)
    starts = starts or [None] * num_problems
    theta = problems.mean.copy()
    step = np.full(num_problems, FIRST_NOISE)
    kept: dict[int, float] = {}
    for b, start in enumerate(starts):
        if start is None:
            continue
        theta[b] = start.theta
        step[b] = int(np.argmin(np.abs(np.log(np.array(NOISES) / start.noise))))
        if start.keep_noise:
            kept[b] = start.noise
    cold = np.array([b for b, start in enumerate(starts) if start is None], int)
    if len(cold):
        theta[cold] = _multistart(problems, cold, np.random.default_rng(seed))
    noise = np.array(NOISES)[step]
    noise[list(kept)] = list(kept.values())
    theta, _ = problems.minimise(theta, np.arange(num_problems), noise)
    free = np.array([b for b in range(num_problems) if b not in kept], int)
    if len(free):
        theta[free], noise[free] = _choose_noise(problems, theta[free], free, step[free])
    return Solution(theta, noise, problems.rmse(theta), problems.condition(theta, noise))


def _multistart(problems: _Problems, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The best (b, p) of a few coarse minima: from the prior's mean and from draws around it."""
    mean = problems.mean[which]
    sd = 1 / np.sqrt(np.maximum(problems.precision[which], 1.0))
    # The same draws for every problem, so that a target's fit does not depend on its neighbours.
    draws = rng.normal(size=(NUM_STARTS - 1, 1, mean.shape[1]))
    starts = np.concatenate([mean[None], mean + sd * draws])
    every = np.tile(which, NUM_STARTS)
    noise = np.full(len(every), NOISES[FIRST_NOISE])
    theta, cost = problems.minimise(starts.reshape(-1, mean.shape[1]), every, noise, COARSE)
    best = np.argmin(cost.reshape(NUM_STARTS, -1), axis=0)
    return theta.reshape(NUM_STARTS, *mean.shape)[best, np.arange(len(which))]


def _choose_noise(
    problems: _Problems, theta: np.ndarray, which: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Walk each problem along `NOISES` from `step`, towards less noise, else more, while its
    left-out error falls."""
    noises, theta, step = np.array(NOISES), theta.copy(), step.copy()
    error = problems.left_out_error(theta, which, noises[step])
    first = step.copy()
    for direction, share in ((1, CLEAR_GAIN), (-1, 1.0)):
        walking = np.flatnonzero(step == first)
        while True:
            ahead = step[walking] + direction
            walking = walking[(ahead >= 0) & (ahead < len(noises))]
            if len(walking) == 0:
                break
            noise = noises[step[walking] + direction]
            trial, _ = problems.minimise(theta[walking], which[walking], noise)
            trial_error = problems.left_out_error(trial, which[walking], noise)
            better = trial_error < share * error[walking]
            moved = walking[better]
            theta[moved], error[moved] = trial[better], trial_error[better]
            step[moved] += direction
            walking = moved
    return theta, noises[step]
