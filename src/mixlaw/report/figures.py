"""The pictures of a study, as functions that take its parts and return matplotlib figures.

Losses are lower when better. Names are drawn as plain text, never as mathematics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT
from mixlaw.laws.validation import CrossValidation
from mixlaw.optimize.decision import Decision, Forecast, Interval
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.report.evidence import Curves, Swarm, centred
from mixlaw.report.style import (
    GRID,
    INK,
    MARKS,
    MUTED,
    PAPER,
    colour,
    mixture_look,
    new_figure,
    size_look,
    styled,
)
from mixlaw.report.words import (
    objective_unit,
    percent,
    short,
    short_count,
    target_names,
    unit_of,
)
from mixlaw.study.verification import RECOMMENDED, Verification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 500
PANEL = 280
MOST_POINTS = 240
"""In one panel; of more, every so-manieth is drawn."""


def forecasts(decision: Decision) -> dict[str, Forecast]:
    """Mixture name -> forecast, the recommended one first."""
    others = {name: comparison.forecast for name, comparison in decision.baselines.items()}
    return {RECOMMENDED: decision.forecast, **others}


def _rows(axes: Any, labels: Sequence[str]) -> None:
    """Rows from the top down, named on the left."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def draw_marks(axes: Any, x: Any, y: Any, look: tuple[str, str], **more: Any) -> None:
    name, mark = look
    size = {"star": 11, "diamond": 6}.get(mark, 7)
    style = {"markersize": size, "markeredgecolor": PAPER, "markeredgewidth": 0.8, "zorder": 4}
    axes.plot(x, y, linestyle="none", marker=MARKS[mark], color=colour(name), **{**style, **more})


def _interval(axes: Any, y: float, found: Interval, look: tuple[str, str]) -> None:
    if np.isfinite(found.half_width):
        axes.plot([found.low, found.high], [y, y], color=colour(look[0]), linewidth=2, alpha=0.75)
    draw_marks(axes, found.value, y, look)


