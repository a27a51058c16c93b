"""The picture of a schedule: what the run trains on as it goes, beside static mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.errors import MixtureError
from mixlaw.plots.marks import Key, add_legend
from mixlaw.plots.style import MUTED, PAPER, colour, new_figure, styled
from mixlaw.plots.words import percent, plain, short
from mixlaw.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = ("recommended", "natural", "other", "size2", "size0", "uniform", "size4", "size1")
"""Of the domains, the largest dose first; those beyond have one shade together."""

OTHERS = "others"
WIDTH, HEIGHT = 560, 330
STATIC_WIDTH = 0.34
"""Of a static mixture's panel, as a share of the schedule's."""

NAMED = 0.075
"""A share from which its bar has room for a name."""


def shades(schedule: Schedule, domains: Sequence[str]) -> dict[str, str]:
    """Domain -> palette name, the largest dose first."""
    dose = schedule.dose
    ranked = sorted(domains, key=lambda name: -dose.get(name, 0.0))
    many = len(ranked) > len(SHADES)
    kept = len(SHADES) - 1 if many else len(ranked)
    return {name: SHADES[i] if i < kept else "muted" for i, name in enumerate(ranked)}


@styled
def schedule_bars(schedules: Mapping[str, Schedule], domains: Sequence[str]) -> Figure:
    """Stacked shares over training, one panel per schedule; those after the first are static.

    Args:
        schedules: title -> schedule; the first sets order and shades of the domains.
        domains: all that may occur.
    Returns: the figure.
    Raises: MissingExtraError: matplotlib is not installed. MixtureError: no schedule, or one with a
        domain that is not among `domains`.
    """
    if not schedules:
        raise MixtureError("there is no schedule to draw; give one by its title at least")
    titles = list(schedules)
    looks = shades(schedules[titles[0]], domains)
    figure = new_figure(WIDTH, HEIGHT)
    widths = [1.0] + [STATIC_WIDTH] * (len(titles) - 1)
    panels = figure.subplots(1, len(titles), sharey=True, width_ratios=widths, squeeze=False)[0]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        axes.grid(False)
        schedule = schedules[title]
        shares = 100 * schedule.array(list(looks))
        for start, length, stage in zip(schedule.starts, schedule.shares, shares, strict=True):
            _stack(axes, 100 * start, 100 * length, stage, looks)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        begins = np.round(100 * schedule.starts, 1).tolist()
        ends = [*begins, 100] if begins[-1] < 100 * (1 - NAMED) else begins
        axes.set_xticks(ends if not schedule.is_static else [])
    panels[0].set_ylabel("share of the tokens (%)")
    panels[0].set_xlabel("training done (%)")
    keys = [Key(shade, "bar", plain(name)) for name, shade in looks.items() if shade != "muted"]
    add_legend(figure, [*keys, *([Key("muted", "bar", OTHERS)] * (len(keys) < len(looks)))])
    return figure


def _stack(axes, left: float, width: float, shares: np.ndarray, looks: Mapping[str, str]) -> None:
    """One stage, from below in the order of the looks; shares (M,) in per cent."""
    below = 0.0
    for share, (name, shade) in zip(shares.tolist(), looks.items(), strict=True):
        axes.bar(
            left,
            share,
            width,
            bottom=below,
            align="edge",
            color=colour(shade),
            edgecolor=PAPER,
            linewidth=0.8,
        )
        if share >= 100 * NAMED and shade != "muted":
            text = percent(share / 100)
            if width > 40:
                text = f"{short(name, 14)} {text}"
            axes.text(
                left + width / 2,
                below + share / 2,
                text,
                color=PAPER,
                ha="center",
                va="center",
                fontsize="small",
            )
        below += share
    axes.axvline(left, color=MUTED, linewidth=0.8)
