"""Which staged runs teach most: pairs of the same dose, with more of a domain early or late.

The static run of that dose stands between the two, so the effect of the order is seen directly, and
not through a law of mixtures.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.errors import DesignError
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

OPTIMUM, TRAINED = "optimum", "trained"
"""Kinds of doses."""

LEAST_MOVE = 0.05
"""A domain's share must change at least so much in a stage for the runs to show what it does."""


@dataclass(frozen=True, eq=False)
class StagedSpace:
    """What the stages of the runs may be.

    Attributes:
        domains: M names.
        lower, upper: (M,) bounds of the mixture of every stage; caps on epochs are of the dose.
        stage_shares: shares of training, one list per alternative.
    """

    domains: Sequence[str]
    lower: np.ndarray
    upper: np.ndarray
    stage_shares: Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two schedules of one dose: `more` of a domain in one stage, and less of it there.

    Attributes:
        moves: (2,) changes of the domain's share in that stage.
        more, less: (S, M) mixtures of the stages.
    """

    shares: np.ndarray
    moves: np.ndarray
    more: np.ndarray
    less: np.ndarray

    @property
    def contrast(self) -> float:
        """How far apart the two are; 0 where one of them hardly moves."""
        return float(self.moves.sum()) if self.moves.min() >= LEAST_MOVE else 0.0


def staged_schedules(
    space: StagedSpace, *, trained: np.ndarray, optimum: np.ndarray | None, count: int
) -> list[Schedule]:
    """So many staged runs, in pairs; a larger count begins with those of a smaller one.

    Doses are in turn the static optimum and the trained mixture that lets the domain move most.
    Domains whose order the optimum leaves most free come first; domains, stages and kinds of dose
    are used equally often.

    Args:
        trained: (n, M) mixtures of static runs.
        optimum: (M,) the best static mixture; None where the runs may not have it.
    Raises: DesignError: the bounds leave room for fewer.
    """
    patterns = [
        (tuple(shares), stage)
        for shares in space.stage_shares
        for stage in reversed(range(1, len(shares)))
    ]
    left = {TRAINED: trained} if optimum is None else {OPTIMUM: optimum[None], TRAINED: trained}
    used: Counter = Counter()
    open_ = list(itertools.product(_by_room(space, trained, optimum), patterns, left))
    out: list[Schedule] = []
    while open_ and len(out) < count:
        chosen = min(open_, key=lambda parts: tuple(used[part] for part in parts))
        domain, pattern, kind = chosen
        pairs = [_pair(space, dose, domain, pattern) for dose in left[kind]]
        best = max(range(len(pairs)), key=lambda i: pairs[i].contrast, default=None)
        if best is None or not pairs[best].contrast:
            open_.remove(chosen)
            continue
        both = [_schedule(space, pattern[0], side) for side in (pairs[best].more, pairs[best].less)]
        if both[0] in out:  # the last stage of other shares may be the same
            open_.remove(chosen)
            continue
        used.update(chosen)
        if kind == TRAINED:
            left[TRAINED] = np.delete(left[TRAINED], best, axis=0)
        out += both
    if len(out) < count:
        raise DesignError(
            f"the bounds of the design leave room for {len(out)} staged runs of "
            f"{[list(shares) for shares in space.stage_shares]}, {count} are asked for; ask for "
            "fewer (schedule.runs), or widen design.lower and design.upper"
        )
    return out[:count]


def _by_room(space: StagedSpace, trained: np.ndarray, optimum: np.ndarray | None) -> list[int]:
    """Domains, those that can move most at the optimum (or on average) first."""
    doses = trained if optimum is None else optimum[None]
    shares = tuple(space.stage_shares[0])
    pattern = (shares, len(shares) - 1)
    room = [
        np.mean([_pair(space, dose, j, pattern).contrast for dose in doses])
        for j in range(len(space.domains))
    ]
    return sorted(range(len(room)), key=lambda j: -room[j])


def _pair(
    space: StagedSpace, dose: np.ndarray, domain: int, pattern: tuple[tuple[float, ...], int]
) -> Pair:
    """As much more, and as much less, of a domain in a stage as the bounds allow; the other domains
    give in proportion to what they have above their lower bounds."""
    shares, stage = np.array(pattern[0]), pattern[1]
    gives = np.maximum(dose - space.lower, 0.0)
    gives[domain] = 0.0
    total = gives.sum()
    direction = -gives / total if total > 0 else gives
    direction[domain] = 1.0 if total > 0 else 0.0
    when = np.where(np.arange(len(shares)) == stage, 1.0, -shares[stage] / (1 - shares[stage]))
    change = when[:, None] * direction  # (S, M); its mean over training is zero
    sides, moves = [], []
    for sign in (1.0, -1.0):
        moving = np.abs(change) > 0
        room = np.where(sign * change > 0, space.upper - dose, dose - space.lower)
        steps = np.broadcast_to(room, change.shape)[moving] / np.abs(change)[moving]
        moves.append(max(float(steps.min()), 0.0) if steps.size else 0.0)
        sides.append(np.clip(dose + sign * moves[-1] * change, 0.0, 1.0))
    return Pair(shares, np.array(moves), *sides)


def _schedule(space: StagedSpace, shares: Sequence[float], stages: np.ndarray) -> Schedule:
    mixtures = (Mixture.from_array(space.domains, stage) for stage in stages)
    return Schedule.of(zip(shares, mixtures, strict=True))
