"""A figure as inline SVG: small, the same each time, and without what shows nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mixlaw.plots.marks import Key, add_legend, draw_marks, draw_tiles
from mixlaw.plots.style import new_figure, styled
from mixlaw.report.drawn import drawn
from mixlaw.report.svg import inline_svg


@styled
def picture(points=50):
    figure = new_figure(400, 300)
    axes = figure.add_subplot()
    x = np.linspace(0, 1, points)
    draw_marks(axes, x, x**2, ("natural", "square"))
    axes.set_title("a < b & \"c\" 'd'")
    add_legend(figure, [Key("natural", "square", "<i>seen</i>")])
    return figure


def test_it_is_the_same_each_time_and_refers_to_itself_only():
    text = inline_svg(picture(), name="one", label="x")
    assert text == inline_svg(picture(), name="one", label="x")
    ids = re.findall(r' id="([^"]+)"', text)
    used = {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)}
    assert set(ids) == used
    assert all(name.startswith("one-") for name in ids)


def test_a_mark_costs_few_bytes():
    bytes_of = [len(inline_svg(picture(points), name="n", label="x")) for points in (50, 150)]
    assert (bytes_of[1] - bytes_of[0]) / 100 < 60


def test_marks_stay_where_they_are():
    root = ElementTree.fromstring(inline_svg(picture(5), name="n", label="x"))
    (group,) = [g for g in root.iter("g") if len(g.findall("use")) == 5]
    x = [float(use.get("x") or "nan") for use in group]
    assert np.diff(x) == pytest.approx(np.diff(x)[0], abs=0.11)


def test_the_page_takes_the_legend_over():
    found = drawn(picture(), name="n", label="x", says="y")
    assert found.legend == (Key("natural", "square", "<i>seen</i>"),)
    assert "seen" not in found.svgs[0]
    assert "a &lt; b &amp;" in found.svgs[0]


@styled
def tiles(depths):
    figure = new_figure(400, 300)
    axes = figure.add_subplot()
    draw_tiles(axes, np.array(depths), "heat")
    axes.set_xlim(-0.5, 2.5)
    axes.set_ylim(-0.5, 1.5)
    return axes


def test_tiles_of_one_depth_are_one_shape_and_nothing_is_no_tile():
    axes: Any = tiles([[0.0, 0.5, 0.5], [np.nan, 1.0, 0.5]])
    shapes = {round(patch.get_alpha(), 2): len(patch.get_path().vertices) for patch in axes.patches}
    assert shapes == {0.45: 15, 0.9: 5}
