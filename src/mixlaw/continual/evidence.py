"""What was fitted: the rows, and each form with its held-out errors and doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.continual.answers import Setting
from mixlaw.continual.forms import SETTINGS, ContinualLaw, ContinualPoints, make
from mixlaw.continual.table import inner_rows, share_ids
from mixlaw.laws.points import SAME_SCALE, Axes, scale_levels
from mixlaw.laws.scoring import blanks
from mixlaw.mixture import Mixture

NEAR_COMPOSITION = 0.2
"""Runs that differ in no more than this share of a side are near."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The n rows that were fitted; NaN where unknown.

    Attributes:
        share: (n,) of new data.
        train_tokens, num_params, rewarm: (n,).
        losses: (T, n) observed.
        run: (n,) names; seed: (n,) integers.
        inner_mixtures: side -> (n, its domains) how a row composed it, NaN where it has nothing of
            it; of the sides that the runs composed in different ways.
    """

    share: np.ndarray
    train_tokens: np.ndarray
    num_params: np.ndarray
    rewarm: np.ndarray
    losses: np.ndarray
    run: np.ndarray
    seed: np.ndarray
    inner_mixtures: Mapping[str, np.ndarray]

    @cached_property
    def share_ids(self) -> np.ndarray:
        """(n,) integers, equal for rows of one share; ascending."""
        return share_ids(self.share)

    @property
    def inner(self) -> np.ndarray:
        """(n,) whether a row's share lies between others."""
        return inner_rows(self.share)

    @property
    def num_shares(self) -> int:
        return int(self.share_ids.max()) + 1

    @cached_property
    def shares_of_targets(self) -> np.ndarray:
        """(T,) how many different shares each target was measured at."""
        return np.array([len(set(self.share_ids[known])) for known in np.isfinite(self.losses)])

    @cached_property
    def levels(self) -> Mapping[str, np.ndarray]:
        """Setting -> (n,) its value, one for all rows that differ by `SAME_SCALE` at most, as in
        the fit; NaN unknown."""
        found = {}
        for axis in SETTINGS:
            column, level = getattr(self, axis), scale_levels(getattr(self, axis))
            middle = np.array([np.median(column[level == k]) for k in range(level.max() + 1)])
            found[axis] = np.append(middle, np.nan)[level]
        return found

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The distinct settings of the rows, ascending."""
        axes = [self.levels[axis] for axis in ("num_params", "rewarm", "train_tokens")]
        # NaN differs from itself, and no setting is 0.
        distinct = np.unique(np.nan_to_num(np.stack(axes, axis=1)), axis=0).tolist()
        known = ([v or None for v in row] for row in distinct)
        return tuple(Setting(tokens, size, rewarm) for size, rewarm, tokens in known)

    def rows(self, setting: Setting) -> np.ndarray:
        """(n,) which rows were trained so."""
        here = np.ones(len(self.share), bool)
        for axis, at in setting.to_dict().items():
            column = self.levels[axis]
            here &= np.isnan(column) if at is None else np.abs(column / at - 1) <= SAME_SCALE
        return here

    def range(self, name: str) -> tuple[float, float]:
        """Least and largest of a column; NaN when unknown."""
        column = getattr(self, name)
        return float(column.min()), float(column.max())

    def outside(self, share: float, setting: Setting) -> list[str]:
        """What of a question lies outside the rows."""
        found = []
        for name, value in {"share": share, **setting.to_dict()}.items():
            low, high = self.range(name)
            slack = 1e-9 if name == "share" else SAME_SCALE * high
            if value is not None and not low - slack <= value <= high + slack:
                found.append(name)
        return found

    def composed_near(self, side: str, mixture: Mixture, domains: Sequence[str]) -> bool:
        """Whether some row composed a side, which they vary, nearly so."""
        asked = np.array([mixture.get(domain, 0.0) for domain in domains])
        moved = np.abs(self.inner_mixtures[side] - asked).sum(axis=1) / 2
        return bool(np.nanmin(moved) <= NEAR_COMPOSITION)

    def errors(self, form: FittedForm, rows: np.ndarray) -> np.ndarray:
        """(T,) mean absolute error of held-out shares in some rows (n,); NaN without any."""
        error = np.abs(form.left_out - self.losses)[:, rows]
        known = np.isfinite(error)
        total, count = np.where(known, error, 0.0).sum(axis=1), known.sum(axis=1)
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)

    def to_dict(self) -> dict[str, Any]:
        counts = ("train_tokens", "num_params", "rewarm")
        return {
            "share": self.share.tolist(),
            **{name: blanks(getattr(self, name)[None])[0] for name in counts},
            "losses": blanks(self.losses),
            "run": self.run.tolist(),
            "seed": self.seed.tolist(),
            "inner_mixtures": {side: blanks(m) for side, m in self.inner_mixtures.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trained:
        names = ("share", "train_tokens", "num_params", "rewarm", "losses")
        arrays = {name: np.array(data[name], float) for name in names}
        return cls(
            **arrays,
            run=np.array(data["run"]),
            seed=np.array(data["seed"], int),
            inner_mixtures={s: np.array(m, float) for s, m in data["inner_mixtures"].items()},
        )


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
        arrays = ("theta", "covariance", "noise", "error")
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
        names = ("theta", "covariance", "noise", "left_out", "error")
        arrays = {name: np.array(data[name], float) for name in names}
        return cls(name=data["name"], axes=dict(data["axes"]), **integers, **arrays)


def _variance(slopes: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(T, q) variances of what has slopes (T, q, p) in theta."""
    variance = np.einsum("tqp,tqp->tq", slopes @ covariance, slopes)
    return np.maximum(variance, 0.0)
