"""Regression baselines behind the same face as the laws: gradient-boosted trees.

They know nothing of mixtures, so what a law gains over them is what its formula is worth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.errors import FitError, MissingExtraError
from mixlaw.laws.base import Fitted, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.page_form import Form, Scale
from mixlaw.laws.points import MIXTURE, Axes, Points
from mixlaw.laws.solver import Start

NUM_TREES = 1000
REGMIX: Mapping[str, Any] = {"boosting": "gbdt", "objective": "regression", "learning_rate": 0.01}
"""RegMix's hyperparameters; the rest are LightGBM's defaults, as there."""

REPEATABLE: Mapping[str, Any] = {
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}

FEWEST_ROWS = 40
"""LightGBM's default leaf holds at least 20 rows: with fewer than two leaves' worth, every tree is
a constant."""


def _lightgbm() -> Any:
    """The package; a second to import, and optional."""
    try:
        import lightgbm
    except ImportError:
        raise MissingExtraError("lightgbm", "baselines") from None
    return lightgbm


class LightGBM(Recipe):
    """Gradient-boosted trees on the proportions and the log counts, with RegMix's hyperparameters.

    1,000 trees of 31 leaves, learning rate .01. RegMix also stops early on rows set apart; here
    all trees are kept, so that every row is trained on and none is peeked at. RegMix has one scale;
    the counts are ours, constrained so that more of either never raises a forecast.

    Not convex, and an optimum over it carries no certificate; see `FittedTrees.gradient`.

    Source: Liu et al., "RegMix", arXiv 2407.01492; sail-sg/regmix, regression_fitting.
    """

    name = "lightgbm"
    convex = False

    def __init__(self, axes: Axes):
        self.axes = axes
        self.needs = frozenset({MIXTURE, *axes})
        counts = "".join(f", log {axis}" for axis in sorted(axes))
        self.formula = f"{NUM_TREES} boosted trees on r{counts}"

    def features(self, points: Points) -> np.ndarray:
        """(n, M + number of axes)."""
        logs = [np.log(getattr(points, axis)) for axis in sorted(self.axes)]
        return np.column_stack([points.weights, *logs])

    def fit_batch(
        self, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
    ) -> list[Fitted]:
        """Fit every problem; `starts` have no meaning here.

        Raises:
            FitError: fewer than 40 rows, an unknown or constant input, a constant target.
            MissingExtraError: lightgbm is not installed.
        """
        self.check(batch)
        features = self.features(batch.points)
        return [
            FittedTrees(
                trees=self,
                model=self._train(features[used], batch.y[b][used], batch.use[b][used], seed),
                target=target,
                domains=batch.domains,
                warnings=batch.warnings[b],
            )
            for b, target in enumerate(batch.targets)
            for used in [batch.use[b] > 0]
        ]

    def check(self, batch: Batch) -> None:
        super().check(batch)
        for target, used in zip(batch.targets, batch.use > 0, strict=True):
            if used.sum() < FEWEST_ROWS:
                raise FitError(
                    f"lightgbm needs at least {FEWEST_ROWS} rows to grow a tree, {target!r} has "
                    f"{used.sum()}; train {FEWEST_ROWS - used.sum()} more or choose a law"
                )

    def _train(self, features: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int) -> str:
        """The model as LightGBM's own text."""
        lightgbm = _lightgbm()
        falling = [0] * (features.shape[1] - len(self.axes)) + [-1] * len(self.axes)
        params = {**REGMIX, **REPEATABLE, "seed": seed, "monotone_constraints": falling}
        data = lightgbm.Dataset(features, y, weight=weight)
        return lightgbm.train(params, data, NUM_TREES).model_to_string()


@dataclass(frozen=True, eq=False)
class FittedTrees(Fitted):
    """Trees fitted to one target.

    Attributes:
        trees: the recipe.
        model: LightGBM's own text form, which is exact: numbers have 17 digits.
    """

    trees: LightGBM
    model: str
    target: str
    domains: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def recipe(self) -> LightGBM:
        return self.trees

    @cached_property
    def _booster(self) -> Any:
        return _lightgbm().Booster(model_str=self.model)

    def predict(self, points: Points) -> np.ndarray:
        return self._booster.predict(self.trees.features(points), num_threads=1)

    def gradient(self, points: Points) -> np.ndarray:
        """Zero: trees are constant but for jumps, so this is the derivative wherever there is one.

        It points nowhere. An optimiser that follows gradients stays where it starts; to minimise
        over trees, sample mixtures and keep the best, as RegMix does.
        """
        return np.zeros(points.weights.shape)

    script = """(theta, own, { axes, sizes, features, bounds, split, left, right, leaves }) => {
      return (at) => {
        const x = [...at.shares, ...axes.map((axis) => Math.log(at[axis]))];
        let sum = 0, node = 0, leaf = 0;
        for (const size of sizes) {
          let k = size > 1 ? 0 : -1; // below 0: leaf number ~k
          while (k >= 0) {
            const n = node + k;
            k = x[features[n]] <= bounds[split[n]] ? left[n] : right[n];
          }
          sum += leaves[leaf + ~k];
          node += size - 1;
          leaf += size;
        }
        return sum;
      };
    }"""

    def form(self, scales: Sequence[Scale] = ()) -> Form:
        """Half a megabyte a target."""
        bounds, split = np.unique(self._of_trees("threshold"), return_inverse=True)
        return Form(
            name="FittedTrees",
            script=self.script,
            numbers=np.empty(0),
            constants={"axes": sorted(self.trees.axes)},
            arrays={
                "sizes": self._of_trees("num_leaves").astype(np.uint16),
                "features": self._of_trees("split_feature").astype(np.uint16),
                "bounds": bounds,
                "split": split.reshape(-1).astype(np.uint16),
                "left": self._of_trees("left_child").astype(np.int8),
                "right": self._of_trees("right_child").astype(np.int8),
                "leaves": self._of_trees("leaf_value"),
            },
            remake=lambda form, parts: self,
        )

    def _of_trees(self, name: str) -> np.ndarray:
        """The numbers that the model's text gives for all trees, one tree after another."""
        lines = re.findall(rf"^{name}=(.*)$", self.model, re.MULTILINE)
        return np.array(" ".join(lines).split(), float)

    @property
    def start(self) -> None:
        return None

    def to_dict(self) -> dict[str, Any]:
        return {
            "law": self.trees.name,
            "axes": dict(self.trees.axes),
            "target": self.target,
            "domains": list(self.domains),
            "model": self.model,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedTrees:
        return cls(
            trees=LightGBM(data["axes"]),
            model=data["model"],
            target=data["target"],
            domains=tuple(data["domains"]),
            warnings=tuple(data["warnings"]),
        )
