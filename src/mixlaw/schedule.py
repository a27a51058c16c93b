"""Schedules: the mixture over training, in stages or adapted online; immutable data, addressed by
domain name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlaw.errors import MixtureError
from mixlaw.mixture import SUM_TOLERANCE, Domain, Mixture

_NOTHING = 1e-12
"""A share of training below which a stage has no step."""


@dataclass(frozen=True)
class Stage:
    """A part of training on one mixture.

    Attributes:
        share: of the run's training tokens, in (0, 1].
        mixture: of these tokens.
    Raises: MixtureError: a share outside (0, 1].
    """

    share: float
    mixture: Mixture

    def __post_init__(self):
        if not 0 < self.share <= 1 + SUM_TOLERANCE:  # also true for NaN
            raise MixtureError(
                f"a stage has share {self.share} of the training; it must lie in (0, 1]"
            )


@dataclass(frozen=True)
class Schedule:
    """Mixtures over training, as stages in their order.

    Neighbours of equal mixture are one stage, so a schedule whose stages are all equal is the
    static one, and equal to it. Shares within 1e-6 of a sum of one are rescaled to it.

    >>> Schedule.of([(0.8, Mixture({"web": 1.0})), (0.2, Mixture({"web": 0.5, "code": 0.5}))])

    Raises: MixtureError: no stage, or shares that do not sum to one.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self):
        total = math.fsum(stage.share for stage in self.stages)
        if not self.stages or abs(total - 1) > SUM_TOLERANCE:
            shares = [stage.share for stage in self.stages]
            raise MixtureError(f"the shares of the stages are {shares}; they must sum to 1")
        alike = itertools.groupby(self.stages, key=lambda stage: stage.mixture)
        merged = [(math.fsum(s.share for s in same), mixture) for mixture, same in alike]
        # What sums to 1 is left as it is, so that a schedule read back is the same, to the bit.
        scale = 1.0 if abs(total - 1) <= _NOTHING else total
        if len(merged) == 1:
            merged, scale = [(1.0, merged[0][1])], 1.0
        object.__setattr__(self, "stages", tuple(Stage(s / scale, m) for s, m in merged))

    def __repr__(self) -> str:
        return f"Schedule({', '.join(f'{s.share:.4g}: {s.mixture}' for s in self.stages)})"

    @classmethod
    def static(cls, mixture: Mixture) -> Schedule:
        """One mixture throughout."""
        return cls((Stage(1.0, mixture),))

    @classmethod
    def of(cls, stages: Iterable[tuple[float, Mixture]]) -> Schedule:
        """From pairs (share of training, mixture)."""
        return cls(tuple(Stage(share, mixture) for share, mixture in stages))

    @property
    def is_static(self) -> bool:
        """Whether the mixture never changes."""
        return len(self.stages) == 1

    @property
    def domains(self) -> tuple[str, ...]:
        """Those of all stages, in the order in which they are first named."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.mixture))

    @property
    def shares(self) -> np.ndarray:
        """(S,) shares of training."""
        return np.array([stage.share for stage in self.stages])

    @property
    def starts(self) -> np.ndarray:
        """(S,) share of training that is done when each stage begins."""
        return np.concatenate([[0.0], self.shares.cumsum()[:-1]])

    @property
    def dose(self) -> Mixture:
        """What the whole run sees of each domain: the static mixture of the same total dose."""
        if self.is_static:
            return self.stages[0].mixture
        return Mixture(
            {
                name: math.fsum(s.share * s.mixture.get(name, 0.0) for s in self.stages)
                for name in self.domains
            }
        )

    def array(self, domains: Sequence[str]) -> np.ndarray:
        """Proportions (S, M) in the order of `domains`. Raises: as `Mixture.array`."""
        return np.stack([stage.mixture.array(domains) for stage in self.stages])

    def at(self, progress: float) -> Mixture:
        """The mixture when a share `progress` of the training, in [0, 1], is done."""
        begun = np.flatnonzero(self.starts <= progress + _NOTHING)
        return self.stages[int(begun[-1])].mixture

    def until(self, progress: float) -> Schedule:
        """Its beginning, up to a share `progress` of the training, as a schedule of its own.

        Raises: MixtureError: a progress outside (0, 1].
        """
        if not 0 < progress <= 1 + SUM_TOLERANCE:
            raise MixtureError(f"the progress is {progress}; it must lie in (0, 1]")
        if progress >= 1 - _NOTHING:
            return self
        ends = np.append(self.starts[1:], 1.0)
        parts = np.minimum(ends, progress) - self.starts
        begun = [(p / progress, s.mixture) for p, s in zip(parts, self.stages, strict=True)]
        return Schedule.of((float(share), mixture) for share, mixture in begun if share > _NOTHING)

    def epochs(self, train_tokens: float, domains: Sequence[Domain]) -> dict[str, float]:
        """How often each domain's available tokens are seen over the whole run."""
        return self.dose.epochs(train_tokens, domains)

    def to_list(self) -> list[list[Any]]:
        """JSON-able: [[share, {domain: proportion}], ...]."""
        return [[stage.share, dict(stage.mixture)] for stage in self.stages]

    @classmethod
    def from_list(cls, data: Sequence[Sequence[Any]]) -> Schedule:
        """The inverse of `to_list`. Raises: MixtureError: something else."""
        try:
            return cls.of((float(share), Mixture(shares)) for share, shares in data)
        except MixtureError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise MixtureError(
                f"{data!r} is no schedule; it must be [[share of training, {{domain: proportion}}],"
                " ...]"
            ) from error


