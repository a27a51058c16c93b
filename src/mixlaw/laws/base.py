"""What every law and every fitted law can do: the contract of this room.

A *recipe* is anything that can be fitted to one target. Most recipes are a `Law`, one formula with
an analytic Jacobian; the nested pipeline is a recipe of several formulas. Selection, optimisation
and reports only ever see `Recipe` and `Fitted`, so they never name a law.

Shapes: n points, M domains, p parameters, T targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.solver import Start, solve
from mixlaw.runs import RunTable

MIXTURE, NUM_PARAMS, TRAIN_TOKENS = "mixture", "num_params", "train_tokens"
AXES = (NUM_PARAMS, TRAIN_TOKENS)
"""The inputs that make a scale."""

Axes = Mapping[str, float]
"""The counts that a law of scale reads -> the count at which its amplitudes are quoted."""

SAME_SCALE = 0.02
"""Sizes or horizons within 2 % of each other count as one (a last checkpoint is often repeated)."""


@dataclass(frozen=True)
class Points:
    """Where a law is evaluated.

    Attributes:
        weights: (n, M) proportions.
        num_params, train_tokens: (n,) counts; NaN when unknown.
    """

    weights: np.ndarray
    num_params: np.ndarray
    train_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def of(cls, table: RunTable) -> Points:
        """The points of a run table, row by row."""
        return cls(table.weights, table.num_params, table.train_tokens)

    @classmethod
    def at(
        cls, weights: np.ndarray, num_params: float | None = None, train_tokens: float | None = None
    ) -> Points:
        """Mixtures (n, M) at one scale; an unknown count is None."""
        weights = np.atleast_2d(np.asarray(weights, float))
        n = len(weights)
        unknown = [np.nan if count is None else count for count in (num_params, train_tokens)]
        return cls(weights, np.full(n, unknown[0], float), np.full(n, unknown[1], float))

    @cached_property
    def distinct_mixtures(self) -> tuple[np.ndarray, np.ndarray]:
        """The different mixtures (m, M), and which of them each row has (n,).

        A mixture term is the same for every size, horizon and seed, and a fit asks for it hundreds
        of times.
        """
        mixtures, which = np.unique(self.weights, axis=0, return_inverse=True)
        return mixtures, which.reshape(-1)

    def select(self, keep: np.ndarray) -> Points:
        """Points by boolean mask or index array."""
        return Points(self.weights[keep], self.num_params[keep], self.train_tokens[keep])


def scale_levels(counts: np.ndarray) -> np.ndarray:
    """(n,) integers: which of the ascending distinct sizes (or horizons) each row has.

    Neighbours within `SAME_SCALE` share a level; rows of unknown count get -1.
    """
    known = np.isfinite(counts)
    distinct, inverse = np.unique(counts[known], return_inverse=True)
    new_level = np.diff(distinct, prepend=distinct[:1]) > SAME_SCALE * distinct
    levels = np.full(len(counts), -1)
    levels[known] = np.cumsum(new_level)[inverse]
    return levels


@dataclass(frozen=True)
class TargetRows:
    """The usable rows of one target, ready to be fitted.

    Attributes:
        target: `metric/name`; domains: M names; own: index of the target's own domain or None.
        points: n points; y: (n,) observed values.
        mixture_ids: (n,) integers, equal for rows of one mixture.
        num_runs: distinct trainings; rows of one run share a trunk, so they do not count singly.
        warnings: what was left out.
    """

    target: str
    domains: tuple[str, ...]
    own: int | None
    points: Points
    y: np.ndarray
    mixture_ids: np.ndarray
    num_runs: int
    warnings: tuple[str, ...] = ()


class Fitted(ABC):
    """A recipe fitted to one target."""

    target: str
    domains: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """What was fitted."""

    @abstractmethod
    def predict(self, points: Points) -> np.ndarray:
        """Values (n,) in the target's unit."""

    @abstractmethod
    def gradient(self, points: Points) -> np.ndarray:
        """Slopes (n, M) in the proportions, each taken as free (not confined to the simplex)."""

    @abstractmethod
    def warm_start(self) -> Start | None:
        """Where a fit to nearly the same rows should begin."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `catalogue.load_fitted` gives an object that predicts bit-identically."""


class Recipe(ABC):
    """Something that can be fitted to one target.

    Attributes:
        name: unique in the catalogue.
        formula: one line.
        axes: the counts it reads, with their references.
        needs: inputs it reads, among "mixture", "num_params", "train_tokens".
        convex: convex in the mixture for every admissible parameter, so that an optimum over it
            can be certified. True only where it is provable.
    """

    name: str
    formula: str
    axes: Axes
    needs: frozenset[str]
    convex: bool

    @abstractmethod
    def fit_rows(self, rows: TargetRows, *, seed: int = 0, warm: Start | None = None) -> Fitted:
        """Fit to prepared rows. Raises: FitError: the rows cannot identify the recipe."""

    def check(self, rows: TargetRows) -> None:
        """Raise FitError when the target is constant, or an input is unknown or does not vary."""
        if np.std(rows.y) <= 1e-12 * np.max(np.abs(rows.y)):
            raise FitError(
                f"{rows.target!r} is constant ({rows.y[0]:g} in all {len(rows.y)} rows), so "
                "nothing can be learned from it; check the column or drop the target"
            )
        for axis in AXES:
            if axis not in self.needs:
                continue
            counts = getattr(rows.points, axis)
            if np.isnan(counts).any():
                raise FitError(
                    f"law {self.name!r} reads {axis}, which {int(np.isnan(counts).sum())} of "
                    f"{len(counts)} rows of {rows.target!r} lack; add the column or choose a law "
                    "of the mixture alone"
                )
            if scale_levels(counts).max() < 1:
                raise FitError(
                    f"law {self.name!r} needs at least 2 different values of {axis}, "
                    f"{rows.target!r} has 1 ({counts[0]:g}); train another or choose a law "
                    f"without {axis}"
                )


