"""Maximum a posteriori by Levenberg-Marquardt, with its prior strength by leave-one-out; batched.

    minimise  sum_n u_n (log(f(theta)_n / y_n) / s)^2 / noise  +  (theta - m)' P (theta - m)

`u` is the weight of a row, `s` the spread of the target's logarithm and `noise` the variance of an
observation as a share of s^2. Errors are relative, since losses are positive and noise and misfit
grow with them (docs/decisions.md). A fixed noise is wrong on one table or another, so it is chosen
per problem by the squared error of approximate leave-one-mixture-out, walking down `NOISES` while
that error falls. A law that learns its prior has it learned from all targets together.

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
    from mixlaw.laws.points import Points

NOISES = (25.0, 5.0, 1.0, 0.2, 0.04, 8e-3, 1.6e-3, 3e-4, 1e-5, 1e-7, 1e-9)
FIRST_NOISE = 5
"""Index of the noise tried first; the smallest are only reached by (nearly) noise-free data."""

CLEAR_GAIN = 0.98
"""A weaker prior must lower the left-out error to this share: ties go to the stronger one."""

ENOUGH_ROWS = 160
"""Rows of a table of one scale on which starts, noise and prior are sought before all are used."""

NUM_STARTS = 3
MAX_STEPS = 100
COARSE, FINE = 1e-2, 1e-4
"""Relative decrease of the cost at which the minimiser stops, among starts and at the end; below
the usual noises the fine one shrinks with the noise, since the data then has more digits."""

FIRST_DAMPING, MOST_DAMPING = 1e-3, 1e10

CHUNK = 300_000
"""Numbers of a Jacobian formed at a time: it should stay in cache."""


@dataclass(frozen=True)
class Prior:
    """A Gaussian over theta: mean (p,), precision (p, p)."""

    mean: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True)
class Start:
    """Where a fit to nearly the same rows ended.

    Attributes:
        theta: (p,), a point to begin from.
        noise: to begin the choice from, or to keep.
        prior: that was learned, to keep together with the noise; None: the law's own.
        keep: take noise and prior as they are, as a resample of the same rows may.
    """

    theta: np.ndarray
    noise: float
    prior: Prior | None = None
    keep: bool = False


@dataclass(frozen=True)
class Solution:
    """Parameters (B, p) and how they were reached (B,); see `base.Diagnostics`.

    Attributes:
        priors: B learned priors; None where the law's own was used.
    """

    theta: np.ndarray
    noise: np.ndarray
    rmse: np.ndarray
    condition: np.ndarray
    priors: tuple[Prior | None, ...]


class _Problems:
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
    """Fit theta for every problem, choosing noise and prior on the way.

    Args:
        batch: B problems; no constant target. Those that begin nowhere are taken to be targets of
            one table, from which a law that can learns its prior.
        seed: of the random starting points.
        starts: where to begin, one per problem; default (and for None): the prior's mean and
            random points around it, of which the best is kept.
    """
    starts = list(starts or [None] * len(batch))
    if len(batch.points) > 1.5 * ENOUGH_ROWS and not law.axes:
        starts = _start_on_some_rows(law, batch, starts, seed)
    problems = _Problems(law, batch)
    theta, noise = problems.mean.copy(), np.empty(len(batch))
    cold, warm, kept = ([b for b in range(len(batch)) if _kind(starts[b]) == k] for k in range(3))
    for b in [*warm, *kept]:
        start = starts[b]
        assert start is not None
        theta[b], noise[b] = start.theta, start.noise
        if start.prior is not None:
            problems.mean[b], problems.precision[b] = start.prior.mean, start.prior.precision
    cold, warm, kept = (np.array(which, int) for which in (cold, warm, kept))
    if len(cold):
        theta[cold] = _multistart(problems, cold, np.random.default_rng(seed))
        noise[cold] = NOISES[FIRST_NOISE]
    theta, _ = problems.minimise(theta, np.arange(len(batch)), noise)
    begun = np.array([b for b in warm if starts[b].prior is not None], int)  # a prior to refine
    walked = np.setdiff1d(np.concatenate([cold, warm]), begun)
    if len(walked):
        theta[walked], noise[walked] = _choose_noise(problems, theta[walked], walked, noise[walked])
    priors: list[Prior | None] = [start and start.prior for start in starts]
    if law.learns_prior:
        for which, rounds in ((cold, ROUNDS), (begun, REFINING)):
            if len(which):
                found = _learn_prior(problems, theta[which], which, noise[which], rounds)
                theta[which], noise[which] = found
                for b in which.tolist():
                    priors[b] = Prior(problems.mean[b], problems.precision[b])
        if len(kept):
            theta[kept] = _robust(problems, theta[kept], kept, noise[kept], 1)
    return Solution(
        theta, noise, problems.rmse(theta), problems.condition(theta, noise), tuple(priors)
    )


def leverage(law: Law, batch: Batch, theta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(B, n) diagonal of the hat matrix of the linearised fit: how much each row decides its own
    prediction; 0 where not used. Under the law's own prior, theta (B, p) and noise (B,)."""
    problems = _Problems(law, batch)
    out = np.zeros(batch.use.shape)
    every = np.arange(len(batch))
    _, _, matrix = problems.normal(theta, every, noise)
    root = _inverse_root(matrix * noise[:, None, None])
    for part, rows in problems.chunks(every):
        _, jacobian = problems.residuals(theta[part], every[part], rows)
        out[part, rows] = ((jacobian @ root[part]) ** 2).sum(axis=2)
    return out


