"""What was fitted: the rows, and each form with its held-out errors and doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.continual.answers import Setting
from mixlaw.continual.forms import ContinualLaw, ContinualPoints, make
from mixlaw.laws.points import Axes
from mixlaw.laws.scoring import blanks


@dataclass(frozen=True, eq=False)
class Trained:
    """The n rows that were fitted; NaN where unknown.

    Attributes:
        share: (n,) of new data.
        train_tokens, num_params, rewarm: (n,).
        losses: (T, n) observed.
        run: (n,) names; seed: (n,) integers.
    """

    share: np.ndarray
    train_tokens: np.ndarray
    num_params: np.ndarray
    rewarm: np.ndarray
    losses: np.ndarray
    run: np.ndarray
    seed: np.ndarray

    @property
    def num_shares(self) -> int:
        return len(np.unique(np.round(self.share, 6)))

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The distinct settings of the rows, ascending."""
        axes = (self.num_params, self.rewarm, self.train_tokens)
        # NaN differs from itself, and no setting is 0.
        distinct = np.unique(np.nan_to_num(np.stack(axes, axis=1)), axis=0).tolist()
        known = ([v or None for v in row] for row in distinct)
        return tuple(Setting(tokens, size, rewarm) for size, rewarm, tokens in known)

    def range(self, name: str) -> tuple[float, float]:
        """Least and largest of a column; NaN when unknown."""
        column = getattr(self, name)
        return float(column.min()), float(column.max())

    def errors(self, form: FittedForm) -> np.ndarray:
        """(T,) mean absolute error of held-out shares."""
        return np.nanmean(np.abs(form.left_out - self.losses), axis=1)

    def to_dict(self) -> dict[str, Any]:
        counts = ("train_tokens", "num_params", "rewarm")
        return {
            "share": self.share.tolist(),
            **{name: blanks(getattr(self, name)[None])[0] for name in counts},
            "losses": blanks(self.losses),
            "run": self.run.tolist(),
            "seed": self.seed.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trained:
        names = ("share", "train_tokens", "num_params", "rewarm", "losses")
        arrays = {name: np.array(data[name], float) for name in names}
        return cls(**arrays, run=np.array(data["run"]), seed=np.array(data["seed"], int))


@dataclass(frozen=True, eq=False)
class FittedForm:
    """One form fitted to T targets.

    Attributes:
        name: in the list of forms; axes: the settings it reads, with their references.
        own: (T,) side of each target; group_side: (G,) side of each group.
        theta: (T, p); covariance: (T, p, p) of theta (see `doubt`).
        noise: (T,) variance of the log of a further run around the form.
        left_out: (T, n) losses of the trained rows, forecast without their share.
        error: (T,) mean absolute error of held-out inner shares over the sd of what was observed.
        rmse: (T,) of the fit to all rows, as a share of the base.
    """

    name: str
    axes: Axes
    own: np.ndarray
    group_side: np.ndarray
    theta: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray
    left_out: np.ndarray
    error: np.ndarray
    rmse: np.ndarray

    @cached_property
    def law(self) -> ContinualLaw:
        return make(self.name, self.axes, self.group_side)

    @property
    def formula(self) -> str:
        return self.law.formula

    def values(self, points: ContinualPoints) -> np.ndarray:
        """(T, q) losses over the base's."""
        return self.law.for_targets(self.own).value(self.theta, points)

    def curve(self, points: ContinualPoints) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms (T, q) of the values, and their variances from that of theta."""
        values, jacobian = self.law.for_targets(self.own).evaluate(self.theta, points)
        slopes = jacobian / values[:, :, None]
        return np.log(values), _variance(slopes, self.covariance)

    def differences(
        self, points: ContinualPoints, coefficients: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """By how much `coefficients (T,) @ values` is higher at all points but the last than at the
        last (q - 1,), and the variances; errors of targets are added as if they were one's."""
        values, jacobian = self.law.for_targets(self.own).evaluate(self.theta, points)
        slopes = coefficients[:, None, None] * (jacobian[:, :-1] - jacobian[:, -1:])
        sd = np.sqrt(_variance(slopes, self.covariance)).sum(axis=0)
        objective = coefficients @ values
        return objective[:-1] - objective[-1], sd**2

    def to_dict(self) -> dict[str, Any]:
        arrays = ("theta", "covariance", "noise", "error", "rmse")
        return {
            "name": self.name,
            "axes": dict(self.axes),
            "own": self.own.tolist(),
            "group_side": self.group_side.tolist(),
            "left_out": blanks(self.left_out),
            **{name: getattr(self, name).tolist() for name in arrays},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedForm:
        integers = {name: np.array(data[name], int) for name in ("own", "group_side")}
        names = ("theta", "covariance", "noise", "left_out", "error", "rmse")
        arrays = {name: np.array(data[name], float) for name in names}
        return cls(name=data["name"], axes=dict(data["axes"]), **integers, **arrays)


def _variance(slopes: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(T, q) variances of what has slopes (T, q, p) in theta."""
    variance = np.einsum("tqp,tqp->tq", slopes @ covariance, slopes)
    return np.maximum(variance, 0.0)
