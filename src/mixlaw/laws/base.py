"""What every law and every fitted law can do: the contract of this room.

A *recipe* is anything that can be fitted to targets. Most recipes are a `Law`, one formula with an
analytic Jacobian; the nested pipeline is a recipe of several formulas. Selection, optimisation and
reports only ever see `Recipe` and `Fitted`, so they never name a law.

Targets, folds and resamples are fitted together, as the B problems of a `Batch`: they share their
points, so one array operation serves them all.

Shapes: B problems, n points, M domains, p parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.batch import MANY_ROWS, Batch
from mixlaw.laws.page_form import Form, Scale, not_portable
from mixlaw.laws.points import AXES, Axes, Points, scale_levels
from mixlaw.laws.solver import Prior, Start, solve


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

    @property
    @abstractmethod
    def start(self) -> Start | None:
        """Where a fit to nearly the same rows should begin."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `catalogue.load_fitted` gives an object that predicts bit-identically."""

    def form(self, scales: Sequence[Scale] = ()) -> Form:
        """How a page works it out, at these scales at least.

        Raises: NotPortable: it has no such form.
        """
        raise not_portable(self, "form")


class Recipe(ABC):
    """Something that can be fitted to targets.

    Attributes:
        name: unique in the catalogue.
        formula: one line.
        axes: the counts it reads, with their references.
        needs: inputs it reads, among "mixture", "num_params", "train_tokens".
        convex: convex in the mixture for every admissible parameter, so that an optimum over it
            can be certified. True only where it is provable.
        decreasing: no domain's share ever raises it; then it is convex under repetition, too.
    """

    name: str
    formula: str
    axes: Axes
    needs: frozenset[str]
    convex: bool
    decreasing: bool = False

    @abstractmethod
    def fit_batch(
        self, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
    ) -> list[Fitted]:
        """Fit every problem.

        Args:
            batch: B problems.
            seed: of starting points.
            starts: one per problem, to begin from (and whose noise to keep, where it says so).
        Raises: FitError: some rows cannot identify the recipe.
        """

    def check(self, batch: Batch) -> None:
        """Raise FitError when a target is constant, or an input is unknown or does not vary."""
        used = batch.use > 0
        for target, y, rows in zip(batch.targets, batch.y, used, strict=True):
            y = y[rows]
            if len(y) == 0:
                raise FitError(f"{target!r} has no usable row; measure it on some finished runs")
            if np.std(y) <= 1e-12 * np.max(np.abs(y)):
                raise FitError(
                    f"{target!r} is constant ({y[0]:g} in all {len(y)} rows), so "
                    "nothing can be learned from it; check the column or drop the target"
                )
        for axis in AXES:
            if axis not in self.needs:
                continue
            counts = getattr(batch.points, axis)
            for target, rows in _distinct_rows(batch.targets, used):
                if np.isnan(counts[rows]).any():
                    raise FitError(
                        f"law {self.name!r} reads {axis}, which {int(np.isnan(counts[rows]).sum())}"
                        f" of {rows.sum()} rows of {target!r} lack; add the column or choose a law "
                        "of the mixture alone"
                    )
                if scale_levels(counts[rows]).max() < 1:
                    raise FitError(
                        f"law {self.name!r} needs at least 2 different values of {axis}, "
                        f"{target!r} has 1 ({counts[rows][0]:g}); train another or choose a law "
                        f"without {axis}"
                    )


def _distinct_rows(targets: Sequence[str], used: np.ndarray):
    """(target, mask) pairs, each different mask (B, n) once."""
    seen = set()
    for target, rows in zip(targets, used, strict=True):
        if (key := rows.tobytes()) not in seen:
            seen.add(key)
            yield target, rows


