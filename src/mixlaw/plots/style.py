"""How the pictures look: one palette for light and dark, and matplotlib settings.

Figures are drawn in the light colours, so that they are fit for any use. `svg.inline_svg` turns
each colour into the page's CSS variable, which has a dark twin.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from mixlaw.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1b1f24", "#e6e9ee"),
    "muted": ("#59626e", "#a3acb8"),
    "grid": ("#dde2e7", "#343b44"),
    "paper": ("#fefefe", "#15181d"),
    "recommended": ("#0b62a4", "#6cb6ff"),
    "natural": ("#b3560b", "#f2a65e"),
    "uniform": ("#6a4c9c", "#c4a9ff"),
    "other": ("#1a7f5a", "#5fd0a0"),
    "heat": ("#4d9be8", "#2a6db8"),
    "rise": ("#e8843c", "#9c4d12"),
    "size0": ("#b07a00", "#f0b94a"),
    "size1": ("#2b8a57", "#6fd19b"),
    "size2": ("#a12f71", "#f08cc0"),
    "size3": ("#574caf", "#a99cf5"),
    "size4": ("#1b759a", "#62c3e6"),
}
"""Name -> (light, dark)."""

MARKS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "star": "*"}
SIZES = ("size0", "size1", "size2", "size3", "size4")
SIZE_MARKS = ("circle", "square", "triangle", "diamond", "circle")
POINTS_PER_PIXEL = 0.75


def colour(name: str) -> str:
    """The light colour of a palette name."""
    return PALETTE[name][0]


INK, MUTED, GRID, PAPER = (colour(name) for name in ("ink", "muted", "grid", "paper"))

SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.5 * POINTS_PER_PIXEL,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollar signs
    "axes.labelcolor": INK,
    "axes.labelsize": "medium",
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": "medium",
    "ytick.labelsize": "medium",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "mixlaw",  # ids, and so the page's bytes, are the same each time
}


def matplotlib_context() -> Any:
    """The settings, for as long as a picture is drawn. Raises: MissingExtraError."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "report") from None
    return matplotlib.rc_context(SETTINGS)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw within the settings. Raises: MissingExtraError: no matplotlib."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib_context():
            return draw(*args, **kwargs)

    return inside


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many CSS pixels, outside pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 96, height / 96), layout="constrained")


def mixture_look(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Mixture name -> (palette name, mark)."""
    known = {
        "recommended": ("recommended", "circle"),
        "natural": ("natural", "square"),
        "uniform": ("uniform", "diamond"),
    }
    return {name: known.get(name, ("other", "triangle")) for name in names}


def size_look(index: int, how_many: int) -> tuple[str, str]:
    """(palette name, mark) of the index-th of so many sizes."""
    step = index if how_many <= len(SIZES) else index * (len(SIZES) - 1) // (how_many - 1)
    return SIZES[step], SIZE_MARKS[step]
