"""Gaussian processes over mixtures: what a formula leaves over, carried to new mixtures and sizes.

Shapes: n points, k centres, M domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.laws.page_form import Form
from mixlaw.laws.points import Points

FLOOR = 1e-3
"""Mixtures are compared as sqrt(r + .001): a share counts by its ratio as much as by its size, and
the kernel's slope stays finite where a share is zero."""

SAME_MIXTURE = 1e-4
"""Mixtures whose roots are this near count as one: weights are often rounded to five digits."""

CHUNK = 2_000_000
"""Numbers of a kernel matrix formed at a time."""


@dataclass(frozen=True)
class Kernel:
    """`exp(-|ln N - ln N'| / reach) (smooth exp(-|u - u'|^2 / (2 length^2)) + same [r = r'])` with
    `u = sqrt(r + .001)`.

    Attributes:
        length: of the mixture part.
        smooth, same: share of what neighbours have in common, and of what a mixture keeps to
            itself at every size.
        reach: of the size part, in e-folds; None: sizes are not read.
    """

    length: float
    smooth: float = 1.0
    same: float = 0.0
    reach: float | None = None

    def matrix(self, points: Points, centres: Points) -> np.ndarray:
        """(n, k)."""
        smooth, same = self._parts(points, centres)
        return smooth + same

    def gradient(self, points: Points, centres: Points, coefficients: np.ndarray) -> np.ndarray:
        """Slopes (n, M) of `matrix(points, centres) @ coefficients` in the proportions. `same` is
        flat but for jumps, so it has none."""
        pull = self._parts(points, centres)[0] * coefficients
        u = root(points)
        towards = pull @ root(centres) - pull.sum(axis=1, keepdims=True) * u
        return towards / (2 * u * self.length**2)

    def _parts(self, points: Points, centres: Points) -> tuple[np.ndarray, np.ndarray]:
        squared = squared_distances(points, centres)
        size = size_factor(points, centres, self.reach)
        smooth = self.smooth * np.exp(squared / (-2 * self.length**2)) * size
        return smooth, self.same * (squared < SAME_MIXTURE**2) * size


def root(points: Points) -> np.ndarray:
    """(n, M)."""
    return np.sqrt(np.maximum(points.weights, 0.0) + FLOOR)


def squared_distances(points: Points, centres: Points) -> np.ndarray:
    """(n, k) between the roots of mixtures."""
    a, b = root(points), root(centres)
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squared, 0.0)


def size_factor(points: Points, centres: Points, reach: float | None) -> np.ndarray | float:
    """(n, k) correlation that the difference in size leaves."""
    if reach is None:
        return 1.0
    logs = np.log(points.num_params), np.log(centres.num_params)
    return np.exp(-np.abs(logs[0][:, None] - logs[1]) / reach)


@dataclass(frozen=True, eq=False)
class Process:
    """The mean of a Gaussian process after its data: `kernel(points, centres) @ coefficients`.

    Attributes:
        centres: k points; mixtures as trained, not discounted for repetition, which is the law's.
        coefficients: (k,).
    """

    kernel: Kernel
    centres: Points
    coefficients: np.ndarray

    def value(self, points: Points) -> np.ndarray:
        """(n,)."""
        parts = [self.kernel.matrix(p, self.centres) @ self.coefficients for p in self._cut(points)]
        return np.concatenate(parts)

    def gradient(self, points: Points) -> np.ndarray:
        """Slopes (n, M) in the proportions."""
        parts = [
            self.kernel.gradient(part, self.centres, self.coefficients)
            for part in self._cut(points)
        ]
        return np.concatenate(parts)

    def _cut(self, points: Points) -> list[Points]:
        size = max(1, CHUNK // len(self.centres))
        firsts = range(0, max(1, len(points)), size)
        return [points.select(slice(first, first + size)) for first in firsts]

    script = """(coefficients, own, kernel) => {
      const { length, smooth, same, reach, floor, same_mixture, places } = kernel;
      const width = places.length / coefficients.length, root = (share) => Math.sqrt(share + floor);
      const distances = (at) => {
        const u = at.shares.map(root);
        return coefficients.map((_, k) => {
          let squared = 0;
          for (let j = 0; j < u.length; j++) squared += (u[j] - root(places[k * width + j])) ** 2;
          return squared;
        });
      };
      const correlations = (at) => at.once(places, () => distances(at)).map((squared, k) => {
        const folds = Math.log(at.num_params / places[(k + 1) * width - 1]);
        const size = reach === null ? 1 : Math.exp(-Math.abs(folds) / reach);
        const alike = squared < same_mixture ** 2 ? same : 0;
        return size * (smooth * Math.exp(squared / (-2 * length ** 2)) + alike);
      });
      return (at) => dot(coefficients, at.once(kernel, () => correlations(at)));
    }"""

    def form(self) -> Form:
        """How a page works it out; the places of its coefficients are mixtures and sizes."""
        sized = self.kernel.reach is not None
        sizes = self.centres.num_params if sized else np.ones(len(self.centres))

        def centres(form: Form) -> Points:
            assert form.places is not None
            unknown = np.full(len(form.places), np.nan)
            return Points(form.places[:, :-1], form.places[:, -1] if sized else unknown, unknown)

        def slopes(form: Form, numbers: np.ndarray, points: Points) -> np.ndarray:
            return self.kernel.matrix(points, centres(form))[None]

        return Form(
            name="Process",
            script=self.script,
            numbers=self.coefficients,
            constants={**vars(self.kernel), "floor": FLOOR, "same_mixture": SAME_MIXTURE},
            places=np.column_stack([self.centres.weights, sizes]),
            remake=lambda form, parts: Process(self.kernel, centres(form), form.numbers),
            slopes=slopes,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an object of bit-identical values."""
        sizes = None if self.kernel.reach is None else self.centres.num_params.tolist()
        return {
            "kernel": vars(self.kernel),
            "weights": self.centres.weights.tolist(),
            "num_params": sizes,
            "coefficients": self.coefficients.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Process:
        weights = np.array(data["weights"], float)
        unknown = np.full(len(weights), np.nan)
        sizes = unknown if data["num_params"] is None else np.array(data["num_params"], float)
        centres = Points(weights, sizes, unknown)
        return cls(Kernel(**data["kernel"]), centres, np.array(data["coefficients"], float))
