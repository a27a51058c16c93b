"""Fitted laws of continued runs: forecasts, the critical share, the best share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import stdtrit

from mixlaw.continual.answers import Best, Critical, Move, Range, Setting
from mixlaw.continual.evidence import FittedForm, Trained
from mixlaw.continual.forms import ContinualPoints
from mixlaw.continual.questions import (
    base_of,
    check_composition,
    coefficients_of,
    points_of,
    protected_of,
    setting_of,
    tolerances,
)
from mixlaw.continual.search import least, reach
from mixlaw.continual.table import NEW, OLD, SIDES, check_base
from mixlaw.errors import FitError
from mixlaw.laws.uncertainty import LEVEL
from mixlaw.mixture import Mixture

FORMAT_VERSION = 2

RIVAL_ERROR = 1.5
"""A form whose held-out error is within this factor of the best one's is a rival: where rivals
disagree, the runs cannot tell which is right."""

TURN, TURNING_POINTS = 1e-3, 33
"""By how much of the base a curve may go back beyond the trained shares, and where it is looked
at."""


@dataclass(frozen=True, eq=False)
class ContinualLaws:
    """One form of the share of new data fitted to every target, with what is known of its errors.

    Attributes:
        form: name of the chosen form.
        forms: name -> fitted, of all that could be; refused: name -> why not.
        aside: name -> why a fitted form is not relied on.
        targets: T names; sides: "old", "new" or None of each.
        domains: side -> its domains; composition: side -> its mixture in forecasts.
        groups: G names that the forms tell apart: a side, or its domains when the runs vary them.
        bases: (num_params, (T,) losses of the base) per trained size; NaN: of any size.
        trained: the rows that were fitted.
        warnings: read them before extrapolating.
    """

    form: str
    forms: Mapping[str, FittedForm]
    refused: Mapping[str, str]
    aside: Mapping[str, str]
    targets: tuple[str, ...]
    sides: tuple[str | None, ...]
    domains: Mapping[str, tuple[str, ...]]
    composition: Mapping[str, Mixture]
    groups: tuple[str, ...]
    bases: tuple[tuple[float, tuple[float, ...]], ...]
    trained: Trained
    warnings: tuple[str, ...]

    @property
    def held_out_error(self) -> dict[str, dict[str, float]]:
        """Form -> target -> mean absolute error of held-out inner shares, in the target's unit."""
        return self._errors(self.trained.inner)

    @property
    def end_error(self) -> dict[str, dict[str, float]]:
        """As `held_out_error`, of the least and the largest share, where a form extrapolates."""
        return self._errors(~self.trained.inner)

    def _errors(self, rows: np.ndarray) -> dict[str, dict[str, float]]:
        mean = {name: self.trained.errors(form, rows) for name, form in self.forms.items()}
        return {k: dict(zip(self.targets, v.tolist(), strict=True)) for k, v in mean.items()}

    @property
    def ranked(self) -> tuple[str, ...]:
        """All fitted forms, the least held-out error first."""
        return tuple(sorted(self.forms, key=lambda name: float(np.mean(self.forms[name].error))))

    @property
    def rivals(self) -> tuple[str, ...]:
        """The forms that did nearly as well as the chosen one, which is the first."""
        error = {name: float(np.mean(form.error)) for name, form in self.forms.items()}
        others = [name for name in error if name != self.form and name not in self.aside]
        near = [name for name in others if error[name] <= RIVAL_ERROR * error[self.form]]
        return (self.form, *near)

    def turning(self, form: str) -> tuple[str, ...]:
        """The targets whose curve of a form turns around beyond the trained shares, at a trained
        setting: what it says there is of no run."""
        low, high = self.trained.range("share")
        turned = np.zeros(len(self.targets), bool)
        for setting in self.trained.settings:
            for edge, end in ((low, 0.0), (high, 1.0)):
                points = self._points(np.linspace(edge, end, TURNING_POINTS), setting)
                values = self.forms[form].values(points)
                onward = np.sign(values[:, 1:2] - values[:, :1]) * values
                back = np.maximum.accumulate(onward, axis=1) - onward
                turned |= back.max(axis=1) > TURN
        return tuple(t for t, found in zip(self.targets, turned, strict=True) if found)

    @cached_property
    def _belief(self) -> np.ndarray:
        """(K,) weights of the rivals: inverse squared held-out errors."""
        error = np.array([np.mean(self.forms[name].error) for name in self.rivals])
        weight = 1 / np.maximum(error, 1e-150) ** 2
        return weight / weight.sum()

    def continuing(
        self,
        base: Mapping[str, float] | None = None,
        *,
        old: Mixture | None = None,
        new: Mixture | None = None,
    ) -> ContinualLaws:
        """The same laws asked about another base, or other mixtures within the sides.

        Args:
            base: target -> loss of the model that will be continued, of whatever size.
            old, new: composition of a side; only where the runs varied it.
        Raises: FitError: a base without some target, foreign domains, or a composition that the
            runs cannot tell from theirs.
        """
        bases, composition = self.bases, dict(self.composition)
        if base is not None:
            check_base(base, self.targets)
            bases = ((math.nan, tuple(float(base[target]) for target in self.targets)),)
        for side, mixture in ((OLD, old), (NEW, new)):
            if mixture is not None:
                varied = side not in self.groups
                domains, theirs = self.domains[side], self.composition[side]
                check_composition(side, mixture, theirs, domains, varied=varied)
                composition[side] = Mixture({d: mixture.get(d, 0.0) for d in domains})
        return replace(self, bases=bases, composition=composition)

    def predict(
        self,
        shares: Sequence[float] | np.ndarray | float,
        *,
        train_tokens: float | None = None,
        num_params: float | None = None,
        rewarm: float | None = None,
    ) -> np.ndarray:
        """Losses (q, T) at shares (q,) of new data and one setting.

        Raises: FitError: a share outside 0 to 1, a setting that the runs vary and is not given,
            or a size whose base is unknown.
        """
        setting = self._setting(train_tokens, num_params, rewarm)
        points = self._points(np.atleast_1d(np.asarray(shares, float)), setting)
        return (self._base(setting)[:, None] * self.forms[self.form].values(points)).T

    def intervals(
        self,
        shares: Sequence[float] | np.ndarray | float,
        *,
        train_tokens: float | None = None,
        num_params: float | None = None,
        rewarm: float | None = None,
        level: float = LEVEL,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Low and high (q, T) of the loss of a further run. Args and raises: as `predict`."""
        setting = self._setting(train_tokens, num_params, rewarm)
        points = self._points(np.atleast_1d(np.asarray(shares, float)), setting)
        logs, sd = self._curves(points)
        half = self._quantiles(level)[:, None] * sd
        base = self._base(setting)[:, None]
        return (base * np.exp(logs - half)).T, (base * np.exp(logs + half)).T

    def critical(
        self,
        *,
        tolerance: float | Mapping[str, float] = 0.0,
        train_tokens: float | None = None,
        num_params: float | None = None,
        rewarm: float | None = None,
        level: float = LEVEL,
        protect: Sequence[str] | None = None,
    ) -> Critical:
        """The most new data up to which no protected target rises above base + tolerance.

        That is the first crossing from pure replay. The interval is where the bounds of the
        forecast of a further run cross first; its lower end holds for all protected targets at once
        (Bonferroni).

        Args:
            tolerance: allowed rise in the unit of the target, one for all or target -> rise.
            protect: targets; default: all of the old side.
        Raises: FitError: no target is of the old side, an unknown one, a tolerance that is not a
            finite number or of a target that is not protected; and as `predict`.
        """
        setting = self._setting(train_tokens, num_params, rewarm)
        protected = protected_of(protect, self.targets, self.sides)
        allowed = tolerances(tolerance, [self.targets[t] for t in protected])
        base = self._base(setting)
        limit = np.log1p(np.array(list(allowed.values())) / base[protected])[:, None]
        measured = {self.targets[t].partition("/")[2] for t in protected}  # in whatever unit
        strict = 1 - (1 - level) / len(measured)
        none = np.zeros(len(self.targets))

        def margins(shares: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
            logs, sd = self._curves(self._points(shares, setting))
            return (logs + quantiles[:, None] * sd)[protected] - limit

        def until(quantiles: np.ndarray) -> float:
            def holds(shares: np.ndarray) -> np.ndarray:
                return margins(shares, quantiles).max(axis=0) <= 0

            return reach(holds, 1.0) if holds(np.zeros(1))[0] else 0.0

        share = until(none)
        at = margins(np.array([share, min(1.0, share + 1e-6)]), none)
        never = share == 1.0
        replay = share == 0.0 and bool((at[:, 0] > 0).any())
        return Critical(
            share=share,
            low=until(self._quantiles(strict)),
            high=until(-self._quantiles(level)),
            level=level,
            binding=None if never else self.targets[protected[int(np.argmax(at[:, 1]))]],
            end="never" if never else "replay" if replay else None,
            extrapolates=self._extrapolates(share, setting),
            setting=setting,
            tolerance=allowed,
            base={self.targets[t]: float(base[t]) for t in protected},
            losses=self._losses(share, setting, level),
        )

    def best(
        self,
        weights: Mapping[str, float],
        *,
        train_tokens: float | None = None,
        num_params: float | None = None,
        rewarm: float | None = None,
        level: float = LEVEL,
        beyond: bool = False,
    ) -> Best:
        """The share of least weighted mean loss among those from the least to the largest trained.

        Its interval holds every share around it whose loss is not told from the least at `level`,
        trained or not.

        Args:
            weights: target -> weight, at least one > 0.
            beyond: whether shares that no run came near may be the best, too.
        Raises: FitError: an unknown target or a weight that makes no sense; and as `predict`.
        """
        setting = self._setting(train_tokens, num_params, rewarm)
        named = coefficients_of(weights, self.targets)
        coefficients = named * self._base(setting)
        quantile = float(self._quantiles(level)[named > 0].max())
        lowest, highest = (0.0, 1.0) if beyond else self.trained.range("share")

        def objective(shares: np.ndarray) -> np.ndarray:
            return coefficients @ self.forms[self.form].values(self._points(shares, setting))

        share = least(objective, lowest, highest)

        def alike(shares: np.ndarray) -> np.ndarray:
            gap, sd = self._gap(coefficients, shares, share, setting)
            return gap <= quantile * sd

        ends = {lowest: "trained", highest: "trained", 0.0: "replay", 1.0: "new"}
        return Best(
            share=share,
            low=share - reach(lambda step: alike(share - step), share),
            high=share + reach(lambda step: alike(share + step), 1 - share),
            level=level,
            weights={t: w / sum(weights.values()) for t, w in weights.items()},
            end=ends.get(share),
            objective=float(objective(np.array([share]))[0]),
            extrapolates=self._extrapolates(share, setting),
            setting=setting,
            losses=self._losses(share, setting, level),
        )

    def moves(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        tolerance: float | Mapping[str, float] = 0.0,
        level: float = LEVEL,
        protect: Sequence[str] | None = None,
    ) -> tuple[Move, ...]:
        """How the critical share, and the best one for `weights`, move over the trained settings.

        Args and raises: as `critical` and `best`.
        """
        found = []
        for setting in self.trained.settings:
            at: dict[str, Any] = setting.to_dict()
            critical = self.critical(tolerance=tolerance, level=level, protect=protect, **at)
            best = None if weights is None else self.best(weights, level=level, **at)
            found.append(Move(setting, critical, best))
        return tuple(found)

    def _setting(
        self, train_tokens: float | None, num_params: float | None, rewarm: float | None
    ) -> Setting:
        asked = {"train_tokens": train_tokens, "num_params": num_params, "rewarm": rewarm}
        return setting_of(asked, self.trained, self.forms[self.form].axes)

    def _points(self, shares: np.ndarray, setting: Setting) -> ContinualPoints:
        return points_of(shares, setting, [self._group_parts(side) for side in SIDES])

    def _group_parts(self, side: str) -> list[float]:
        """What each group of a side has of it."""
        if side in self.groups:
            return [1.0]
        return [self.composition[side].get(domain, 0.0) for domain in self.domains[side]]

    def _base(self, setting: Setting) -> np.ndarray:
        return base_of(self.bases, setting)

    def _quantiles(self, level: float) -> np.ndarray:
        """(T,) of Student's t: the variances of a target are read from as many shares."""
        if not 0 < level < 1:
            raise FitError(f"level is {level}; it must lie between 0 and 1, for example .9")
        return stdtrit(self.trained.shares_of_targets - 2, (1 + level) / 2)

    def _curves(self, points: ContinualPoints) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms (T, q) of loss over base, and the sd (T, q) of a further run's."""
        chosen = self.forms[self.form]
        logs, variance = chosen.curve(points)
        variance = variance + chosen.noise[:, None]
        for weight, name in zip(self._belief[1:], self.rivals[1:], strict=True):
            variance = variance + weight * (np.log(self.forms[name].values(points)) - logs) ** 2
        return logs, np.sqrt(variance)

    def _gap(
        self, coefficients: np.ndarray, shares: np.ndarray, best: float, setting: Setting
    ) -> tuple[np.ndarray, np.ndarray]:
        """How much higher (q,) the objective is than at the best share, and its sd."""
        points = self._points(np.append(shares, best), setting)
        chosen = self.forms[self.form]
        values, variance = chosen.differences(points, coefficients)
        for weight, name in zip(self._belief[1:], self.rivals[1:], strict=True):
            other = coefficients @ self.forms[name].values(points)
            variance = variance + weight * (other[:-1] - other[-1] - values) ** 2
        return values, np.sqrt(variance)

    def _losses(self, share: float, setting: Setting, level: float) -> dict[str, Range]:
        at = setting.to_dict()
        value = self.predict(share, **at)[0].tolist()
        low, high = (end[0].tolist() for end in self.intervals(share, level=level, **at))
        ranges = zip(self.targets, value, low, high, strict=True)
        return {target: Range(*numbers) for target, *numbers in ranges}

    def _extrapolates(self, share: float, setting: Setting) -> tuple[str, ...]:
        found = self.trained.outside(share, setting)
        mixtures = (
            (side, self.composition[side], self.domains[side]) for side in self.varied_sides
        )
        if any(not self.trained.composed_near(*mixture) for mixture in mixtures):
            found.append("composition")
        return tuple(found)

    @property
    def varied_sides(self) -> tuple[str, ...]:
        """The sides that the runs composed in different ways."""
        return tuple(side for side in SIDES if side not in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an object that predicts bit-identically."""
        return {
            "format": FORMAT_VERSION,
            "form": self.form,
            "forms": {name: form.to_dict() for name, form in self.forms.items()},
            "refused": dict(self.refused),
            "aside": dict(self.aside),
            "targets": list(self.targets),
            "sides": list(self.sides),
            "domains": {side: list(names) for side, names in self.domains.items()},
            "composition": {side: dict(mixture) for side, mixture in self.composition.items()},
            "groups": list(self.groups),
            "bases": [[None if math.isnan(n) else n, list(y)] for n, y in self.bases],
            "trained": self.trained.to_dict(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ContinualLaws:
        """Raises: FitError: another format."""
        if data.get("format") != FORMAT_VERSION:
            raise FitError(
                f"these continual laws have format {data.get('format')}, this version reads "
                f"{FORMAT_VERSION}; fit again"
            )
        return cls(
            form=data["form"],
            forms={name: FittedForm.from_dict(form) for name, form in data["forms"].items()},
            refused=dict(data["refused"]),
            aside=dict(data["aside"]),
            targets=tuple(data["targets"]),
            sides=tuple(data["sides"]),
            domains={side: tuple(names) for side, names in data["domains"].items()},
            composition={side: Mixture(m) for side, m in data["composition"].items()},
            groups=tuple(data["groups"]),
            bases=tuple((math.nan if n is None else n, tuple(y)) for n, y in data["bases"]),
            trained=Trained.from_dict(data["trained"]),
            warnings=tuple(data["warnings"]),
        )