def _start_on_some_rows(
    law: Law, batch: Batch, starts: list[Start | None], seed: int
) -> list[Start | None]:
    """Starts for those who have none, from a fit to fewer rows, which finds the valley as well."""
    cold = [b for b, start in enumerate(starts) if start is None]
    if not cold:
        return starts
    rows = np.random.default_rng(seed).permutation(len(batch.points))[:ENOUGH_ROWS]
    some = batch.select(cold).rows(np.sort(rows))
    if np.any((some.use > 0).sum(axis=1) < ENOUGH_ROWS // 2):
        return starts  # a target with few values: it needs all of them
    found = solve(law, some, seed=seed)
    for k, b in enumerate(cold):
        starts[b] = Start(found.theta[k], float(found.noise[k]), found.priors[k])
    return starts


def _kind(start: Start | None) -> int:
    """0: begins nowhere; 1: begins somewhere; 2: keeps its noise and prior."""
    return 0 if start is None else 1 + start.keep


def _multistart(problems: _Problems, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The best (b, p) of a few coarse minima: from the prior's mean and from draws around it."""
    mean = problems.mean[which]
    sd = np.minimum(problems.sd[which], 1.0)
    # The same draws for every problem, so that a target's fit does not depend on its neighbours.
    draws = rng.normal(size=(NUM_STARTS - 1, 1, mean.shape[1]))
    starts = np.concatenate([mean[None], mean + sd * draws])
    every = np.tile(which, NUM_STARTS)
    noise = np.full(len(every), NOISES[FIRST_NOISE])
    theta, cost = problems.minimise(starts.reshape(-1, mean.shape[1]), every, noise, COARSE)
    best = np.argmin(cost.reshape(NUM_STARTS, -1), axis=0)
    return theta.reshape(NUM_STARTS, *mean.shape)[best, np.arange(len(which))]


def _choose_noise(
    problems: _Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Walk each problem along `NOISES` from its present one, towards less noise, else more, while
    its left-out error falls."""
    noises, theta = np.array(NOISES), theta.copy()
    step = np.argmin(np.abs(np.log(noises[:, None] / noise)), axis=0)
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


# Learning a prior: how strongly groups of parameters are held, from the targets together.

ROUNDS, REFINING = 3, 2
"""Rounds of learning from nothing, and from a prior that was learned on fewer rows."""

LEARNED_SD = 1.0
"""Of the log of a learned quantity around its mean over the targets."""

NOISE_MEAN, NOISE_SD = np.log(0.01), 2.0
FACTOR_SD = 1.0
"""What is expected of those means: the noise, and the factor on a group's prior sd."""

FACTOR_BOUNDS, NOISE_BOUNDS = (-5.0, 4.0), (np.log(2e-6), np.log(2.0))
WIDE = 5.0
"""Prior sd that stands for a free parameter in the evidence, which needs a proper prior."""

POOLED_MEAN_SD = 0.5
STUDENT = 6.0
"""Degrees of freedom of the residuals; a row four sigmas off counts a third."""


def _learn_prior(
    problems: _Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Empirical Bayes: noise and the size of each learned group of every problem by the evidence
    of the linearised model (Laplace), each shrunk to its mean over the problems; then the mean and
    covariance of the pooled parameters over the problems by expectation maximisation."""
    law = problems.law
    _share_exponents(problems, theta, which, noise)
    groups, pooled = law.learned(problems.points), law.pooled(problems.points)
    if groups.max() < 0:
        return problems.minimise(theta, which, noise)[0], noise
    factors = np.zeros((len(which), groups.max() + 1))
    for round_ in range(rounds):
        evidence = _Evidence(problems, theta, which, groups)
        noise, factors = evidence.maximise(np.log(noise), factors)
        problems.precision[which] = evidence.precision(factors)
        theta, _ = problems.minimise(theta, which, noise)
        theta = _robust(problems, theta, which, noise, 2)
        if round_ < rounds - 1 and len(pooled) and len(which) > 1:
            _pool(problems, theta, which, noise, pooled)
    return theta, noise


def _share_exponents(
    problems: _Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray
) -> None:
    """Move the prior means of parameters that are alike over targets to what the targets say.

    Their mean, each target weighted by how well it knows its own, held by the law's prior as if
    every target had said that too: targets of the same runs are no independent evidence.
    """
    between = problems.law.alike(problems.points)
    alike = np.flatnonzero(np.isfinite(between))
    if len(alike) == 0:
        return
    _, _, matrix = problems.normal(theta, which, noise)
    variance = np.diagonal(np.linalg.inv(matrix), axis1=1, axis2=2)[:, alike]
    own = problems.precision[which][:, alike, alike]
    known = np.maximum(1 / variance - own, 1e-12)  # what the data say, without the prior
    said = problems.mean[which][:, alike] + (theta - problems.mean[which])[:, alike] / (
        known * variance
    )
    weight = 1 / (1 / known + between[alike] ** 2)
    prior = problems.mean[which][:, alike]
    mean = (weight * said + own * prior).sum(axis=0) / (weight + own).sum(axis=0)
    problems.mean[np.ix_(which, alike)] = mean
    problems.precision[which[:, None], alike, alike] = between[alike] ** -2.0


class _Evidence:
    """The evidence of B linearised problems as a function of noise and group factors."""

    def __init__(
        self, problems: _Problems, theta: np.ndarray, which: np.ndarray, groups: np.ndarray
    ):
        p = theta.shape[1]
        ones = np.ones(len(which))
        cost, gradient, matrix = problems.normal(theta, which, ones)
        offset = theta - problems.mean[which]
        fixed = problems.precision[which]
        pull = (fixed @ offset[:, :, None])[:, :, 0]
        # J^T J, J^T z and z^T z of z = J (theta - mean) - residual
        self.square = matrix - fixed
        along = (self.square @ offset[:, :, None])[:, :, 0]
        self.projected = along - (gradient - pull)
        residual = cost - (offset * pull).sum(axis=1)
        self.total = residual - 2 * ((gradient - pull) * offset).sum(1) + (along * offset).sum(1)
        self.count = (problems.use[which] > 0).sum(axis=1)
        self.groups, self.diagonal = groups, np.arange(p)
        self.sd = np.where(np.isfinite(problems.sd[which]), problems.sd[which], WIDE)
        self.fixed = fixed.copy()
        self.fixed[:, self.diagonal, self.diagonal] += np.where(
            np.isfinite(problems.sd[which]), 0.0, WIDE**-2
        )

    def precision(self, factors: np.ndarray) -> np.ndarray:
        """(B, p, p) with the learned groups' sds times exp(factors (B, groups))."""
        out = self.fixed.copy()
        learned = np.flatnonzero(self.groups >= 0)
        sd = self.sd[:, learned] * np.exp(factors[:, self.groups[learned]])
        out[:, learned, learned] = sd**-2
        return out

    def log(self, log_noise: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """(B,), but for constants."""
        noise = np.exp(log_noise)
        matrix = self.precision(factors) + self.square / noise[:, None, None]
        values = np.linalg.cholesky(matrix + 1e-12 * np.eye(matrix.shape[1]))
        half = np.linalg.solve(matrix, self.projected[:, :, None])[:, :, 0] / noise[:, None]
        fit = self.total / noise - (half * self.projected).sum(axis=1) / noise
        sizes = np.bincount(self.groups[self.groups >= 0], minlength=factors.shape[1])
        log_prior = -2 * (factors * sizes).sum(axis=1)
        log_det = 2 * np.log(np.diagonal(values, axis1=1, axis2=2)).sum(axis=1)
        return -0.5 * (self.count * log_noise + log_det - log_prior + fit)

    def maximise(self, log_noise: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Noise (B,) and factors (B, groups), by a pattern search over all problems at once."""
        at = np.column_stack([log_noise, factors])
        expected = np.array([NOISE_MEAN] + [0.0] * factors.shape[1])
        expected_sd = np.array([NOISE_SD] + [FACTOR_SD] * factors.shape[1])
        low, high = np.array([NOISE_BOUNDS] + [FACTOR_BOUNDS] * factors.shape[1]).T

        def posterior(point: np.ndarray, mean: np.ndarray) -> np.ndarray:
            return self.log(point[:, 0], point[:, 1:]) - 0.5 * np.sum(
                ((point - mean) / LEARNED_SD) ** 2, axis=1
            )

        for step in (1.0, 0.5, 0.25):
            weight = len(at) / LEARNED_SD**2
            mean = (at.sum(axis=0) / LEARNED_SD**2 + expected / expected_sd**2) / (
                weight + expected_sd**-2.0
            )
            best = posterior(at, mean)
            for _ in range(3):
                moved = False
                for axis in range(at.shape[1]):
                    for sign in (1, -1):
                        trial = at.copy()
                        trial[:, axis] = np.clip(
                            trial[:, axis] + sign * step, low[axis], high[axis]
                        )
                        value = posterior(trial, mean)
                        better = value > best
                        at[better], best[better] = trial[better], value[better]
                        moved |= bool(better.any())
                if not moved:
                    break
        return np.exp(at[:, 0]), at[:, 1:]


def _robust(
    problems: _Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray, times: int
) -> np.ndarray:
    """Refit with rows weighted as Student residuals are (iteratively reweighted least squares)."""
    for _ in range(times):
        problems.robust[which] = 1.0
        squares = np.empty((len(which), problems.log_y.shape[1]))
        for part, rows in problems.chunks(which):
            squares[part, rows] = problems.residuals(theta[part], which[part], rows)[0] ** 2
        problems.robust[which] = (STUDENT + 1) / (STUDENT + squares / noise[:, None])
        theta, _ = problems.minimise(theta, which, noise)
    return theta


def _pool(
    problems: _Problems,
    theta: np.ndarray,
    which: np.ndarray,
    noise: np.ndarray,
    pooled: np.ndarray,
) -> None:
    """Set the prior of the pooled parameters to their mean and covariance over the problems.

    A target's own domain is not pooled: its entry is filled in from the others. The covariance is
    drawn towards one by twice as many imagined targets as there are parameters.
    """
    _, _, matrix = problems.normal(theta, which, noise)
    spread = np.linalg.inv(matrix)[:, pooled][:, :, pooled]
    values = theta[:, pooled].copy()
    mean = np.zeros(len(pooled))
    covariance = np.eye(len(pooled))
    own = problems.own[which]
    for b in np.flatnonzero(own >= 0):
        spread[b, 1 + own[b], :] = spread[b, :, 1 + own[b]] = 0.0
    for _ in range(2):
        for b in np.flatnonzero(own >= 0):
            k = 1 + own[b]
            rest = np.delete(np.arange(len(pooled)), k)
            slope = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest, k])
            values[b, k] = mean[k] + slope @ (values[b, rest] - mean[rest])
            spread[b, k, k] = covariance[k, k] - slope @ covariance[rest, k]
        inverse = np.linalg.inv(covariance)
        mean = np.linalg.solve(
            len(values) * inverse + np.eye(len(pooled)) / POOLED_MEAN_SD**2,
            inverse @ values.sum(axis=0),
        )
        around = values - mean
        imagined = 2 * len(pooled)
        scatter = around.T @ around + spread.sum(axis=0)
        covariance = (imagined * np.eye(len(pooled)) + scatter) / (imagined + len(values))
    for b, problem in enumerate(which.tolist()):
        prior_mean, prior = mean.copy(), covariance.copy()
        if own[b] >= 0:
            k = 1 + own[b]
            prior_mean[k] = 0.0
            prior[k, :] = prior[:, k] = 0.0
            prior[k, k] = problems.sd[problem, pooled[k]] ** 2
        problems.mean[problem, pooled] = prior_mean
        problems.precision[np.ix_([problem], pooled, pooled)] = np.linalg.inv(prior)