class Law(Recipe):
    """A formula with analytic derivatives over unconstrained parameters theta.

    Signs and bounds are built into the parametrisation (a positive number enters as its log), so
    every theta is admissible. Where some parameters shift each other without changing any
    prediction (a gauge), a prior fixes them and `num_identified` counts the rest.

    All methods take B theta at once, (B, p).
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
    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Values (B, n)."""

    @abstractmethod
    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Values (B, n) and their derivatives (B, n, p) in theta."""

    @abstractmethod
    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Derivatives (B, n, M) in the proportions."""

    @abstractmethod
    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Independent Gaussians over theta for targets of mean `level` (B,): mean (B, p), standard
        deviation (B, p), inf where free."""

    def for_targets(self, own: np.ndarray) -> Law:
        """This law specialised to B targets with own domains `own` (B,) (None: without)."""
        return self

    @property
    def learns_prior(self) -> bool:
        """Whether some of the prior is learned from the targets together."""
        return False

    def learned(self, points: Points) -> np.ndarray:
        """(p,) integers: which group of parameters, whose common prior sd is learned, each
        belongs to; -1 for none."""
        return np.full(self.num_parameters(points.weights.shape[1]), -1)

    def alike(self, points: Points) -> np.ndarray:
        """(p,) between-target sds of the parameters whose mean over targets is learned; NaN for
        the others."""
        return np.full(self.num_parameters(points.weights.shape[1]), np.nan)

    def pooled(self, points: Points) -> np.ndarray:
        """Indices in theta of one parameter for the background and one per domain (1 + M,), whose
        mean and covariance over targets are learned; empty for none."""
        return np.empty(0, int)

    def fit_batch(
        self, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
    ) -> list[Fitted]:
        """Maximum a posteriori by Levenberg-Marquardt; see `solver.solve`.

        Raises: FitError: too few runs, an unknown or constant input, a constant target.
        """
        self.check(batch)
        self._check_number_of_runs(batch)
        if len(batch.points) > MANY_ROWS:
            batch = batch.merged()
        if starts is None:
            starts = [None] * len(batch)
        p = self.num_parameters(len(batch.domains))
        size = max(FEWEST_AT_ONCE, MOST_NUMBERS // p**2)
        fitted: list[Fitted] = []
        for first in range(0, len(batch), size):
            part = batch.select(np.arange(first, min(first + size, len(batch))))
            fitted += self._fit_together(part, seed, starts[first : first + size])
        return fitted

    def form(self, theta: np.ndarray, num_domains: int) -> Form:
        """How a page works it out with parameters theta (p,).

        Raises: NotPortable: it has no such form.
        """
        raise not_portable(self, "form")

    def _fit_together(
        self, batch: Batch, seed: int, starts: Sequence[Start | None]
    ) -> list[FittedLaw]:
        solution = solve(self, batch, seed=seed, starts=starts)
        loose = (
            f"law {self.name}: loose parameters, condition number {condition:.1e}"
            if condition > LOOSE
            else None
            for condition in solution.condition
        )
        return [
            FittedLaw(
                law=self,
                theta=solution.theta[b],
                target=batch.targets[b],
                domains=batch.domains,
                own=int(batch.own[b]) if batch.own[b] >= 0 else None,
                diagnostics=Diagnostics(
                    float(solution.rmse[b]), float(solution.condition[b]), float(solution.noise[b])
                ),
                warnings=batch.warnings[b] + ((text,) if text else ()),
                learned_prior=solution.priors[b],
            )
            for b, text in enumerate(loose)
        ]

    def _check_number_of_runs(self, batch: Batch) -> None:
        num_domains = len(batch.domains)
        required = self.num_required(num_domains)
        # At one scale another seed of a mixture says nothing about the law.
        what, ids = ("runs", batch.run_ids) if self.axes else ("mixtures", batch.mixture_ids)
        for target, rows in _distinct_rows(batch.targets, batch.use > 0):
            given = len(np.unique(ids[rows]))
            if given < required:
                raise FitError(
                    f"law {self.name!r} needs at least {required} distinct {what} for "
                    f"{num_domains} domains ({self.num_identified(num_domains)} identified "
                    f"parameters), {target!r} has {given}; train {required - given} more or choose "
                    "a law with fewer parameters"
                )


MOST_NUMBERS, FEWEST_AT_ONCE = 30_000_000, 8
"""Problems are fitted together while their matrices (p, p) hold no more numbers than this."""

LOOSE = 1e7
"""A condition number from which the parameters are reported as loose."""


@dataclass(frozen=True)
class Diagnostics:
    """How a fit went.

    Attributes:
        rmse: of the training rows (merged, where they are many), in the target's unit.
        condition: condition number of the Jacobian with its prior rows, columns scaled to length
            one; above 1e7 the parameters (not necessarily the predictions) are loose.
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
        law: the formula.
        theta: (p,).
        own: index of the target's own domain or None.
        diagnostics: how the fit went.
        warnings: read them before extrapolating.
        learned_prior: for refits to the same table; not stored.
    """

    law: Law
    theta: np.ndarray
    target: str
    domains: tuple[str, ...]
    own: int | None
    diagnostics: Diagnostics
    warnings: tuple[str, ...] = ()
    learned_prior: Prior | None = None

    @property
    def recipe(self) -> Law:
        return self.law

    @cached_property
    def _law(self) -> Law:
        return self.law.for_targets(np.array([-1 if self.own is None else self.own]))

    def predict(self, points: Points) -> np.ndarray:
        return self._law.value(self.theta[None], points)[0]

    def gradient(self, points: Points) -> np.ndarray:
        return self._law.gradient(self.theta[None], points)[0]

    script = "(theta, own, constants, [law]) => law"

    def form(self, scales: Sequence[Scale] = ()) -> Form:
        return Form(
            name="FittedLaw",
            script=self.script,
            numbers=np.array([-1.0 if self.own is None else self.own]),
            reads_own=True,
            parts=(self.law.form(self.theta, len(self.domains)),),
            remake=lambda form, parts: replace(self, theta=parts[0]),
            slopes=self._slopes,
        )

    def _slopes(self, form: Form, numbers: np.ndarray, points: Points) -> np.ndarray:
        """(R, n, 1 + p) in rows of own domain and theta (R, 1 + p); none in the own domain."""
        law = self.law.for_targets(numbers[:, 0].astype(int))
        slopes = law.evaluate(numbers[:, 1:], points)[1]
        return np.concatenate([np.zeros((*slopes.shape[:2], 1)), slopes], axis=2)

    @property
    def start(self) -> Start:
        keep = self.learned_prior is not None
        return Start(self.theta, self.diagnostics.noise, self.learned_prior, keep)

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
            law=law,
            theta=np.array(data["theta"], float),
            target=data["target"],
            domains=tuple(data["domains"]),
            own=data["own"],
            diagnostics=Diagnostics(**data["diagnostics"]),
            warnings=tuple(data["warnings"]),
        )