@dataclass(frozen=True)
class Online:
    """How a run adapts its own mixture while it trains.

    The constant part of its training is cut into rounds. A round begins with probes: for each
    domain two short bursts that give it more than its share, in an order and its mirror image, with
    the targets measured around each. They tell what each domain does to each target now, and the
    mixture takes a step that lowers the objective, within bounds. The decay that ends a run keeps
    the mixture at which it begins.

    Attributes:
        weights: target ("loss/code", "bpb/web") -> weight in the objective, >= 0.
        rounds: decisions over a run.
        probe_share: of the steps of a round, spent on its probes.
        tilt: of a probe, given to its domain; the rest is as the mixture.
        step_size: of the exponentiated gradient, whose largest entry is scaled to 1, and shrunk as
            far as it may be noise.
        max_change: of any share in one round.
        floor: no share is lowered below it; a domain without a share at the start never gets one.
        smoothing: weight of the rounds before in the estimate, in [0, 1).
        max_epochs: passes over any domain in the whole run, probes included; None: no limit.
        evaluation_tokens: validation tokens per domain each time that targets are measured.
    Raises: MixtureError: a setting out of its range, or no weight > 0.
    """

    weights: Mapping[str, float] = field(hash=False)
    rounds: int = 8
    probe_share: float = 0.25
    tilt: float = 0.5
    step_size: float = 1.0
    max_change: float = 0.1
    floor: float = 0.01
    smoothing: float = 0.5
    max_epochs: float | None = None
    evaluation_tokens: int = 4096

    def __post_init__(self):
        weights = {name: float(self.weights[name]) for name in sorted(self.weights)}
        if not all(0 <= w < math.inf for w in weights.values()) or not any(weights.values()):
            raise MixtureError(
                f"the weights of an online mixture are {weights}; they must be finite and >= 0, "
                "one of them > 0"
            )
        object.__setattr__(self, "weights", weights)
        ranges = {
            "rounds": (self.rounds >= 1, ">= 1"),
            "probe_share": (0 < self.probe_share < 1, "in (0, 1)"),
            "tilt": (0 < self.tilt <= 1, "in (0, 1]"),
            "step_size": (0 < self.step_size < math.inf, "finite and > 0"),
            "max_change": (0 < self.max_change <= 1, "in (0, 1]"),
            "floor": (0 <= self.floor < 1, "in [0, 1)"),
            "smoothing": (0 <= self.smoothing < 1, "in [0, 1)"),
            "max_epochs": (self.max_epochs is None or self.max_epochs > 0, "> 0 or None"),
            "evaluation_tokens": (self.evaluation_tokens >= 1, ">= 1"),
        }
        for name, (holds, rule) in ranges.items():
            if not holds:  # also so for NaN
                raise MixtureError(
                    f"{name} of an online mixture is {getattr(self, name)}; it must be {rule}"
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "weights": dict(self.weights)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Online:
        """The inverse of `to_dict`. Raises: MixtureError: an unknown setting, or a wrong one."""
        try:
            return cls(**data)
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, MixtureError):
                raise
            raise MixtureError(f"{dict(data)} are no settings of an online mixture: {error}") from (
                error
            )
