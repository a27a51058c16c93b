"""Points become series."""

from __future__ import annotations

import math

import pytest

from mixlaw.interop.curves import Curves, number


def points(curves: Curves) -> dict[str, list[tuple[float, float]]]:
    return {
        name: list(zip(series.steps, series.values, strict=True))
        for name, series in curves.series().items()
    }


def test_after_a_restart_the_later_points_hold():
    curves = Curves(["a", "b"])
    for step in (1, 2, 3, 4):
        curves.add("a", step, step)
        curves.add("b", step, step)
    for step in (3, 4, 5):
        curves.add("a", step, 10 * step)
    assert points(curves) == {
        "a": [(1, 1), (2, 2), (3, 30), (4, 40), (5, 50)],
        "b": [(1, 1), (2, 2), (3, 3), (4, 4)],
    }
    assert curves.notes() == ["1 points were left out that a restart trained again"]
    curves.restart(2)
    assert points(curves) == {"a": [(1, 1)], "b": [(1, 1)]}


def test_a_value_that_is_logged_again_at_its_step_is_no_restart():
    curves = Curves(["a"])
    curves.add("a", 1, 1)
    curves.add("a", 1, 2)
    assert points(curves) == {"a": [(1, 2)]}
    assert curves.notes() == []


def test_where_none_is_wanted_whole_the_last_points_are_kept():
    curves = Curves(None)
    for step in (1, 2, 7, 3):
        curves.add("a", step, -step)
    assert points(curves) == {"a": [(3, -3)]}
    assert Curves([]).wants("a") is False


def test_points_keep_their_axis_and_their_place_on_the_tools_own():
    curves = Curves(["a"])
    for step in (1, 2):
        curves.add("a", step / 2, step, axis="epoch", count=10 * step)
    curves.reach(30)
    curves.reach(25)
    (series,) = curves.series().values()
    assert series.axis == "epoch"
    assert series.counts is not None
    assert series.counts.tolist() == [10, 20]
    assert curves.ends == {"epoch": 1.0, "_step": 30}
    on_tools = series.over("_step")
    assert on_tools is not None
    assert on_tools.steps.tolist() == [10, 20]
    assert series.over("tokens") is None
    curves.add("a", 40, 3)
    assert points(curves) == {"a": [(40, 3)]}
    assert curves.notes() == ["2 points of a over epoch were left out, for it went on over _step"]


def test_points_that_run_back_on_the_tools_own_axis_lie_nowhere_on_it():
    curves = Curves(["a"])
    for step, count in ((1, 10), (2, 5)):
        curves.add("a", step, step, axis="epoch", count=count)
    assert curves.series()["a"].over("_step") is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *((1, 1.0), (0, 0.0), (2.5, 2.5), ("Infinity", math.inf), ("-Infinity", -math.inf)),
        (-(10**400), -math.inf),
    ],
)
def test_numbers(said, meant):
    assert number(said) == meant


def test_what_is_no_number():
    assert math.isnan(number("NaN") or 0)
    for value in (True, False, None, "1", "text", [1], {"_type": "image"}):
        assert number(value) is None
