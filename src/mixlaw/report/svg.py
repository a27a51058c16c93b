"""A matplotlib figure as inline SVG that follows the page's fonts and colours."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

from mixlaw.report.style import PALETTE, matplotlib_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_COLOUR = re.compile("|".join(_VARIABLES))
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_GEOMETRY = ("d", "x", "y", "width", "height", "transform", "points", "viewBox")
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def inline_svg(figure: Figure, *, name: str, label: str) -> str:
    """SVG for the body of an HTML page; the same figure gives the same text.

    Args:
        name: prefix of every id, unique in the page.
        label: what a reader who cannot see the picture is told.
    """
    buffer = io.StringIO()
    with matplotlib_context(), warnings.catch_warnings():
        # Names in any script are drawn by the browser; matplotlib only measures them.
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph")
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if _bare(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, name)
    _size(root)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _bare(tag: str) -> str:
    return tag.rpartition("}")[2]


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Drop namespaces, prefix ids, shorten numbers, name colours."""
    element.tag = _bare(element.tag)
    attributes = {_bare(key): text for key, text in element.attrib.items()}
    element.attrib.clear()
    for key, text in attributes.items():
        if key == "id":
            text = f"{name}-{text}"
        elif key == "href":
            text = text.replace("#", f"#{name}-", 1)
        elif key == "style":
            text = _COLOUR.sub(lambda found: _VARIABLES[found[0]], text)
            text = _FONT_FAMILY.sub("", text)
        elif key in _GEOMETRY:
            text = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", text)
        element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", text))


def _size(root: ElementTree.Element) -> None:
    """Natural width in CSS pixels as a style; the height follows from the view box."""
    points = float(root.attrib.pop("width").removesuffix("pt"))
    for key in ("height", "version"):
        root.attrib.pop(key, None)
    root.set("style", f"--width: {points / 0.75:.0f}px")
