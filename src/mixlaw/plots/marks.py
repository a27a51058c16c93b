"""What the pictures share: rows, marks, intervals, tiles, axes. Names are drawn as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.optimize.decision import Decision, Forecast, Interval
from mixlaw.plots.style import INK, MARKS, PAPER, colour, mixture_look
from mixlaw.plots.words import plain, short_count
from mixlaw.study.verification import RECOMMENDED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, PANEL = 500, 280
"""CSS pixels of a picture, and of one of several."""

SHARE = "share of training tokens (%)"
HOLLOW_STAR = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.3}
SHADES = 10
"""Depths of a tile; tiles of one depth are one shape, which keeps a page small."""


@dataclass(frozen=True)
class Key:
    """One entry of a legend.

    Attributes:
        colour: one of `style.PALETTE`.
        mark: "circle", "ring", "square", "diamond", "triangle", "star", "bar" or "line".
    """

    colour: str
    mark: str
    text: str


def mixture_keys(names: Sequence[str]) -> list[Key]:
    """Of mixtures."""
    return [Key(shade, mark, plain(n)) for n, (shade, mark) in mixture_look(names).items()]


def add_legend(figure: Figure, keys: Sequence[Key]) -> None:
    """Above the picture; a page may take it off and show `legend_keys` in its own way."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for key in keys:
        shade = colour(key.colour)
        if key.mark == "bar":
            handle: Any = Patch(color=shade, alpha=0.6)
        elif key.mark == "line":
            handle = Line2D([], [], color=shade)
        else:
            hollow = key.mark in ("ring", "star")
            mark = MARKS["circle" if key.mark == "ring" else key.mark]
            handle = Line2D([], [], linestyle="none", marker=mark, color=shade)
            handle.set_markerfacecolor("none" if hollow else shade)
        handles.append(handle)
    texts = [key.text for key in keys]
    columns = 1 if max(map(len, texts)) > 34 else 2
    wide, roomy = (figure.get_figwidth() * 96 > size for size in (1.4 * WIDTH, 1.4 * PANEL))
    legend = figure.legend(
        handles, texts, loc="outside upper left", ncols=2 * columns if wide else columns,
        frameon=False, fontsize="medium" if roomy else "small",
        columnspacing=1.0, handlelength=1.5, handletextpad=0.5, borderaxespad=0.2,
    )  # fmt: skip
    for handle, key in zip(legend.legend_handles, keys, strict=True):
        if handle is not None:
            handle.set_gid(f"{key.colour} {key.mark}")


def legend_keys(figure: Figure) -> tuple[Key, ...]:
    """What the legend of a figure says; nothing where it has none."""
    out = []
    for legend in figure.legends:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            shade, _, mark = str(handle.get_gid() if handle else "").partition(" ")
            out.append(Key(shade, mark, text.get_text()))
    return tuple(out)


def forecasts_of(decision: Decision) -> dict[str, Forecast]:
    """Mixture name -> forecast, the recommended one first."""
    others = {name: comparison.forecast for name, comparison in decision.baselines.items()}
    return {RECOMMENDED: decision.forecast, **others}


def targets_of(decision: Decision, asked: Sequence[str] | None) -> list[str]:
    """Those asked for, or all. Raises: StudyError: one that the decision does not forecast."""
    known = list(decision.forecast.targets)
    if strangers := [target for target in asked or () if target not in known]:
        raise StudyError(f"the decision forecasts no {strangers}; its targets are {known}")
    return list(asked or known)


def rows_down(axes: Any, labels: Sequence[str]) -> None:
    """Rows from the top down, named on the left."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def columns_on_top(axes: Any, labels: Sequence[str], *, narrow: bool) -> None:
    """Columns from the left, named above, and aslant where names are long."""
    turn = {} if narrow else {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xticks(range(len(labels)), labels, **turn)
    axes.tick_params(axis="x", length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)


def draw_marks(axes: Any, x: Any, y: Any, look: tuple[str, str], **more: Any) -> None:
    """Marks at (x, y) in a look of the style."""
    name, mark = look
    size = {"star": 11, "diamond": 6}.get(mark, 7)
    style = {"markersize": size, "markeredgecolor": PAPER, "markeredgewidth": 0.8, "zorder": 4}
    axes.plot(x, y, linestyle="none", marker=MARKS[mark], color=colour(name), **{**style, **more})


def draw_rings(axes: Any, x: Any, y: Any, shade: str, size: float = 7, width: float = 1.5) -> None:
    """Rings: what was predicted, or held out."""
    ring = {"markerfacecolor": "none", "markeredgecolor": colour(shade), "markeredgewidth": width}
    draw_marks(axes, x, y, (shade, "circle"), **ring, markersize=size)


def draw_interval(axes: Any, y: float, found: Interval, look: tuple[str, str]) -> None:
    """A value with its interval as a line, where that is known."""
    if np.isfinite(found.half_width):
        axes.plot([found.low, found.high], [y, y], color=colour(look[0]), linewidth=2, alpha=0.75)
    draw_marks(axes, found.value, y, look)


def draw_tiles(axes: Any, depths: np.ndarray, shade: str) -> None:
    """A tile at (column, row) as deep as `depths` (rows, columns) says, 0 to 1; NaN or 0: none."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    steps = np.ceil(SHADES * np.clip(np.nan_to_num(depths), 0, 1)).astype(int)
    for step in range(1, SHADES + 1):
        tiles = [
            Path([(j - w, i - h), (j + w, i - h), (j + w, i + h), (j - w, i + h), (0, 0)], CODES)
            for i, j in np.argwhere(steps == step).tolist()
            for w, h in [(0.47, 0.45)]
        ]
        if tiles:
            shape = Path.make_compound_path(*tiles)
            alpha = 0.9 * step / SHADES
            axes.add_patch(PathPatch(shape, color=colour(shade), alpha=alpha, linewidth=0))


CODES = (1, 2, 2, 2, 79)
"""Of a closed rectangle: matplotlib's MOVETO, three LINETO, CLOSEPOLY."""


def number_tiles(axes: Any, texts: Mapping[tuple[int, int], str]) -> None:
    """A number on the tile at (row, column)."""
    for (row, column), text in texts.items():
        axes.text(column, row, text, ha="center", va="center_baseline", fontsize="small")


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