class Law(Recipe):
    """A formula with analytic derivatives over unconstrained parameters theta (p,).

    Signs and bounds are built into the parametrisation (a positive number enters as its log), so
    every theta is admissible. Where some parameters shift each other without changing any
    prediction (a gauge), a prior fixes them and `num_identified` counts the rest.
    """

    @abstractmethod
    def num_parameters(self, num_domains: int) -> int:
        """Length p of theta."""

    @abstractmethod
    def num_identified(self, num_domains: int) -> int:
        """Parameters that predictions can tell apart: p less the gauges."""

    @abstractmethod
    def num_required(self, num_domains: int) -> int:
        """Fewest distinct runs (mixtures, at one scale): `num_identified`, less what a prior
        carries."""

    @abstractmethod
    def predict(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Values (n,)."""

    @abstractmethod
    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Values (n,) and their derivatives (n, p) in theta."""

    @abstractmethod
    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Derivatives (n, M) in the proportions."""

    @abstractmethod
    def prior(self, points: Points, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Independent Gaussians over theta: mean (p,), standard deviation (p,), inf where free."""

    def jacobian(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Derivatives (n, p) in theta."""
        return self.evaluate(theta, points)[1]

    def start(self, points: Points, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random theta (p,) near the prior mean, for multistart."""
        mean, sd = self.prior(points, y)
        return mean + np.minimum(sd, 1.0) * rng.normal(size=len(mean))

    def for_target(self, own: int | None) -> Law:
        """This law specialised to a target whose own domain has index `own` (None: has none)."""
        return self

    def fit_rows(self, rows: TargetRows, *, seed: int = 0, warm: Start | None = None) -> FittedLaw:
        """Maximum a posteriori by multistart least squares; see `solver.solve`.

        Raises: FitError: too few runs, an unknown or constant input, a constant target.
        """
        self.check(rows)
        num_domains = rows.points.weights.shape[1]
        required = self.num_required(num_domains)
        # At one scale another seed of a mixture says nothing about the law.
        what, given = "runs", rows.num_runs
        if not self.axes:
            what, given = "mixtures", len(np.unique(rows.mixture_ids))
        if given < required:
            raise FitError(
                f"law {self.name!r} needs at least {required} distinct {what} for {num_domains} "
                f"domains ({self.num_identified(num_domains)} identified parameters), "
                f"{rows.target!r} has {given}; train {required - given} more or choose a law "
                "with fewer parameters"
            )
        law = self.for_target(rows.own)
        solution = solve(law, rows.points, rows.y, groups=rows.mixture_ids, seed=seed, warm=warm)
        return FittedLaw(
            law=law,
            theta=solution.theta,
            target=rows.target,
            domains=rows.domains,
            own=rows.own,
            diagnostics=Diagnostics(solution.rmse, solution.condition, solution.noise),
            warnings=rows.warnings + solution.warnings,
        )


@dataclass(frozen=True)
class Diagnostics:
    """How a fit went.

    Attributes:
        rmse: of the training rows, in the target's unit.
        condition: condition number of the Jacobian with its prior rows, columns scaled to length
            one; above 1e8 the parameters (not necessarily the predictions) are loose.
        noise: the noise variance that approximate leave-one-mixture-out chose, as a share of
            the target's variance; the larger, the stronger the prior.
    """

    rmse: float
    condition: float
    noise: float


@dataclass(frozen=True, eq=False)
class FittedLaw(Fitted):
    """A law with its parameters for one target.

    Attributes:
        law: the formula, specialised to the target.
        theta: (p,).
        own: index of the target's own domain or None.
        diagnostics: how the fit went.
        warnings: read them before extrapolating.
    """

    law: Law
    theta: np.ndarray
    target: str
    domains: tuple[str, ...]
    own: int | None
    diagnostics: Diagnostics
    warnings: tuple[str, ...] = ()

    @property
    def recipe(self) -> Law:
        return self.law

    def predict(self, points: Points) -> np.ndarray:
        return self.law.predict(self.theta, points)

    def gradient(self, points: Points) -> np.ndarray:
        return self.law.gradient(self.theta, points)

    def warm_start(self) -> Start:
        return Start(self.theta, self.diagnostics.noise)

    def to_dict(self) -> dict[str, Any]:
        return {
            "law": self.law.name,
            "axes": dict(self.law.axes),
            "target": self.target,
            "domains": list(self.domains),
            "own": self.own,
            "theta": self.theta.tolist(),
            "diagnostics": vars(self.diagnostics),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedLaw:
        """Raises: FitError: the law is not in the catalogue."""
        from mixlaw.laws.catalogue import make  # the catalogue imports every law, hence this file

        law = make(data["law"], data["axes"])
        if not isinstance(law, Law):
            raise FitError(f"{data['law']!r} is not a law of one formula")
        return cls(
            law=law.for_target(data["own"]),
            theta=np.array(data["theta"], float),
            target=data["target"],
            domains=tuple(data["domains"]),
            own=data["own"],
            diagnostics=Diagnostics(**data["diagnostics"]),
            warnings=tuple(data["warnings"]),
        )