@styled
def mixture_shares(decision: Decision, trained: np.ndarray | None = None) -> Figure:
    """A bar per domain for the recommended mixture, with a mark for each baseline.

    Args:
        trained: weights (n, M) of the trained mixtures in the order of `decision.recommended`;
            their range is the thin line.
    """
    everyone = forecasts(decision)
    names = list(decision.recommended)
    order = sorted(range(len(names)), key=lambda j: -decision.recommended[names[j]])
    figure = new_figure(WIDTH, 70 + 34 * len(names))
    axes = figure.add_subplot()
    shares = decision.recommended.array(names)[order]
    _rows(axes, [f"{short(names[j])}  {percent(decision.recommended[names[j]])}" for j in order])
    axes.barh(range(len(names)), 100 * shares, height=0.62, color=colour(RECOMMENDED), alpha=0.85)
    for name, look in mixture_look(list(decision.baselines)).items():
        baseline = everyone[name].mixture.array(names)[order]
        draw_marks(axes, 100 * baseline, range(len(names)), look, markersize=8, markeredgewidth=1.2)
    if trained is not None:
        least, most = 100 * trained.min(axis=0)[order], 100 * trained.max(axis=0)[order]
        below = np.arange(len(names)) + 0.42
        axes.hlines(below, least, most, color=MUTED, linewidth=1.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of training tokens (%)")
    return figure


@styled
def freedom(decision: Decision) -> Figure:
    """The range of each share among mixtures that are nearly as good."""
    names = sorted(decision.recommended, key=lambda name: -decision.recommended[name])
    figure = new_figure(WIDTH, 70 + 30 * len(names))
    axes = figure.add_subplot()
    _rows(axes, [short(name) for name in names])
    for row, name in enumerate(names):
        low, high = decision.region.ranges[name]
        axes.barh(row, 100 * (high - low), left=100 * low, height=0.5, color=MUTED, alpha=0.45)
        draw_marks(axes, 100 * decision.recommended[name], row, ("recommended", "circle"))
    axes.set_xlim(left=0)
    axes.set_xlabel("share of training tokens (%)")
    return figure


@styled
def pareto_front(front: ParetoFront) -> Figure:
    """Each objective against the first, one panel a pair; a point is a mixture."""
    values = np.array(front.values)
    others = range(1, values.shape[1])
    figure = new_figure(WIDTH, 300 * len(others))
    for row, k in enumerate(others):
        axes = figure.add_subplot(len(others), 1, row + 1)
        order = np.argsort(values[:, 0])
        if len(others) == 1:
            axes.plot(values[order, 0], values[order, k], color=colour("recommended"))
        draw_marks(axes, values[:, 0], values[:, k], ("recommended", "circle"))
        axes.set_xlabel(f"{short(front.objectives[0])}, lower is better")
        axes.set_ylabel(short(front.objectives[k]))
    return figure


@styled
def forecast_intervals(
    decision: Decision, targets: Sequence[str], verification: Verification | None = None
) -> Figure:
    """Prediction and interval of the objective and of `targets` for each mixture.

    A panel for each unit. Hollow stars are what was observed when the mixture was trained at the
    target scale.
    """
    panels: dict[str, list[str | None]] = {objective_unit(decision.objective): [None]}
    for target in targets:
        panels.setdefault(unit_of([target]), []).append(target)
    row = 20 * (1 + len(decision.baselines)) + 12
    figure = new_figure(WIDTH, 70 * len(panels) + row * (1 + len(targets)))
    heights = [len(rows) for rows in panels.values()]
    found = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (unit, rows) in zip(found[:, 0], panels.items(), strict=True):
        _forecast_panel(axes, decision, rows, verification)
        better = "" if "better" in unit else ", lower is better"
        axes.set_xlabel(unit + better)
    return figure


def _forecast_panel(
    axes: Any, decision: Decision, rows: Sequence[str | None], verification: Verification | None
) -> None:
    """Rows of one unit; None is the objective."""
    everyone = forecasts(decision)
    looks, names = mixture_look(list(everyone)), target_names(list(decision.forecast.targets))
    _rows(axes, [short(names[target], 18) if target else "objective" for target in rows])
    step = 0.8 / len(everyone)
    for k, (name, found) in enumerate(everyone.items()):
        seen = verification.mixtures[name] if verification else None
        for row, target in enumerate(rows):
            y = row + step * (k - (len(everyone) - 1) / 2)
            _interval(axes, y, found.targets[target] if target else found.objective, looks[name])
            if seen is not None:
                observed = [seen.targets[target][1]] if target else list(seen.observed)
                hollow = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.3}
                draw_marks(axes, observed, [y] * len(observed), ("ink", "star"), **hollow)
    for row in range(1, len(rows)):
        axes.axhline(row - 0.5, color=GRID, linewidth=0.8)


@styled
def gains(verification: Verification, unit: str, noise: float | None = None) -> Figure:
    """Predicted (ring) and observed (one mark per seed) gain over each baseline.

    Args:
        noise: standard deviation of a difference of two runs; the shaded band is twice it.
    """
    looks = mixture_look(list(verification.gains))
    figure = new_figure(WIDTH, 90 + 46 * len(verification.gains))
    axes = figure.add_subplot()
    _rows(axes, [f"over {short(name, 16)}" for name in verification.gains])
    if noise is not None:
        axes.axvspan(-2 * noise, 2 * noise, color=MUTED, alpha=0.15, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=1.2)
    for row, (name, gain) in enumerate(verification.gains.items()):
        ring = {"markerfacecolor": "none", "markeredgecolor": INK, "markersize": 10}
        draw_marks(axes, gain.predicted, row, ("ink", "circle"), **ring, markeredgewidth=1.5)
        draw_marks(axes, list(gain.observed), [row] * len(gain.observed), looks[name])
    axes.set_xlabel(f"gain ({unit}); right of 0 the recommended is better")
    return figure


