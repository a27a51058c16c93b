"""The paper's pipeline: steps -> size -> mixture, every stage's fit kept.

    per (mixture m, size): L = E_m + B_m / D^beta    extrapolates to the target tokens
    per mixture m:         L = E_m + A_m / N^alpha   extrapolates to the target size
    over mixtures:         L = c + k exp(t.r)        the mixing law M4 at the target scale

As in the authors' code the exponents are shared by all mixtures (beta within one size); given an
exponent, E and B are linear least squares, so each stage is a search over one number.

Source: Ye et al., "Data Mixing Laws", arXiv 2403.16952, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted, FittedLaw, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.mixing import m4
from mixlaw.laws.page_form import Form, NotPortable, Scale
from mixlaw.laws.points import (
    AXES,
    MIXTURE,
    NUM_PARAMS,
    TRAIN_TOKENS,
    Axes,
    Points,
    scale_levels,
)
from mixlaw.laws.solver import Start

EXPONENT_BOUNDS = (0.02, 2.0)
NEEDED_LEVELS = 3
"""Fewest sizes (or horizons): a floor, an amplitude and an exponent."""


@dataclass(frozen=True, eq=False)
class PowerStage:
    """Curves `floor + amplitude x^-exponent` of several mixtures with one exponent.

    Attributes:
        floor, amplitude: (m,); NaN for a mixture seen at fewer than two x.
        reference: x is measured in these units, so that the two columns are of like size.
        rmse: over the points fitted.
    """

    floor: np.ndarray
    amplitude: np.ndarray
    exponent: float
    reference: float
    rmse: float

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray) -> PowerStage:
        """Fit to y (m, levels), NaN where not measured, at x (levels,)."""
        from scipy.optimize import minimize_scalar  # slow to import: see solver.minimise

        reference = float(np.exp(np.mean(np.log(x))))

        def curves(log_exponent: float) -> tuple[np.ndarray, np.ndarray, float]:
            return _linear_curves((x / reference) ** -np.exp(log_exponent), y)

        best: Any = minimize_scalar(
            lambda log_exponent: curves(log_exponent)[2],
            bounds=np.log(EXPONENT_BOUNDS),
            method="bounded",
            options={"xatol": 1e-7},
        )
        floor, amplitude, squared = curves(float(best.x))
        fitted = np.isfinite(y) & np.isfinite(floor)[:, None]
        rmse = float(np.sqrt(squared / max(1, fitted.sum())))
        return cls(floor, amplitude, float(np.exp(best.x)), reference, rmse)

    def __call__(self, x: float) -> np.ndarray:
        """Values (m,) at one x."""
        return self.floor + self.amplitude * (x / self.reference) ** -self.exponent

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; a missing curve is None."""
        lists = {
            name: [None if np.isnan(v) else float(v) for v in getattr(self, name)]
            for name in ("floor", "amplitude")
        }
        return {**lists, **{k: getattr(self, k) for k in ("exponent", "reference", "rmse")}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PowerStage:
        arrays = {name: np.array(data[name], float) for name in ("floor", "amplitude")}
        return cls(**{**data, **arrays})


def _linear_curves(basis: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Least squares of each row of y (m, levels) on (1, basis), both coefficients >= 0.

    Returns: floors (m,), amplitudes (m,), NaN for rows of fewer than two points; squared error.
    """
    seen = np.isfinite(y)
    enough = seen.sum(axis=1) >= 2
    count = np.where(enough, seen.sum(axis=1), 1)
    x, y0 = np.where(seen, basis, 0.0), np.where(seen, y, 0.0)
    mean_x, mean_y = x.sum(axis=1) / count, y0.sum(axis=1) / count
    spread = (x**2).sum(axis=1) / count - mean_x**2
    slope = ((x * y0).sum(axis=1) / count - mean_x * mean_y) / np.where(enough, spread, 1.0)
    slope = np.maximum(slope, 0.0)
    floor = mean_y - slope * mean_x
    through_zero = (x * y0).sum(axis=1) / np.maximum((x**2).sum(axis=1), 1e-300)
    slope, floor = np.where(floor < 0, through_zero, slope), np.maximum(floor, 0.0)
    residual = np.where(seen, floor[:, None] + slope[:, None] * basis - y, 0.0)[enough]
    floor, slope = np.where(enough, floor, np.nan), np.where(enough, slope, np.nan)
    return floor, slope, float(np.sum(residual**2))


class NestedPipeline(Recipe):
    """Steps -> size -> mixture; over one axis, the stage of the other is left out."""

    name = "nested"
    convex = True

    def __init__(self, axes: Axes):
        self.axes = axes
        self.needs = frozenset({MIXTURE, *axes})
        stages = [("steps", TRAIN_TOKENS), ("size", NUM_PARAMS)]
        self.formula = " -> ".join([name for name, axis in stages if axis in axes] + ["m4"])

    def fit_batch(
        self, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
    ) -> list[Fitted]:
        """Fit the first two stages; the mixing law is fitted when a target scale is asked for.

        Raises: FitError: fewer than three sizes or horizons, or too few mixtures that have them.
        """
        self.check(batch)
        singles = (batch.select([b]).rows(batch.use[b] > 0) for b in range(len(batch)))
        starts = starts or [None] * len(batch)
        return [self._fit_one(one, start) for one, start in zip(singles, starts, strict=True)]

    def _fit_one(self, batch: Batch, start: Start | None) -> Fitted:
        """Fit a batch of one problem that uses all its rows."""
        points, y_of_rows, target = batch.points, batch.y[0], batch.targets[0]
        sizes = self._levels(points, NUM_PARAMS, target)
        horizons = self._levels(points, TRAIN_TOKENS, target)
        ids, mixture = np.unique(batch.mixture_ids, return_inverse=True)
        weights = points.weights[np.unique(mixture, return_index=True)[1]]
        steps: list[PowerStage] = []
        table = np.full((len(ids), sizes.max() + 1), np.nan)  # of the value at the longest horizon
        for size in range(sizes.max() + 1):
            at = sizes == size
            y = _means(y_of_rows[at], mixture[at], horizons[at], (len(ids), horizons.max() + 1))
            if TRAIN_TOKENS in self.axes:
                trained = np.isfinite(y).any(axis=0)
                if trained.sum() < NEEDED_LEVELS:
                    raise FitError(
                        f"the nested pipeline needs {NEEDED_LEVELS} horizons at each size, "
                        f"{target!r} has {trained.sum()} at one; train more horizons or "
                        "choose a joint law"
                    )
                counts = _level_means(points.train_tokens, horizons)[trained]
                steps.append(PowerStage.fit(counts, y[:, trained]))
            else:
                table[:, size] = y[:, 0]
        fitted = FittedNested(
            pipeline=self,
            target=target,
            domains=batch.domains,
            weights=weights,
            sizes=_level_means(points.num_params, sizes),
            steps=tuple(steps),
            table=table,
            warnings=batch.warnings[0],
        )
        longest = float(points.train_tokens.max())
        usable = int(np.isfinite(fitted.extrapolate(fitted.sizes[-1], longest)).sum())
        needed = m4().num_required(weights.shape[1])
        if usable < needed:
            raise FitError(
                f"the nested pipeline needs {needed} mixtures with two sizes and two horizons "
                f"for {weights.shape[1]} domains, {target!r} has {usable}; "
                "train more or choose a joint law"
            )
        largest = replace(fitted, mixing_start=start).mixing_law(fitted.sizes[-1], longest)
        return replace(fitted, mixing_start=largest.start)

    def _levels(self, points: Points, axis: str, target: str) -> np.ndarray:
        """(n,) level of each row along an axis; all zero when the axis is not used."""
        if axis not in self.axes:
            return np.zeros(len(points), int)
        levels = scale_levels(getattr(points, axis))
        given = int(levels.max()) + 1
        if given < NEEDED_LEVELS:
            raise FitError(
                f"the nested pipeline needs {NEEDED_LEVELS} different values of {axis} (a floor, "
                f"an amplitude and an exponent), {target!r} has {given}; train another or choose "
                "a joint law"
            )
        return levels


@dataclass(frozen=True, eq=False)
class FittedNested(Fitted):
    """The pipeline fitted to one target.

    Attributes:
        weights: (m, M), the mixtures trained.
        sizes: (s,) parameters, ascending; NaN when size is not an axis.
        steps: the step law at each size; empty when tokens are not an axis.
        table: (m, s) values that the size law takes when there are no step laws.
        mixing_start: where every mixing law is begun, the same whatever was asked for before.
    """

    pipeline: NestedPipeline
    target: str
    domains: tuple[str, ...]
    weights: np.ndarray
    sizes: np.ndarray
    steps: tuple[PowerStage, ...]
    table: np.ndarray
    warnings: tuple[str, ...] = ()
    mixing_start: Start | None = None
    _at_scale: dict[tuple[float, float], FittedLaw] = field(default_factory=dict, init=False)

    @property
    def recipe(self) -> NestedPipeline:
        return self.pipeline

    def size_stage(self, train_tokens: float) -> PowerStage:
        """The size law over the step laws' values at `train_tokens`."""
        return PowerStage.fit(self.sizes, self._by_size(train_tokens))

    def extrapolate(self, num_params: float, train_tokens: float) -> np.ndarray:
        """Values (m,) of the trained mixtures at a scale; NaN where a stage had too few points."""
        if NUM_PARAMS in self.pipeline.axes:
            return self.size_stage(train_tokens)(num_params)
        return self._by_size(train_tokens)[:, 0]

    def mixing_law(self, num_params: float, train_tokens: float) -> FittedLaw:
        """M4 over the trained mixtures at a scale."""
        key = (float(num_params), float(train_tokens))
        if key not in self._at_scale:
            y = self.extrapolate(*key)
            kept = np.isfinite(y)
            start = self.mixing_start and replace(self.mixing_start, keep=True)
            batch = Batch(
                targets=(self.target,),
                domains=self.domains,
                own=np.array([-1]),
                points=Points.at(self.weights[kept]),
                y=y[kept][None],
                use=np.ones((1, kept.sum())),
                mixture_ids=np.arange(kept.sum()),
                run_ids=np.arange(kept.sum()),
                warnings=((),),
            )
            law = m4().fit_batch(batch, starts=start and [start])[0]
            assert isinstance(law, FittedLaw)
            self._at_scale[key] = law
        return self._at_scale[key]

    def predict(self, points: Points) -> np.ndarray:
        return self._by_scale(points, lambda law, part: law.predict(part))

    def gradient(self, points: Points) -> np.ndarray:
        return self._by_scale(points, lambda law, part: law.gradient(part))

    script = """(theta, own, { scales }, laws) => (at) => {
      const asked = ([size, tokens]) =>
        (size === 0 || size === at.num_params) && (tokens === 0 || tokens === at.train_tokens);
      const k = at.once(scales, () => scales.findIndex(asked));
      if (k < 0) throw new RangeError("the nested law was not fitted at this scale");
      return laws[k](at);
    }"""

    def form(self, scales: Sequence[Scale] = ()) -> Form:
        """The mixing laws at the scales given; each is a fit of its own."""
        reads = [axis in self.pipeline.axes for axis in AXES]
        known = [
            (num_params or 0.0, train_tokens or 0.0)
            for num_params, train_tokens in dict.fromkeys(
                tuple(c if read else 0.0 for read, c in zip(reads, scale, strict=True))
                for scale in scales
            )
            if num_params is not None and train_tokens is not None
        ]
        if not known:
            raise NotPortable(
                f"the nested law of {self.target!r} is fitted anew at every scale that it is asked "
                "at; say at which a page may ask (`scales`), or fit a joint law"
            )

        def remake(form: Form, parts: Sequence[Any]) -> FittedNested:
            remade = replace(self)
            remade._at_scale.update(zip(known, parts, strict=True))
            return remade

        return Form(
            name="FittedNested",
            script=self.script,
            numbers=np.empty(0),
            constants={"scales": known},
            parts=tuple(self.mixing_law(*scale).form() for scale in known),
            remake=remake,
        )

    @property
    def start(self) -> Start | None:
        return self.mixing_start

    def _by_size(self, train_tokens: float) -> np.ndarray:
        if not self.steps:
            return self.table
        return np.stack([step(train_tokens) for step in self.steps], axis=1)

    def _by_scale(self, points: Points, ask) -> np.ndarray:
        scales = np.zeros((len(points), 2))  # an axis that is not used may be unknown
        for column, axis in enumerate(AXES):
            if axis in self.pipeline.axes:
                scales[:, column] = getattr(points, axis)
        distinct, inverse = np.unique(scales, axis=0, return_inverse=True)
        parts = [
            (inverse.reshape(-1) == k, self.mixing_law(*scale)) for k, scale in enumerate(distinct)
        ]
        values = [(at, ask(law, points.select(at))) for at, law in parts]
        out = np.empty((len(points), *values[0][1].shape[1:]))
        for at, value in values:
            out[at] = value
        return out

    def to_dict(self) -> dict[str, Any]:
        def blanks(array: np.ndarray) -> list[Any]:
            return [None if np.isnan(v) else float(v) for v in array.reshape(-1)]

        return {
            "law": self.pipeline.name,
            "axes": dict(self.pipeline.axes),
            "target": self.target,
            "domains": list(self.domains),
            "weights": self.weights.tolist(),
            "sizes": blanks(self.sizes),
            "steps": [step.to_dict() for step in self.steps],
            "table": blanks(self.table),
            "warnings": list(self.warnings),
            "mixing_start": self.mixing_start
            and {"theta": self.mixing_start.theta.tolist(), "noise": self.mixing_start.noise},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedNested:
        weights, start = np.array(data["weights"], float), data["mixing_start"]
        return cls(
            pipeline=NestedPipeline(data["axes"]),
            target=data["target"],
            domains=tuple(data["domains"]),
            weights=weights,
            sizes=np.array(data["sizes"], float),
            steps=tuple(PowerStage.from_dict(step) for step in data["steps"]),
            table=np.array(data["table"], float).reshape(len(weights), -1),
            warnings=tuple(data["warnings"]),
            mixing_start=start and Start(np.array(start["theta"]), start["noise"]),
        )


def _means(y: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]):
    """Mean of y in each cell (row, column); NaN where there is none."""
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (row, column), y)
    np.add.at(count, (row, column), 1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _level_means(counts: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(levels,) the mean count of each level."""
    return np.array([counts[levels == k].mean() for k in range(levels.max() + 1)])
