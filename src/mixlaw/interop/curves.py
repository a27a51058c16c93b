"""Metrics of one run, gathered point by point."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection
from typing import Any

import numpy as np

from mixlaw.interop.logged import STEPS, Series

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def number(value: Any) -> float | None:
    """A logged value as a number, NaN and infinities too, which tools write as words in JSON; None
    for what is no number: texts, lists, images, truth values."""
    if isinstance(value, str):
        return _WORDS.get(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits, where a float is infinite
        return math.inf if value > 0 else -math.inf


def told(value: Any) -> Any:
    """A final value as it was logged: a word that stands for a number as that number."""
    return _WORDS.get(value, value) if isinstance(value, str) else value


class _Points:
    """Of one metric."""

    def __init__(self, axis: str):
        self.axis = axis
        self.steps, self.values, self.counts = array("d"), array("d"), array("d")

    def add(self, step: float, value: float, count: float) -> None:
        for cells, cell in ((self.steps, step), (self.values, value), (self.counts, count)):
            cells.append(cell)

    def drop(self, step: float) -> int:
        """Leave out the points from a step on. Returns: how many, but for one at that very step,
        which is merely repeated."""
        later = 0
        while self.steps and self.steps[-1] >= step:
            later += self.steps[-1] > step
            del self.steps[-1], self.values[-1], self.counts[-1]
        return later

    def series(self) -> Series:
        counts = None if self.axis == STEPS else np.array(self.counts)
        known = counts is not None and not np.isnan(counts).any()
        return Series(
            np.array(self.steps), np.array(self.values), self.axis, counts if known else None
        )


class Curves:
    """The series that are wanted, or the last points of all of them.

    A metric that goes back to an earlier step was trained again from there, after a restart: the
    points that it had from that step on are replaced, for the model that went on never had them.

    Attributes:
        ends: axis -> the largest step on it, of the points that were added and all that `reach`
            was told.
    """

    def __init__(self, names: Collection[str] | None):
        """names: as of `Importer.read`."""
        self.ends: dict[str, float] = {}
        self._names = None if names is None else frozenset(names)
        self._points: dict[str, _Points] = {}
        self._replaced = 0
        self._notes: list[str] = []

    def wants(self, name: str) -> bool:
        return self._names is None or name in self._names

    def add(
        self, name: str, step: float, value: float, *, axis: str = STEPS, count: float = math.nan
    ) -> None:
        """The next point of a metric that is wanted, on its axis, and on the tool's own."""
        self.reach(step, axis)
        points = self._points.get(name)
        if points is not None and points.axis != axis:
            self._notes.append(
                f"{len(points.steps):,} points of {name} over {points.axis} were left out, for it "
                f"went on over {axis}"
            )
        if points is None or points.axis != axis:
            points = self._points[name] = _Points(axis)
        if self._names is None:
            points.drop(-math.inf)
        else:
            self._replaced += points.drop(step)
        points.add(step, value, count)

    def reach(self, step: float, axis: str = STEPS) -> None:
        """Something was logged at a step."""
        if step > self.ends.get(axis, -math.inf):
            self.ends[axis] = step

    def restart(self, step: float) -> None:
        """All metrics go back to a step."""
        if self._names is not None:
            self._replaced += sum(points.drop(step) for points in self._points.values())

    def series(self) -> dict[str, Series]:
        return {name: points.series() for name, points in self._points.items() if points.steps}

    def notes(self) -> list[str]:
        """What was left out, in words."""
        if not self._replaced:
            return self._notes
        what = "points were left out that a restart trained again"
        return [f"{self._replaced:,} {what}", *self._notes]
