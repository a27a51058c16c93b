"""Metrics of one run, gathered point by point."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection
from typing import Any

import numpy as np

from mixlaw.interop.logged import Series

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def number(value: Any) -> float | None:
    """A logged value as a number, NaN and infinities too, which tools write as words in JSON; None
    for what is no number: texts, lists, images, truth values."""
    if isinstance(value, str):
        return _WORDS.get(value)
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real else None


def told(value: Any) -> Any:
    """A final value as it was logged: a word that stands for a number as that number."""
    return _WORDS.get(value, value) if isinstance(value, str) else value


class Curves:
    """The series that are wanted, or the last points of all of them.

    A metric that goes back to an earlier step was trained again from there, after a restart: the
    points that it had from that step on are replaced, for the model that went on never had them.
    """

    def __init__(self, names: Collection[str] | None):
        """names: as of `Importer.read`."""
        self._names = None if names is None else frozenset(names)
        self._points: dict[str, tuple[array[float], array[float]]] = {}
        self._replaced = 0

    def wants(self, name: str) -> bool:
        return self._names is None or name in self._names

    def add(self, name: str, step: float, value: float) -> None:
        """The next point of a metric that is wanted."""
        if (points := self._points.get(name)) is None:
            points = self._points[name] = array("d"), array("d")
        steps, values = points
        if self._names is None and steps:
            steps[0], values[0] = step, value
            return
        self._drop(name, step)
        steps.append(step)
        values.append(value)

    def restart(self, step: float) -> None:
        """All metrics go back to a step."""
        if self._names is not None:
            for name in self._points:
                self._drop(name, step)

    def _drop(self, name: str, step: float) -> None:
        """Leave out the points from a step on; a point at that very step is merely repeated."""
        steps, values = self._points[name]
        while steps and steps[-1] >= step:
            self._replaced += steps[-1] > step
            del steps[-1], values[-1]

    def series(self) -> dict[str, Series]:
        return {
            name: Series(np.array(steps), np.array(values))
            for name, (steps, values) in self._points.items()
            if steps
        }

    def notes(self) -> list[str]:
        """What was left out, in words."""
        if not self._replaced:
            return []
        return [f"{self._replaced:,} points were left out that a restart trained again"]