@styled
def token_curves(verification: Verification, unit: str) -> Figure:
    """Objective against training tokens of each verified mixture, tokens on a log scale."""
    figure = new_figure(WIDTH, 330)
    axes = figure.add_subplot()
    ticks: set[float] = set()
    for name, (shade, mark) in mixture_look(list(verification.mixtures)).items():
        tokens, values = zip(*verification.mixtures[name].curve, strict=True)
        axes.plot(tokens, values, color=colour(shade))
        draw_marks(axes, tokens, values, (shade, mark))
        ticks |= set(tokens)
    log_axis(axes, sorted(ticks))
    axes.set_xlabel("training tokens (log scale), finished schedules")
    axes.set_ylabel(f"objective ({unit})")
    return figure


def log_axis(axes: Any, ticks: Sequence[float], most: int = 6) -> None:
    """A log axis with ticks where there is something to read."""
    axes.set_xscale("log")
    axes.minorticks_off()
    keep: list[float] = []
    room = np.log(ticks[-1] / ticks[0]) / (2 * most)
    for tick in reversed(ticks):
        if not keep or np.log(keep[-1] / tick) > room:
            keep.append(tick)
    axes.set_xticks(keep, [short_count(tick) for tick in keep])


@styled
def trained_mixtures(swarm: Swarm, recommended: np.ndarray, predicted: float | None) -> Figure:
    """Left: the shares of the trained mixtures, best first. Right: their objective, every seed.

    Args:
        recommended: (M,) shares, the row on top.
        predicted: its objective at the scale shown, drawn as a ring.
    """
    shares = np.vstack([recommended, swarm.weights])
    rows, columns = shares.shape
    width = max(WIDTH, 330 + 34 * columns)
    figure = new_figure(width, 130 + 21 * rows)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[max(3, columns), 4])
    _rows(left, [RECOMMENDED, *(short(label, 14) for label in swarm.labels)])
    for i in range(rows):
        for j in range(columns):
            _cell(left, i, j, shares[i, j], numbers=columns <= 12)
    left.set_xlim(-0.5, columns - 0.5)
    narrow = columns <= 5 and max(map(len, swarm.domains)) <= 8
    turn = {} if narrow else {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
    left.set_xticks(range(columns), [short(name, 14) for name in swarm.domains], **turn)
    left.tick_params(axis="x", length=0, top=False, labeltop=True, labelbottom=False)
    left.spines["bottom"].set_visible(False)
    left.grid(False)
    for row, values in enumerate(swarm.scores, start=1):
        draw_marks(right, values, [row] * len(values), ("ink", "circle"), markersize=5)
    if predicted is not None:
        ring = {"markerfacecolor": "none", "markeredgecolor": colour(RECOMMENDED)}
        draw_marks(right, predicted, 0, (RECOMMENDED, "circle"), **ring, markeredgewidth=1.5)
    right.tick_params(axis="y", length=0, labelleft=False)
    right.spines["left"].set_visible(False)
    right.grid(True, axis="y")
    right.set_xlabel(f"objective\n({swarm.unit})")
    left.set_xlabel("share of tokens (%)")
    return figure


def _cell(axes: Any, row: int, column: int, share: float, *, numbers: bool) -> None:
    """A tile as deep as the share is large; one hue, so that it works on light and dark."""
    depth = 0.04 + 0.86 * float(np.sqrt(share))
    axes.bar(
        column, 0.9, width=0.94, bottom=row - 0.45, color=colour("heat"), alpha=depth, linewidth=0
    )
    if numbers:
        text = f"{100 * share:.0f}"
        axes.text(column, row, text, ha="center", va="center", color=INK, fontsize="small")


@styled
def law_errors(validation: CrossValidation, chosen: str) -> Figure:
    """Held-out error of every candidate on both splits; 1 is predicting the mean."""
    names = list(validation.ranking())
    figure = new_figure(WIDTH, 90 + 34 * len(names))
    axes = figure.add_subplot()
    _rows(axes, [f"{name} (chosen)" if name == chosen else name for name in names])
    looks = {MIXTURE_SPLIT: ("natural", "square"), SCALE_SPLIT: ("recommended", "circle")}
    for split, look in looks.items():
        for row, name in enumerate(names):
            if split in validation.scores[name]:
                error = float(np.mean(validation.scores[name][split].normalised_error))
                draw_marks(axes, error, row, look, markersize=8)
    axes.axvline(1, color=MUTED, linewidth=1.2, linestyle="--")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(0.5, low), max(2.0, high)
    axes.set_xlim(low, high)
    decades = [10.0**k * m for k in range(-6, 13) for m in (1, 2, 5)]
    ticks = [tick for tick in decades if low <= tick <= high]
    if len(ticks) > 7:
        ticks = [tick for tick in ticks if np.isclose(np.log10(tick) % 1, 0)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("held-out error (1 = predicting the mean)")
    return figure


@styled
def held_out(validation: CrossValidation, law: str, target: str) -> Figure:
    """Predicted against observed for one target, both less the observed mean of their scale.

    So a point on the diagonal is right, points along it tell that mixtures are told apart, and a
    shift off it is an error of level. Dots: mixture split, by size. Rings: scale split. A
    prediction far outside the observed range is drawn at the edge.
    """
    figure = new_figure(PANEL, PANEL + 20)
    axes = figure.add_subplot()
    splits = [s for s in (MIXTURE_SPLIT, SCALE_SPLIT) if s in validation.scores[law]]
    points = {split: centred(validation, law, split, target) for split in splits}
    seen = np.concatenate([found.observed for found in points.values()])
    room = 0.25 * (seen.max() - seen.min())
    limits = seen.min() - room, seen.max() + room
    for split, found in points.items():
        for level in np.unique(found.level):
            at = np.flatnonzero(found.level == level)
            at = at[:: -(-len(at) // MOST_POINTS)]
            x, y = np.clip(found.predicted[at], *limits), found.observed[at]
            if split == SCALE_SPLIT:
                ring = {"markerfacecolor": "none", "markeredgecolor": INK, "markersize": 7}
                draw_marks(axes, x, y, ("ink", "circle"), **ring, markeredgewidth=1, zorder=5)
            else:
                look = size_look(int(level), found.num_levels)
                draw_marks(axes, x, y, look, markersize=4.5, markeredgewidth=0.4)
    axes.plot(limits, limits, color=MUTED, linewidth=1)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle="--")
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.locator_params(nbins=5)
    axes.set_title(short(target_names(validation.targets)[target], 28))
    axes.set_xlabel("predicted − mean of scale")
    axes.set_ylabel("observed − mean of scale")
    return figure


@styled
def forecast_curves(curves: Curves, seen: Mapping[float, Sequence[float]] | None = None) -> Figure:
    """The law for the recommended mixture along tokens (or sizes), with what was observed.

    Lines: the law, one per size. Bars: the range over trained mixtures. Dots: the trained
    mixture nearest to the recommended one. Both stand a little apart, so as not to hide others.

    Args:
        seen: x -> observed objectives of the recommended mixture at the target scale (stars).
    """
    figure = new_figure(WIDTH, 400)
    axes = figure.add_subplot()
    apart = 0.012 * np.log(curves.ticks[-1] / curves.ticks[0])
    for k, line in enumerate(curves.lines):
        dashes = "-" if len(line.points) else "--"
        axes.plot(line.x, line.y, color=colour(line.look[0]), linestyle=dashes)
        if len(line.points):
            x, low, high, nearest = line.points.T
            x = x * np.exp(apart * (k - (len(curves.lines) - 1) / 2))
            axes.vlines(x, low, high, color=colour(line.look[0]), alpha=0.35, linewidth=4)
            draw_marks(axes, x, nearest, line.look, markersize=6)
    x, found = curves.target
    if np.isfinite(found.half_width):
        axes.vlines(x, found.low, found.high, color=colour(RECOMMENDED), linewidth=2)
    draw_marks(axes, x, found.value, (RECOMMENDED, "diamond"), markersize=8)
    for x, values in (seen or {}).items():
        hollow = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.3}
        draw_marks(axes, [x] * len(values), values, ("ink", "star"), **hollow)
    log_axis(axes, curves.ticks)
    axes.set_xlabel(curves.x_label)
    axes.set_ylabel(f"objective ({curves.unit})")
    return figure
