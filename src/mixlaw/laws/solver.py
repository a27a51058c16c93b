"""Maximum a posteriori by Levenberg-Marquardt, with its prior strength by leave-one-out; batched.

    minimise  sum_n u_n (log(f(theta)_n / y_n) / s)^2 / noise  +  (theta - m)' P (theta - m)

`u` is the weight of a row, `s` the spread of the target's logarithm and `noise` the variance of an
observation as a share of s^2. Errors are relative, since losses are positive and noise and misfit
grow with them (docs/decisions.md). A fixed noise is wrong on one table or another, so it is chosen
per problem by the squared error of approximate leave-one-mixture-out, walking down `NOISES` while
that error falls. A law that learns its prior has it learned from all targets together.

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.laws.learning import REFINING, ROUNDS, learn_prior, robust
from mixlaw.laws.problems import COARSE, FIRST_NOISE, NOISES, Problems, inverse_root

if TYPE_CHECKING:
    from mixlaw.laws.base import Law
    from mixlaw.laws.batch import Batch

CLEAR_GAIN = 0.98
"""A weaker prior must lower the left-out error to this share: ties go to the stronger one."""

ENOUGH_ROWS = 160
"""Rows of a table of one scale on which starts, noise and prior are sought before all are used."""

NUM_STARTS = 3


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
    problems = Problems(law, batch)
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
        for which, rounds in ((walked, ROUNDS), (begun, REFINING)):
            if len(which):
                found = learn_prior(problems, theta[which], which, noise[which], rounds)
                theta[which], noise[which] = found
                for b in which.tolist():
                    priors[b] = Prior(problems.mean[b], problems.precision[b])
        if len(kept) and np.any(law.learned(problems.points) >= 0):
            theta[kept] = robust(problems, theta[kept], kept, noise[kept], 1)
    return Solution(
        theta, noise, problems.rmse(theta), problems.condition(theta, noise), tuple(priors)
    )


def leverage(law: Law, batch: Batch, theta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(B, n) diagonal of the hat matrix of the linearised fit: how much each row decides its own
    prediction; 0 where not used. Under the law's own prior, theta (B, p) and noise (B,)."""
    problems = Problems(law, batch)
    out = np.zeros(batch.use.shape)
    every = np.arange(len(batch))
    _, _, matrix = problems.normal(theta, every, noise)
    root = inverse_root(matrix * noise[:, None, None])
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


def _multistart(problems: Problems, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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
    problems: Problems, theta: np.ndarray, which: np.ndarray, noise: np.ndarray
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
