"""The part of a study file that says what is decided: objective, constraints, target scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mixlaw.errors import MixlawError
from mixlaw.mixture import Constraints, Group, Mixture, Near
from mixlaw.optimize.objective import Floor, Objective
from mixlaw.study.section import Count, Positive, Section, Share

Shares = dict[str, Share]


class FloorConfig(Section):
    """A target that may not get worse than a value, or than a baseline is forecast to be."""

    than: float | str
    slack: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def _floor(value: Any) -> Any:
    return value if isinstance(value, Mapping | FloorConfig) else {"than": value}


class ObjectiveConfig(Section):
    """What to minimise; in the file, a plain mapping target -> weight will do."""

    weights: dict[str, Positive] = Field(min_length=1)
    families: dict[str, list[str]] = {}
    over: Literal["mean", "worst"] = "mean"
    relative_to: str | None = None
    floors: dict[str, Annotated[FloorConfig, BeforeValidator(_floor)]] = {}

    def build(self) -> Objective:
        """Raises: StudyError: as `Objective`."""
        floors = {name: Floor(floor.than, floor.slack) for name, floor in self.floors.items()}
        return Objective(self.weights, self.families, self.over, self.relative_to, floors)

    @model_validator(mode="after")
    def _sound(self) -> ObjectiveConfig:
        _refused_as_values(self.build)
        return self


def _objective(value: Any) -> Any:
    # A key of the long form, or a setting where a weight would stand, is no target -> weight.
    if isinstance(value, Mapping) and not (
        ObjectiveConfig.model_fields.keys() & value.keys()
        or any(isinstance(weight, Mapping | list) for weight in value.values())
    ):
        return {"weights": value}
    return value


AnObjective = Annotated[ObjectiveConfig, BeforeValidator(_objective)]


class GroupConfig(Section):
    """Limits on what several domains have together."""

    domains: list[str] = Field(min_length=1)
    lower: Share = 0.0
    upper: Share = 1.0


class NearConfig(Section):
    """A mixture, or the name of a baseline, to stay near."""

    mixture: str | Shares
    measure: Literal["kl", "l2"] = "kl"
    at_most: Positive | None = None
    penalty: Positive | None = None


class ConstraintsConfig(Section):
    """What the mixture must respect; see `mixlaw.Constraints`."""

    lower: Shares = {}
    upper: Shares = {}
    fixed: Shares = {}
    groups: dict[str, GroupConfig] = {}
    max_epochs: Positive | dict[str, Positive] | None = None
    min_unique_tokens: Count | None = None
    max_unique_tokens: Count | None = None
    near: NearConfig | None = None
    granularity: Count | None = None

    def build(self) -> Constraints:
        """Raises: MixtureError: as `Constraints`."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        given["groups"] = {
            name: Group(tuple(group.domains), group.lower, group.upper)
            for name, group in self.groups.items()
        }
        if self.near is not None:
            other = self.near.mixture
            mixture = other if isinstance(other, str) else Mixture(other)
            given["near"] = Near(mixture, self.near.measure, self.near.at_most, self.near.penalty)
        return Constraints(**given)

    @model_validator(mode="after")
    def _sound(self) -> ConstraintsConfig:
        _refused_as_values(self.build)
        return self


class TargetConfig(Section):
    """The scale that the decision is for: a size of this study, or a number of parameters."""

    size: str | None = None
    num_params: Count | None = None
    train_tokens: Count | None = None

    @model_validator(mode="after")
    def _one(self) -> TargetConfig:
        if self.size is not None and self.num_params is not None:
            raise ValueError("give either size or num_params, not both")
        return self


class OptimizeConfig(Section):
    """How to decide: by one fit, or over `draws` refits to resampled mixtures; `guard` keeps each
    share within the trained range."""

    guard: bool = True
    robust: Literal["mean", "worst"] | Annotated[float, Field(gt=0, lt=1)] | None = None
    draws: Annotated[int, Field(ge=2)] = 50


class RunScaleConfig(Section):
    """A size and a horizon that a new run may have."""

    num_params: Count
    train_tokens: Count


class PlanConfig(Section):
    """Which runs may be asked for, and when more are not worth it.

    `threshold` is the expected gain of the next runs, in the objective's unit, below which they are
    not worth doing.
    """

    scales: list[RunScaleConfig] = []
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.001


def _refused_as_values(build: Any) -> None:
    """Call `build`; its refusal is a problem of this section."""
    try:
        build()
    except MixlawError as error:
        raise ValueError(str(error)) from error
