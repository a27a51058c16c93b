"""The law along tokens or along sizes, beside what was observed; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.laws import FittedLaws
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.points import NUM_PARAMS, SAME_SCALE, TRAIN_TOKENS, scale_levels
from mixlaw.mixture import Domain
from mixlaw.optimize.decision import Decision, Interval
from mixlaw.plots.evidence import known, usable
from mixlaw.plots.style import size_look
from mixlaw.plots.words import objective_unit, short_count
from mixlaw.runs import RunTable
from mixlaw.study.verification import objective_values

MOST_CURVES = 5
MOST_HORIZONS = 12
CURVE_POINTS, BAND_POINTS = 60, 24
THINGS = {NUM_PARAMS: "parameters", TRAIN_TOKENS: "tokens"}
LABELS = {
    NUM_PARAMS: "parameters (log scale)",
    TRAIN_TOKENS: "training tokens (log scale)",
}


@dataclass(frozen=True, eq=False)
class Line:
    """The law along one axis, at one value of the other.

    Attributes:
        other: that value; None where the law does not read it.
        x, y: the recommended mixture's objective.
        points: (k, 4) x, lowest and highest trained mixture, and the nearest one (NaN if absent).
    """

    text: str
    look: tuple[str, str]
    other: float | None
    x: np.ndarray
    y: np.ndarray
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Curves:
    """Forecasts of the recommended mixture along tokens or along sizes.

    Attributes:
        along: "train_tokens" or "num_params".
        band: (k, 3) x, lower and upper end of the interval along the target's own line; empty
            where no interval is known.
        target: x and forecast of the recommended mixture at the target scale.
        nearest: label of the trained mixture nearest to the recommended one, and how far it is
            (half the summed differences of shares).
    """

    along: str
    lines: tuple[Line, ...]
    band: np.ndarray
    target: tuple[float, Interval]
    ticks: tuple[float, ...]
    unit: str
    nearest: tuple[str, float]


@dataclass(frozen=True, eq=False)
class _Law:
    """The recommended mixture's objective, as the decision saw it, at any scale."""

    fitted: FittedLaws | LinkedLaws
    decision: Decision
    available_tokens: np.ndarray | None

    @property
    def _weights(self) -> np.ndarray:
        return self.decision.recommended.array(self.fitted.domains)[None]

    def _available(self, scale: dict[str, float | None]) -> np.ndarray | None:
        return self.available_tokens if scale[TRAIN_TOKENS] else None

    def values(self, scale: dict[str, float | None]) -> np.ndarray:
        """(1, T)"""
        available = self._available(scale)
        return self.fitted.predict(self._weights, **scale, available_tokens=available)

    def objective(self, scale: dict[str, float | None]) -> float:
        values = self.values(scale)
        return float(self.decision.objective.values(values, self.fitted.targets)[0])

    def half_width(self, scale: dict[str, float | None]) -> float:
        """Of the objective; the widest of the terms that are the worst."""
        matrix, offset = self.decision.objective.terms(self.fitted.targets)
        terms = matrix @ self.values(scale)[0] + offset
        rows = matrix[terms >= terms.max() - 1e-9 * max(1.0, abs(float(terms.max())))]
        available, level = self._available(scale), self.decision.level
        widths = [
            self.fitted.half_width(
                row, self._weights, **scale, level=level, available_tokens=available
            )
            for row in rows
        ]
        return float(np.max(widths))


