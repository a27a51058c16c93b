"""Levenberg-Marquardt for many problems of one law at once.

Normal equations are formed for as many problems and rows at a time as fit in cache, so memory is
bounded and no loop runs over targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixlaw.laws.base import Law
    from mixlaw.laws.batch import Batch
    from mixlaw.laws.points import Points

NOISES = (25.0, 5.0, 1.0, 0.2, 0.04, 8e-3, 1.6e-3, 3e-4, 1e-5, 1e-7, 1e-9)
FIRST_NOISE = 5
"""Index of the noise tried first; the smallest are only reached by (nearly) noise-free data."""

MAX_STEPS = 100
COARSE, FINE = 1e-2, 1e-4
"""Relative decrease of the cost at which the minimiser stops, among starts and at the end; below
the usual noises the fine one shrinks with the noise, since the data then has more digits."""

FIRST_DAMPING, MOST_DAMPING = 1e-3, 1e10

CHUNK = 300_000
"""Numbers of a Jacobian formed at a time: it should stay in cache."""


class Problems:
    """Normal equations of B problems of one law."""

    def __init__(self, law: Law, batch: Batch):
        self.law, self.points, self.use = law, batch.points, batch.use
        self.log_y = np.log(np.where(batch.use > 0, batch.y, 1.0))
        self.own = batch.own
        total = self.use.sum(axis=1)
        level = (self.use * self.log_y).sum(axis=1) / total
        deviation = self.log_y - level[:, None]
        self.spread = np.sqrt((self.use * deviation**2).sum(axis=1) / total)
        self.total = total
        self.mean, self.sd = self.law_of(np.arange(len(batch))).prior(self.points, np.exp(level))
        self.precision = np.zeros((*self.mean.shape, self.mean.shape[1]))
        diagonal = np.arange(self.mean.shape[1])
        self.precision[:, diagonal, diagonal] = self.sd**-2.0
        self.robust = np.ones_like(self.use)
        groups = np.unique(batch.mixture_ids, return_inverse=True)[1]
        self.blocks = _blocks(groups)
        self.parts: dict[tuple[int, int], Points] = {}

    def law_of(self, which: np.ndarray) -> Law:
        """The law specialised to some of the problems."""
        return self.law.for_targets(self.own[which])

    def chunks(self, which: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """Slices of `which` and of the rows whose Jacobians are small enough."""
        n, p = self.log_y.shape[1], self.mean.shape[1]
        rows = max(1, min(n, CHUNK // p))
        problems = max(1, CHUNK // (rows * p))
        for first in range(0, len(which), problems):
            for row in range(0, n, rows):
                yield slice(first, first + problems), slice(row, row + rows)

    def part(self, rows: slice) -> Points:
        """The points of a slice of rows, kept with what they cache: every step asks for them."""
        if rows.start == 0 and rows.stop >= len(self.points):
            return self.points
        if (rows.start, rows.stop) not in self.parts:
            self.parts[rows.start, rows.stop] = self.points.select(rows)
        return self.parts[rows.start, rows.stop]

    def residuals(
        self, theta: np.ndarray, which: np.ndarray, rows: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (b, rows) of the logarithm and their Jacobian (b, rows, p), in units of the
        spread, times sqrt(use)."""
        values, jacobian = self.law_of(which).evaluate(theta, self.part(rows))
        weight = self.use[which, rows] * self.robust[which, rows]
        use = np.sqrt(weight) / self.spread[which, None]
        residual = (np.log(values) - self.log_y[which, rows]) * use
        return residual, jacobian * (use / values)[:, :, None]

    def normal(self, theta: np.ndarray, which: np.ndarray, noise: np.ndarray):
        """Cost (b,), its half gradient (b, p) and Gauss-Newton matrix (b, p, p)."""
        offset = theta - self.mean[which]
        matrix = self.precision[which]
        gradient = (matrix @ offset[:, :, None])[:, :, 0]
        cost = (offset * gradient).sum(axis=1)
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
            inverse = inverse_root(matrix[part] * noise[part, None, None])
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
            values = self.law_of(every[part]).value(theta[part], self.points.select(rows))
            error = values - np.exp(self.log_y[part, rows])
            total[part] += (self.use[part, rows] * error**2).sum(axis=1)
        return np.sqrt(total / self.total)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions (b, p) of positive definite systems."""
    try:
        return np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:  # one of them is singular to the last digit
        return np.stack(
            [np.linalg.lstsq(m, r, rcond=None)[0] for m, r in zip(matrix, right, strict=True)]
        )


def inverse_root(matrix: np.ndarray) -> np.ndarray:
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
