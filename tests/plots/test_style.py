"""Colours that can be read, legends that can be taken over, and a light import."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files

import pytest

from mixlaw import plots
from mixlaw.errors import MissingExtraError
from mixlaw.plots.style import PALETTE, SIZES

TEXTS, LARGE = 4.5, 3.0
"""WCAG 2.1 AA: contrast of text, and of what must be told apart from its background."""


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def over(colour: str, alpha: float, paper: str) -> str:
    pairs = [(int(colour[k : k + 2], 16), int(paper[k : k + 2], 16)) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(alpha * a + (1 - alpha) * b):02x}" for a, b in pairs)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_texts_and_marks_can_be_read(mode):
    colours = {name: pair[mode] for name, pair in PALETTE.items()}
    paper = colours["paper"]
    for name in ("ink", "muted", "recommended"):  # also text, or links
        assert contrast(colours[name], paper) >= TEXTS, name
    for name in ("natural", "uniform", "other", *SIZES):
        assert contrast(colours[name], paper) >= LARGE, name
    for name in ("heat", "rise"):  # numbers stand on tiles of every depth
        for depth in (0.09, 0.45, 0.9):
            tile = over(colours[name], depth, paper)
            assert contrast(colours["ink"], tile) >= TEXTS, (name, depth)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_of_the_page_can_be_read(scheme):
    text = (files("mixlaw.report") / "template.html").read_text(encoding="utf-8")
    blocks = re.findall(r"--card: (.*)", text)
    named = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", f"--card: {blocks[scheme == 'dark']}"))
    paper = PALETTE["paper"][scheme == "dark"]
    for name in ("good", "bad", "unclear", "untested"):
        assert contrast(named[name], paper) >= TEXTS, name
    for name in ("ink", "muted"):
        assert contrast(PALETTE[name][scheme == "dark"], named["card"]) >= TEXTS, name


def test_each_colour_has_one_name():
    light = [pair[0] for pair in PALETTE.values()]
    assert len(set(light)) == len(light)


def test_importing_draws_nothing():
    code = "import sys, mixlaw.plots; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_every_picture_is_documented():
    for name in plots.__all__:
        text = getattr(plots, name).__doc__ or ""
        assert "Raises:" in text or "raises: as" in text, name
        assert "Returns:" in text or "returns and raises" in text, name


def test_without_matplotlib_the_error_names_the_extra(made, no_matplotlib):
    with pytest.raises(MissingExtraError, match=r"mixlaw\[report\]"):
        plots.mixture(made.decision)
