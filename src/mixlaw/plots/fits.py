"""The pictures of a fit: laws compared, predicted against observed, residuals and curves of scale.

Everything is of runs held out. `fitted` is `FittedLaws`, or `LinkedLaws` for scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.points import NUM_PARAMS, TRAIN_TOKENS, scale_levels
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT
from mixlaw.mixture import Domain
from mixlaw.optimize.decision import Decision
from mixlaw.plots.curves import LABELS, Curves, curves_of
from mixlaw.plots.evidence import centred, drifts, size_levels
from mixlaw.plots.marks import (
    HOLLOW_STAR,
    PANEL,
    WIDTH,
    Key,
    add_legend,
    draw_marks,
    draw_rings,
    log_axis,
    rows_down,
)
from mixlaw.plots.style import MUTED, colour, new_figure, size_look, styled
from mixlaw.plots.words import plain, short, short_count, target_names
from mixlaw.runs import RunTable
from mixlaw.study.verification import RECOMMENDED, Verification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 160
"""In one panel; of more, every so-manieth is drawn."""
ABREAST = 4
"""Panels in a row, where a figure has one for each target."""


@styled
def law_comparison(fitted: FittedLaws) -> Figure:
    """Held-out error of every candidate law on both splits; 1 is predicting the mean.

    Returns: the figure, the best on the deciding split on top.
    Raises: MissingExtraError: matplotlib is not installed.
    """
    validation = fitted.cross_validation
    names = list(validation.ranking())
    figure = new_figure(WIDTH, 90 + 34 * len(names))
    axes = figure.add_subplot()
    rows_down(axes, [f"{name} (chosen)" if name == fitted.law else name for name in names])
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
    keys = [Key("natural", "square", "unseen mixtures, trained scales")]
    if SCALE_SPLIT in validation.splits:
        keys.append(Key(RECOMMENDED, "circle", "unseen mixtures at an unseen scale (decides)"))
    add_legend(figure, keys)
    return figure


@styled
def predicted_vs_observed(fitted: FittedLaws | LinkedLaws, target: str | None = None) -> Figure:
    """Predicted against observed on held-out runs, both less the observed mean of their scale.

    So a point on the diagonal is right, points along it tell that mixtures are told apart, and a
    shift off it is an error of level. Dots: unseen mixtures, a colour a size. Rings: at an unseen
    scale too. A prediction far outside the observed range is drawn at the edge.

    Args:
        target: default: a panel for each.
    Returns: the figure.
    Raises: MissingExtraError: matplotlib is not installed. FitError: a target that was not fitted.
    """
    figure, panels = _panels(fitted, target, PANEL + 20)
    for name, axes in panels.items():
        _held_out_panel(axes, fitted, name)
        axes.set_title(short(target_names(fitted.targets)[name], 28))
    add_legend(figure, size_keys(fitted))
    return figure


def _panels(
    fitted: FittedLaws | LinkedLaws, target: str | None, height: float
) -> tuple[Figure, dict[str, Any]]:
    """A figure with axes by target."""
    if target is not None and target not in fitted.targets:
        raise FitError(f"{target!r} was not fitted; the targets are {list(fitted.targets)}")
    names = list(fitted.targets) if target is None else [target]
    across = min(ABREAST, len(names))
    down = -(-len(names) // across)
    figure = new_figure(PANEL * across, height * down)
    axes = [figure.add_subplot(down, across, k + 1) for k in range(len(names))]
    return figure, dict(zip(names, axes, strict=True))


def size_keys(fitted: FittedLaws | LinkedLaws) -> list[Key]:
    """Legend of the sizes of held-out runs, and of what was at an unseen scale."""
    validation = fitted.cross_validation
    levels = size_levels(validation.runs)
    num_levels = int(levels.max()) + 1
    keys: dict[tuple[str, str], Key] = {}
    for level in range(num_levels):
        sizes, look = validation.runs.num_params[levels == level], size_look(level, num_levels)
        known = np.isfinite(sizes).all()
        text = f"{short_count(float(sizes.max()))} parameters" if known else "held-out mixture"
        keys.setdefault(look, Key(*look, text))
    unseen = [Key("ink", "ring", "unseen scale")] if SCALE_SPLIT in validation.splits else []
    return [*keys.values(), *unseen]


def _held_out_panel(axes: Any, fitted: FittedLaws | LinkedLaws, target: str) -> None:
    validation = fitted.cross_validation
    splits = [s for s in (MIXTURE_SPLIT, SCALE_SPLIT) if s in validation.scores[fitted.law]]
    points = {split: centred(validation, fitted.law, split, target) for split in splits}
    seen = np.concatenate([found.observed for found in points.values()])
    room = 0.25 * (seen.max() - seen.min())
    limits = seen.min() - room, seen.max() + room
    for split, found in points.items():
        for level in np.unique(found.level):
            at = np.flatnonzero(found.level == level)
            at = at[:: -(-len(at) // MOST_POINTS)]
            x, y = np.clip(found.predicted[at], *limits), found.observed[at]
            if split == SCALE_SPLIT:
                draw_rings(axes, x, y, "ink", 7, 1)
            else:
                look = size_look(int(level), found.num_levels)
                draw_marks(axes, x, y, look, markersize=4.5, markeredgewidth=0.4)
    axes.plot(limits, limits, color=MUTED, linewidth=1)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle="--")
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.locator_params(nbins=5)
    axes.set_xlabel("predicted − mean of scale")
    axes.set_ylabel("observed − mean of scale")


@styled
def residuals_by_scale(fitted: FittedLaws | LinkedLaws, target: str | None = None) -> Figure:
    """Whether the law drifts: mean residual (predicted less observed) on held-out mixtures at each
    scale, with a bar of one standard deviation; 0 is right, above 0 is predicted too high.

    Dots: unseen mixtures, a colour a size. Rings: the scale was held out as well.

    Args:
        target: default: a panel for each.
    Returns: the figure; along tokens where these vary, else along sizes.
    Raises: MissingExtraError: matplotlib is not installed. FitError: a target that was not fitted,
        or runs of one scale.
    """
    axis = residual_axis(fitted)
    if axis is None:
        raise FitError("the runs are of one scale, so nothing can drift with it")
    figure, panels = _panels(fitted, target, PANEL - 20)
    for name, axes in panels.items():
        _residual_panel(axes, fitted, name, axis)
        axes.set_title(short(target_names(fitted.targets)[name], 28))
        axes.set_ylabel("predicted − observed")
    add_legend(figure, size_keys(fitted))
    return figure


def residual_axis(fitted: FittedLaws | LinkedLaws) -> str | None:
    """What scales differ in: tokens before sizes; None for one scale."""
    runs = fitted.cross_validation.runs
    for axis in (TRAIN_TOKENS, NUM_PARAMS):
        counts = getattr(runs, axis)
        if np.isfinite(counts).all() and scale_levels(counts).max() > 0:
            return axis
    return None


def _residual_panel(axes: Any, fitted: FittedLaws | LinkedLaws, target: str, axis: str) -> None:
    found = drifts(fitted.cross_validation, fitted.law, target)
    num_levels = max(one.level for one in found) + 1
    ticks = sorted({getattr(one, axis) for one in found})
    apart = 0.02 * np.log(ticks[-1] / ticks[0]) if axis == TRAIN_TOKENS else 0.0
    axes.axhline(0, color=MUTED, linewidth=1)
    for level in range(num_levels):
        here = [one for one in found if one.level == level and one.split == MIXTURE_SPLIT]
        x = np.array([getattr(one, axis) for one in here], float)
        x *= np.exp(apart * (level - (num_levels - 1) / 2))
        mean = np.array([one.mean for one in here])
        half = np.array([one.deviation for one in here])
        look = size_look(level, num_levels)
        axes.vlines(x, mean - half, mean + half, color=colour(look[0]), alpha=0.5, linewidth=2.4)
        if axis == TRAIN_TOKENS:
            axes.plot(x, mean, color=colour(look[0]), linewidth=1)
        draw_marks(axes, x, mean, look, markersize=5.5)
    for one in found:
        if one.split == SCALE_SPLIT:
            at = getattr(one, axis) * np.exp(apart * (one.level - (num_levels - 1) / 2 + 0.7))
            low, high = one.mean - one.deviation, one.mean + one.deviation
            axes.vlines(at, low, high, color=colour("ink"), linewidth=1)
            draw_rings(axes, at, one.mean, "ink", 7, 1.3)
    log_axis(axes, ticks, most=4)
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}".replace("-", "−"))
    axes.set_xlabel(LABELS[axis])


def forecast_over_tokens(
    fitted: FittedLaws | LinkedLaws,
    decision: Decision,
    runs: RunTable,
    *,
    domains: Sequence[Domain] = (),
    verification: Verification | None = None,
) -> Figure:
    """The objective of the recommended mixture along training tokens, a line a size.

    The shaded band is the interval at the target's size. Bars: the range over trained mixtures.
    Dots: the trained mixture nearest to the recommended one. Both stand a little apart, so as not
    to hide others.

    Args:
        runs: what was trained.
        domains: with the tokens that the big run can repeat; none: nothing is repeated.
        verification: what was observed of the recommended mixture: hollow stars.
    Returns: the figure.
    Raises: MissingExtraError: matplotlib is not installed. FitError: the law reads no tokens.
    """
    curves = _curves(fitted, decision, runs, TRAIN_TOKENS, domains)
    return scale_curves(curves, verification)


def forecast_over_size(
    fitted: FittedLaws | LinkedLaws,
    decision: Decision,
    runs: RunTable,
    *,
    domains: Sequence[Domain] = (),
    verification: Verification | None = None,
) -> Figure:
    """The objective of the recommended mixture along parameters, a line a number of tokens.

    Args, returns and raises: as `forecast_over_tokens`.
    """
    curves = _curves(fitted, decision, runs, NUM_PARAMS, domains)
    return scale_curves(curves, verification)


def _curves(
    fitted: FittedLaws | LinkedLaws,
    decision: Decision,
    runs: RunTable,
    along: str,
    domains: Sequence[Domain],
) -> Curves:
    found = curves_of(fitted, decision, runs, along, domains=domains)
    if found is None:
        raise FitError(f"the law {fitted.law} does not read {along}; its runs did not vary it")
    return found


@styled
def scale_curves(curves: Curves, verification: Verification | None = None) -> Figure:
    """As `forecast_over_tokens`, of curves that are there already."""
    figure = new_figure(WIDTH, 400)
    axes = figure.add_subplot()
    apart = 0.012 * np.log(curves.ticks[-1] / curves.ticks[0])
    if len(curves.band):
        axes.fill_between(*curves.band.T, color=colour(RECOMMENDED), alpha=0.16, linewidth=0)
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
    for x, value in seen_along(curves, verification):
        draw_marks(axes, x, value, ("ink", "star"), **HOLLOW_STAR)
    log_axis(axes, curves.ticks)
    axes.set_xlabel(LABELS[curves.along])
    axes.set_ylabel(f"objective ({curves.unit})")
    keys = [Key(line.look[0], "line", line.text) for line in curves.lines]
    keys.append(Key("muted", "bar", "range of the trained mixtures"))
    keys.append(Key("muted", "circle", f"{plain(curves.nearest[0])}, the nearest trained mixture"))
    keys.append(Key(RECOMMENDED, "diamond", "forecast with interval"))
    if len(curves.band):
        keys.append(Key(RECOMMENDED, "bar", "interval on the way there"))
    if verification is not None:
        keys.append(Key("ink", "star", "recommended mixture, observed"))
    add_legend(figure, keys)
    return figure


def seen_along(curves: Curves, verification: Verification | None) -> list[tuple[float, float]]:
    """(x, objective) of what was observed of the recommended mixture at the target's scale."""
    if verification is None:
        return []
    seen = verification.mixtures[RECOMMENDED]
    at_target = [(curves.target[0], value) for value in seen.observed]
    earlier = seen.curve[:-1] if curves.along == TRAIN_TOKENS else ()
    return [*earlier, *at_target]
