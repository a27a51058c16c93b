"""The pictures of what was trained: the swarm, and the verification at the target scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixlaw.optimize.decision import Decision
from mixlaw.plots.evidence import Swarm, swarm_at_largest_scale
from mixlaw.plots.marks import (
    WIDTH,
    Key,
    add_legend,
    columns_on_top,
    draw_marks,
    draw_rings,
    draw_tiles,
    log_axis,
    mixture_keys,
    number_tiles,
    rows_down,
)
from mixlaw.plots.style import MUTED, colour, mixture_look, new_figure, styled
from mixlaw.plots.words import objective_unit, short
from mixlaw.runs import RunTable
from mixlaw.study.verification import RECOMMENDED, Verification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERED = 12
"""Domains whose shares have room for a number."""


def trained_mixtures(
    runs: RunTable, decision: Decision, *, predicted: float | None = None
) -> Figure:
    """Left: the shares of the trained mixtures, best first. Right: their objective, every seed.

    At the largest scale where enough mixtures were trained; of many, evenly chosen ranks.

    Args:
        predicted: the recommended mixture's objective at that scale, a ring.
    Returns: the figure, the recommended mixture on top.
    Raises: MissingExtraError: matplotlib is not installed.
    """
    swarm = swarm_at_largest_scale(runs, decision.objective)
    return swarm_tiles(swarm, decision.recommended.array(swarm.domains), predicted)


@styled
def swarm_tiles(swarm: Swarm, recommended: np.ndarray, predicted: float | None) -> Figure:
    """As `trained_mixtures`; recommended: (M,) shares."""
    shares = np.vstack([recommended, swarm.weights])
    rows, columns = shares.shape
    width = max(WIDTH, 330 + 34 * columns)
    figure = new_figure(width, 130 + 21 * rows)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[max(3, columns), 4])
    rows_down(left, [RECOMMENDED, *(short(label, 14) for label in swarm.labels)])
    draw_tiles(left, np.sqrt(shares), "heat")
    if columns <= MOST_NUMBERED:
        texts = {at: f"{100 * shares[at]:.0f}" for at in np.ndindex(rows, columns)}
        number_tiles(left, {at: text for at, text in texts.items() if text != "0"})
    narrow = columns <= 5 and max(map(len, swarm.domains)) <= 8
    columns_on_top(left, [short(name, 14) for name in swarm.domains], narrow=narrow)
    for row, values in enumerate(swarm.scores, start=1):
        draw_marks(right, values, [row] * len(values), ("ink", "circle"), markersize=5)
    if predicted is not None:
        draw_rings(right, predicted, 0, RECOMMENDED)
    right.tick_params(axis="y", length=0, labelleft=False)
    right.spines["left"].set_visible(False)
    right.grid(True, axis="y")
    right.set_xlabel(f"objective\n({swarm.unit})")
    left.set_xlabel("share of tokens (%)")
    keys = [Key("ink", "circle", "observed, one per seed")]
    if predicted is not None:
        keys.append(Key(RECOMMENDED, "ring", "predicted for the recommended mixture"))
    add_legend(figure, keys)
    return figure


@styled
def verified_gains(
    verification: Verification, decision: Decision, *, noise: float | None = None
) -> Figure:
    """Predicted (ring) and observed (one mark per seed) gain over each baseline.

    Args:
        noise: standard deviation of a difference of two runs; the shaded band is twice it.
    Returns: the figure; right of 0 the recommended mixture is better.
    Raises: MissingExtraError: matplotlib is not installed.
    """
    looks = mixture_look(list(verification.gains))
    figure = new_figure(WIDTH, 90 + 46 * len(verification.gains))
    axes = figure.add_subplot()
    rows_down(axes, [f"over {short(name, 16)}" for name in verification.gains])
    if noise is not None:
        axes.axvspan(-2 * noise, 2 * noise, color=MUTED, alpha=0.15, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=1.2)
    for row, (name, gain) in enumerate(verification.gains.items()):
        draw_rings(axes, gain.predicted, row, "ink", 10)
        draw_marks(axes, list(gain.observed), [row] * len(gain.observed), looks[name])
    unit = objective_unit(decision.objective)
    axes.set_xlabel(f"gain ({unit}); right of 0 the recommended is better")
    keys = [Key("ink", "ring", "predicted"), *mixture_keys(list(verification.gains))]
    if noise is not None:
        keys.append(Key("muted", "bar", "twice the noise of a difference of two runs"))
    add_legend(figure, keys)
    return figure


@styled
def verified_curves(verification: Verification, decision: Decision) -> Figure:
    """Objective against training tokens of each verified mixture, tokens on a log scale.

    Returns: the figure.
    Raises: MissingExtraError: matplotlib is not installed.
    """
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
    axes.set_ylabel(f"objective ({objective_unit(decision.objective)})")
    add_legend(figure, mixture_keys(list(verification.mixtures)))
    return figure
