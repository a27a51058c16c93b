"""What to minimise over targets, and what a fitted law must offer for it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.runs import higher_is_better


class Forecaster(Protocol):
    """A law fitted to every target, as far as a decision needs it (`mixlaw.laws.FittedLaws`).

    Shapes: n mixtures, M domains in the order of `domains`, T targets in that of `targets`.
    """

    @property
    def law(self) -> str:
        """Name of the law."""
        ...

    @property
    def domains(self) -> tuple[str, ...]: ...

    @property
    def targets(self) -> tuple[str, ...]: ...

    @property
    def convex(self) -> bool:
        """Whether every target is convex in the mixture."""
        ...

    @property
    def decreasing(self) -> bool:
        """Whether no share ever raises a target, so that repetition leaves it convex."""
        ...

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None,
    ) -> np.ndarray:
        """Values (n, T) of mixtures (n, M), of domains with (M,) unique tokens."""
        ...

    def gradient(
        self,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None,
    ) -> np.ndarray:
        """Slopes (n, T, M) in the proportions."""
        ...

    def half_width(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        level: float,
        available_tokens: np.ndarray | None,
    ) -> np.ndarray:
        """Half widths (n,) of intervals of `coefficients (T,) @ targets` at mixtures (n, M);
        infinite when unknown."""
        ...

    def difference_scale(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None,
    ) -> float:
        """Scale of the Student t error of what two mixtures (2, M) differ by in
        `coefficients (T,) @ targets` (`mixlaw.laws.regret.FREEDOM` degrees of freedom)."""
        ...


@dataclass(frozen=True)
class Floor:
    """A target that may not get worse than a limit.

    Attributes:
        than: the limit, or the name of the baseline mixture whose forecast is the limit.
        slack: how much worse it may be nevertheless, in the target's unit.
    """

    than: float | str
    slack: float = 0.0

    def __post_init__(self):
        if not (math.isfinite(self.slack) and self.slack >= 0):
            raise StudyError(f"the slack of a floor is {self.slack}; it must be finite and >= 0")
        if not isinstance(self.than, str) and not math.isfinite(self.than):
            raise StudyError(f"a floor is {self.than}; it must be finite, or a baseline's name")


MEAN, WORST = "mean", "worst"


@dataclass(frozen=True)
class Objective:
    """What to minimise over targets.

    Each *term* is a target, or the mean of a family of targets. The objective is the weighted mean
    of the terms, or the worst of them. A score counts negatively, since more of it is better.

    Attributes:
        weights: term (a target "metric/target", or a family) -> weight > 0; rescaled to sum to 1.
        families: name -> its targets.
        over: "mean" or "worst"; in the latter a term counts as its weight over the mean weight.
        relative_to: name of a baseline mixture: every target is measured by its relative change
            from what is forecast there (-.02: 2 % better). It makes losses of different metrics,
            and scores, comparable. None: in the targets' own unit, which they must share.
        floors: target -> how bad it may be.
        reference: target -> its value at the baseline that changes are relative to; `optimize`
            fills it with the forecast.
    Raises: StudyError: no term, a weight that is not finite and positive, an unknown kind, or
        metrics whose mean means nothing.
    """

    weights: Mapping[str, float]
    families: Mapping[str, Sequence[str]] = field(default_factory=dict)
    over: str = MEAN
    relative_to: str | None = None
    floors: Mapping[str, Floor] = field(default_factory=dict)
    reference: Mapping[str, float] | None = None

    def __post_init__(self):
        if not self.weights:
            raise StudyError("the objective names no target; give at least one, such as loss/web")
        for term, weight in self.weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise StudyError(
                    f"the objective's weight of {term!r} is {weight}; it must be finite and "
                    "> 0 (leave a target out to ignore it)"
                )
        if self.over not in (MEAN, WORST):
            raise StudyError(f"the objective is over {self.over!r}; use {MEAN!r} or {WORST!r}")
        for name, members in self.families.items():
            if name not in self.weights or not members or len(set(members)) < len(members):
                raise StudyError(
                    f"the family {name!r} has the targets {list(members)}; a family needs a weight "
                    "and at least one target, each named once"
                )
        metrics = sorted({target.partition("/")[0] for target in self.targets})
        if len(metrics) > 1 and self.relative_to is None:
            raise StudyError(
                f"the objective mixes the metrics {metrics}, whose units differ, so their mean "
                "means nothing; name all targets in one of them, or measure their relative change "
                "from a baseline mixture (relative_to)"
            )
        total = math.fsum(self.weights.values())
        scaled = {target: weight / total for target, weight in self.weights.items()}
        families = {name: tuple(members) for name, members in self.families.items()}
        object.__setattr__(self, "weights", scaled)  # the dataclass is frozen
        object.__setattr__(self, "families", families)

    @property
    def targets(self) -> tuple[str, ...]:
        """Those that count, each once."""
        named = (target for term in self.weights for target in self.families.get(term, (term,)))
        return tuple(dict.fromkeys(named))

    @property
    def shares(self) -> dict[str, float]:
        """Target -> its weight, a family's shared equally by its targets."""
        out = dict.fromkeys(self.targets, 0.0)
        for term, weight in self.weights.items():
            members = self.families.get(term, (term,))
            for target in members:
                out[target] += weight / len(members)
        return out

    @property
    def linear(self) -> bool:
        """Whether it is a fixed weighted sum of the targets."""
        return self.over == MEAN or len(self.weights) == 1

    def relative(self, reference: Mapping[str, float]) -> Objective:
        """The objective with the values that changes are relative to.

        Raises: StudyError: one of them is zero.
        """
        zero = [target for target in self.targets if not abs(reference[target]) > 0]
        if zero:
            raise StudyError(
                f"{zero} are forecast at 0 for {self.relative_to!r}, so a relative change "
                "means nothing; leave them out"
            )
        return replace(self, reference={target: reference[target] for target in self.targets})

    def terms(self, targets: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The terms as `matrix (K, T) @ values (T,) + offset (K,)`, each less when better.

        K is 1 when the objective is linear, with the weights in it.

        Raises: StudyError: a target that is not among them, or no reference yet for changes.
        """
        check_targets(self.targets, targets)
        sign = np.array([-1.0 if higher_is_better(target) else 1.0 for target in targets])
        offset = np.zeros(len(targets))
        if self.relative_to is not None:
            if self.reference is None:
                raise StudyError(
                    f"the objective is relative to {self.relative_to!r}, whose forecast is needed; "
                    "optimise first"
                )
            size = np.array([abs(self.reference.get(target, 1.0)) for target in targets])
            sign, offset = sign / size, -sign
        rows, offsets = [], []
        places = {target: t for t, target in enumerate(targets)}
        for term, weight in self.weights.items():
            members = self.families.get(term, (term,))
            each = np.zeros(len(targets))
            each[[places[name] for name in members]] = 1 / len(members)
            size = weight if self.over == MEAN else weight * len(self.weights)
            rows.append(size * each * sign)
            offsets.append(size * float(each @ offset))
        if self.linear:
            return np.sum(rows, axis=0)[None], np.array([math.fsum(offsets)])
        return np.stack(rows), np.array(offsets)

    def coefficients(self, targets: Sequence[str]) -> np.ndarray:
        """Weights (T,) in the order of `targets`, 0 for those that do not count: the mean of the
        terms, in the targets' own units while there is no reference for changes.

        Raises: StudyError: a weight on a target that is not among them, or no reference yet for
            targets of different metrics.
        """
        mean = replace(self, over=MEAN)
        if self.relative_to is not None and self.reference is None:
            mean = replace(mean, relative_to=None)  # refuses different metrics
        return mean.terms(targets)[0][0]

    def values(self, values: np.ndarray, targets: Sequence[str]) -> np.ndarray:
        """The objective (n,) of values (n, T); NaN where a target that counts is NaN."""
        matrix, offset = self.terms(targets)
        counts = np.flatnonzero(np.any(matrix != 0, axis=0))
        return (values[:, counts] @ matrix[:, counts].T + offset).max(axis=1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "weights": dict(self.weights),
            "families": {name: list(members) for name, members in self.families.items()},
            "over": self.over,
            "relative_to": self.relative_to,
            "floors": {name: vars(floor).copy() for name, floor in self.floors.items()},
            "reference": self.reference and dict(self.reference),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Objective:
        floors = {name: Floor(**floor) for name, floor in data["floors"].items()}
        return cls(**{**data, "floors": floors})


def check_targets(wanted: Sequence[str], targets: Sequence[str]) -> None:
    """Raises: StudyError: names a wanted target that was not fitted, and the nearest one."""
    for name in wanted:
        if name not in targets:
            near = difflib.get_close_matches(name, targets, n=1, cutoff=0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise StudyError(
                f"the objective names {name!r}, which was not fitted{hint} "
                f"known targets: {list(targets)}"
            )
