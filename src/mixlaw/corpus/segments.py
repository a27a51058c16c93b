"""Proportions that change over the steps of a run, for the sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.errors import MixtureError
from mixlaw.mixture import SUM_TOLERANCE
from mixlaw.schedule import Schedule, first_steps, stage_steps


@dataclass(frozen=True, eq=False)
class Segments:
    """Proportions of K members over M domains, each from a step to the next segment's.

    Neighbours may be equal for some members or all: a batch is the same, cut up or not.

    Attributes:
        first_steps: (S,) steps at which the segments begin; ascending from 0.
        proportions: (S, K, M).
    Raises: MixtureError: steps that do not ascend from 0, or proportions of the wrong shape,
        negative, or not summing to one.
    """

    first_steps: np.ndarray
    proportions: np.ndarray

    def __post_init__(self):
        steps = np.asarray(self.first_steps, dtype=np.int64)
        shares = np.asarray(self.proportions, dtype=float)
        if not len(steps) or steps[0] != 0 or (np.diff(steps) <= 0).any():
            raise MixtureError(f"segments begin at steps {steps.tolist()}; they ascend from 0")
        if shares.ndim != 3 or len(shares) != len(steps):
            raise MixtureError(
                f"proportions have shape {shares.shape}; they must be ({len(steps)} segments, "
                "members, domains)"
            )
        if (
            not (np.isfinite(shares).all() and (shares >= 0).all())
            or (np.abs(shares.sum(axis=-1) - 1) > SUM_TOLERANCE).any()
        ):
            raise MixtureError(
                f"proportions must be finite, >= 0 and sum to 1; they are {shares.tolist()}"
            )
        object.__setattr__(self, "first_steps", steps)
        object.__setattr__(self, "proportions", shares)

    @classmethod
    def static(cls, proportions: np.ndarray) -> Segments:
        """One segment of proportions (K, M)."""
        return cls(np.array([0]), np.asarray(proportions, dtype=float)[None])

    @classmethod
    def of(
        cls, schedules: Sequence[Schedule], domains: Sequence[str], *, num_steps: int
    ) -> Segments:
        """Of K schedules over `num_steps` steps, in which every stage has one.

        Raises: MixtureError: a stage without a step; as `Mixture.array`.
        """
        for schedule in schedules:
            found = stage_steps(schedule.shares, num_steps)
            if min(found) < 1:
                raise MixtureError(
                    f"a run of {num_steps} steps would give the stages of {schedule} {found} of "
                    "them; give each at least one: a larger share, or a longer run"
                )
        starts = [first_steps(schedule.shares, num_steps) for schedule in schedules]
        steps = np.unique(np.concatenate(starts))
        rows = [
            schedule.array(domains)[np.searchsorted(mine, steps, side="right") - 1]
            for schedule, mine in zip(schedules, starts, strict=True)
        ]
        return cls(steps, np.stack(rows, axis=1))

    def within(self, first_step: int, stop_step: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """(first step, stop step, proportions (K, M)) of the segments' parts between two steps."""
        firsts = np.maximum(self.first_steps, first_step)
        stops = np.minimum(np.append(self.first_steps[1:], stop_step), stop_step)
        for s in np.flatnonzero(firsts < stops):
            yield int(firsts[s]), int(stops[s]), self.proportions[s]
