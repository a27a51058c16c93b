"""What a run would teach a decision: Gaussian beliefs over finitely many mixtures.

Shapes: n mixtures to decide among, k places (these mixtures at the target scale, then what can be
run), c candidate places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

NUM_SAMPLES = 2000
_FLAT = 1e-13
"""Lines whose slopes differ by less do not cross."""


@dataclass(frozen=True, eq=False)
class Belief:
    """A joint Gaussian over the objective of mixtures, of which the lowest will be chosen.

    Attributes:
        mean: (n,) of the mixtures to decide among; the decision is the lowest.
        covariance: (k, k) of all places, the first n of them those of `mean`. The means of the
            others matter to no decision, since only the surprise of a run moves it.
        noise: (k,) variance of what a run at a place shows around its value, > 0.
    """

    mean: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray

    @property
    def decision(self) -> int:
        """The mixture that would be chosen now."""
        return int(np.argmin(self.mean))

    def slopes(self, places: np.ndarray) -> np.ndarray:
        """(c, n) by how much a run at each place moves the means, per standard deviation of what
        it may show."""
        sd = np.sqrt(self.covariance[places, places] + self.noise[places])
        return self.covariance[places, : len(self.mean)] / sd[:, None]

    def gains(self, places: np.ndarray) -> np.ndarray:
        """(c,) by how much one run at each place is expected to lower the value of the decision:
        the knowledge gradient.

        Source: Frazier, Powell and Dayanik, "The knowledge-gradient policy for correlated normal
            beliefs", INFORMS J. Computing 21 (2009), algorithm 1.
        """
        return expected_falls(self.mean, self.slopes(places))

    def observed(self, place: int) -> Belief:
        """After one run at a place whose value is not known yet: it narrows the covariance, the
        means stay."""
        column = self.covariance[:, place]
        known = np.outer(column, column) / (column[place] + self.noise[place])
        return replace(self, covariance=self.covariance - known)

    def observed_all(self, places: Sequence[int]) -> Belief:
        """After a run at each of the places."""
        out = self
        for place in places:
            out = out.observed(place)
        return out

    @cached_property
    def _samples(self) -> np.ndarray:
        """(NUM_SAMPLES, n) draws of the mixtures' values; common random numbers for all beliefs of
        one size."""
        n = len(self.mean)
        values, vectors = np.linalg.eigh(self.covariance[:n, :n])
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return self.mean + np.random.default_rng(0).standard_normal((NUM_SAMPLES, n)) @ root.T

    def regret(self) -> float:
        """How much worse the decision is expected to be than the best mixture: the mean over
        `NUM_SAMPLES` draws."""
        values = self._samples
        return float(np.mean(values[:, self.decision] - values.min(axis=1)))

    def joint_gain(self, places: Sequence[int]) -> float:
        """By how much runs at all the places together are expected to lower the value of the
        decision: exact in what the run of most gain shows, the mean over `NUM_SAMPLES` draws of
        what the others do."""
        if not len(places):
            return 0.0
        rows, after = [], self
        for place in places:
            rows.append(after.slopes(np.array([place]))[0])
            after = after.observed(place)
        slopes = np.array(rows)
        alone = expected_falls(self.mean, slopes)
        if len(slopes) == 1:
            return float(alone[0])
        first = int(np.argmax(alone))
        draws = np.random.default_rng(0).standard_normal((NUM_SAMPLES // 2, len(slopes) - 1))
        shifts = np.concatenate([draws, -draws]) @ np.delete(slopes, first, axis=0)
        means = self.mean + shifts
        falls = expected_falls(means, np.broadcast_to(slopes[first], means.shape))
        return float(np.mean(self.mean.min() - means.min(axis=1) + falls))


def expected_falls(mean: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """(c,) `min mean - E min(mean + slope z)` for standard normal z, exactly.

    The least of n lines in z is concave and piecewise linear. From z = -inf, where the steepest
    line is the least, each step finds the next line to become so; a crossing at z = a where the
    slope falls by d adds `d (phi(a) - |a| Phi(-|a|))`.

    Args:
        mean: (n,) or, one for each row of slopes, (c, n); slopes: (c, n).
    """
    from scipy.special import ndtr  # slow to import

    height = np.broadcast_to(mean - mean.min(axis=-1, keepdims=True), slopes.shape)
    steepest = slopes.max(axis=1, keepdims=True)
    line = np.argmin(np.where(slopes >= steepest - _FLAT, height, np.inf), axis=1)
    rows, falls = np.arange(len(slopes)), np.zeros(len(slopes))
    while len(rows):
        now = rows, line[rows]
        fall = slopes[now][:, None] - slopes[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = (height[rows] - height[now][:, None]) / fall
        crossing[fall <= _FLAT] = np.inf
        following = np.argmin(crossing, axis=1)
        at = np.arange(len(rows)), following
        further = np.isfinite(crossing[at])
        size, a = fall[at][further], -np.abs(crossing[at][further])
        rows = rows[further]
        line[rows] = following[further]
        falls[rows] += size * (a * ndtr(a) + np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi))
    return falls
