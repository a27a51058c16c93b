"""Schedules: the mixture over training, in stages; immutable data, addressed by domain name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
