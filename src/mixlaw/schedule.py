"""Schedules: the mixture over training, in stages or adapted online; immutable data, addressed by
domain name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np

from mixlaw.errors import MixtureError
from mixlaw.mixture import SUM_TOLERANCE, Domain, Mixture

_NOTHING = 1e-12
"""A share of training below which a stage has no step."""

_DECIMALS = 9
"""To which mixtures are the same, as in `RunTable.mixture_ids`."""


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
        object.__setattr__(self, "share", float(self.share))  # of numpy's some are no JSON


@dataclass(frozen=True)
class Schedule:
    """Mixtures over training, as stages in their order.

    Neighbours of equal mixture (to nine decimals, whether or not domains without a share are named)
    are one stage, so a schedule whose stages are all equal is the static one. Shares within 1e-6 of
    a sum of one are rescaled to it.

    >>> Schedule.of([(0.8, Mixture({"web": 1.0})), (0.2, Mixture({"web": 0.5, "code": 0.5}))])

    Raises: MixtureError: no stage, or shares that do not sum to one.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self):
        total = math.fsum(stage.share for stage in self.stages)
        if not self.stages or abs(total - 1) > SUM_TOLERANCE:
            shares = [stage.share for stage in self.stages]
            raise MixtureError(f"the shares of the stages are {shares}; they must sum to 1")
        alike = [tuple(same) for _, same in itertools.groupby(self.stages, key=_content)]
        merged = [(math.fsum(s.share for s in same), same[0].mixture) for same in alike]
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

    def in_steps(self, horizon_steps: int, *, num_steps: int) -> Schedule:
        """What the first steps of a run of `num_steps` see of it, to the step, up to a horizon."""
        firsts = np.append(first_steps(self.shares, num_steps), num_steps)
        steps = np.diff(np.minimum(firsts, horizon_steps)).tolist()
        seen = zip(steps, self.stages, strict=True)
        return Schedule.of((count / horizon_steps, s.mixture) for count, s in seen if count)

    def epochs(self, train_tokens: float, domains: Sequence[Domain]) -> dict[str, float]:
        """How often each domain's available tokens are seen over the whole run."""
        return self.dose.epochs(train_tokens, domains)

    def to_list(self) -> list[list[Any]]:
        """JSON-able: [[share, {domain: proportion}], ...]."""
        return [[stage.share, dict(stage.mixture)] for stage in self.stages]

    @classmethod
    def from_list(
        cls, data: Sequence[Sequence[Any]], *, sum_tolerance: float = SUM_TOLERANCE
    ) -> Schedule:
        """The inverse of `to_list`.

        Args:
            sum_tolerance: shares and proportions whose sum is this near to 1 are rescaled to it.
        Raises: MixtureError: something else.
        """
        try:
            parts = _of_sum_1({i: float(part) for i, (part, _) in enumerate(data)}, sum_tolerance)
            mixtures = [Mixture(_of_sum_1(shares, sum_tolerance)) for _, shares in data]
            return cls.of(zip(parts.values(), mixtures, strict=True))
        except MixtureError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise MixtureError(
                f"{data!r} is no schedule; it must be [[share of training, {{domain: proportion}}],"
                " ...]"
            ) from error


def first_steps(shares: Sequence[float] | np.ndarray, num_steps: int) -> np.ndarray:
    """Steps (S,) at which stages of these shares of a run begin: the nearest to their starts."""
    starts = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
    return np.rint(starts * num_steps).astype(np.int64)


def stage_steps(shares: Sequence[float] | np.ndarray, num_steps: int) -> list[int]:
    """Steps of each stage of a run; 0: it is too short for this stage."""
    return np.diff(first_steps(shares, num_steps), append=num_steps).tolist()


def _content(stage: Stage) -> dict[str, float]:
    """The mixture of a stage as it is compared: domain -> share above nothing."""
    rounded = {name: round(share, _DECIMALS) for name, share in stage.mixture.items()}
    return {name: share for name, share in rounded.items() if share}


def _of_sum_1(shares: Mapping[Any, float], tolerance: float) -> Mapping[Any, float]:
    """Rescaled where that is more than `Mixture` and `Schedule` do, to whom the rest is left."""
    total = math.fsum(shares.values())
    if not SUM_TOLERANCE < abs(total - 1) <= tolerance:
        return shares
    return {name: share / total for name, share in shares.items()}


_RULES: Mapping[str, tuple[type, Callable[[Any], bool], str]] = {
    "rounds": (Integral, lambda v: v >= 1, "a whole number >= 1"),
    "probe_share": (Real, lambda v: 0 < v < 1, "in (0, 1)"),
    "tilt": (Real, lambda v: 0 < v <= 1, "in (0, 1]"),
    "step_size": (Real, lambda v: 0 < v <= 100, "in (0, 100]"),  # e^100 is a number still
    "max_change": (Real, lambda v: 0 < v <= 1, "in (0, 1]"),
    "floor": (Real, lambda v: 0 <= v < 1, "in [0, 1)"),
    "smoothing": (Real, lambda v: 0 <= v < 1, "in [0, 1)"),
    "max_epochs": (Real, lambda v: 0 < v < math.inf, "finite and > 0, or None"),
    "evaluation_tokens": (Integral, lambda v: v >= 1, "a whole number >= 1"),
}
"""Setting of `Online` -> its kind, what holds of it, and that in words."""


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
        given = self.weights if isinstance(self.weights, Mapping) else {}
        sound = all(
            isinstance(name, str) and _is_number(w, Real) and 0 <= w < math.inf
            for name, w in given.items()
        )
        if not sound or not any(given.values()):
            raise MixtureError(
                f"the weights of an online mixture are {self.weights!r}; they must map targets to "
                "numbers, finite and >= 0, one of them > 0"
            )
        weights = {name: float(given[name]) for name in sorted(given)}
        object.__setattr__(self, "weights", weights)
        for name, (kind, holds, rule) in _RULES.items():
            value = getattr(self, name)
            if name == "max_epochs" and value is None:
                continue
            if not (_is_number(value, kind) and holds(value)):  # also so for NaN
                raise MixtureError(f"{name} of an online mixture is {value!r}; it must be {rule}")
            # One setting has one run id, whatever kind of number says it.
            object.__setattr__(self, name, int(value) if kind is Integral else float(value))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "weights": dict(self.weights)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Online:
        """The inverse of `to_dict`. Raises: MixtureError: an unknown setting, or a wrong one."""
        try:
            return cls(**data)
        except TypeError as error:
            raise MixtureError(f"{data!r} are no settings of an online mixture: {error}") from error


def _is_number(value: Any, kind: type) -> bool:
    """Numpy's count, truth values do not."""
    return isinstance(value, kind) and not isinstance(value, bool)
