"""Limits of a mixture that are not linear: distance from another mixture, unique tokens.

Each is a function g of the proportions (M,) that must be <= 0. Shapes: M domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixlaw.mixture import L2

_LEAST_SHARE = 1e-9
"""Below this share r log r goes on as the parabola that touches it there, because its slope has no
end at 0; a domain that has none counts -5e-10 nats instead of 0."""


class Curved(Protocol):
    """A limit g(r) <= 0."""

    @property
    def label(self) -> str:
        """The limit, for people."""
        ...

    @property
    def convex(self) -> bool: ...

    def value(self, point: np.ndarray) -> float:
        """g at (M,)."""
        ...

    def slope(self, point: np.ndarray) -> np.ndarray:
        """Derivatives (M,)."""
        ...

    def bend(self, point: np.ndarray) -> np.ndarray:
        """Second derivatives (M,) of a sum over domains."""
        ...

    def seen(self, point: np.ndarray) -> str:
        """What a mixture that breaks the limit does, for people."""
        ...


@dataclass(frozen=True, eq=False)
class Distance:
    """KL(r || p) or |r - p|^2 less its limit.

    Attributes:
        other: p (M,).
        name: of p.
        measure: "kl" or "l2".
        at_most: the limit of the divergence, or of the distance |r - p|.
    """

    other: np.ndarray
    name: str
    measure: str
    at_most: float = 0.0
    convex: bool = True

    @property
    def label(self) -> str:
        return f"{self.measure} distance from {self.name} at most {self.at_most:.4g}"

    @property
    def _limit(self) -> float:
        return self.at_most**2 if self.measure == L2 else self.at_most

    @property
    def _divisor(self) -> np.ndarray:
        return np.maximum(self.other, _LEAST_SHARE)  # p may be 0 where r must be

    def value(self, point: np.ndarray) -> float:
        if self.measure == L2:
            return float(((point - self.other) ** 2).sum()) - self._limit
        given = np.maximum(point, _LEAST_SHARE)
        short = point - given  # <= 0
        terms = point * np.log(given / self._divisor) + short + short**2 / (2 * given)
        return float(terms.sum()) - self._limit

    def slope(self, point: np.ndarray) -> np.ndarray:
        if self.measure == L2:
            return 2 * (point - self.other)
        given = np.maximum(point, _LEAST_SHARE)
        return np.log(given / self._divisor) + point / given

    def bend(self, point: np.ndarray) -> np.ndarray:
        if self.measure == L2:
            return np.full(len(point), 2.0)
        return 1 / np.maximum(point, _LEAST_SHARE)

    def seen(self, point: np.ndarray) -> str:
        distance = self.value(point) + self._limit
        distance = np.sqrt(distance) if self.measure == L2 else distance
        return f"{self.measure} distance from {self.name} {distance:.4g} > {self.at_most:.4g}"


def without_limit(distance: Distance) -> Distance:
    """The distance itself, as a penalty uses it."""
    return Distance(distance.other, distance.name, distance.measure)


@dataclass(frozen=True, eq=False)
class UniqueTokens:
    """How many different tokens a run sees, sum_j min(r_j D, U_j): at least, or at most so many.

    Measured in shares of D. "At least" is convex, with edges; "at most" is not convex.

    Attributes:
        available: (M,) U_j / D; inf where unknown, a domain that does not run out.
        limit: tokens / D.
        train_tokens: D.
        upper: whether the limit is an upper one.
    """

    available: np.ndarray
    limit: float
    train_tokens: float
    upper: bool

    @property
    def convex(self) -> bool:
        return not self.upper

    @property
    def label(self) -> str:
        side = "at most" if self.upper else "at least"
        return f"{side} {self.limit * self.train_tokens:,.0f} unique tokens"

    def value(self, point: np.ndarray) -> float:
        seen = float(np.minimum(point, self.available).sum())
        return seen - self.limit if self.upper else self.limit - seen

    def slope(self, point: np.ndarray) -> np.ndarray:
        fresh = (point < self.available).astype(float)
        return fresh if self.upper else -fresh

    def bend(self, point: np.ndarray) -> np.ndarray:
        return np.zeros(len(point))

    def seen(self, point: np.ndarray) -> str:
        tokens = np.minimum(point, self.available).sum() * self.train_tokens
        return f"{tokens:,.0f} unique tokens, {self.label}"
