"""Learning a prior: how strongly parameters are held, from all targets together."""

from __future__ import annotations

import numpy as np

from mixlaw.laws.problems import Problems

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


def learn_prior(
    problems: Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray, rounds: int
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
        theta = robust(problems, theta, which, noise, 2)
        if round_ < rounds - 1 and len(pooled) and len(which) > 1:
            _pool(problems, theta, which, noise, pooled)
    return theta, noise


def _share_exponents(
    problems: Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray
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
    # A parameter that ran off leaves no variance within the digits: nothing is known of it.
    variance = np.where(variance > 0, variance, np.inf)
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
        self, problems: Problems, theta: np.ndarray, which: np.ndarray, groups: np.ndarray
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


def robust(
    problems: Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray, times: int
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
    problems: Problems,
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
