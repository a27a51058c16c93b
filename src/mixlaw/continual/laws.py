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
from mixlaw.continual.forms import SETTINGS, ContinualPoints
from mixlaw.continual.search import largest, least, reach
from mixlaw.continual.table import NEW, OLD, SAME_COMPOSITION, SIDES, check_base
from mixlaw.errors import FitError
from mixlaw.laws.points import SAME_SCALE
from mixlaw.laws.uncertainty import LEVEL
from mixlaw.mixture import Mixture

FORMAT_VERSION = 1

RIVAL_ERROR = 1.5
"""A form whose held-out error is within this factor of the best one's is a rival: where rivals
disagree, the runs cannot tell which is right."""


@dataclass(frozen=True, eq=False)
class ContinualLaws:
    """One form of the share of new data fitted to every target, with what is known of its errors.

    Attributes:
        form: name of the chosen form.
        forms: name -> fitted, of all that could be; refused: name -> why not.
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
        """Form -> target -> mean absolute error of held-out shares, in the target's unit."""
        mean = {name: self.trained.errors(form) for name, form in self.forms.items()}
        return {k: dict(zip(self.targets, v.tolist(), strict=True)) for k, v in mean.items()}

    @property
    def rivals(self) -> tuple[str, ...]:
        """The forms that did nearly as well as the chosen one, which is the first."""
        error = {name: float(np.mean(form.error)) for name, form in self.forms.items()}
        near = [n for n in error if n != self.form and error[n] <= RIVAL_ERROR * error[self.form]]
        return (self.form, *near)

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
                self._check_composition(side, mixture)
                composition[side] = mixture
        return replace(self, bases=bases, composition=composition)

    def _check_composition(self, side: str, mixture: Mixture) -> None:
        domains = self.domains[side]
        if strange := [d for d in mixture if d not in domains]:
            raise FitError(f"{strange} are not of the {side} side, which is {list(domains)}")
        theirs = self.composition[side]
        apart = max(abs(mixture.get(d, 0.0) - theirs[d]) for d in domains)
        if side in self.groups and apart > SAME_COMPOSITION:
            raise FitError(
                f"all runs composed the {side} side alike ({theirs}), so nothing is known of "
                f"{mixture}; train some with another composition"
            )

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
        half = self._quantile(level) * sd
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
        """The most new data at which no protected target rises above base + tolerance.

        The interval is where the bounds of the forecast of a further run cross; its lower end
        holds for all protected targets at once (Bonferroni).

        Args:
            tolerance: allowed rise in the unit of the target, one for all or target -> rise.
            protect: targets; default: all of the old side.
        Raises: FitError: no target is of the old side, an unknown one, a tolerance that is not a
            finite number; and as `predict`.
        """
        setting = self._setting(train_tokens, num_params, rewarm)
        protected = self._protected(protect)
        allowed = _tolerances(tolerance, [self.targets[t] for t in protected])
        base = self._base(setting)
        limit = np.log1p(np.array(list(allowed.values())) / base[protected])[:, None]
        measured = {self.targets[t].partition("/")[2] for t in protected}  # in whatever unit
        strict = 1 - (1 - level) / len(measured)
        quantile = {0: 0.0, 1: self._quantile(strict), -1: -self._quantile(level)}

        def margins(shares: np.ndarray, side: int) -> np.ndarray:
            logs, sd = self._curves(self._points(shares, setting))
            return (logs + quantile[side] * sd)[protected] - limit

        def holds(shares: np.ndarray, side: int) -> np.ndarray:
            return margins(shares, side).max(axis=0) <= 0

        share = largest(lambda shares: holds(shares, 0))
        at = margins(np.array([share, min(1.0, share + 1e-6)]), 0)
        never = share == 1.0 and bool((at[:, 0] <= 0).all())
        replay = share == 0.0 and bool((at[:, 0] > 0).any())
        return Critical(
            share=share,
            low=largest(lambda shares: holds(shares, 1)),
            high=share + reach(lambda on: holds(share + on, -1), 1 - share),
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
    ) -> Best:
        """The share of least weighted mean loss.

        Its interval holds every share whose loss is not told from the least at `level`.

        Args:
            weights: target -> weight, at least one > 0.
        Raises: FitError: an unknown target or a weight that makes no sense; and as `predict`.
        """
        setting = self._setting(train_tokens, num_params, rewarm)
        coefficients = self._coefficients(weights) * self._base(setting)

        def objective(shares: np.ndarray) -> np.ndarray:
            return coefficients @ self.forms[self.form].values(self._points(shares, setting))

        share = least(objective)

        def alike(shares: np.ndarray) -> np.ndarray:
            gap, sd = self._gap(coefficients, shares, share, setting)
            return gap <= self._quantile(level) * sd

        return Best(
            share=share,
            low=share - reach(lambda step: alike(share - step), share),
            high=share + reach(lambda step: alike(share + step), 1 - share),
            level=level,
            weights={t: w / sum(weights.values()) for t, w in weights.items()},
            end={0.0: "replay", 1.0: "new"}.get(share),
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
        """What was asked for; what the runs do not vary is theirs."""
        asked = {"train_tokens": train_tokens, "num_params": num_params, "rewarm": rewarm}
        for axis in SETTINGS:
            low, high = self.trained.range(axis)
            if asked[axis] is None and not math.isnan(low):
                if axis in self.forms[self.form].axes:
                    raise FitError(
                        f"the runs vary {axis} ({low:g} to {high:g}); say at which to answer, for "
                        f"example {axis}={high:g}"
                    )
                asked[axis] = low
            number = asked[axis]
            if number is not None and not (math.isfinite(number) and number > 0):
                raise FitError(f"{axis} is {number}; it must be finite and > 0")
        return Setting(**asked)

    def _points(self, shares: np.ndarray, setting: Setting) -> ContinualPoints:
        if bad := [s for s in shares.tolist() if not 0 <= s <= 1]:
            raise FitError(f"the shares {bad[:5]} of new data lie outside 0 to 1")
        weights = []
        for side, of_side in zip(SIDES, (1 - shares, shares), strict=True):
            inner = self.composition[side]
            parts = (
                [1.0] if side in self.groups else [inner.get(d, 0.0) for d in self.domains[side]]
            )
            weights.append(of_side[:, None] * parts)
        counts = (
            np.full(len(shares), math.nan if count is None else count)
            for count in (setting.num_params, setting.train_tokens, setting.rewarm)
        )
        num_params, train_tokens, rewarm = counts
        return ContinualPoints(np.hstack(weights), num_params, train_tokens, rewarm=rewarm)

    def _base(self, setting: Setting) -> np.ndarray:
        """(T,) losses of the base of that size."""
        if len(self.bases) == 1:
            return np.array(self.bases[0][1])
        size = setting.num_params or math.nan  # known where several sizes are
        for trained, losses in self.bases:
            if abs(size / trained - 1) <= SAME_SCALE:
                return np.array(losses)
        raise FitError(
            f"the base of num_params={size:g} is unknown, the runs have those of "
            f"{[size for size, _ in self.bases]}; give its losses: continuing(base)"
        )

    def _quantile(self, level: float) -> float:
        """Of Student's t: the variances are read from as many shares."""
        if not 0 < level < 1:
            raise FitError(f"level is {level}; it must lie between 0 and 1, for example .9")
        return float(stdtrit(self.trained.num_shares - 2, (1 + level) / 2))

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
        found = []
        for name, value in {"share": share, **setting.to_dict()}.items():
            low, high = self.trained.range(name)
            slack = 1e-9 if name == "share" else SAME_SCALE * high
            if value is not None and not low - slack <= value <= high + slack:
                found.append(name)
        return tuple(found)

    def _protected(self, protect: Sequence[str] | None) -> list[int]:
        if protect is None:
            found = [t for t, side in enumerate(self.sides) if side == OLD]
            if not found:
                raise FitError(
                    f"none of {list(self.targets)} is named after an old domain, so it is unknown "
                    "what to protect; name it: protect=[target]"
                )
            return found
        unknown = [t for t in protect if t not in self.targets]
        if unknown or not len(protect):
            raise FitError(
                f"protect={list(protect)}: it must name some of the targets {list(self.targets)}"
            )
        return [self.targets.index(target) for target in protect]

    def _coefficients(self, weights: Mapping[str, float]) -> np.ndarray:
        if unknown := [t for t in weights if t not in self.targets]:
            raise FitError(f"no target {unknown}; there are {list(self.targets)}")
        numbers = np.array([float(weights.get(target, 0.0)) for target in self.targets])
        if not np.isfinite(numbers).all() or (numbers < 0).any() or not numbers.sum() > 0:
            raise FitError(
                f"the weights are {dict(weights)}; they must be finite and >= 0, and one > 0"
            )
        return numbers / numbers.sum()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an object that predicts bit-identically."""
        return {
            "format": FORMAT_VERSION,
            "form": self.form,
            "forms": {name: form.to_dict() for name, form in self.forms.items()},
            "refused": dict(self.refused),
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
            targets=tuple(data["targets"]),
            sides=tuple(data["sides"]),
            domains={side: tuple(names) for side, names in data["domains"].items()},
            composition={side: Mixture(m) for side, m in data["composition"].items()},
            groups=tuple(data["groups"]),
            bases=tuple((math.nan if n is None else n, tuple(y)) for n, y in data["bases"]),
            trained=Trained.from_dict(data["trained"]),
            warnings=tuple(data["warnings"]),
        )


def _tolerances(
    tolerance: float | Mapping[str, float], protected: Sequence[str]
) -> dict[str, float]:
    """Target -> allowed rise."""
    given = tolerance if isinstance(tolerance, Mapping) else dict.fromkeys(protected, tolerance)
    if missing := [target for target in protected if target not in given]:
        raise FitError(f"tolerance lacks {missing}; give one number, or one for each of them")
    allowed = {target: float(given[target]) for target in protected}
    if bad := {t: number for t, number in allowed.items() if not 0 <= number < math.inf}:
        raise FitError(f"tolerances {bad} must be finite and >= 0, in the unit of the loss")
    return allowed
