"""The picture of a schedule: every stage stacks to the whole, and many domains share a shade."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.errors import MixtureError
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mixlaw.plots.schedules import SHADES, schedule_bars, shades
from mixlaw.report.schedule_words import moves_words, stage_names

EARLY, LATE = Mixture({"web": 0.9, "code": 0.1}), Mixture({"web": 0.4, "code": 0.6})
STAGED = Schedule.of([(0.8, EARLY), (0.2, LATE)])


def _bars(axes) -> list:
    return list(axes.patches)


def test_stages_stack_to_the_whole_run():
    static = Schedule.static(STAGED.dose)
    figure = schedule_bars({"staged": STAGED, "same dose": static}, ["web", "code"])
    first, second = figure.axes
    sizes = [(bar.get_width(), bar.get_height()) for bar in _bars(first)]
    assert sum(width * height for width, height in sizes) == pytest.approx(100 * 100)
    assert [bar.get_height() for bar in _bars(second)] == pytest.approx([80, 20])
    assert list(first.get_xticks()) == [0, 80, 100]


def test_no_schedule_is_no_picture():
    with pytest.raises(MixtureError, match="give one by its title"):
        schedule_bars({}, ["a"])


def test_the_largest_dose_comes_first_and_the_rest_share_a_shade():
    names = [f"d{j}" for j in range(12)]
    weights = np.arange(1, 13) / np.arange(1, 13).sum()
    looks = shades(Schedule.static(Mixture.from_array(names, weights)), names)
    assert list(looks) == names[::-1]
    assert list(looks.values()) == [*SHADES[:-1], *["muted"] * 5]


def test_words_of_the_stages():
    assert stage_names(STAGED) == ["0-80%", "80-100%"]
    assert moves_words(STAGED) == (
        "From the first stage to the last, code rises most (10% to 60%) and web falls most "
        "(90% to 40%)"
    )
