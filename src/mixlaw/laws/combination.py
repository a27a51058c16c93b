"""Fitted laws added up: a stack of laws of one target, or one target that is made of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.page_form import Form, Scale
from mixlaw.laws.points import Points
from mixlaw.laws.solver import Start

STACK, AGGREGATE = "stack", "aggregate"


class Combination(Recipe):
    """A weighted sum of recipes, with weights >= 0, so convex where all of them are.

    Its weights come from held-out predictions (`stacking`) or from known shares (`aggregate`), so
    it has no fit of its own.
    """

    def __init__(self, name: str, parts: Sequence[Recipe]):
        self.name = name
        self.formula = " + ".join(dict.fromkeys(part.name for part in parts))
        self.axes = {axis: ref for part in parts for axis, ref in part.axes.items()}
        self.needs = frozenset().union(*(part.needs for part in parts))
        self.convex = all(part.convex for part in parts)
        self.decreasing = all(part.decreasing for part in parts)

    def fit_batch(
        self, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
    ) -> list[Fitted]:
        raise FitError(f"{self.name!r} is made of fitted laws; fit its parts: {self.formula}")


@dataclass(frozen=True, eq=False)
class FittedSum(Fitted):
    """`sum_k shares_k parts_k`.

    Attributes:
        name: "stack" or "aggregate".
        shares: (k,) >= 0.
    """

    name: str
    target: str
    parts: tuple[Fitted, ...]
    shares: np.ndarray

    @property
    def domains(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.parts[0].domains

    @property
    def warnings(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(dict.fromkeys(text for part in self.parts for text in part.warnings))

    @property
    def recipe(self) -> Combination:
        return Combination(self.name, [part.recipe for part in self.parts])

    @property
    def start(self) -> None:
        return None

    def predict(self, points: Points) -> np.ndarray:
        return self._sum([part.predict(points) for part in self.parts])

    def gradient(self, points: Points) -> np.ndarray:
        return self._sum([part.gradient(points) for part in self.parts])

    def _sum(self, values: list[np.ndarray]) -> np.ndarray:
        return reduce(add, (s * v for s, v in zip(self.shares, values, strict=True)))

    script = """(shares, own, constants, parts) => (at) => {
      let sum = 0;
      for (let k = 0; k < parts.length; k++) sum += shares[k] * parts[k](at);
      return sum;
    }"""

    def form(self, scales: Sequence[Scale] = ()) -> Form:
        return Form(
            name="FittedSum",
            script=self.script,
            numbers=self.shares,
            parts=tuple(part.form(scales) for part in self.parts),
            remake=lambda form, parts: replace(self, shares=form.numbers, parts=tuple(parts)),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "law": self.name,
            "target": self.target,
            "shares": self.shares.tolist(),
            "parts": [part.to_dict() for part in self.parts],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedSum:
        from mixlaw.laws.catalogue import load_fitted  # it lists this class

        parts = tuple(load_fitted(part) for part in data["parts"])
        return cls(data["law"], data["target"], parts, np.array(data["shares"], float))


def aggregate(laws: Mapping[str, Fitted], shares: Mapping[str, float], *, target: str) -> FittedSum:
    """A target that is a known mean of others, from their laws (explicit aggregation).

    The loss on a whole validation set is the sum of its parts' losses weighted by their shares of
    its tokens; a law per part, added up, forecasts it better than one law of the sum.

    Args:
        laws: target -> fitted law.
        shares: target -> share >= 0, which need not sum to one.
        target: name of the whole, `metric/name`.
    Raises: FitError: a share of a target that has no law, or below zero.
    Source: Ye et al., arXiv 2403.16952, section 3.3.
    """
    if strangers := sorted(set(shares) - set(laws)):
        raise FitError(f"no law was fitted to {strangers}; there are {sorted(laws)}")
    if bad := {name: share for name, share in shares.items() if not share >= 0}:
        raise FitError(f"shares of an aggregate must be >= 0, got {bad}")
    if not shares:
        raise FitError("an aggregate needs at least one target with a share")
    return FittedSum(
        AGGREGATE,
        target,
        tuple(laws[name] for name in shares),
        np.array(list(shares.values()), float),
    )
