"""What a fit tells about itself: signatures of failure, and what its design could not show.

Every finding says what was seen, what it means and what to do. All are read from a `FittedLaws`
alone, so they are the same after it was stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from mixlaw.errors import FitError
from mixlaw.laws.base import LOOSE, Fitted, FittedLaw
from mixlaw.laws.combination import FittedSum
from mixlaw.laws.findings import (
    MOST_NAMED,
    Finding,
    by_name,
    design_findings,
    listed,
    unit_findings,
)
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.noise import measured_noise
from mixlaw.laws.points import AXES, Points
from mixlaw.laws.ranking import rank_correlation
from mixlaw.laws.residual import FittedResidual
from mixlaw.laws.scoring import column_means
from mixlaw.laws.solver import leverage
from mixlaw.laws.splits import MIXTURE_SPLIT, scale_ids

if TYPE_CHECKING:
    from mixlaw.laws.selection import FittedLaws

LARGE_ERROR = 0.5
"""Normalised held-out error above which a target is called out."""

NEAR_NOISE = 1.5
"""A held-out error within this factor of the seed noise leaves nothing to learn."""

CLEAR = 3.0
"""A ratio to its standard error from which a shift or a trend is believed."""

SAME_ORDER = 0.9
"""Rank correlation of two forecasts below which they order the mixtures differently."""

HIGH_LEVERAGE = 0.9
"""Share of its own prediction that a mixture decides."""

FAR_RESIDUAL = 5.0
"""Times the median left-out residual, at least."""

MARKED_REGRET = 0.25
"""Regret, in standard deviations of the objective over mixtures, from which rivals disagree."""

FAR_SCALE = 10.0
"""Times the largest trained size or horizon."""


def diagnose(
    fitted: FittedLaws,
    *,
    num_params: float | None = None,
    train_tokens: float | None = None,
    coefficients: np.ndarray | None = None,
) -> tuple[Finding, ...]:
    """Everything that speaks against trusting a fit, the errors first.

    Args:
        num_params, train_tokens: the target scale; default: the largest trained.
        coefficients: (T,) of the targets in the objective; default: the mean of those of the most
            common metric.
    """
    case = _Case(fitted, num_params, train_tokens, coefficients)
    checks = (
        _large_errors,
        _level_shift,
        _scale_trend,
        _moving_optimum,
        _disagreement,
        _single_runs,
        _identification,
        _far_target,
    )
    found = [finding for check in checks for finding in check(case)]
    found += design_findings(case.runs)
    return (*found, *unit_findings(case.runs, fitted.targets))


class _Case:
    """A fit and the scale it is asked about.

    Attributes:
        runs: the rows fitted.
        trained: (m, M) their mixtures; labels: (m,) names of these.
        smallest, largest, target: (num_params, train_tokens), None where unknown.
    """

    def __init__(
        self,
        fitted: FittedLaws,
        num_params: float | None,
        train_tokens: float | None,
        coefficients: np.ndarray | None,
    ):
        self.fitted, self.validation = fitted, fitted.cross_validation
        self.runs = self.validation.runs
        self.ids = self.runs.mixture_ids()
        first = np.unique(self.ids, return_index=True)[1]
        self.trained, self.labels = self.runs.weights[first], self.runs.label[first]
        self.smallest, self.largest = (
            {a: None if np.isnan(end[a]) else end[a] for a in AXES}
            for end in (fitted.within.smallest, fitted.within.largest)
        )
        given = dict(zip(AXES, (num_params, train_tokens), strict=True))
        self.target = {a: given[a] if given[a] is not None else self.largest[a] for a in AXES}
        if coefficients is None:
            metrics = [target.partition("/")[0] for target in fitted.targets]
            common = max(sorted(set(metrics)), key=metrics.count)
            coefficients = np.array([metric == common for metric in metrics], float)
            coefficients /= coefficients.sum()
        self.coefficients = np.asarray(coefficients, float)

    @cached_property
    def noise(self) -> np.ndarray:
        """(T,) seed noise; NaN where nothing was repeated."""
        noise = measured_noise(self.runs)
        return np.array([noise.overall[noise.targets.index(t)] for t in self.fitted.targets])

    def forecast(self, laws: Mapping[str, Fitted], scale: Mapping[str, float | None]) -> np.ndarray:
        """(m,) objective of the trained mixtures at a scale."""
        points = Points.at(self.trained, *(scale[axis] for axis in AXES))
        total = np.zeros(len(points))
        for c, target in zip(self.coefficients, self.fitted.targets, strict=True):
            if c:
                total += c * laws[target].predict(points)
        return total

    def half_width(self, mixture: int, scale: Mapping[str, float | None]) -> float:
        """Of the objective; 0 where the targets were never measured together."""
        try:
            weights = self.trained[mixture][None]
            return float(self.fitted.half_width(self.coefficients, weights, *scale.values())[0])
        except FitError:
            return 0.0


# Held-out error


def _large_errors(case: _Case) -> Iterator[Finding]:
    """Targets whose held-out error is above half that of predicting the mean."""
    validation, split = case.validation, case.validation.deciding_split
    scores = validation.scores[case.fitted.law][split]
    residuals = validation.residuals(case.fitted.law, split)
    rmse = np.sqrt(column_means(residuals**2))
    targets = np.array(case.fitted.targets)
    large = np.flatnonzero(scores.normalised_error > LARGE_ERROR)
    large = large[np.argsort(-scores.normalised_error[large])]
    near = large[rmse[large] <= NEAR_NOISE * case.noise[large]]
    missed = np.setdiff1d(large, near, assume_unique=True)
    if len(near):
        t = near[0]
        yield Finding(
            "noise floor",
            tuple(targets[near].tolist()),
            f"{listed(targets[near])}: held-out error {scores.normalised_error[t]:.2f} of "
            f"predicting the mean, but only {rmse[t] / case.noise[t]:.1f} times the seed noise "
            f"({case.noise[t]:.2g}): what the mixture decides is hidden by noise, so there is "
            "nothing more to learn; train longer or average seeds",
            by_name(targets[near], scores.normalised_error[near]),
        )
    if len(missed):
        t = missed[0]
        if np.isnan(case.noise[t]):
            beside = "no mixture was repeated, so noise cannot be told from misfit; repeat two"
            beside += " mixtures with other seeds, or"
        else:
            beside = f"{rmse[t] / case.noise[t]:.1f} times the seed noise ({case.noise[t]:.2g}), so"
            beside += " the law misses what the mixture does there;"
        yield Finding(
            "large error",
            tuple(targets[missed].tolist()),
            f"{listed(targets[missed])}: held-out error {scores.normalised_error[t]:.2f} of "
            f"predicting the mean on the {split} split, rank correlation "
            f"{scores.spearman[t]:.2f}; {beside} add mixtures or give it no weight in the "
            "objective",
            by_name(targets[missed], scores.normalised_error[missed]),
        )


def _level_shift(case: _Case) -> Iterator[Finding]:
    """Residuals at the unseen scale that all lie on one side."""
    if case.fitted.beyond is None:
        return
    beyond, within = case.fitted.beyond.residuals, case.fitted.within.residuals
    count = np.isfinite(beyond).sum(axis=0)
    shift, known = column_means(beyond), column_means(within)
    spread = np.sqrt(column_means((beyond - shift) ** 2) * count / np.maximum(count - 1, 1))
    floor = 1e-9 * np.abs(column_means(case.validation.values()))
    with np.errstate(invalid="ignore"):
        off = (count > 2) & (np.abs(shift) > spread + floor) & (np.abs(shift) > 2 * np.abs(known))
        off &= np.abs(shift) > CLEAR * spread / np.sqrt(np.maximum(count, 1))
    ratio = np.abs(shift) / np.maximum(spread, floor)
    which = np.flatnonzero(off)
    if not len(which):
        return
    which = which[np.argsort(-ratio[which])]
    targets, t = np.array(case.fitted.targets)[which], which[0]
    yield Finding(
        "level shift",
        tuple(targets.tolist()),
        f"{listed(targets)}: with the largest scale held out, forecasts there are "
        f"{abs(shift[t]):.3g} too {'high' if shift[t] > 0 else 'low'} on average, "
        f"{ratio[t]:.1f} times their spread over mixtures ({abs(known[t]):.2g} when it is seen): "
        "the extrapolation misses the level. All mixtures share it, so their order may hold, and "
        "intervals include it; train a size or horizon nearer to the target",
        by_name(targets, shift[which]),
    )


def _scale_trend(case: _Case) -> Iterator[Finding]:
    """A slope of the mean residual per scale against log N or log D, on held-out mixtures."""
    axes = [a for a in AXES if a in case.fitted.needs]
    if not axes or MIXTURE_SPLIT not in case.validation.scores[case.fitted.law]:
        return
    residuals = case.validation.residuals(case.fitted.law, MIXTURE_SPLIT)
    scales = scale_ids(case.runs)
    present = [scales == s for s in np.unique(scales)]
    logs = np.array(
        [[np.mean(np.log(getattr(case.runs, axis)[at])) for axis in axes] for at in present]
    )
    means = np.stack([column_means(residuals[at]) for at in present])  # (scales, T)
    rms = np.sqrt(column_means(residuals**2))
    for k, axis in enumerate(axes):
        trends = {}
        for t, target in enumerate(case.fitted.targets):
            slope, error = _slope(logs, means[:, t], k)
            drift = slope * np.ptp(logs[:, k])
            if abs(slope) > CLEAR * error and abs(drift) > rms[t] / 2:
                trends[target] = (abs(slope) / max(error, 1e-300), drift)
        if trends:
            worst = sorted(trends, key=lambda target: -abs(trends[target][1]))
            ratio, drift = trends[worst[0]]
            yield Finding(
                "scale trend",
                tuple(worst),
                f"{listed(worst)}: held-out residuals drift by {drift:+.3g} from the smallest to "
                f"the largest {axis} ({min(ratio, 99):.1f} standard errors): the law bends "
                "otherwise than the runs do, and the drift goes on beyond them; train another "
                f"{axis} or leave the smallest out",
                {target: trends[target][1] for target in worst},
            )


def _slope(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    """Slope of y (s,) in column k of x (s, axes) by least squares, and its standard error;
    (0, inf) where they are not identified with two degrees of freedom."""
    known = np.isfinite(y)
    design = np.column_stack([np.ones(known.sum()), x[known] - x.mean(axis=0)])
    freedom = len(design) - design.shape[1]
    if freedom < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return 0.0, np.inf
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ y[known]
    variance = np.sum((y[known] - design @ found) ** 2) / freedom
    return float(found[1 + k]), float(np.sqrt(variance * inverse[1 + k, 1 + k]))


# The optimum


def _moving_optimum(case: _Case) -> Iterator[Finding]:
    """Whether scales order the trained mixtures alike."""
    if not set(AXES) & case.fitted.needs or len(case.trained) < 3:
        return
    laws = case.fitted.laws
    scales = {
        "the smallest trained scale": case.smallest,
        "the largest": case.largest,
        "the target scale": case.target,
    }
    found = {name: case.forecast(laws, scale) for name, scale in scales.items()}
    names = list(scales)
    for one, other in ((names[0], names[1]), (names[1], names[2])):
        if scales[one] == scales[other]:
            continue
        a, b = found[one], found[other]
        rank = rank_correlation(a, b)
        best, new = int(np.argmin(a)), int(np.argmin(b))
        loss = float(b[best] - b[new])
        beyond_doubt = best != new and loss > case.half_width(new, scales[other])
        if rank >= SAME_ORDER and not beyond_doubt:
            continue
        if best != new:
            change = f"the best trained mixture changes from {case.labels[best]} to "
            change += f"{case.labels[new]} (keeping the former costs {loss:.2g})"
        else:
            change = f"the best trained mixture stays {case.labels[best]}"
        yield Finding(
            "moving optimum",
            tuple(dict.fromkeys((str(case.labels[best]), str(case.labels[new])))),
            f"between {one} and {other} the law orders the trained mixtures with rank correlation "
            f"{rank:.2f}, and {change}: what is best depends on the scale. Decide at the target "
            "scale only, and train a few mixtures at a size nearer to it",
            {"rank_correlation": rank, "regret": loss},
        )


def _disagreement(case: _Case) -> Iterator[Finding]:
    """What following a rival's best trained mixture would cost."""
    fitted, regrets = case.fitted, {}
    own = case.forecast(fitted.laws, case.target)
    best = int(np.argmin(own))
    least = 1e-9 * float(np.abs(own).max())  # of a forecast that is flat in the mixture
    for name, laws in _rivals(case).items():
        theirs = case.forecast(laws, case.target)
        follow = int(np.argmin(theirs))
        by_own, by_rival = own[follow] - own[best], theirs[best] - theirs[follow]
        pairs = ((by_own, own), (by_rival, theirs))
        if any(regret > MARKED_REGRET * max(np.std(f), least) for regret, f in pairs):
            regrets[name] = (float(by_own), float(by_rival), follow)
    if not regrets:
        return
    names = sorted(regrets, key=lambda name: -max(regrets[name][:2]))
    by_own, by_rival, follow = regrets[names[0]]
    yield Finding(
        "rivals disagree",
        tuple(names),
        f"{listed(names)} did nearly as well as {fitted.law} and would choose otherwise: "
        f"{names[0]} prefers {case.labels[follow]} to {case.labels[best]} by {by_rival:.2g}, "
        f"{fitted.law} thinks that {by_own:.2g} worse. The runs cannot tell which is right; train "
        "mixtures near both optima",
        {name: regrets[name][0] for name in names},
    )


