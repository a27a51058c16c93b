"""The forms of a stage law, and how each is fitted.

To add one: an `Effect` and a line in `FORMS`. Nothing else names a form.

Shapes: n staged rows, T targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws, Points
from mixlaw.laws.points import TRAIN_TOKENS
from mixlaw.laws.scoring import column_means
from mixlaw.laws.together import Together
from mixlaw.runs import RunTable
from mixlaw.stages.effects import Blend, Dose, Dynamic, Effect, Recency, Relaxation, Trajectory
from mixlaw.stages.points import StagePoints
from mixlaw.stages.trajectory import fit_trajectory

BASELINE = "dose"
"""The form without an effect of the order."""

RATE_SD, TARGETS_SD = 1.0, 0.3
"""Prior of a rate's logarithm: around 0 (the order does not matter) for the targets together, and
of each target around their common value."""

FLOOR_SHARE, FAR = 0.9, 1e9
"""The floor of a loss is this share of what the static law says of models so much larger, trained
so much longer, at the best trained mixture."""

LEAST_NOISE = 1e-6
"""Of a loss."""

_STEP = 1e-4


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a form is fitted to.

    Attributes:
        static: the static laws.
        runs: finished rows, static and staged, in the laws' domains.
        staged: which rows (n_runs,) are of schedules.
    """

    static: FittedLaws
    runs: RunTable
    staged: np.ndarray

    @property
    def law(self) -> Together:
        return Together(list(self.static.laws.values()))

    @property
    def at(self) -> StagePoints:
        """The staged rows."""
        return StagePoints.of_table(self.runs.select(self.staged))

    @property
    def values(self) -> np.ndarray:
        """(n, T) measured on them; NaN where not."""
        columns = [self.runs.column(target)[self.staged] for target in self.static.targets]
        return np.stack(columns, axis=1)

    @property
    def noise(self) -> np.ndarray:
        """(T,) root mean square of what the static law misses on held-out mixtures; not quite 0
        where it misses nothing."""
        levels = np.abs(column_means(self.static.cross_validation.values()))
        missed = np.sqrt(column_means(self.static.within.residuals**2))
        return np.maximum(missed, LEAST_NOISE * levels)

    def without(self, rows: np.ndarray) -> Evidence:
        """Without rows of the table, by mask."""
        return Evidence(self.static, self.runs.select(~rows), self.staged[~rows])


@dataclass(frozen=True)
class Form:
    """A form of stage law.

    Attributes:
        formula: one line.
        fit: to evidence; raises FitError where it cannot be told from it.
        load: the effect from its `to_dict`.
    """

    formula: str
    fit: Callable[[Evidence], Effect]
    load: Callable[[Mapping[str, Any]], Effect]


def _fit_dose(evidence: Evidence) -> Effect:
    return Dose()


def _fit_recency(evidence: Evidence) -> Effect:
    return _fit_rates(evidence, "recency", Recency)


def _fit_relaxation(evidence: Evidence) -> Effect:
    floors = floors_of(evidence.static)
    return _fit_rates(evidence, "relaxation", lambda rates: Relaxation(rates, floors))


def _fit_blend(evidence: Evidence) -> Effect:
    return Blend((_fit_recency(evidence), _fit_relaxation(evidence)))


def _load_blend(data: Mapping[str, Any]) -> Effect:
    return Blend(tuple(map(load_effect, data["parts"])))


def _fit_dynamic(evidence: Evidence) -> Effect:
    if TRAIN_TOKENS not in evidence.static.needs:
        raise FitError(
            f"the dynamic form needs the progress of training, and the static law "
            f"{evidence.static.law!r} reads no train_tokens; measure runs at two horizons or more"
        )
    return Dynamic(np.zeros(len(evidence.static.targets)), floors_of(evidence.static))


