"""A decision: the mixture to train, with the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.mixture import Mixture
from mixlaw.optimize.evidence import Distance
from mixlaw.optimize.limits import ActiveBound
from mixlaw.optimize.objective import Objective

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Interval:
    """A value and the half width of its interval; infinite when the runs cannot tell."""

    value: float
    half_width: float

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width

    def to_dict(self) -> dict[str, float | None]:
        """JSON has no infinity: an unknown width is null."""
        width = self.half_width if np.isfinite(self.half_width) else None
        return {"value": self.value, "half_width": width}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Interval:
        width = data["half_width"]
        return cls(data["value"], np.inf if width is None else width)


@dataclass(frozen=True)
class Forecast:
    """What the law expects of one mixture at the target scale.

    Attributes:
        objective: with its interval.
        targets: target -> value with interval.
        epochs: domain -> passes over its available tokens; empty when unknown.
        violations: constraints and floors that the mixture breaks, one phrase each.
        extrapolates: domains whose share lies outside the trained range, one phrase each.
    """

    mixture: Mixture
    objective: Interval
    targets: Mapping[str, Interval]
    epochs: Mapping[str, float]
    violations: tuple[str, ...] = ()
    extrapolates: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "mixture": dict(self.mixture),
            "objective": self.objective.to_dict(),
            "targets": {name: value.to_dict() for name, value in self.targets.items()},
            "epochs": dict(self.epochs),
            "violations": list(self.violations),
            "extrapolates": list(self.extrapolates),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Forecast:
        return cls(
            mixture=Mixture(data["mixture"]),
            objective=Interval.from_dict(data["objective"]),
            targets={k: Interval.from_dict(v) for k, v in data["targets"].items()},
            epochs=dict(data["epochs"]),
            violations=tuple(data["violations"]),
            extrapolates=tuple(data["extrapolates"]),
        )


@dataclass(frozen=True)
class Comparison:
    """The recommended mixture against a baseline.

    Attributes:
        forecast: of the baseline; its `violations` flag one that the constraints forbid.
        gain: how much lower the recommended mixture's objective is predicted.
        probability_better: that the recommended mixture really is lower.
    """

    forecast: Forecast
    gain: float
    probability_better: float

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "forecast": self.forecast.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        return cls(**{**data, "forecast": Forecast.from_dict(data["forecast"])})


@dataclass(frozen=True)
class AtOtherScale:
    """The optimum if the model were of another scale.

    Attributes:
        objective: predicted there of the optimum for that scale.
        recommended: predicted there of the mixture recommended for the target scale.
    """

    num_params: float | None
    train_tokens: float | None
    mixture: Mixture
    objective: float
    recommended: float

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "mixture": dict(self.mixture)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AtOtherScale:
        return cls(**{**data, "mixture": Mixture(data["mixture"])})


@dataclass(frozen=True)
class Regret:
    """How much lower the true objective may be at the best allowed mixture.

    Attributes:
        expected: on average; what more runs could gain at most.
        bound: not exceeded with probability `level`.

    Of the worst of several terms: of their mean, weighted as they press at the optimum.
    """

    expected: float
    bound: float
    level: float


@dataclass(frozen=True)
class Region:
    """Where a practitioner is free: mixtures that are predicted nearly as good.

    Attributes:
        tolerance: how much worse than the recommended mixture, in the objective's unit.
        ranges: domain -> smallest and largest share among them; the others move along, so the ends
            of two domains need not go together.
    """

    tolerance: float
    ranges: Mapping[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        ranges = {name: list(ends) for name, ends in self.ranges.items()}
        return {"tolerance": self.tolerance, "ranges": ranges}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Region:
        ranges = {name: (low, high) for name, (low, high) in data["ranges"].items()}
        return cls(data["tolerance"], ranges)


@dataclass(frozen=True)
class Sensitivity:
    """What one more percentage point of a domain buys, the others giving in proportion.

    Attributes:
        objective: its change; negative is better.
        targets: target -> change.
    """

    objective: float
    targets: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {"objective": self.objective, "targets": dict(self.targets)}


@dataclass(frozen=True)
class RobustOptimum:
    """Over which refits the mixture was chosen.

    Attributes:
        over: "mean", "worst" or a quantile of the draws.
        num_draws: refits.
        value: the mean, worst or quantile of the objective at the recommended mixture.
        single: the optimum of the one fit, for comparison.
    """

    over: str | float
    num_draws: int
    value: float
    single: Mixture

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "single": dict(self.single)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobustOptimum:
        return cls(**{**data, "single": Mixture(data["single"])})


@dataclass(frozen=True)
class Decision:
    """The recommended mixture with its evidence.

    Attributes:
        forecast: of the recommended mixture.
        baselines: name -> comparison.
        gap: certificate: no allowed mixture is predicted lower by more, before rounding (what the
            objective pays for a distance included); None for a problem that is not convex.
        spread: worst minus best optimum over the starts of a problem that is not convex.
        active_bounds: what the recommended mixture sits on.
        unguarded: the predicted optimum without the support guard, a diagnostic only; None
            when the guard was off.
        guard_cost: how much lower the law predicts the objective of `unguarded`.
        distance: from the trained mixtures; None when these are not known.
        regret: how far from the true best it may be; None where held-out errors are not known.
        region: mixtures that are nearly as good.
        sensitivities: domain -> what more of it buys.
        scales: the optimum at other scales.
        robust: over which refits it was chosen; None: by the one fit.
        rounding_cost: how much the objective rises by rounding the shares; None: not rounded.
        objective: what was minimised.
        level: of the intervals.
        num_params, train_tokens: the target scale; None where the law does not read it.
        seed: of the random starts.
    """

    forecast: Forecast
    baselines: Mapping[str, Comparison]
    gap: float | None
    spread: float
    active_bounds: tuple[ActiveBound, ...]
    unguarded: Mixture | None
    guard_cost: float | None
    distance: Distance | None
    regret: Regret | None
    region: Region
    sensitivities: Mapping[str, Sensitivity]
    scales: tuple[AtOtherScale, ...]
    robust: RobustOptimum | None
    rounding_cost: float | None
    law: str
    objective: Objective
    level: float
    num_params: float | None
    train_tokens: float | None
    seed: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def recommended(self) -> Mixture:
        """The mixture to train."""
        return self.forecast.mixture

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal decision."""
        return {
            "format": FORMAT_VERSION,
            **vars(self),
            "forecast": self.forecast.to_dict(),
            "baselines": {name: item.to_dict() for name, item in self.baselines.items()},
            "active_bounds": [bound.to_dict() for bound in self.active_bounds],
            "unguarded": None if self.unguarded is None else dict(self.unguarded),
            "distance": self.distance and vars(self.distance).copy(),
            "regret": self.regret and vars(self.regret).copy(),
            "region": self.region.to_dict(),
            "sensitivities": {name: item.to_dict() for name, item in self.sensitivities.items()},
            "scales": [scale.to_dict() for scale in self.scales],
            "robust": self.robust and self.robust.to_dict(),
            "objective": self.objective.to_dict(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """Raises: StudyError: written by another format version."""
        fields = dict(data)
        version = fields.pop("format", None)
        if version != FORMAT_VERSION:
            raise StudyError(
                f"this decision has format {version}, this mixlaw reads {FORMAT_VERSION}; "
                "run `mixlaw optimize` again"
            )
        unguarded, distance = fields["unguarded"], fields["distance"]
        fields |= {
            "forecast": Forecast.from_dict(fields["forecast"]),
            "baselines": {k: Comparison.from_dict(v) for k, v in fields["baselines"].items()},
            "active_bounds": tuple(ActiveBound(**bound) for bound in fields["active_bounds"]),
            "unguarded": None if unguarded is None else Mixture(unguarded),
            "distance": distance and Distance(**distance),
            "regret": fields["regret"] and Regret(**fields["regret"]),
            "region": Region.from_dict(fields["region"]),
            "sensitivities": {k: Sensitivity(**v) for k, v in fields["sensitivities"].items()},
            "scales": tuple(AtOtherScale.from_dict(scale) for scale in fields["scales"]),
            "robust": fields["robust"] and RobustOptimum.from_dict(fields["robust"]),
            "objective": Objective.from_dict(fields["objective"]),
            "warnings": tuple(fields["warnings"]),
        }
        return cls(**fields)
