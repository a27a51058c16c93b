"""Targets, folds and resamples as problems that are fitted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixlaw.laws.points import Points


@dataclass(frozen=True, eq=False)
class Batch:
    """Problems to fit at once: targets, folds of them or resamples of them.

    Attributes:
        targets: B names `metric/name`; a target may occur in many problems.
        domains: M names; own: (B,) index of each target's own domain, -1 where it has none.
        points: n points, shared.
        y: (B, n) observed values; any number where not used.
        use: (B, n) weight of each row; 0: not used.
        mixture_ids: (n,) integers, equal for rows of one mixture.
        run_ids: (n,) integers; rows of one run share a trunk, so they do not count singly.
        warnings: B tuples of what was left out.
    """

    targets: tuple[str, ...]
    domains: tuple[str, ...]
    own: np.ndarray
    points: Points
    y: np.ndarray
    use: np.ndarray
    mixture_ids: np.ndarray
    run_ids: np.ndarray
    warnings: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, which: Sequence[int] | np.ndarray) -> Batch:
        """Problems by index."""
        return replace(
            self,
            targets=tuple(self.targets[b] for b in which),
            own=self.own[which],
            y=self.y[which],
            use=self.use[which],
            warnings=tuple(self.warnings[b] for b in which),
        )

    def rows(self, keep: np.ndarray) -> Batch:
        """The same problems on some of the rows, by mask or index array."""
        return replace(
            self,
            points=self.points.select(keep),
            y=self.y[:, keep],
            use=self.use[:, keep],
            mixture_ids=self.mixture_ids[keep],
            run_ids=self.run_ids[keep],
        )

    def merged(self) -> Batch:
        """Rows of one mixture at one scale made one: their geometric mean, weighing as much as all.

        Relative least squares has the same minimum, and the work no longer grows with repeats.
        """
        keys = [self.mixture_ids, self.points.num_params, self.points.train_tokens]
        if self.points.available_tokens is not None:
            keys += list(self.points.available_tokens.T)
        point = np.zeros(len(self.points), int)
        for key in keys:
            _, level = np.unique(key, return_inverse=True)
            pairs = point * (level.max() + 1) + level.reshape(-1)
            point = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        first = np.unique(point, return_index=True)[1]
        use, y = np.empty((2, len(self), len(first)))
        for b, (weight, values) in enumerate(zip(self.use, self.y, strict=True)):
            logs = np.log(np.where(weight > 0, values, 1.0))
            use[b] = np.bincount(point, weight)
            total = np.bincount(point, weight * logs)
            y[b] = np.where(use[b] > 0, np.exp(total / np.where(use[b] > 0, use[b], 1.0)), 0.0)
        return replace(
            self,
            points=self.points.select(first),
            y=y,
            use=use,
            mixture_ids=self.mixture_ids[first],
            run_ids=self.run_ids[first],
        )

    def times(self, use: np.ndarray, copies_of: Sequence[int] | np.ndarray) -> Batch:
        """Problem `copies_of[k]` for every k, its row weights multiplied by `use[k]`, (k, n)."""
        copied = self.select(copies_of)
        return replace(copied, use=copied.use * use)


MANY_ROWS = 20_000
"""Above it, rows of one mixture at one scale are fitted as one."""
