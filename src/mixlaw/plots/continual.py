"""The pictures of continuing a model: losses against the share of new data, and how answers move.

Shares are drawn in per cents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.continual import Move
from mixlaw.errors import FitError, StudyError
from mixlaw.plots.marks import PANEL, WIDTH, Key, add_legend, draw_marks, draw_rings, log_axis
from mixlaw.plots.style import INK, colour, new_figure, size_look, styled
from mixlaw.plots.words import rewarm_words, scale_words, short, unit_of
from mixlaw.study.continual_answer import ContinualAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_POINTS = 101


@styled
def losses_by_share(found: ContinualAnswer, target: str) -> Figure:
    """One target: the trained runs (a dot a seed) and the law between them, a colour a number of
    tokens.

    Dashed: the base's loss. Of an old target also the critical share of the main answer and its
    interval, as a line and a band.

    Returns: the figure.
    Raises: MissingExtraError: matplotlib is not installed. FitError: a target that was not fitted.
    """
    laws, main = found.laws, found.main
    if target not in laws.targets:
        raise FitError(f"{target!r} was not fitted; the targets are {list(laws.targets)}")
    t = laws.targets.index(target)
    figure = new_figure(PANEL, PANEL)
    axes = figure.add_subplot()
    grid = np.linspace(*laws.trained.range("share"), CURVE_POINTS)
    along = found.along_tokens
    for k, move in enumerate(along):
        shade, shape = size_look(k, len(along))
        share, losses = found.seen(move.setting)
        curve = laws.predict(grid, **move.setting.to_dict())[:, t]
        axes.plot(100 * grid, curve, color=colour(shade))
        draw_marks(axes, 100 * share, losses[target], (shade, shape), markersize=5)
    axes.axhline(found.base(main.setting)[target], color=INK, linewidth=1.2, linestyle="--")
    if target in main.critical.base:
        low, high = 100 * main.critical.low, 100 * main.critical.high
        axes.axvspan(low, high, color=colour("recommended"), alpha=0.13, linewidth=0)
        axes.axvline(100 * main.critical.share, color=colour("recommended"), linewidth=1.4)
    axes.set_xlim(-3, 103)
    axes.set_title(short(target, 28))
    axes.set_xlabel("share of new data (%)")
    axes.set_ylabel(unit_of([target]))
    keys = [
        Key(*size_look(k, len(along)), scale_words(None, move.setting.train_tokens))
        for k, move in enumerate(along)
    ]
    keys += [Key("ink", "line", "the base (dashed)")]
    keys += [Key("recommended", "bar", "critical share and its interval")]
    add_legend(figure, keys)
    return figure


@styled
def moving_answers(lines: Sequence[Sequence[Move]]) -> Figure:
    """The critical share with its interval against training tokens, a line a size and re-warming.

    Rings: the best share for the objective.

    Returns: the figure.
    Raises: MissingExtraError: matplotlib is not installed. StudyError: no line, or one of no move.
    """
    if not lines or not all(lines):
        raise StudyError(
            f"the lines have {[len(line) for line in lines]} moves; give at least one line, each "
            "of at least one move of a continual answer"
        )
    figure = new_figure(WIDTH, 330)
    axes = figure.add_subplot()
    ticks = sorted({move.setting.train_tokens or 1.0 for line in lines for move in line})
    apart = 0.012 * np.log(ticks[-1] / ticks[0]) if len(ticks) > 1 else 0.012
    for k, line in enumerate(lines):
        look = size_look(k, len(lines))
        tokens = np.array([move.setting.train_tokens or 1.0 for move in line])
        x = tokens * np.exp(apart * (k - (len(lines) - 1) / 2))
        critical = [move.critical for move in line]
        axes.vlines(
            x, [100 * c.low for c in critical], [100 * c.high for c in critical],
            color=colour(look[0]), alpha=0.35, linewidth=4,
        )  # fmt: skip
        axes.plot(x, [100 * c.share for c in critical], color=colour(look[0]))
        draw_marks(axes, x, [100 * c.share for c in critical], look)
        best = [100 * move.best.share for move in line if move.best is not None]
        if best:
            draw_rings(axes, x, best, look[0], 7, 1.3)
    log_axis(axes, ticks)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("training tokens of the continued run (log scale)")
    axes.set_ylabel("share of new data (%)")
    keys = [Key(*size_look(k, len(lines)), _line_words(line)) for k, line in enumerate(lines)]
    if lines[0][0].best is not None:
        keys.append(Key("muted", "ring", "best for the objective"))
    add_legend(figure, keys)
    return figure


def _line_words(line: Sequence[Move]) -> str:
    """Which size and re-warming."""
    at = line[0].setting
    rewarm = "" if at.rewarm is None else f", {rewarm_words(at.rewarm)}"
    return scale_words(at.num_params, None) + rewarm
