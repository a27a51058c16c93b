"""What every part shares: settings, scores, the faces of mixlaw that are measured, the report.

Shapes: n points, M domains, T targets.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import spearmanr

from benchmarks.table import markdown, publish
from mixlaw.errors import FitError
from mixlaw.laws import CANDIDATES, FittedLaws, Points, fit, fit_laws, make
from mixlaw.runs import RunTable

LEVEL = 0.9
"""Nominal level of the intervals."""

DEFAULT = "mixlaw"
"""The row of the default `fit_laws`."""


@dataclass(frozen=True)
class Settings:
    """How thorough a benchmark is.

    Attributes:
        seeds: draws of the training rows.
        quick: a smoke test; nothing is written.
    """

    seeds: int
    quick: bool

    def few(self, values: Sequence, quick: int = 1) -> Sequence:
        """All values, or the first `quick` of them in a smoke test."""
        return values[:quick] if self.quick else values


DIVERGED = 100
"""A mean error above this many nats says only that some fit diverged."""


@dataclass
class Scoreboard:
    """Figures by row, column and seed.

    Attributes:
        found: (row, column) -> one figure a seed.
        refused: (row, column) -> why there is none.
        rows, columns: in the order of arrival.
    """

    found: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)

    def _arrive(self, row: str, column: str) -> tuple[str, str]:
        for seen, name in ((self.rows, row), (self.columns, column)):
            if name not in seen:
                seen.append(name)
        return row, column

    def add(self, row: str, column: str, figure: float) -> None:
        self.found.setdefault(self._arrive(row, column), []).append(float(figure))

    def refuse(self, row: str, column: str, reason: str) -> None:
        self.refused[self._arrive(row, column)] = reason

    def cell(self, row: str, column: str, digits: int) -> str:
        """Mean ± standard deviation over seeds; – where it was refused or not asked for."""
        figures = self.found.get((row, column))
        if not figures:
            return "–"
        if np.mean(figures) >= DIVERGED:
            return f"{np.mean(figures):.0e}"
        mean = f"{np.mean(figures):.{digits}f}"
        return mean if len(figures) == 1 else f"{mean} ± {np.std(figures, ddof=1):.{digits}f}"

    def table(self, corner: str, *, digits: int = 3) -> str:
        """Markdown: a line for each row."""
        cells = [[row, *(self.cell(row, c, digits) for c in self.columns)] for row in self.rows]
        return markdown([corner, *self.columns], cells)

    def notes(self) -> str:
        """Why cells are empty: a line for each row that has one, its first reason."""
        reasons: dict[str, str] = {}
        for (row, column), reason in self.refused.items():
            reasons.setdefault(row, f"- – {row} ({column}): {reason}")
        return "\n".join(reasons.values())


def column_mean(values: np.ndarray) -> float:
    """Mean over what could be computed; NaN when nothing could."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmean(values))


def spearman(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(T,) rank correlation of columns (n, T); a constant prediction ranks nothing and counts 0."""
    found = []
    for p, y in zip(predicted.T, observed.T, strict=True):
        known = np.isfinite(p) & np.isfinite(y)
        constant = np.ptp(p[known]) <= 1e-12 * np.abs(p[known]).max()
        found.append(0.0 if constant else spearmanr(p[known], y[known])[0])
    return np.array(found)


def mae(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(T,) mean absolute error of columns (n, T), over the rows that were measured."""
    return np.nanmean(np.abs(predicted - observed), axis=0)


def regret(predicted: np.ndarray, observed: np.ndarray) -> float:
    """How much worse, in the mean over targets, the row predicted best is than the best row."""
    objective = observed.mean(axis=1)
    return float(objective[np.argmin(predicted.mean(axis=1))] - objective.min())


def first_targets(runs: RunTable, count: int) -> RunTable:
    """The table with its first targets only."""
    return replace(runs, targets=runs.targets[:count], values=runs.values[:, :count])


def axes_of(runs: RunTable) -> dict[str, float]:
    """The counts that vary in a table, with their geometric means: what laws of scale read."""
    counts = {"num_params": runs.num_params, "train_tokens": runs.train_tokens}
    return {
        name: float(np.exp(np.mean(np.log(count))))
        for name, count in counts.items()
        if np.isfinite(count).all() and np.ptp(count) > 0.02 * count.min()
    }


def predict_by_scale(fitted: FittedLaws, points: Points) -> np.ndarray:
    """Values (n, T) of the default at points of several scales."""
    out = np.full((len(points), len(fitted.targets)), np.nan)
    for at, scale in scales_of(points):
        out[at] = fitted.predict(points.weights[at], *scale)
    return out


def scales_of(points: Points) -> list[tuple[np.ndarray, tuple[float | None, float | None]]]:
    """The distinct scales: rows (boolean mask) and (num_params, train_tokens)."""
    counts = np.stack([points.num_params, points.train_tokens], axis=1)
    distinct, which = np.unique(np.nan_to_num(counts), axis=0, return_inverse=True)
    which = which.reshape(-1)
    return [(which == k, tuple(c or None for c in scale)) for k, scale in enumerate(distinct)]


def forecast_default(train: RunTable, points: Points) -> np.ndarray:
    """Values (n, T) by the default `fit_laws`."""
    return predict_by_scale(fit_laws(train), points)


def forecast_law(name: str) -> Callable[[RunTable, Points], np.ndarray]:
    """The forecast of one law of the catalogue, fitted to each target.

    The forecast raises FitError where the law is not in this catalogue or refuses the table.
    """

    def forecast(train: RunTable, points: Points) -> np.ndarray:
        if name not in CANDIDATES:
            raise FitError("not in the catalogue of this version")
        recipe = make(name, axes_of(train))
        fitted = (fit(recipe, train, target=target) for target in train.targets)
        return np.stack([law.predict(points) for law in fitted], axis=1)

    return forecast


def forecasts(names: Sequence[str]) -> Mapping[str, Callable[[RunTable, Points], np.ndarray]]:
    """The default and the named laws of the catalogue; a name that it lacks is refused later."""
    return {DEFAULT: forecast_default, **{name: forecast_law(name) for name in names}}


def catalogue(*, scales: bool) -> list[str]:
    """Names of the laws that read scales, or of those of the mixture alone."""
    chosen = []
    for name in CANDIDATES:
        try:
            make(name)
            one_scale = True
        except FitError:
            one_scale = False
        if one_scale != scales:
            chosen.append(name)
    return chosen


def intervals(
    fitted: FittedLaws, points: Points, coefficients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (n,) and (n,) of the intervals of `coefficients (T,) @ targets` at each point."""
    centre = predict_by_scale(fitted, points) @ coefficients
    half = np.empty(len(points))
    for at, scale in scales_of(points):
        half[at] = fitted.half_width(coefficients, points.weights[at], *scale, level=LEVEL)
    return centre - half, centre + half


def report(settings: Settings, part: str, title: str, body: str, *, group: str = "laws") -> None:
    """Publish the table of a part of a group of benchmarks, or only print it in a smoke test."""
    if settings.quick:
        print(f"# {title} (quick: not written)\n\n{body}\n")
        return
    peers = []
    for package in ("lightgbm", "scikit-learn"):
        try:
            peers.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    about = f"Peers: {', '.join(peers)}." if peers else "No peers installed."
    if "±" in body:
        about = f"Mean ± standard deviation over {settings.seeds} seeds. {about}"
    command = f"python -m benchmarks {group} {part}"
    publish(f"{group}-{part}", title, command, f"{about}\n\n{body}")
