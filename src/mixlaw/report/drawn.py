"""From figures to the pictures of a page, which shows their legends in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixlaw.plots.marks import legend_keys
from mixlaw.report.blocks import Picture
from mixlaw.report.svg import inline_svg
from mixlaw.report.words import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT, RIGHT, BELOW, ABOVE = 0.26, 0.03, 50, 28
"""Room around the axes of one panel of several: shares of the width, CSS pixels of the height."""


def drawn(figure: Figure, *, name: str, label: str, says: str, wide: bool = False) -> Picture:
    """A picture.

    Args:
        name: unique in the page.
        label: what a reader who cannot see it is told.
        says: what it shows for this study, in a sentence.
    """
    keys = _without_legend(figure)
    return Picture(says, (inline_svg(figure, name=name, label=label),), keys, wide=wide)


def drawn_panels(figures: Mapping[str, Figure], *, name: str, label: str, says: str) -> Picture:
    """Small multiples with one legend, all in line.

    Args:
        figures: target -> a figure of one panel.
        label: with "{}" for the target.
    """
    svgs, keys = [], ()
    for k, (target, figure) in enumerate(figures.items()):
        keys = _without_legend(figure)
        height = figure.get_figheight() * 96
        for axes in figure.axes:
            across, down = 1 - LEFT - RIGHT, 1 - (BELOW + ABOVE) / height
            axes.set_position((LEFT, BELOW / height, across, down))
        svgs.append(inline_svg(figure, name=f"{name}{k}", label=label.format(plain(target))))
    return Picture(says, tuple(svgs), keys, wide=True)


def _without_legend(figure: Figure):
    keys = legend_keys(figure)
    for legend in list(figure.legends):
        legend.remove()
    return keys
