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


@pytest.mark.parametrize(
    ("said", "meant"),
    [(1, 1.0), (0, 0.0), (2.5, 2.5), ("Infinity", math.inf), ("-Infinity", -math.inf)],
)
def test_numbers(said, meant):
    assert number(said) == meant


def test_what_is_no_number():
    assert math.isnan(number("NaN") or 0)
    for value in (True, False, None, "1", "text", [1], {"_type": "image"}):
        assert number(value) is None