def _fit_trajectory(evidence: Evidence) -> Effect:
    if TRAIN_TOKENS not in evidence.static.needs:
        raise FitError(
            f"the trajectory form starts from losses at the first horizon, and the static law "
            f"{evidence.static.law!r} reads no train_tokens; measure runs at two horizons or more"
        )
    return fit_trajectory(evidence.runs, evidence.static.targets)


FORMS: dict[str, Form] = {
    "dose": Form("static(dose)", _fit_dose, Dose.from_dict),
    "dynamic": Form(
        "(L' - c) = (L - c) * static progress of the stage's mixture",
        _fit_dynamic,
        Dynamic.from_dict,
    ),
    "trajectory": Form(
        "d log L = (a + B p - g log L + b log N) d log D",
        _fit_trajectory,
        Trajectory.from_dict,
    ),
    "recency": Form("static(sum_s w_s p_s)", _fit_recency, Recency.from_dict),
    "relaxation": Form(
        "dynamic, its distance from the static run fading as D^-a",
        _fit_relaxation,
        Relaxation.from_dict,
    ),
    "blend": Form("mean of recency and relaxation", _fit_blend, _load_blend),
}
"""Name -> form."""


def load_effect(data: Mapping[str, Any]) -> Effect:
    """The inverse of `Effect.to_dict`. Raises: FitError: an unknown form."""
    form = FORMS.get(data["form"])
    if form is None:
        raise FitError(f"the stage form {data['form']!r} is unknown; known are {list(FORMS)}")
    return form.load(data)


def floors_of(static: FittedLaws) -> np.ndarray:
    """(T,) losses that no model reaches: a share of the static law's value far beyond all scales;
    0 where the law reads no tokens."""
    if TRAIN_TOKENS not in static.needs:
        return np.zeros(len(static.targets))
    weights = np.unique(static.cross_validation.runs.weights, axis=0)
    largest = static.within.largest
    n = len(weights)
    far = Points(
        weights,
        np.full(n, largest["num_params"] * FAR),
        np.full(n, largest["train_tokens"] * FAR),
    )
    reached = Together(list(static.laws.values())).predict(far).min(axis=0)
    return FLOOR_SHARE * np.maximum(reached, 0.0)


def _fit_rates(evidence: Evidence, name: str, effect: Callable[[np.ndarray], Effect]) -> Effect:
    """One rate per target, shrunk towards their common one and that towards 1: maximum a
    posteriori, the static law's held-out error as noise.

    Raises: FitError: no staged run.
    """
    at, values, noise = evidence.at, evidence.values, evidence.noise
    if not len(at):
        raise FitError(
            f"the form {name!r} learns from staged runs, and the table has none; train a few, or "
            "fit without it"
        )
    law = evidence.law
    num_targets = len(noise)
    left = np.where(np.isfinite(values), values - law.predict(at.at_dose), 0.0)
    known = np.isfinite(values)

    def errors(logs: np.ndarray) -> np.ndarray:
        """(n, T) in units of the noise."""
        return np.where(known, effect(np.exp(logs)).values(law, at) - left, 0.0) / noise

    def residuals(theta: np.ndarray) -> np.ndarray:
        prior = np.append(theta[0] / RATE_SD, theta[1:] / TARGETS_SD)
        return np.append(errors(theta[0] + theta[1:]), prior)

    def jacobian(theta: np.ndarray) -> np.ndarray:
        logs = theta[0] + theta[1:]  # a target's errors depend on its own rate alone
        slope = (errors(logs + _STEP) - errors(logs - _STEP)) / (2 * _STEP)
        own = np.einsum("nt,tu->ntu", slope, np.eye(num_targets)).reshape(-1, num_targets)
        prior = np.diag(np.append(1 / RATE_SD, np.full(num_targets, 1 / TARGETS_SD)))
        return np.vstack([np.column_stack([slope.reshape(-1), own]), prior])

    slopes: Any = jacobian  # scipy's annotations know names of methods only
    found = least_squares(residuals, np.zeros(1 + num_targets), jac=slopes, method="lm")
    return effect(np.exp(found.x[0] + found.x[1:]))
