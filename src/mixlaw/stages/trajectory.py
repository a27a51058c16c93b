"""Fit the steps between checkpoints to the mixture and the loss at the start of the step.

Shapes: k steps, S stages, M domains, T targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixlaw.errors import FitError
from mixlaw.runs import RunTable
from mixlaw.stages.effects import Trajectory, faded_length
from mixlaw.stages.points import StagePoints

FADES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
STRENGTHS = tuple(10.0**power for power in range(-5, 3))
"""Ridge strengths tried, over the number of steps, for features of unit variance."""

FEWEST_STEPS = 8


@dataclass(frozen=True, eq=False)
class Steps:
    """Pairs of neighbouring checkpoints of one run.

    Attributes:
        before, after: (k,) rows of the table.
        length: (k,) log of the ratio of their tokens, > 0.
    """

    before: np.ndarray
    after: np.ndarray
    length: np.ndarray


def steps_of(runs: RunTable) -> Steps:
    """Every step that the table's trajectories show."""
    keys = np.stack([np.unique(runs.run, return_inverse=True)[1].reshape(-1)])
    order = np.lexsort((runs.train_tokens, keys[0]))
    before, after = order[:-1], order[1:]
    length = np.log(runs.train_tokens[after] / runs.train_tokens[before])
    same = (keys[0][before] == keys[0][after]) & (length > 0)  # also false for unknown tokens
    return Steps(before[same], after[same], length[same])


def fit_trajectory(runs: RunTable, targets: tuple[str, ...]) -> Trajectory:
    """Ridge regression of the steps; the strength and how fast a log loss fades (`FADES`) are each
    target's own, by leave-one-step-out error.

    Args: runs: finished rows, static and staged.
    Raises: FitError: fewer than `FEWEST_STEPS` steps with a value of some target.
    """
    steps, at = steps_of(runs), StagePoints.of_table(runs)
    later = at.select(steps.after)
    size = np.log(runs.num_params[steps.after])
    size = np.where(np.isfinite(size), size - np.nanmean(size), 0.0) if len(size) else size
    pull, fade = np.zeros((len(targets), len(runs.domains))), np.zeros(len(targets))
    for t, target in enumerate(targets):
        values = np.log(runs.column(target))
        start, end = values[steps.before], values[steps.after]
        known = np.isfinite(start) & np.isfinite(end)
        if known.sum() < FEWEST_STEPS:
            raise FitError(
                f"the trajectory form needs at least {FEWEST_STEPS} steps from one horizon to the "
                f"next, {target!r} has {known.sum()}; measure runs at several horizons"
            )
        best = np.inf
        for candidate in FADES:
            features = _features(later, size, steps.length, candidate)[known]
            aim = end - np.exp(-candidate * steps.length) * start
            error, slopes = _ridge(features, aim[known])
            if error < best:
                best, fade[t], pull[t] = error, candidate, slopes[: len(runs.domains)]
    return Trajectory(pull, fade, float(np.nanmin(runs.train_tokens)))


def _features(later: StagePoints, size: np.ndarray, length: np.ndarray, fade: float) -> np.ndarray:
    """(k, M + 2): what the step's mixtures, log size and the constant are multiplied with."""
    first = np.exp(-length)[:, None]
    begin, end = np.log(np.maximum(later.starts, first)), np.log(np.maximum(later.ends, first))
    kernel = faded_length(begin, end, np.array(fade))
    mixtures = np.einsum("ks,ksm->km", kernel, later.mixtures)
    whole = kernel.sum(axis=1)
    return np.column_stack([mixtures, whole * size, whole])


def _ridge(features: np.ndarray, aim: np.ndarray) -> tuple[float, np.ndarray]:
    """Leave-one-out mean squared error and slopes of the best strength; the last feature, the
    constant, is not shrunk."""
    scale = np.maximum(features.std(axis=0), 1e-12)
    scale[-1] = max(float(np.abs(features[:, -1]).mean()), 1e-12)
    scaled = features / scale
    products, right = scaled.T @ scaled, scaled.T @ aim
    free = np.append(np.ones(features.shape[1] - 1), 0.0)
    best, slopes = np.inf, np.zeros(features.shape[1])
    for strength in STRENGTHS:
        inverse = np.linalg.pinv(products + np.diag(strength * len(aim) * free), hermitian=True)
        found = inverse @ right
        leverage = np.einsum("kf,fg,kg->k", scaled, inverse, scaled)
        left_out = (aim - scaled @ found) / np.maximum(1 - leverage, 1e-6)
        error = float(np.mean(left_out**2))
        if error < best:
            best, slopes = error, found / scale
    return best, slopes
