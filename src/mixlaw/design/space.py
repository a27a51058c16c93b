"""The set of mixtures a design may use, and how to spread points in it.

Shapes: n points, M domains; a point is a row of proportions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.distance import cdist

from mixlaw.errors import DesignError, InfeasibleError

SAME = 1e-6
"""Two mixtures are one when no proportion differs by more than this."""

_DUST = 1e-12


@dataclass(frozen=True, eq=False)
class Space:
    """Mixtures with sum 1, `lower <= r <= upper`, and no positive share below `min_share`.

    A domain with `lower > 0` is always present; any other may be left out. This is a union of
    polytopes, one per set of present domains, so points are brought into it by `snap`.

    Attributes:
        domains: M names, for messages.
        lower, upper: (M,) proportions.
        min_share: smallest positive proportion; 0 for none.
        required: (M,) bool, present in every mixture.
        floor, cap: (M,) smallest and largest proportion of a domain that is present; a domain
            whose upper bound is below `min_share` can never be present and has cap 0.
    Raises:
        DesignError: arguments of the wrong shape or range.
        InfeasibleError: no mixture satisfies the bounds and the minimum share.
    """

    domains: Sequence[str]
    lower: np.ndarray
    upper: np.ndarray
    min_share: float
    required: np.ndarray = field(init=False)
    floor: np.ndarray = field(init=False)
    cap: np.ndarray = field(init=False)

    def __post_init__(self):
        lower, upper = np.asarray(self.lower, float), np.asarray(self.upper, float)
        self._check(lower, upper)
        required = lower > 0
        floor = np.maximum(lower, self.min_share)
        for name, low, high in zip(self.domains, floor, upper, strict=True):
            if low > high + _DUST and required[list(self.domains).index(name)]:
                raise InfeasibleError(
                    f"domain {name!r} has upper bound {high:g} but must have at least {low:g} "
                    f"(its lower bound, and min_share = {self.min_share:g}); "
                    "raise the upper bound, or lower the other two"
                )
        upper = np.where(floor <= upper + _DUST, np.maximum(upper, floor), 0.0)
        for name, value in {"required": required, "floor": floor, "cap": upper}.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
        self._check_not_empty()

    def _check(self, lower: np.ndarray, upper: np.ndarray) -> None:
        shape = (len(self.domains),)
        if lower.shape != shape or upper.shape != shape:
            raise DesignError(
                f"bounds have shapes {lower.shape} and {upper.shape}, "
                f"expected {shape} for the domains {list(self.domains)}"
            )
        if not 0 <= self.min_share <= 1:
            raise DesignError(f"min_share is {self.min_share}; it must lie in [0, 1]")
        for name, low, high in zip(self.domains, lower, upper, strict=True):
            if not 0 <= low <= high <= 1:  # also false for NaN
                raise DesignError(
                    f"domain {name!r} has bounds {low:g} to {high:g}; "
                    "they must satisfy 0 <= lower <= upper <= 1"
                )

    def _check_not_empty(self) -> None:
        """Exact: optional domains share one floor, so the k with the largest caps are best."""
        floor_sum, cap_sum = self.floor[self.required].sum(), self.cap[self.required].sum()
        if floor_sum > 1 + _DUST:
            raise InfeasibleError(
                f"the smallest shares of the required domains sum to {floor_sum:.4f}, more than "
                f"1 (min_share = {self.min_share:g}); lower min_share or the lower bounds"
            )
        optional = np.sort(self.cap[~self.required & (self.cap > 0)])[::-1]
        floors = floor_sum + self.min_share * np.arange(len(optional) + 1)
        caps = cap_sum + np.concatenate([[0.0], np.cumsum(optional)])
        if not np.any((floors <= 1 + _DUST) & (caps >= 1 - _DUST)):
            raise InfeasibleError(
                f"no mixture reaches a sum of 1: the usable upper bounds sum to {caps[-1]:.4f} "
                f"and min_share = {self.min_share:g}; raise the upper bounds or lower min_share"
            )

    def contains(self, points: np.ndarray, *, tolerance: float = 1e-9) -> np.ndarray:
        """(n,) bool: which rows are mixtures of this space."""
        floor, cap = self.floor - tolerance, self.cap + tolerance
        absent = (np.abs(points) <= tolerance) & ~self.required
        fits = (absent | ((points >= floor) & (points <= cap))).all(axis=1)
        return fits & (np.abs(points.sum(axis=1) - 1) <= tolerance)

    def snap(self, points: np.ndarray) -> np.ndarray:
        """Bring rows (n, M) of weights >= 0 into the space, keeping ratios where bounds allow.

        Domains below half of `min_share` are left out, then `clip(scale * weight, floor, cap)`
        with the one scale whose sum is 1. Rows already in the space stay as they are, to `SAME`.
        """
        present = self._present(points)
        floor, cap = np.where(present, self.floor, 0.0), np.where(present, self.cap, 0.0)
        # The tiny weight lets a domain that had none be scaled up when the caps demand it.
        weights = np.where(present, np.maximum(points, SAME), 0.0)
        low, high = np.zeros(len(points)), np.full(len(points), 1 / SAME)
        for _ in range(80):  # 1e6 / 2^80 is below rounding
            scale = (low + high) / 2
            short = np.clip(scale[:, None] * weights, floor, cap).sum(axis=1) < 1
            low, high = np.where(short, scale, low), np.where(short, high, scale)
        out = np.clip(high[:, None] * weights, floor, cap)
        rest = 1 - out.sum(axis=1)  # rounding only: give it to whoever has the most room
        room = np.where(rest[:, None] > 0, cap - out, out - floor)
        out[np.arange(len(out)), np.argmax(room, axis=1)] += rest
        return out

    def _present(self, points: np.ndarray) -> np.ndarray:
        """(n, M) bool: the domains each row keeps, as near to its own as the bounds allow."""
        usable = self.required | (self.cap > 0)
        keep = self.required | (usable & (points >= max(self.min_share / 2, SAME)))
        wanted = keep.sum(axis=1)
        size, fits = self._prefix_size(np.where(usable, points, -np.inf), wanted)
        if not fits.all():  # this row's favourites cannot sum to 1; the largest caps can
            by_cap = np.broadcast_to(np.where(usable, self.cap, -np.inf), points.shape)
            other, _ = self._prefix_size(by_cap, wanted)
            size = np.where(fits[:, None], size, other)
        return size

    def _prefix_size(self, score: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keep the required domains and then the best by `score`, about `wanted` in all.

        Returns: (n, M) bool kept, and (n,) bool whether the kept ones can sum to 1.
        """
        order = np.argsort(np.where(self.required, -np.inf, -score), axis=1, kind="stable")
        usable = self.required | (self.cap > 0)
        floors = np.cumsum(np.where(usable, self.floor, np.inf)[order], axis=1)
        caps = np.cumsum(self.cap[order], axis=1)
        most = (floors <= 1 + _DUST).sum(axis=1)
        least = (caps < 1 - _DUST).sum(axis=1) + 1
        count = np.clip(wanted, np.maximum(least, self.required.sum()), most)
        rank = np.argsort(order, axis=1)
        return rank < count[:, None], least <= most