def curves_of(
    fitted: FittedLaws | LinkedLaws,
    decision: Decision,
    runs: RunTable,
    along: str,
    *,
    domains: Sequence[Domain] = (),
) -> Curves | None:
    """None when the law does not read `along`.

    Args:
        along: "train_tokens" or "num_params".
        domains: with the tokens that the big run can repeat; none: nothing is repeated.
    """
    if along not in fitted.needs:
        return None
    other = TRAIN_TOKENS if along == NUM_PARAMS else NUM_PARAMS
    law = _Law(fitted, decision, _available_tokens(fitted, domains))
    runs = usable(runs, decision.objective)
    shares = decision.recommended.array(runs.domains)
    distance = 0.5 * np.abs(runs.weights - shares).sum(axis=1)
    nearest = int(np.argmin(distance))
    target_x, target_other = getattr(decision, along), getattr(decision, other)
    counts, others = getattr(runs, along), getattr(runs, other)
    x_all = np.append(counts, target_x)
    grid = np.geomspace(x_all.min(), x_all.max(), CURVE_POINTS)
    levels = np.maximum(scale_levels(others), 0) if other in fitted.needs else np.zeros(len(runs))
    scores, lines = objective_values(runs, decision.objective), []
    is_nearest = runs.mixture_ids() == runs.mixture_ids()[nearest]
    num_levels = int(levels.max()) + 1
    shown = np.linspace(0, num_levels - 1, min(MOST_CURVES, num_levels)).round().astype(int)
    for level in shown.tolist():
        at = levels == level
        size = known(others[at]) if other in fitted.needs else target_other
        same = num_levels == 1 or _same(size, target_other)
        trained = np.append(counts[at], target_x if same else 0).max()
        line_x = grid[grid <= 1.0001 * trained]
        text = f"{short_count(size)} {THINGS[other]}" if num_levels > 1 and size else "trained runs"
        y = [law.objective({along: x, other: size}) for x in line_x.tolist()]
        points = _ranges(counts, scores, at, is_nearest)
        look = size_look(level, num_levels)
        lines.append(Line(text, look, size, line_x, np.array(y), points))
    if other in fitted.needs and not any(_same(line.other, target_other) for line in lines):
        y = [law.objective({along: x, other: target_other}) for x in grid.tolist()]
        text = f"{short_count(target_other or 0)} {THINGS[other]} (target)"
        none = np.zeros((0, 4))
        lines.append(Line(text, ("recommended", "diamond"), target_other, grid, np.array(y), none))
    return Curves(
        along=along,
        lines=tuple(lines),
        band=_band(law, grid, along, target_other),
        target=(float(target_x), decision.forecast.objective),
        ticks=tuple(sorted({*_distinct(counts), float(target_x)})),
        unit=objective_unit(decision.objective),
        nearest=(str(runs.label[nearest]), float(distance[nearest])),
    )


def _available_tokens(
    fitted: FittedLaws | LinkedLaws, domains: Sequence[Domain]
) -> np.ndarray | None:
    tokens = {domain.name: domain.available_tokens or np.inf for domain in domains}
    found = np.array([tokens.get(name, np.inf) for name in fitted.domains], float)
    return found if np.isfinite(found).any() else None


def _band(law: _Law, grid: np.ndarray, along: str, other: float | None) -> np.ndarray:
    """(k, 3); empty for changes from a baseline, which are as sure as a difference."""
    if law.decision.objective.relative_to is not None:
        return np.zeros((0, 3))
    name = TRAIN_TOKENS if along == NUM_PARAMS else NUM_PARAMS
    rows = []
    for x in np.geomspace(grid[0], grid[-1], BAND_POINTS).tolist():
        scale = {along: x, name: other}
        value, half = law.objective(scale), law.half_width(scale)
        rows.append((x, value - half, value + half))
    found = np.array(rows)
    return found[np.isfinite(found).all(axis=1)]


def _same(size: float | None, other: float | None) -> bool:
    return bool(size and other and abs(np.log(size / other)) < SAME_SCALE)


def _distinct(counts: np.ndarray) -> list[float]:
    """The largest of each level of counts, thinned to a dozen."""
    levels = scale_levels(counts)
    values = [float(counts[levels == level].max()) for level in range(levels.max() + 1)]
    keep = np.linspace(0, len(values) - 1, min(MOST_HORIZONS, len(values))).round().astype(int)
    return [values[k] for k in keep]


def _ranges(
    counts: np.ndarray, scores: np.ndarray, at: np.ndarray, is_nearest: np.ndarray
) -> np.ndarray:
    """(k, 4) for the counts of the rows `at`; see `Line`."""
    levels = scale_levels(counts)
    out = []
    for x in _distinct(counts[at]):
        rows = at & (levels == levels[np.argmin(np.abs(counts - x))])
        near = scores[rows & is_nearest]
        out.append(
            (x, scores[rows].min(), scores[rows].max(), near.mean() if len(near) else np.nan)
        )
    return np.array(out)