def _rivals(case: _Case) -> dict[str, Mapping[str, Fitted]]:
    """Those stored and, before the fit was stored, those nearly as good at one scale."""
    from mixlaw.laws.selection import RIVAL_ERROR  # it imports this file

    rivals = dict(case.fitted.rivals)
    ranking = case.validation.ranking()
    limit = RIVAL_ERROR * ranking.get(case.fitted.law, min(ranking.values()))
    for name, fits in case.validation.fits.items():
        if name != case.fitted.law and ranking.get(name, np.inf) <= limit:
            rivals.setdefault(name, fits.full)
    return rivals


# Single runs


def _single_runs(case: _Case) -> Iterator[Finding]:
    """Mixtures that decide their own prediction, or that the others predict badly."""
    decide: dict[int, tuple[float, str]] = {}
    far: dict[int, tuple[float, str]] = {}
    cells, cell_of = _cells(case)
    for fits in _formulas(case):
        batch = batch_of(case.runs, [one.target for one in fits])
        theta = np.stack([one.theta for one in fits])
        noise = np.array([one.diagnostics.noise for one in fits])
        hat = leverage(fits[0].law, batch, theta, noise)
        for b, target in enumerate(batch.targets):
            used = batch.use[b] > 0
            own = np.bincount(cell_of[used], hat[b, used], len(cells))
            value = fits[b].predict(batch.points) / batch.y[b].clip(1e-300)
            error = np.where(used, np.log(np.maximum(value, 1e-300)), 0.0)
            count = np.bincount(cell_of[used], minlength=len(cells))
            seen = count > 0
            error = np.bincount(cell_of[used], error[used], len(cells)) / np.maximum(count, 1)
            left_out = np.abs(error) / np.maximum(1 - own, 1e-9)
            # The largest of many residuals is larger: past the median by what chance allows.
            chance = float(ndtri(1 - 0.005 / (seen.sum() * len(case.fitted.laws)))) / 0.6745
            median = max(float(np.median(left_out[seen])), 1e-12)
            for cell in np.flatnonzero(seen & (own > HIGH_LEVERAGE)):
                _keep_larger(decide, int(cells[cell]), float(own[cell]), target)
            for cell in np.flatnonzero(left_out > max(FAR_RESIDUAL, chance) * median):
                if seen[cell]:
                    _keep_larger(far, int(cells[cell]), float(left_out[cell] / median), target)
    if decide:
        worst, labels, figures = _worst(case, decide)
        yield Finding(
            "leverage",
            labels,
            f"{len(decide)} of {len(case.trained)} mixtures decide their own prediction, most "
            f"{worst} (leverage {figures[labels[0]]:.2f} on {_worst_target(decide)}): nothing "
            "checks them, so an error in one goes straight into the law; train mixtures near them",
            figures,
        )
    if far:
        worst, labels, figures = _worst(case, far)
        yield Finding(
            "outlier",
            labels,
            f"{len(far)} of {len(case.trained)} mixtures are far from what the others predict, "
            f"most {worst} ({figures[labels[0]]:.0f} times the median left-out residual, on "
            f"{_worst_target(far)}): check these runs (diverged, mislabelled, another unit), or "
            "train them again",
            figures,
        )


