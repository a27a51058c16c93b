"""A recommended schedule with its evidence: plain values that survive JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.optimize.decision import Interval
from mixlaw.optimize.limits import ActiveBound
from mixlaw.optimize.objective import Objective
from mixlaw.schedule import Schedule

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ScheduleForecast:
    """What the stage law expects of one schedule at the target scale.

    Attributes:
        objective: with its interval.
        targets: target -> value with interval.
        order_effect: what the order of the stages adds to the objective of the static mixture of
            the same dose; 0 for a static schedule.
        epochs: domain -> passes over its available tokens in the whole run; empty when unknown.
    """

    schedule: Schedule
    objective: Interval
    targets: Mapping[str, Interval]
    order_effect: float
    epochs: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule.to_list(),
            "objective": self.objective.to_dict(),
            "targets": {name: value.to_dict() for name, value in self.targets.items()},
            "order_effect": self.order_effect,
            "epochs": dict(self.epochs),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScheduleForecast:
        return cls(
            schedule=Schedule.from_list(data["schedule"]),
            objective=Interval.from_dict(data["objective"]),
            targets={k: Interval.from_dict(v) for k, v in data["targets"].items()},
            order_effect=data["order_effect"],
            epochs=dict(data["epochs"]),
        )


@dataclass(frozen=True)
class Gain:
    """How much lower the staged schedule's objective is forecast than that of a static mixture.

    Attributes:
        interval: of the gain; its width infinite where no staged run was held out.
        probability: that the staged schedule really is lower.
    """

    interval: Interval
    probability: float

    @property
    def sure(self) -> bool:
        """Whether the interval lies above zero."""
        return bool(np.isfinite(self.interval.half_width) and self.interval.low > 0)

    def to_dict(self) -> dict[str, Any]:
        return {"interval": self.interval.to_dict(), "probability": self.probability}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Gain:
        return cls(Interval.from_dict(data["interval"]), data["probability"])


@dataclass(frozen=True)
class Alternative:
    """The best schedule of other stage shares, by the one fit.

    Attributes:
        shares: of the stages.
        objective: predicted.
    """

    shares: tuple[float, ...]
    objective: float

    def to_dict(self) -> dict[str, Any]:
        return {"shares": list(self.shares), "objective": self.objective}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Alternative:
        return cls(tuple(data["shares"]), data["objective"])


@dataclass(frozen=True)
class ScheduleDecision:
    """The best staged schedule against the best static mixture, and which of them to train.

    Attributes:
        staged: the best schedule found.
        static: the best static mixture.
        same_dose: the static mixture of the staged schedule's dose: against it the order alone
            counts.
        over_static, over_same_dose: gains of the staged schedule.
        reason: one sentence: why the recommended one of the first two is recommended.
        alternatives: every set of stage shares that was tried, best first.
        spread: worst minus best optimum over the starts: large where there are many minima. There
            is no certificate.
        active_bounds: what the staged schedule's dose sits on.
        form: of the stage law; law: name of the static law.
        objective: what was minimised.
        level: of the intervals.
        num_params, train_tokens: the target scale; None where the law does not read it.
        seed: of the random starts.
    """

    staged: ScheduleForecast
    static: ScheduleForecast
    same_dose: ScheduleForecast
    over_static: Gain
    over_same_dose: Gain
    reason: str
    alternatives: tuple[Alternative, ...]
    spread: float
    active_bounds: tuple[ActiveBound, ...]
    form: str
    law: str
    objective: Objective
    level: float
    num_params: float | None
    train_tokens: float | None
    seed: int
    warnings: tuple[str, ...] = ()

    @property
    def worthwhile(self) -> bool:
        """Whether the staged schedule is the recommended one: its gain over the best static
        mixture is outside the noise."""
        return self.over_static.sure

    @property
    def recommended(self) -> Schedule:
        """The schedule to train; static where the gain of the staged one is inside the noise."""
        return (self.staged if self.worthwhile else self.static).schedule

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal decision."""
        nested = ("staged", "static", "same_dose", "over_static", "over_same_dose", "objective")
        return {
            "format": FORMAT_VERSION,
            **vars(self),
            **{name: getattr(self, name).to_dict() for name in nested},
            "alternatives": [one.to_dict() for one in self.alternatives],
            "active_bounds": [bound.to_dict() for bound in self.active_bounds],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScheduleDecision:
        """Raises: StudyError: written by another format version."""
        fields = dict(data)
        version = fields.pop("format", None)
        if version != FORMAT_VERSION:
            raise StudyError(
                f"this schedule decision has format {version}, this mixlaw reads "
                f"{FORMAT_VERSION}; optimise the schedule again"
            )
        for name in ("staged", "static", "same_dose"):
            fields[name] = ScheduleForecast.from_dict(fields[name])
        for name in ("over_static", "over_same_dose"):
            fields[name] = Gain.from_dict(fields[name])
        fields |= {
            "objective": Objective.from_dict(fields["objective"]),
            "alternatives": tuple(map(Alternative.from_dict, fields["alternatives"])),
            "active_bounds": tuple(ActiveBound(**bound) for bound in fields["active_bounds"]),
            "warnings": tuple(fields["warnings"]),
        }
        return cls(**fields)