def distinct(points: np.ndarray) -> np.ndarray:
    """The rows without repetitions (to `SAME`), first come first kept."""
    if len(points) < 2:
        return points
    # Most repetitions first and cheaply; rounding alone would miss pairs across a rounding edge.
    _, first = np.unique(np.round(points, 7), axis=0, return_index=True)
    points = points[np.sort(first)]
    # Near points have near projections on any direction, so only sorted neighbours can be one.
    direction = np.random.default_rng(0).random(points.shape[1])  # generic: few chance ties
    along = points @ direction
    order, reach = np.argsort(along), SAME * direction.sum()
    keep = np.ones(len(points), bool)
    for lag in range(1, len(points)):
        close = np.flatnonzero(along[order[lag:]] - along[order[:-lag]] <= reach)
        if not len(close):
            break
        one, other = order[close], order[close + lag]
        same = (np.abs(points[one] - points[other]) <= SAME).all(axis=1)
        keep[np.maximum(one, other)[same]] = False
    return points[keep]


def coordinates(points: np.ndarray) -> np.ndarray:
    """Where distances between mixtures are measured: sqrt(r), the Hellinger geometry.

    Losses change fast near a share of zero, about as its square root (docs/decisions.md), so
    .00 against .02 counts for as much as .50 against .72.
    """
    return np.sqrt(np.maximum(points, 0))


def farthest_first(
    points: np.ndarray, count: int, *, start: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Greedy maximin: each next point is the farthest from those chosen and from `start`.

    Args:
        points: (n, M) candidates, n >= count >= 1.
        start: (s, M) points already there; without any the first choice is the most central.
    Returns: indices (count,), and the separation: no two chosen points are nearer.
    """
    where = coordinates(points)
    chosen: list[int] = []
    if start is None or not len(start):
        chosen = [int(np.argmin(((where - where.mean(axis=0)) ** 2).sum(axis=1)))]
        reference = where[chosen]
    else:
        reference = coordinates(start)
    nearest = cdist(where, reference).min(axis=1)
    separation = np.inf
    while len(chosen) < count:
        best = int(np.argmax(nearest))
        separation = float(nearest[best])
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(where - where[best], axis=1))
    return np.array(chosen), separation
