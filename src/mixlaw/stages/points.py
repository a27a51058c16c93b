"""Where a stage law is evaluated: schedules at scales, with the worth of repeated data.

Shapes: n schedules, S stages, M domains, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.laws import Points
from mixlaw.laws.points import AXES
from mixlaw.laws.scoring import blanks
from mixlaw.mixture import Mixture
from mixlaw.runs import RunTable
from mixlaw.schedule import Schedule


@dataclass(frozen=True, eq=False)
class StagePoints:
    """Schedules at scales.

    Attributes:
        shares: (n, S) of training, each row summing to 1; schedules of fewer stages end in stages
            of length zero.
        mixtures: (n, S, M).
        num_params, train_tokens: (n,) counts; NaN when unknown.
        available_tokens: (n, M) unique tokens of each domain, inf where they do not run out; None
            when none does.
    """

    shares: np.ndarray
    mixtures: np.ndarray
    num_params: np.ndarray
    train_tokens: np.ndarray
    available_tokens: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.shares)

    @classmethod
    def of(
        cls, schedules: Sequence[Schedule], domains: Sequence[str], points: Points
    ) -> StagePoints:
        """Schedules at the scales of `points`, one each.

        Raises: MixtureError: a schedule on a domain that is not among `domains`.
        """
        most = max((len(schedule.stages) for schedule in schedules), default=1)
        shares = np.zeros((len(schedules), most))
        mixtures = np.zeros((len(schedules), most, len(domains)))
        for i, schedule in enumerate(schedules):
            stages = schedule.array(domains)
            shares[i, : len(stages)] = schedule.shares
            mixtures[i, : len(stages)] = stages
            mixtures[i, len(stages) :] = stages[-1]
        counts = (points.num_params, points.train_tokens, points.available_tokens)
        return cls(shares, mixtures, *counts)

    @classmethod
    def of_table(cls, runs: RunTable) -> StagePoints:
        """The rows of a run table, static ones as schedules of one stage."""
        schedules = [
            Schedule.static(runs.mixture(i)) if schedule is None else schedule
            for i, schedule in enumerate(runs.schedule)
        ]
        return cls.of(schedules, runs.domains, Points.of(runs))

    def schedules(self, domains: Sequence[str]) -> list[Schedule]:
        """The inverse of `of`."""
        return [
            Schedule.of(
                (float(share), Mixture.from_array(domains, mixture))
                for share, mixture in zip(shares, mixtures, strict=True)
                if share > 0
            )
            for shares, mixtures in zip(self.shares, self.mixtures, strict=True)
        ]

    def select(self, keep: np.ndarray) -> StagePoints:
        """Points by boolean mask or index array."""
        available = self.available_tokens
        return replace(
            self,
            shares=self.shares[keep],
            mixtures=self.mixtures[keep],
            num_params=self.num_params[keep],
            train_tokens=self.train_tokens[keep],
            available_tokens=None if available is None else available[keep],
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives equal points."""
        counts = {axis: blanks(getattr(self, axis)[:, None]) for axis in AXES}
        unique = self.available_tokens
        if unique is not None:  # JSON lacks infinity, too
            unique = blanks(np.where(np.isfinite(unique), unique, np.nan))
        parts = {"shares": self.shares.tolist(), "mixtures": self.mixtures.tolist()}
        return {**parts, **counts, "available_tokens": unique}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], num_domains: int) -> StagePoints:
        n, unique = len(data["shares"]), data["available_tokens"]
        stages = len(data["shares"][0]) if n else 1
        if unique is not None:
            unique = np.nan_to_num(np.array(unique, float).reshape(n, num_domains), nan=np.inf)
        num_params, train_tokens = (np.array(data[axis], float).reshape(n) for axis in AXES)
        return cls(
            np.array(data["shares"], float).reshape(n, stages),
            np.array(data["mixtures"], float).reshape(n, stages, num_domains),
            num_params,
            train_tokens,
            unique,
        )

    @cached_property
    def ends(self) -> np.ndarray:
        """(n, S) share of training done when each stage ends; 1 for the last."""
        ends = np.minimum(np.cumsum(self.shares, axis=1), 1.0)
        ends[:, -1] = 1.0
        return ends

    @cached_property
    def starts(self) -> np.ndarray:
        """(n, S) share of training done when each stage begins; 0 for the first."""
        return np.concatenate([np.zeros((len(self), 1)), self.ends[:, :-1]], axis=1)

    @property
    def lengths(self) -> np.ndarray:
        """(n, S) shares that sum to 1 as the ends say."""
        return self.ends - self.starts

    @cached_property
    def equal(self) -> np.ndarray:
        """(n,) whether all stages are equal, to the bit."""
        return (self.mixtures == self.mixtures[:, :1]).all(axis=(1, 2))

    @cached_property
    def dose(self) -> np.ndarray:
        """(n, M) what each whole run sees of each domain."""
        return average(self.lengths, self.mixtures)

    @cached_property
    def at_dose(self) -> Points:
        """The static runs of the same dose."""
        return Points(self.dose, self.num_params, self.train_tokens, self.available_tokens)

    @cached_property
    def worth(self) -> np.ndarray:
        """(n, S, M) the stages' mixtures, repeated data counted for what it is worth.

        A token is worth what it is on average over the whole run, whichever stage has it: what
        counts is how often a run sees a domain, and that is its dose (`Points.discounted`).
        """
        return self.mixtures * self._worth_of_a_token[:, None]

    @cached_property
    def worth_at_dose(self) -> np.ndarray:
        """(n, M)"""
        return average(self.lengths, self.worth)

    @cached_property
    def _worth_of_a_token(self) -> np.ndarray:
        """(n, M) in (0, 1]"""
        seen = self.dose > 0
        return np.where(seen, self.at_dose.discounted.weights / np.where(seen, self.dose, 1), 1.0)

    def in_mixtures(self, slopes: np.ndarray) -> np.ndarray:
        """Slopes (n, T, S, M) in the stages' mixtures, from those in their worth."""
        token, dose = self._worth_of_a_token, self.dose
        seen = dose > 0
        fades = np.where(seen, (self.at_dose.discount_slopes - token) / np.where(seen, dose, 1), 0)
        through_dose = np.einsum("ntsm,nsm,nm->ntm", slopes, self.mixtures, fades)
        out = slopes * token[:, None, None]
        return out + self.lengths[:, None, :, None] * through_dose[:, :, None]

    def static(self, mixtures: np.ndarray, progress: np.ndarray | float = 1.0) -> Points:
        """Static runs of worth mixtures (n, M), up to a share `progress` (n,) of the tokens."""
        return Points(mixtures, self.num_params, self.train_tokens * progress)

    def statics(self, mixtures: np.ndarray, progress: np.ndarray) -> Points:
        """The same for k mixtures each, (k, n, M), up to (k, n): k n points, since a law called
        once is faster."""
        k = len(mixtures)
        tokens = (self.train_tokens * progress).reshape(-1)
        return Points(mixtures.reshape(len(tokens), -1), np.tile(self.num_params, k), tokens)


def average(weights: np.ndarray, stages: np.ndarray) -> np.ndarray:
    """Weighted averages (n, M) over the stages (n, S, M), by weights (n, S) that sum to 1.

    From the last stage on, so that equal stages give exactly that mixture.
    """
    last = stages[:, -1]
    return last + np.einsum("ns,nsm->nm", weights, stages - last[:, None])


def unequal(at: StagePoints) -> np.ndarray:
    """(n,) how unequal the stages are: mean Hellinger distance (0 to 1) from the dose."""
    apart = np.sqrt(at.mixtures) - np.sqrt(at.dose)[:, None]
    distances = np.sqrt((apart**2).sum(axis=2) / 2)
    return (at.lengths * distances).sum(axis=1)
