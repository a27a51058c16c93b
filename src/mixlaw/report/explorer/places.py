"""Where the page forecasts: the counts that its scale sliders step through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from mixlaw.laws.points import AXES, SAME_SCALE, TRAIN_TOKENS, scale_levels
from mixlaw.optimize.decide import Question
from mixlaw.runs import RunTable

Counts = tuple[float | None, float | None]
"""num_params and train_tokens."""

MOST_TRAINED = 8
"""Trained counts on a slider: what the page knows of each place takes room."""

BEYOND = (2.0, 4.0)
"""Times the target: how far beyond it the sliders go."""


@dataclass(frozen=True)
class Slider:
    """The counts of one axis, ascending; `trained` says which of them runs have, `target` where the
    study's own is."""

    values: tuple[float, ...]
    trained: tuple[bool, ...]
    target: int

    @classmethod
    def of(cls, counts: np.ndarray, target: float, most: int) -> Slider:
        """Args: counts: (n,) of the runs, NaN where unknown; most: of these on the slider."""
        levels = scale_levels(counts)
        distinct = [float(counts[levels == level].max()) for level in range(levels.max() + 1)]
        places = np.unique(np.linspace(0, len(distinct) - 1, min(most, len(distinct))).astype(int))
        values = {distinct[k]: True for k in places}
        twins = [v for v in values if abs(v - target) <= SAME_SCALE * target]
        for twin in twins:  # the decision's own count stands for those of its level
            del values[twin]
        values[target] = bool(twins)
        between = [max(distinct, default=target), target]
        further = [np.sqrt(between[0] * between[1]), *(target * factor for factor in BEYOND)]
        for count in (float(f"{count:.3g}") for count in further):
            if all(abs(np.log(count / value)) > np.log(1.25) for value in values):
                values[count] = False
        ordered = sorted(values)
        trained = tuple(values[value] for value in ordered)
        return cls(tuple(ordered), trained, ordered.index(target))

    def to_dict(self) -> dict[str, Any]:
        return {
            "values": [int(v) if v.is_integer() else v for v in self.values],
            "trained": list(self.trained),
            "target": self.target,
        }


@dataclass(frozen=True)
class Places:
    """All that the sliders reach.

    Attributes:
        sliders: axis -> its slider; None where moving it would change nothing.
        fixed: the study's own counts.
    """

    sliders: Mapping[str, Slider | None]
    fixed: Counts

    @classmethod
    def of(cls, question: Question, runs: RunTable, needs: frozenset[str]) -> Places:
        """Args: needs: inputs that the laws read."""
        fixed: Counts = (question.num_params, question.train_tokens)
        moves = set(needs)
        if any(domain.available_tokens for domain in question.domains):
            moves.add(TRAIN_TOKENS)  # repetition and epoch caps change with it
        if question.constraints.min_unique_tokens or question.constraints.max_unique_tokens:
            moves.add(TRAIN_TOKENS)
        # What a change is relative to is another one at each place, and its errors take a while.
        most = MOST_TRAINED if question.objective.relative_to is None else 2
        sliders = {
            axis: Slider.of(getattr(runs, axis), float(target), most)
            if axis in moves and target
            else None
            for axis, target in zip(AXES, fixed, strict=True)
        }
        return cls(sliders, fixed)

    def counts(self) -> list[Counts]:
        """Every place (G), the last axis fastest."""
        sizes, tokens = (
            (fixed,) if (slider := self.sliders[axis]) is None else slider.values
            for axis, fixed in zip(AXES, self.fixed, strict=True)
        )
        return list(product(sizes, tokens))

    def to_dict(self) -> dict[str, Any]:
        return {axis: slider and slider.to_dict() for axis, slider in self.sliders.items()}
