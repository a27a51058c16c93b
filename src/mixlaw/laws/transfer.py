"""A handful of runs at a large scale, forecast from a law of a small one.

    y = level + slope (s - level of s) + GP,    s = the small law's value

Runs at a larger scale rank mixtures nearly as small ones do, on another level and with another
spread. So the small law keeps its shape, the large runs tell its level and slope, and a Gaussian
process takes up what of their residuals is smooth in the mixture. Targets of one kind of data share
most of their slope, so each is drawn to the mean slope of all. Normalised errors at 4, 8 and 16
large runs are in docs/decisions.md.

Shapes: b targets fitted together, n mixtures run at the large scale, M domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.gaussian import Kernel, Process
from mixlaw.laws.page_form import Form, Scale
from mixlaw.laws.points import AXES, MIXTURE, Points, scale_levels
from mixlaw.laws.ranking import rank_correlation
from mixlaw.laws.residual import alike
from mixlaw.laws.solver import Start
from mixlaw.runs import RunTable

if TYPE_CHECKING:
    from mixlaw.laws.selection import FittedLaws

TRANSFER = "transfer"
FEWEST_MIXTURES = 3

STRENGTH = 4.0
"""How many runs of typical spread the prior is worth, that a slope is the mean one and that the
mean one is 1."""

KERNEL = Kernel(length=0.5)
WHITE = 0.2
"""Variance of white noise over that of the process. Fixed, since a handful of runs cannot choose
it: leave-one-out chose worse on published pairs, where errors move by a twentieth from .1 to .3."""

GOOD_RANKING = 0.9
"""A rank correlation below it is reported."""


class Transfer(Recipe):
    """Laws of a small scale, moved to the one larger scale of a few runs.

    With `v` the variance of s over the candidate mixtures, and sums over the runs,

        C = sum (s - mean s) (y - mean y) / v,    Q = sum (s - mean s)^2 / v,
        mean slope = (sum_targets C + 4) / (sum_targets Q + 4),
        slope = (C + 4 mean slope) / (Q + 4).

    The slope's prior matters because four runs can lie anywhere on the small law's scale; `v` says
    how far they reach on it.

    Attributes:
        priors: target -> fitted law. One that reads counts is asked at the large runs' own.
        candidates: (k, M) mixtures over which, with the runs', `v` is taken; the more of those that
            may be asked for, the better.
    """

    name = TRANSFER
    convex = False

    def __init__(self, priors: Mapping[str, Fitted], candidates: np.ndarray | None = None):
        self.priors, self.candidates = priors, candidates
        recipes = [prior.recipe for prior in priors.values()]
        names = ", ".join(dict.fromkeys(recipe.name for recipe in recipes))
        self.formula = f"level + slope ({names}) + GP"
        self.axes = {axis: ref for recipe in recipes for axis, ref in recipe.axes.items()}
        self.needs = frozenset({MIXTURE}).union(*(recipe.needs for recipe in recipes))

    def check(self, batch: Batch) -> None:
        """Raise FitError: a target without a prior, other domains, several scales, or fewer than
        three mixtures."""
        _check_priors(self.priors, batch.targets, batch.domains)
        for rows, which in alike(batch.use > 0):
            target = batch.targets[which[0]]
            for axis in AXES:
                levels = scale_levels(getattr(batch.points, axis)[rows])
                if len(set(levels.tolist())) > 1:
                    raise FitError(
                        f"transfer is to one scale, and {target!r} was measured at "
                        f"{len(set(levels.tolist()))} values of {axis}; select the rows of one "
                        "scale, or fit a joint law to all"
                    )
            if (given := len(np.unique(batch.mixture_ids[rows]))) < FEWEST_MIXTURES:
                raise FitError(
                    f"transfer needs at least {FEWEST_MIXTURES} distinct mixtures at the large "
                    f"scale, {target!r} has {given}; train {FEWEST_MIXTURES - given} more"
                )

    def fit_batch(
        self, batch: Batch, *, seed: int = 0, starts: Sequence[Start | None] | None = None
    ) -> list[Fitted]:
        """Fit every problem in closed form; `seed` and `starts` have no meaning here. Problems of
        the same rows share the mean slope.

        Raises: FitError: see `check`.
        """
        self.check(batch)
        fitted: dict[int, Fitted] = {}
        for rows, which in alike(batch.use > 0):
            # Another seed of a target is not another target: each occurs once in a mean slope.
            part = batch.select(which).rows(rows)
            fitted |= dict(zip(which, self._fit_together(part), strict=True))
        return [fitted[b] for b in range(len(batch))]

    def _fit_together(self, batch: Batch) -> list[FittedTransfer]:
        _, first, mixture = np.unique(batch.mixture_ids, return_index=True, return_inverse=True)
        mixture = mixture.reshape(-1)
        use = np.stack([np.bincount(mixture, weight) for weight in batch.use])  # (b, n)
        total = [np.bincount(mixture, w * y) for w, y in zip(batch.use, batch.y, strict=True)]
        y = np.stack(total) / use
        points = batch.points.select(first)
        s, variance = self._prior_values(batch.targets, points)
        lines = _lines(s, y, use, variance)
        without = _lines(s, y, use, variance, leave_out=True)
        covariance = KERNEL.matrix(points, points)
        unknown = np.full(len(points), np.nan)
        centres = Points(points.weights, unknown, unknown)
        fitted = []
        for b, target in enumerate(batch.targets):
            inverse = np.linalg.inv(covariance + np.diag(WHITE / use[b]))
            rest = y[b] - lines.at(s)[b]
            # The process without run i misses it by (P e)_i / P_ii, where P is the inverse above
            # and e are the residuals of the line without run i.
            offset = without.level[b] - without.slope[b] * without.centre[b]
            parts = inverse @ np.stack([y[b], np.ones(len(points)), s[b]], axis=1)
            missed = parts[:, 0] - offset * parts[:, 1] - without.slope[b] * parts[:, 2]
            ranking = rank_correlation(s[b], y[b])
            doubt = _doubt(target, ranking, len(points)) if ranking < GOOD_RANKING else ()
            fitted.append(
                FittedTransfer(
                    target=target,
                    prior=self.priors[target],
                    slope=float(lines.slope[b, 0]),
                    level=float(lines.level[b, 0]),
                    centre=float(lines.centre[b, 0]),
                    process=Process(KERNEL, centres, inverse @ rest),
                    left_out=-missed / np.diagonal(inverse),
                    warnings=(*self.priors[target].warnings, *batch.warnings[b], *doubt),
                )
            )
        return fitted

    def _prior_values(
        self, targets: Sequence[str], points: Points
    ) -> tuple[np.ndarray, np.ndarray]:
        """The small laws at the runs (b, n), and their variances over the candidates (b,)."""
        candidates = points
        if self.candidates is not None:
            mixtures = np.unique(np.concatenate([points.weights, self.candidates]), axis=0)
            counts = [np.full(len(mixtures), getattr(points, axis)[0]) for axis in AXES]
            candidates = Points(mixtures, *counts)
        s = np.stack([self.priors[target].predict(points) for target in targets])
        spread = np.stack([self.priors[target].predict(candidates) for target in targets])
        return s, np.maximum(spread.var(axis=1), 1e-300)


def _check_priors(
    priors: Mapping[str, Fitted], targets: Sequence[str], domains: tuple[str, ...]
) -> None:
    """Raise FitError: a target without a prior, or one of other domains."""
    if bare := sorted(set(targets) - set(priors)):
        raise FitError(f"no law of the small scale was given for {bare}; there are {list(priors)}")
    for target in dict.fromkeys(targets):
        if priors[target].domains != domains:
            raise FitError(
                f"the small law of {target!r} has the domains {list(priors[target].domains)}, the "
                f"runs have {list(domains)}; both need the same, in the same order"
            )


@dataclass(frozen=True, eq=False)
class _Lines:
    """`level + slope (s - centre)`, each (b, 1), or (b, n) with the line that lacks each run."""

    level: np.ndarray
    slope: np.ndarray
    centre: np.ndarray

    def at(self, s: np.ndarray) -> np.ndarray:
        return self.level + self.slope * (s - self.centre)


def _lines(
    s: np.ndarray, y: np.ndarray, use: np.ndarray, variance: np.ndarray, *, leave_out: bool = False
) -> _Lines:
    """The lines of all runs, or those that lack one run each; s, y, use (b, n), variance (b,)."""
    # Sums are taken about the mean of all runs, so that they keep their digits.
    total = use.sum(axis=1, keepdims=True)
    around = [(use * x).sum(axis=1, keepdims=True) / total for x in (s, y)]
    ds, dy = s - around[0], y - around[1]

    def summed(values: np.ndarray) -> np.ndarray:
        whole = values.sum(axis=1, keepdims=True)
        return whole - values if leave_out else whole

    weight = summed(use)
    shift_s, shift_y = summed(use * ds) / weight, summed(use * dy) / weight
    c = (summed(use * ds * dy) - weight * shift_s * shift_y) / variance[:, None]
    q = (summed(use * ds**2) - weight * shift_s**2) / variance[:, None]
    mean_slope = (c.sum(axis=0) + STRENGTH) / (q.sum(axis=0) + STRENGTH)
    slope = (c + STRENGTH * mean_slope) / (q + STRENGTH)
    return _Lines(around[1] + shift_y, slope, around[0] + shift_s)


def _doubt(target: str, ranking: float, count: int) -> tuple[str, ...]:
    return (
        f"{target}: the small law ranks the {count} mixtures run at the large scale with "
        f"correlation {ranking:.2f} only; do not choose by it without large runs near the choice",
    )


@dataclass(frozen=True, eq=False)
class FittedTransfer(Fitted):
    """A law of a small scale, moved to the scale of a few large runs; it holds at that scale only.

    Attributes:
        prior: the small law.
        slope, level, centre: see the module's formula; `centre` is the level of s.
        process: over the residuals; its centres are the n mixtures run.
        left_out: (n,) forecast less observed of each mixture run, when all of its runs are left
            out, exactly. An estimate of the error; see `left_out_error`.
    """

    target: str
    prior: Fitted
    slope: float
    level: float
    centre: float
    process: Process
    left_out: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.prior.domains

    @property
    def recipe(self) -> Transfer:
        return Transfer({self.target: self.prior})

    @property
    def start(self) -> None:
        return None

    @property
    def left_out_error(self) -> float:
        """Root mean square of `left_out`."""
        return float(np.sqrt(np.mean(self.left_out**2)))

    def predict(self, points: Points) -> np.ndarray:
        line = self.level + self.slope * (self.prior.predict(points) - self.centre)
        return line + self.process.value(points)

    def gradient(self, points: Points) -> np.ndarray:
        return self.slope * self.prior.gradient(points) + self.process.gradient(points)

    script = """([slope, level, centre], own, constants, [prior, process]) =>
      (at) => level + slope * (prior(at) - centre) + process(at)"""

    def form(self, scales: Sequence[Scale] = ()) -> Form:
        def remake(form: Form, parts: Sequence[Any]) -> FittedTransfer:
            slope, level, centre = form.numbers.tolist()
            prior, process = parts
            line = {"slope": slope, "level": level, "centre": centre}
            return replace(self, prior=prior, process=process, **line)

        return Form(
            name="FittedTransfer",
            script=self.script,
            numbers=np.array([self.slope, self.level, self.centre]),
            parts=(self.prior.form(scales), self.process.form()),
            remake=remake,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "law": TRANSFER,
            "target": self.target,
            "prior": self.prior.to_dict(),
            "slope": self.slope,
            "level": self.level,
            "centre": self.centre,
            "process": self.process.to_dict(),
            "left_out": self.left_out.tolist(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedTransfer:
        from mixlaw.laws.catalogue import load_fitted  # it lists this class

        return cls(
            target=data["target"],
            prior=load_fitted(data["prior"]),
            slope=data["slope"],
            level=data["level"],
            centre=data["centre"],
            process=Process.from_dict(data["process"]),
            left_out=np.array(data["left_out"], float),
            warnings=tuple(data["warnings"]),
        )


@dataclass(frozen=True)
class ZeroShotDoubt:
    """How well small laws rank the mixtures run at a large scale: rank correlations.

    Attributes:
        of_target: by target.
        of_mean: of the mean over the targets. It breaks first: where targets trade off, their mean
            varies less than each, and the mean is what a mixture is chosen by.
        num_mixtures: how many were ranked.
    """

    of_target: Mapping[str, float]
    of_mean: float
    num_mixtures: int


def zero_shot_doubt(
    small: FittedLaws | Mapping[str, Fitted], runs: RunTable, targets: Sequence[str] | None = None
) -> ZeroShotDoubt:
    """Compare the small scale's ranking with that of a few large runs.

    Args:
        small: laws of a small scale.
        runs: at one larger scale; rows of failed runs and rows that lack a target are left out,
            and the seeds of one mixture are averaged.
        targets: default: all of `small`; name those of one unit, since their mean is taken.
    Raises: FitError: a target without a law, other domains, or fewer than three mixtures that
        have all targets.
    """
    laws = laws_of(small)
    targets = tuple(targets or laws)
    _check_priors(laws, targets, runs.domains)
    runs = runs.done()
    values = np.stack([runs.column(target) for target in targets])
    known = np.flatnonzero(np.isfinite(values).all(axis=0))
    _, first, mixture = np.unique(runs.mixture_ids()[known], return_index=True, return_inverse=True)
    if len(first) < FEWEST_MIXTURES:
        raise FitError(
            f"a ranking needs at least {FEWEST_MIXTURES} mixtures with all of {list(targets)}, "
            f"the runs have {len(first)}; train more"
        )
    seeds = np.bincount(mixture.reshape(-1))
    observed = np.stack([np.bincount(mixture.reshape(-1), v) for v in values[:, known]]) / seeds
    points = Points.of(runs.select(known)).select(first)
    predicted = np.stack([laws[target].predict(points) for target in targets])
    each = [rank_correlation(p, o) for p, o in zip(predicted, observed, strict=True)]
    of_mean = rank_correlation(predicted.mean(axis=0), observed.mean(axis=0))
    return ZeroShotDoubt(dict(zip(targets, each, strict=True)), of_mean, len(first))


def laws_of(small: FittedLaws | Mapping[str, Fitted]) -> Mapping[str, Fitted]:
    """Target -> fitted law."""
    return small if isinstance(small, Mapping) else small.laws
