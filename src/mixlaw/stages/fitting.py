"""A fitted stage law: forecasts of schedules, their intervals, and how sure a difference is.

Shapes: n staged rows, q schedules, S stages, M domains, T targets, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws
from mixlaw.laws.regret import error_field, own_covariance
from mixlaw.laws.scoring import blanks
from mixlaw.laws.together import Together
from mixlaw.laws.uncertainty import LEVEL, HeldOut
from mixlaw.schedule import Schedule
from mixlaw.stages.effects import Effect
from mixlaw.stages.forms import load_effect
from mixlaw.stages.order_error import own_scales, reasons_of
from mixlaw.stages.points import StagePoints, unequal

FORMAT_VERSION = 2


@dataclass(frozen=True, eq=False)
class FormScore:
    """How a form did on held-out staged runs.

    Attributes:
        error: mean over targets of its squared error, over that of "dose".
        rmse, mae: (T,) in the targets' unit; NaN where no staged run measured it.
        bias: (T,) mean of predicted less observed.
        predictions: (n, T) of the staged rows.
    """

    error: float
    rmse: np.ndarray
    mae: np.ndarray
    bias: np.ndarray
    predictions: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        numbers = {name: blanks(getattr(self, name)[None])[0] for name in ("rmse", "mae", "bias")}
        return {"error": self.error, **numbers, "predictions": blanks(self.predictions)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FormScore:
        arrays = {name: np.array(value, float) for name, value in data.items() if name != "error"}
        return cls(error=data["error"], **arrays)


@dataclass(frozen=True, eq=False)
class FittedStages:
    """A stage law: the static laws, and what the order of stages adds to them.

    Attributes:
        form: name of the chosen form (`forms.FORMS`).
        static: the laws of static mixtures.
        effect: of the order, with its parameters.
        folds: the effect fitted without the staged runs of each fold; empty where they were too few
            to be held out.
        staged: the rows of staged runs that it was fitted to.
        scores: form -> how it did on held-out staged runs; empty where these were too few.
        refused: form -> why it could not be fitted.
        held_out: residuals of the chosen form, one row per held-out schedule; None without.
        judged: the m schedules that were held out, at the scales of their residuals.
        orders: (m, T) effects of their order, by the folds that did not see them.
        warnings: read them before you rely on it.
    """

    form: str
    static: FittedLaws
    effect: Effect
    folds: tuple[Effect, ...]
    staged: StagePoints
    scores: Mapping[str, FormScore]
    refused: Mapping[str, str]
    held_out: HeldOut | None
    judged: StagePoints
    orders: np.ndarray
    warnings: tuple[str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """M names."""
        return self.static.domains

    @property
    def targets(self) -> tuple[str, ...]:
        """T names."""
        return self.static.targets

    @property
    def support(self) -> np.ndarray:
        """(n, M) mixtures that were trained on, throughout or in a stage."""
        trained = self.static.cross_validation.runs.weights
        stages = self.staged.mixtures[self.staged.lengths > 0]
        return np.vstack([trained, stages])

    @cached_property
    def _law(self) -> Together:
        return Together(list(self.static.laws.values()))

    def at(
        self,
        schedules: Sequence[Schedule],
        num_params: float | None,
        train_tokens: float | None,
        available_tokens: np.ndarray | None = None,
    ) -> StagePoints:
        """Schedules at one scale, with the unique tokens (M,) of the domains.

        Raises: FitError: the law reads a count that is not given. MixtureError: a schedule on a
            domain that the law does not know.
        """
        anywhere = np.full((len(schedules), len(self.domains)), 1 / len(self.domains))
        points = self.static.points(anywhere, num_params, train_tokens, available_tokens)
        return StagePoints.of(schedules, self.domains, points)

    def predict(
        self,
        schedules: Sequence[Schedule],
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Values (q, T) of schedules; those of static ones are the static law's.

        Args and raises: as `at`.
        """
        return self.values(self.at(schedules, num_params, train_tokens, available_tokens))

    def values(self, at: StagePoints) -> np.ndarray:
        """(q, T)"""
        return _values(self._law, self.effect, at)

    def slopes(self, at: StagePoints) -> np.ndarray:
        """(q, T, S, M) in the stages' mixtures."""
        order = at.in_mixtures(self.effect.slopes(self._law, at))
        dose = self._law.gradient(at.at_dose)
        return order + at.lengths[:, None, :, None] * dose[:, :, None]

    def half_width(
        self,
        coefficients: np.ndarray,
        schedules: Sequence[Schedule],
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        level: float = LEVEL,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Half widths (q,) of the intervals of `coefficients (T,) @ targets`.

        Of a static schedule the static law's at its dose; of a staged one at least as wide, and as
        wide as held-out staged runs ask (`HeldOut.half_width`, with the folds of the form), wider
        away from their scales. Infinite where fewer than two were held out that measured all
        targets that count.

        Raises: FitError: the targets that count were never measured together on static runs.
        """
        at = self.at(schedules, num_params, train_tokens, available_tokens)
        static = self.static.half_width(
            coefficients,
            at.dose,
            num_params,
            train_tokens,
            level=level,
            available_tokens=available_tokens,
        )
        staged = unequal(at) > 0
        if not staged.any():
            return static
        held_out = self._tested(coefficients)
        if held_out is None:
            return np.where(staged, np.inf, static)
        folds = self._by_folds(coefficients, at)
        found = held_out.half_width(coefficients, level, folds)
        found = found * held_out.widening(num_params, train_tokens)
        return np.where(staged, np.maximum(static, found), static)

    def difference_scale(
        self,
        coefficients: np.ndarray,
        pair: tuple[Schedule, Schedule],
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> float:
        """Scale of the Student t error (`regret.FREEDOM` degrees of freedom) of what two schedules
        differ by in `coefficients (T,) @ targets`, of independent parts:

            the static law's error at the two doses beyond its folds (`regret.ErrorField`)
            the folds of the static law, and those of the effect: jackknife, as there
            the order's own, of each of the two: `order_error`

        Infinite where one is staged, and `half_width` is.
        """
        at = self.at(pair, num_params, train_tokens, available_tokens)
        where = (num_params, train_tokens)
        static = self.static.difference_scale(
            coefficients, at.dose, *where, available_tokens=available_tokens
        )
        sizes = unequal(at)
        if not sizes.any():
            return static
        held_out = self._tested(coefficients)
        if held_out is None:
            return float(np.inf)
        at_dose = self.static.of_folds(
            coefficients, at.dose, *where, available_tokens=available_tokens
        )
        folds = self._static_folds(coefficients, at), self._by_folds(coefficients, at)
        shared = static**2 - _jackknife(at_dose) + sum(map(_jackknife, folds))
        effects = self.values(at) - self._law.predict(at.at_dose)
        reasons = reasons_of(coefficients, sizes, effects)
        own = self.order_error(coefficients) * held_out.widening(*where)
        return float(np.sqrt(max(0.0, shared) + float((reasons**2 @ own**2).sum())))

    def _tested(self, coefficients: np.ndarray) -> HeldOut | None:
        """The residuals, if two schedules or more have all targets that count."""
        if self.held_out is None:
            return None
        known = np.isfinite(self.held_out.residuals[:, np.flatnonzero(coefficients)])
        return self.held_out if known.all(axis=1).sum() >= 2 else None

    def _by_folds(self, coefficients: np.ndarray, at: StagePoints) -> np.ndarray:
        """(K, q) of `coefficients (T,) @ targets` by the effects of all folds."""
        return np.stack([_values(self._law, effect, at) @ coefficients for effect in self.folds])

    def _static_folds(self, coefficients: np.ndarray, at: StagePoints) -> np.ndarray:
        """(K, q) of `coefficients (T,) @ targets` by the static laws of all folds."""
        laws = [Together(list(fold.values())) for fold in self.static.folds]
        return np.stack([_values(law, self.effect, at) @ coefficients for law in laws])

    def order_error(self, coefficients: np.ndarray) -> np.ndarray:
        """(3,) own error of an order's effect on `coefficients (T,) @ targets`, per unit of how
        unequal the stages are, of the gain and of the harm that are forecast (`order_error`).

        Raises: FitError: fewer than two schedules were held out that measured the targets.
        """
        held_out = self._tested(coefficients)
        if held_out is None:
            raise FitError(
                "fewer than two staged schedules were held out that measured all targets that "
                "count, so the error of an order's effect is unknown; train more staged runs"
            )
        residuals, _ = held_out.of_objective(coefficients)
        counts = np.isfinite(held_out.residuals[:, np.flatnonzero(coefficients)])
        known = np.flatnonzero(counts.all(axis=1))
        at = self.judged.select(known)
        scale = (None if np.isnan(most) else most for most in held_out.largest.values())
        field = error_field(self.static, coefficients, *scale)
        shared = field.own**2 * own_covariance(at.dose, noise=True)
        shared += _covariance(self._static_folds(coefficients, at))
        shared += _covariance(self._by_folds(coefficients, at))
        reasons = reasons_of(coefficients, unequal(at), self.orders[known])
        return own_scales(residuals, shared, reasons)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an object that predicts bit-identically."""
        return {
            "format": FORMAT_VERSION,
            "form": self.form,
            "static": self.static.to_dict(),
            "effect": self.effect.to_dict(),
            "folds": [effect.to_dict() for effect in self.folds],
            "staged": self.staged.to_dict(),
            "scores": {name: one.to_dict() for name, one in self.scores.items()},
            "refused": dict(self.refused),
            "held_out": self.held_out and self.held_out.to_dict(),
            "judged": self.judged.to_dict(),
            "orders": blanks(self.orders),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedStages:
        """Raises: FitError: another format."""
        if data.get("format") != FORMAT_VERSION:
            raise FitError(
                f"this stage law has format {data.get('format')}, this version reads "
                f"{FORMAT_VERSION}; fit again"
            )
        static = FittedLaws.from_dict(data["static"])
        return cls(
            form=data["form"],
            static=static,
            effect=load_effect(data["effect"]),
            folds=tuple(map(load_effect, data["folds"])),
            staged=StagePoints.from_dict(data["staged"], len(static.domains)),
            scores={name: FormScore.from_dict(one) for name, one in data["scores"].items()},
            refused=dict(data["refused"]),
            held_out=data["held_out"] and HeldOut.from_dict(data["held_out"]),
            judged=StagePoints.from_dict(data["judged"], len(static.domains)),
            orders=np.array(data["orders"], float).reshape(-1, len(static.targets)),
            warnings=tuple(data["warnings"]),
        )


def _values(law: Together, effect: Effect, at: StagePoints) -> np.ndarray:
    """(q, T)"""
    # Equal stages have no effect, not even that of rounding.
    order = np.where(at.equal[:, None], 0.0, effect.values(law, at))
    return law.predict(at.at_dose) + order


def _covariance(folds: np.ndarray) -> np.ndarray:
    """(q, q) by the grouped jackknife, from what each fold says (K, q)."""
    centred = folds - folds.mean(axis=0)
    return (len(folds) - 1) / len(folds) * centred.T @ centred


def _jackknife(folds: np.ndarray) -> float:
    """Variance of the difference of a pair, from what each fold says of both (K, 2)."""
    return (len(folds) - 1) * float(np.var(folds[:, 1] - folds[:, 0]))
