"""A law with a Gaussian process over what it leaves over.

    y = law * exp(e),    e ~ GP with the kernel of `gaussian.Kernel` plus white noise

A formula's misfit is a property of the mixture that changes slowly with size, so what it missed at
the small sizes says what it will miss at the large one. On slimpajama, 310M to 937M, the errors of
the laws' forecasts less their mean fall by a fifth; the mean, the level of a size never seen, is
the formula's affair (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from mixlaw.laws.base import Fitted, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.gaussian import SAME_MIXTURE, Kernel, Process, squared_distances
from mixlaw.laws.page_form import Form, Scale
from mixlaw.laws.points import MIXTURE, NUM_PARAMS, Points, scale_levels
from mixlaw.laws.solver import Start

SUFFIX = "+gp"

LENGTHS = (0.2, 0.5, 0.9)
REACHES = (1.0, 3.0, 10.0, 30.0)
SHARES = ((1.0, 0.0), (1.0, 0.3), (1.0, 1.0), (0.3, 1.0), (0.0, 1.0))
"""(smooth, same); all but the first only where a mixture has several runs."""

WHITE = (0.1, 0.4, 1.0, 3.0)
"""Variance of white noise over that of the process."""

MARGIN = 2.0
"""Nats by which the process must explain a target better than white noise does, or it is left
away."""

FEWEST_RUNS, MOST_RUNS = 8, 700


class WithResidual(Recipe):
    """A recipe times the exponential of a Gaussian process over mixtures (and sizes, where the
    recipe reads them).

    The process sees one residual a run: the mean over its rows of log y - log law, later rows
    counting for more, as their tokens. Kernel and white noise are those of the highest marginal
    likelihood over a grid, shared by the targets that were measured in the same rows; the amplitude
    is each target's own, and zero unless the process explains its residuals better than white noise
    by 2 nats. Then the prediction is the recipe's own, exactly.

    Above 700 runs, a seeded draw of 700 of them is used.

    Neither convex nor monotone for certain, whatever the recipe is.
    """

    convex = False

    def __init__(self, base: Recipe):
        self.base = base
        self.name = base.name + SUFFIX
        self.formula = f"({base.formula}) exp(GP)"
        self.axes = base.axes
        self.needs = base.needs | {MIXTURE}

    def fit_batch(
        self, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
    ) -> list[Fitted]:
        """Fit the recipe, then the process. Problems whose start says `keep` (resamples of the same
        rows) share the kernel of the first of them.

        Raises: FitError: what the recipe raises.
        """
        bases = self.base.fit_batch(batch, seed=seed, starts=starts)
        kept = [start is not None and start.keep for start in starts or [None] * len(batch)]
        return self.upon(bases, batch, kept=kept, seed=seed)

    def upon(
        self, bases: Sequence[Fitted], batch: Batch, *, kept: Sequence[bool], seed: int = 0
    ) -> list[Fitted]:
        """Fit the process alone, to fits of the recipe to this batch; `kept` as in `fit_batch`."""
        processes: list[Process | None] = [None] * len(batch)
        shared: tuple[Kernel, float] | None = None
        for rows, which in alike(batch.use > 0):
            residuals, runs = self._residuals(batch, bases, rows, which, seed)
            if len(runs) < FEWEST_RUNS:
                continue
            keep = all(kept[b] for b in which)
            found, chosen = _fit_processes(
                residuals, runs, self._kernels(runs), shared if keep else None
            )
            if keep and shared is None:
                shared = chosen
            for b, process in zip(which, found, strict=True):
                processes[b] = process
        return [FittedResidual(base, part) for base, part in zip(bases, processes, strict=True)]

    def _residuals(
        self, batch: Batch, bases: Sequence[Fitted], rows: np.ndarray, which: list[int], seed: int
    ) -> tuple[np.ndarray, Points]:
        """One log residual for each problem and run (b, k), and where the runs are (k points)."""
        labels = batch.run_ids[rows] * (batch.mixture_ids.max() + 1) + batch.mixture_ids[rows]
        _, first, run = np.unique(labels, return_index=True, return_inverse=True)
        run = run.reshape(-1)
        if len(first) > MOST_RUNS:
            draw = np.random.default_rng(seed).choice(len(first), MOST_RUNS, replace=False)
            drawn = np.isin(run, draw)
            rows, run = rows[drawn], run[drawn]
            _, first, run = np.unique(run, return_index=True, return_inverse=True)
        points = batch.points.select(rows)
        tokens = points.train_tokens
        share = tokens / tokens.mean() if np.isfinite(tokens).all() else np.ones(len(rows))
        means = np.empty((len(which), len(first)))
        for k, b in enumerate(which):
            predicted = bases[b].predict(points)
            if predicted.min() <= 0:  # has no logarithm; 0 switches the process off
                means[k] = 0.0
                continue
            weight = batch.use[b, rows] * share
            left = np.log(batch.y[b, rows] / predicted)
            means[k] = np.bincount(run, weight * left) / np.bincount(run, weight)
        runs = points.select(first)
        return means, Points(runs.weights, runs.num_params, np.full(len(first), np.nan))

    def _kernels(self, runs: Points) -> list[Kernel]:
        """The grid that the runs can tell apart."""
        squared = squared_distances(runs, runs)
        several = np.count_nonzero(squared < SAME_MIXTURE**2) > len(runs)
        reads_size = NUM_PARAMS in self.base.needs and scale_levels(runs.num_params).max() > 0
        return [
            Kernel(length, smooth, same, reach)
            for (smooth, same), reach, length in product(
                SHARES if several else SHARES[:1], REACHES if reads_size else (None,), LENGTHS
            )
            if smooth > 0 or length == LENGTHS[0]
        ]


def alike(used: np.ndarray) -> Iterator[tuple[np.ndarray, list[int]]]:
    """The different sets of used rows, by index, each with its problems; used (B, n)."""
    groups: dict[bytes, list[int]] = {}
    for b, mask in enumerate(used):
        groups.setdefault(mask.tobytes(), []).append(b)
    for which in groups.values():
        yield np.flatnonzero(used[which[0]]), which


def _fit_processes(
    residuals: np.ndarray,
    runs: Points,
    kernels: Sequence[Kernel],
    chosen: tuple[Kernel, float] | None,
) -> tuple[list[Process | None], tuple[Kernel, float]]:
    """One process for each row of residuals (b, k), None where white noise explains it as well,
    and the kernel and white noise that they share; by `chosen`, or by the likelihood."""
    spread = np.sqrt((residuals**2).mean(axis=1))
    scaled = residuals / np.where(spread > 0, spread, 1.0)[:, None]
    grid = [(kernel, WHITE) for kernel in kernels] if chosen is None else [(chosen[0], chosen[1:])]
    best: tuple[float, np.ndarray, tuple[Kernel, float]] | None = None
    for kernel, whites in grid:
        matrix = kernel.matrix(runs, runs)
        for white in whites:
            gains = _gains(matrix, white, scaled)
            total = float(np.maximum(gains - MARGIN, 0.0).sum())
            if best is None or total > best[0]:
                best = total, gains, (kernel, white)
    assert best is not None
    _, gains, (kernel, white) = best
    covariance = kernel.matrix(runs, runs) + white * np.eye(len(runs))
    coefficients = np.linalg.solve(covariance, residuals.T).T
    earned = (gains > MARGIN) & (spread > 0)
    found = [
        Process(kernel, runs, row) if use else None
        for row, use in zip(coefficients, earned, strict=True)
    ]
    return found, (kernel, white)


def _gains(matrix: np.ndarray, white: float, scaled: np.ndarray) -> np.ndarray:
    """(b,) log marginal likelihood of rows (b, k) of mean square one, each with its best amplitude,
    less that of white noise."""
    from scipy.linalg import cholesky, solve_triangular  # slow to import

    k = len(matrix)
    factor = cholesky(matrix + white * np.eye(k), lower=True, check_finite=False)
    whitened = solve_triangular(factor, scaled.T, lower=True, check_finite=False)
    amplitude = np.maximum((whitened**2).mean(axis=0), 1e-300)
    return -0.5 * k * np.log(amplitude) - np.log(np.diagonal(factor)).sum()


@dataclass(frozen=True, eq=False)
class FittedResidual(Fitted):
    """A fitted recipe and the process over its log residuals; None where it is left away."""

    base: Fitted
    process: Process | None

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.target

    @property
    def domains(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.domains

    @property
    def warnings(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.warnings

    @property
    def recipe(self) -> WithResidual:
        return WithResidual(self.base.recipe)

    @property
    def start(self) -> Start | None:
        return self.base.start

    def predict(self, points: Points) -> np.ndarray:
        value = self.base.predict(points)
        return value if self.process is None else value * np.exp(self.process.value(points))

    def gradient(self, points: Points) -> np.ndarray:
        slope = self.base.gradient(points)
        if self.process is None:
            return slope
        factor = np.exp(self.process.value(points))[:, None]
        value = self.base.predict(points)[:, None]
        return factor * (slope + value * self.process.gradient(points))

    script = """(theta, own, constants, [law, process]) =>
      (at) => law(at) * Math.exp(process(at))"""

    def form(self, scales: Sequence[Scale] = ()) -> Form:
        base = self.base.form(scales)
        if self.process is None:
            return replace(base, remake=lambda *made: FittedResidual(base.remake(*made), None))
        return Form(
            name="FittedResidual",
            script=self.script,
            numbers=np.empty(0),
            parts=(base, self.process.form()),
            remake=lambda form, parts: FittedResidual(*parts),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "law": self.recipe.name,
            "target": self.target,
            "base": self.base.to_dict(),
            "process": self.process and self.process.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedResidual:
        from mixlaw.laws.catalogue import load_fitted  # it lists this class

        process = data["process"] and Process.from_dict(data["process"])
        return cls(load_fitted(data["base"]), process)
