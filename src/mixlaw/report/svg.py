"""A matplotlib figure as inline SVG that follows the page's fonts and colours, and is small."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

from mixlaw.plots.style import PALETTE, SETTINGS, matplotlib_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_COLOUR = re.compile("|".join(_VARIABLES))
_NUMBER = re.compile(r"-?\d+\.\d+")
_FONT_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_NO_TURN = re.compile(r"rotate\(-?0 [^)]*\)")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_GEOMETRY = ("d", "x", "y", "width", "height", "transform", "points", "viewBox")
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_FONT_SIZE = f"font-size: {SETTINGS['font.size']:g}px; "


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
    _adapt(root, name, digits=1)
    _squeeze(root, _referenced(root))
    _size(root)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _bare(tag: str) -> str:
    return tag.rpartition("}")[2]


def _adapt(element: ElementTree.Element, name: str, digits: int) -> None:
    """Drop namespaces, prefix ids, shorten numbers, name colours; marks keep a digit more."""
    element.tag = _bare(element.tag)
    digits = 2 if element.tag == "defs" else digits
    attributes = {_bare(key): text for key, text in element.attrib.items()}
    element.attrib.clear()
    for key, text in attributes.items():
        if key == "id":
            text = f"{name}-{text}"
        elif key == "href":
            text = text.replace("#", f"#{name}-", 1)
        elif key == "style":
            text = _COLOUR.sub(lambda found: _VARIABLES[found[0]], text)
            text = _FONT_FAMILY.sub("", text).replace(_FONT_SIZE, "")
            text = text.replace("; ", ";").replace(": ", ":")
        elif key in _GEOMETRY:
            text = _NUMBER.sub(lambda found: _short(found[0], digits), _NO_TURN.sub("", text))
            text = " ".join(text.split())
        if text:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", text))
    for child in element:
        _adapt(child, name, digits)


def _short(number: str, digits: int) -> str:
    text = f"{float(number):z.{digits}f}"
    return text.rstrip("0").rstrip(".")


def _referenced(root: ElementTree.Element) -> set[str]:
    """The ids that something uses."""
    found = set()
    for element in root.iter():
        for key, text in element.attrib.items():
            found |= {text[1:]} if key == "href" else set(_REFERENCE.findall(text))
    return found


def _squeeze(element: ElementTree.Element, used: set[str]) -> None:
    """Drop what shows nothing: unused ids, groups without a purpose, white space; marks of one
    look share its description."""
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    element.tail = None
    if element.tag != "text":
        element.text = None
    children: list[ElementTree.Element] = []
    for child in element:
        if child.tag in ("metadata", "style") or child.get("style") == "fill:none":
            continue
        _squeeze(child, used)
        if child.tag == "g" and not child.attrib:
            children += child
        elif child.tag != "defs" or len(child):
            children.append(child)
    element[:] = children
    marks = [child for child in element if child.tag == "use"]
    styles = {child.get("style") for child in marks}
    if element.tag == "g" and len(marks) == len(element) > 1 and len(styles) == 1:
        style = styles.pop()
        if style and "style" not in element.attrib:
            element.set("style", style)
            for mark in marks:
                del mark.attrib["style"]


def _size(root: ElementTree.Element) -> None:
    """Natural width in CSS pixels as a style; the height follows from the view box."""
    points = float(root.attrib.pop("width").removesuffix("pt"))
    for key in ("height", "version"):
        root.attrib.pop(key, None)
    root.set("style", f"--width: {points / 0.75:.0f}px; {_FONT_SIZE.strip()}")
