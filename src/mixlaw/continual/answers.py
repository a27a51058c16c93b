"""What the laws of a continued run answer: plain values with their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """How a continued run is trained; None: unknown, or whatever the runs had.

    Attributes:
        train_tokens: of the continued run.
        num_params: non-embedding.
        rewarm: peak learning rate as a share of the usual one.
    """

    train_tokens: float | None = None
    num_params: float | None = None
    rewarm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Range:
    """A value with its interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Critical:
    """The most new data up to which no protected target rises above its base plus the tolerance.

    Attributes:
        share: of new data, with the interval low to high: where a further run (another seed) at
            this setting would cross. 0 when even pure replay is above, 1 when nothing is.
        level: of the interval.
        binding: the protected target that rises first; None when none does.
        end: "replay" when even pure replay is above, "never" when no share is, else None.
        extrapolates: what lies outside the trained runs ("share", "train_tokens", ...);
            "composition": no run was near the mixture within a side.
        tolerance: target -> allowed rise, of each protected target.
        base: target -> the base's loss.
        losses: target -> forecast at `share`.
    """

    share: float
    low: float
    high: float
    level: float
    binding: str | None
    end: str | None
    extrapolates: tuple[str, ...]
    setting: Setting
    tolerance: Mapping[str, float]
    base: Mapping[str, float]
    losses: Mapping[str, Range]

    @property
    def replay(self) -> Range:
        """The share of old data that must be replayed, with its interval."""
        return Range(1 - self.share, 1 - self.high, 1 - self.low)

    def to_dict(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Critical:
        return cls(**_read(data))


@dataclass(frozen=True)
class Best:
    """The share of least weighted loss.

    Attributes:
        share: with low to high, the range of shares that are not told from it at `level`.
        weights: target -> weight; they sum to one.
        end: "replay" (0) or "new" (1) when it lies there, "trained" at the least or largest trained
            share, else None.
        objective: the weighted loss at `share`.
        extrapolates, losses: as of `Critical`, of all targets.
    """

    share: float
    low: float
    high: float
    level: float
    weights: Mapping[str, float]
    end: str | None
    objective: float
    extrapolates: tuple[str, ...]
    setting: Setting
    losses: Mapping[str, Range]

    @property
    def replay(self) -> Range:
        """The share of old data, with its interval."""
        return Range(1 - self.share, 1 - self.high, 1 - self.low)

    def to_dict(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Best:
        return cls(**_read(data))


@dataclass(frozen=True)
class Move:
    """Both answers at one setting; best is None when no objective was given."""

    setting: Setting
    critical: Critical
    best: Best | None

    def to_dict(self) -> dict[str, Any]:
        best = self.best and self.best.to_dict()
        return {
            "setting": self.setting.to_dict(),
            "critical": self.critical.to_dict(),
            "best": best,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Move:
        return cls(
            Setting(**data["setting"]),
            Critical.from_dict(data["critical"]),
            data["best"] and Best.from_dict(data["best"]),
        )


def _plain(answer: Critical | Best) -> dict[str, Any]:
    mappings = {k: dict(v) for k, v in vars(answer).items() if isinstance(v, Mapping)}
    return (
        vars(answer)
        | mappings
        | {
            "extrapolates": list(answer.extrapolates),
            "setting": answer.setting.to_dict(),
            "losses": {target: loss.to_dict() for target, loss in answer.losses.items()},
        }
    )


def _read(data: Mapping[str, Any]) -> dict[str, Any]:
    return dict(data) | {
        "extrapolates": tuple(data["extrapolates"]),
        "setting": Setting(**data["setting"]),
        "losses": {target: Range(**loss) for target, loss in data["losses"].items()},
    }