def _worst_target(found: Mapping[int, tuple[float, str]]) -> str:
    """The target on which the worst mixture was found."""
    return max(found.values())[1]


def _worst(case: _Case, found: Mapping[int, tuple[float, str]]):
    order = sorted(found, key=lambda k: -found[k][0])[:MOST_NAMED]
    labels = tuple(str(case.labels[k]) for k in order)
    return listed(labels), labels, {str(case.labels[k]): found[k][0] for k in order}


def _keep_larger(found: dict[int, tuple[float, str]], key: int, value: float, target: str) -> None:
    if value > found.get(key, (0.0, ""))[0]:
        found[key] = (value, target)


def _cells(case: _Case) -> tuple[np.ndarray, np.ndarray]:
    """Mixture of each (mixture, scale), and which of these a row belongs to (n,).

    Seeds of one mixture at one scale have one row of the Jacobian: leaving all out is exact with
    their summed leverage.
    """
    pairs = np.column_stack([case.ids, scale_ids(case.runs)])
    cells, cell_of = np.unique(pairs, axis=0, return_inverse=True)
    return cells[:, 0], cell_of.reshape(-1)


def _formulas(case: _Case) -> Iterable[list[FittedLaw]]:
    """The fits of one formula each, alike in whether they have an own domain."""
    groups: dict[tuple[str, bool], list[FittedLaw]] = {}
    for fitted in case.fitted.laws.values():
        one = _main_part(fitted)
        if isinstance(one, FittedLaw):
            groups.setdefault((one.law.name, one.own is None), []).append(one)
    return groups.values()


