"""Many fitted laws evaluated at once: those of one formula are one array operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlaw.laws.base import Fitted, FittedLaw, Law
from mixlaw.laws.points import Points


class Together:
    """B fitted laws, of any targets, folds or resamples."""

    def __init__(self, laws: Sequence[Fitted]):
        self.laws = list(laws)
        groups: dict[tuple, list[int]] = {}
        self._alone: list[int] = []
        for b, fitted in enumerate(self.laws):
            if isinstance(fitted, FittedLaw):
                key = (fitted.law.name, tuple(sorted(fitted.law.axes.items())), len(fitted.theta))
                groups.setdefault(key, []).append(b)
            else:
                self._alone.append(b)
        self._groups = [_Group.of(rows, self.laws) for rows in groups.values()]

    def __len__(self) -> int:
        """B."""
        return len(self.laws)

    def predict(self, points: Points) -> np.ndarray:
        """Values (n, B)."""
        out = np.empty((len(self.laws), len(points)))
        for group in self._groups:
            out[group.rows] = group.law.value(group.theta, points)
        for b in self._alone:
            out[b] = self.laws[b].predict(points)
        return out.T

    def gradient(self, points: Points) -> np.ndarray:
        """Slopes (n, B, M) in the proportions."""
        out = np.empty((len(self.laws), *points.weights.shape))
        for group in self._groups:
            out[group.rows] = group.law.gradient(group.theta, points)
        for b in self._alone:
            out[b] = self.laws[b].gradient(points)
        return out.transpose(1, 0, 2)


class _Group:
    """Laws of one formula: their places among all, and their theta (b, p)."""

    def __init__(self, rows: list[int], law: Law, theta: np.ndarray):
        self.rows, self.law, self.theta = rows, law, theta

    @classmethod
    def of(cls, rows: list[int], laws: Sequence[Fitted]) -> _Group:
        members = [law for b in rows if isinstance(law := laws[b], FittedLaw)]
        own = np.array([-1 if law.own is None else law.own for law in members])
        theta = np.stack([law.theta for law in members])
        return cls(rows, members[0].law.for_targets(own), theta)