def _main_part(fitted: Fitted) -> Fitted:
    """The heaviest part of a sum, and what a residual process stands on."""
    while isinstance(fitted, FittedSum | FittedResidual):
        if isinstance(fitted, FittedSum):
            fitted = fitted.parts[int(np.argmax(fitted.shares))]
        else:
            fitted = fitted.base
    return fitted


# The design


def _identification(case: _Case) -> Iterator[Finding]:
    """Fewer runs than parameters, and loose parameters."""
    laws = {t: _main_part(fitted) for t, fitted in case.fitted.laws.items()}
    few, loose = {}, {}
    for target, fitted in laws.items():
        if not isinstance(fitted, FittedLaw):
            continue
        known = np.isfinite(case.runs.column(target))
        rows = case.runs.run if fitted.law.axes else case.ids
        per = len(np.unique(rows[known])) / fitted.law.num_identified(len(fitted.domains))
        if per < 1:
            few[target] = per
        if fitted.diagnostics.condition > LOOSE:
            loose[target] = fitted.diagnostics.condition
    if few:
        names = sorted(few, key=few.__getitem__)
        what = "runs" if case.fitted.needs & set(AXES) else "mixtures"
        yield Finding(
            "few runs",
            tuple(names),
            f"{listed(names)}: {few[names[0]]:.2f} {what} per identified parameter: the prior "
            f"carries the rest, so forecasts are drawn towards all domains being alike; train "
            f"more {what}",
            few,
        )
    if loose:
        names = sorted(loose, key=lambda target: -loose[target])
        yield Finding(
            "loose parameters",
            tuple(names),
            f"{listed(names)}: condition number {loose[names[0]]:.1e}: parameters trade off "
            "against each other, so do not read them one by one; forecasts between the runs can "
            "still be right, those beyond them are not to be trusted",
            loose,
        )


def _far_target(case: _Case) -> Iterator[Finding]:
    for axis in AXES:
        target, largest = case.target[axis], case.largest[axis]
        if target is None or largest is None or target <= FAR_SCALE * largest:
            continue
        reads = (
            "no held-out scale was that far, so the interval is a guess; "
            if axis in case.fitted.needs
            else f"and {case.fitted.law} does not read it; "
        )
        yield Finding(
            "far target",
            (axis,),
            f"the target has {target / largest:.3g} times the largest trained {axis} "
            f"({largest:g}): {reads}train a run at {target / FAR_SCALE:.2g} or more",
            {"times": target / largest},
        )
