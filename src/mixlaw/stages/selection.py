"""Choose a stage law by cross-validation over staged runs, and fit it.

Shapes: n staged rows, T targets, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws
from mixlaw.laws.fitting import refuse_continued
from mixlaw.laws.points import AXES
from mixlaw.laws.scoring import column_means
from mixlaw.laws.uncertainty import HeldOut
from mixlaw.runs import VERIFY, RunTable
from mixlaw.schedule import Schedule
from mixlaw.stages.effects import Effect
from mixlaw.stages.fitting import FittedStages, FormScore
from mixlaw.stages.forms import BASELINE, FORMS, Evidence

FEWEST_SCHEDULES, MOST_FOLDS = 3, 8
"""Different staged schedules from which forms are cross-validated, and groups of them at most."""

WORTH_OF_A_FORM = 0.9
"""A form must have at most this share of the squared error of "dose", or dose is chosen."""

UNTESTED = ("recency",)
"""Forms that are taken untested, the first that can be fitted, where staged runs are too few to
choose by. Forms that need none are not among these: fitted to
static trajectories alone they had the sign of the order's effect wrong (docs/decisions.md)."""


def fit_stages(
    runs: RunTable,
    static: FittedLaws,
    *,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
) -> FittedStages:
    """Fit every form of stage law, choose one by held-out staged runs, and fit it to all.

    A form must beat "dose" (the order does not matter) by a tenth of its squared error to be
    chosen. With fewer than three different staged schedules nothing can be held out: then the
    first of the candidates (of `UNTESTED`, where none are given) that can be fitted is taken, with
    a warning, and no interval of a staged schedule is finite.

    Args:
        runs: finished rows, static and staged, of the domains and targets that `static` knows; rows
            of role "verify" and failed ones are not used.
        static: fitted to the static rows (`fit_laws(runs.static())`).
        candidates: names of `forms.FORMS`; default: all. "dose" is always among them.
        seed: of the folds.
    Raises: FitError: an unknown candidate, a table without the law's domains or targets, or rows
        that continue a trained model.
    """
    names = _names(candidates)
    evidence = _evidence(runs, static)
    groups = _groups(evidence)
    effects, refused = {}, {}
    for name in names:
        try:
            effects[name] = FORMS[name].fit(evidence)
        except FitError as error:
            refused[name] = str(error)
    num_schedules = int(groups.max(initial=-1)) + 1
    if num_schedules < FEWEST_SCHEDULES:
        wanted = (*(candidates or UNTESTED), BASELINE)
        form = next(name for name in wanted if name in effects)
        return _untested(form, effects[form], evidence, refused, num_schedules)
    fold_of = _folds(groups, seed)
    folds: dict[str, tuple[Effect, ...]] = {}
    predictions: dict[str, np.ndarray] = {}
    for name in effects:
        try:
            folds[name] = _fit_folds(name, evidence, fold_of)
        except FitError as error:
            refused[name] = str(error)
            continue
        predictions[name] = _held_out(evidence, folds[name], fold_of)
    scores = _scores(predictions, evidence.values)
    chosen = _choice({name: one.error for name, one in scores.items()})
    held_out, rows = _residuals(evidence, scores[chosen].predictions, groups, fold_of)
    orders = scores[chosen].predictions - scores[BASELINE].predictions
    return FittedStages(
        form=chosen,
        static=static,
        effect=effects[chosen],
        folds=folds[chosen],
        staged=evidence.at,
        scores=scores,
        refused=refused,
        held_out=held_out,
        judged=evidence.at.select(rows),
        orders=orders[rows],
        warnings=_warnings(held_out, static),
    )


def _untested(
    form: str, effect: Effect, evidence: Evidence, refused: Mapping[str, str], num_schedules: int
) -> FittedStages:
    text = (
        f"{num_schedules} staged schedules in the table, {FEWEST_SCHEDULES} are needed to hold one "
        f"out: the form {form!r} is untested, and no gain of a schedule can be believed"
    )
    return FittedStages(
        form=form,
        static=evidence.static,
        effect=effect,
        folds=(),
        staged=evidence.at,
        scores={},
        refused=refused,
        held_out=None,
        judged=evidence.at.select(np.empty(0, int)),
        orders=np.empty((0, len(evidence.static.targets))),
        warnings=(text,),
    )


def _names(candidates: Sequence[str] | None) -> list[str]:
    names = list(dict.fromkeys([BASELINE, *(candidates or FORMS)]))
    strangers = [name for name in names if name not in FORMS]
    if strangers:
        raise FitError(f"the stage forms {strangers} are unknown; known are {list(FORMS)}")
    return names


def _evidence(runs: RunTable, static: FittedLaws) -> Evidence:
    """Raises: FitError: other domains than the law's, or a target without a column."""
    if set(runs.domains) != set(static.domains):
        raise FitError(
            f"the runs have the domains {list(runs.domains)}, the static law "
            f"{list(static.domains)}; fit both to the same table"
        )
    lacking = [target for target in static.targets if target not in runs.targets]
    if lacking:
        raise FitError(
            f"the runs have no column of {lacking}, which the static law was fitted to; fit both "
            "to the same table"
        )
    order = [runs.domains.index(name) for name in static.domains]
    runs = replace(
        runs,
        domains=static.domains,
        weights=runs.weights[:, order],
        available_tokens=runs.available_tokens[:, order],
    )
    runs = runs.done()
    runs = runs.select(runs.role != VERIFY)
    refuse_continued(runs)
    staged = np.array([schedule is not None for schedule in runs.schedule], bool)
    if staged.any():
        missing = [
            axis
            for axis in AXES
            if axis in static.needs and np.isnan(getattr(runs, axis)[staged]).any()
        ]
        if missing:
            raise FitError(
                f"the static law reads {missing}, which some staged rows lack; fill them in"
            )
    return Evidence(static, runs, staged)


def _groups(evidence: Evidence) -> np.ndarray:
    """(n,) integers, equal for staged rows of runs that had the same schedule at their end: seeds
    and sizes of one, and its shorter horizons, are held out together."""
    staged = evidence.runs.select(evidence.staged)
    longest: dict[str, int] = {}
    for i, run in enumerate(staged.run.tolist()):
        if run not in longest or staged.train_tokens[i] > staged.train_tokens[longest[run]]:
            longest[run] = i
    numbers: dict[Schedule, int] = {}
    whole = [staged.schedule[longest[run]] for run in staged.run.tolist()]
    return np.array([numbers.setdefault(schedule, len(numbers)) for schedule in whole], int)


def _folds(groups: np.ndarray, seed: int) -> np.ndarray:
    """(n,) the fold that holds each staged row out."""
    count = int(groups.max()) + 1
    order = np.random.default_rng(seed).permutation(count)
    return (order % min(count, MOST_FOLDS))[groups]


def _fit_folds(name: str, evidence: Evidence, fold_of: np.ndarray) -> tuple[Effect, ...]:
    effects = []
    for fold in range(fold_of.max() + 1):
        out = np.zeros(len(evidence.runs), bool)
        out[np.flatnonzero(evidence.staged)[fold_of == fold]] = True
        effects.append(FORMS[name].fit(evidence.without(out)))
    return tuple(effects)


def _held_out(evidence: Evidence, folds: Sequence[Effect], fold_of: np.ndarray) -> np.ndarray:
    """(n, T) each staged row by the fold that did not see it."""
    law, at = evidence.law, evidence.at
    out = law.predict(at.at_dose)
    for fold, effect in enumerate(folds):
        test = fold_of == fold
        out[test] += effect.values(law, at.select(test))
    return out


def _scores(predictions: Mapping[str, np.ndarray], values: np.ndarray) -> dict[str, FormScore]:
    of_dose = np.sqrt(column_means((predictions[BASELINE] - values) ** 2))
    out = {}
    for name, predicted in predictions.items():
        residuals = predicted - values
        rmse = np.sqrt(column_means(residuals**2))
        measured = np.isfinite(rmse)
        # Where dose is right to rounding, so is what every form says.
        ratio = (rmse[measured] ** 2 + 1e-24) / (of_dose[measured] ** 2 + 1e-24)
        out[name] = FormScore(
            error=float(np.mean(ratio)),
            rmse=rmse,
            mae=column_means(np.abs(residuals)),
            bias=column_means(residuals),
            predictions=predicted,
        )
    return dict(sorted(out.items(), key=lambda item: item[1].error))


def _choice(errors: Mapping[str, float]) -> str:
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] <= WORTH_OF_A_FORM * errors[BASELINE] else BASELINE


def _residuals(
    evidence: Evidence, predictions: np.ndarray, groups: np.ndarray, fold_of: np.ndarray
) -> tuple[HeldOut, np.ndarray]:
    """One row of residuals per schedule, its longest runs' at the largest size, averaged over
    seeds; and one staged row (m,) of each."""
    at, residuals = evidence.at, predictions - evidence.values
    size = np.nan_to_num(at.num_params)
    rows = []
    for group in range(groups.max() + 1):
        of_group = np.flatnonzero(groups == group)
        largest = of_group[size[of_group] == size[of_group].max()]
        tokens = np.nan_to_num(at.train_tokens[largest])
        rows.append(largest[tokens == tokens.max()])
    first = np.array([at_group[0] for at_group in rows])
    counts = {axis: getattr(at, axis) for axis in AXES}
    ends = {axis: count[np.isfinite(count)] for axis, count in counts.items()}
    held_out = HeldOut(
        targets=evidence.static.targets,
        residuals=np.stack([column_means(residuals[at_group]) for at_group in rows]),
        fold=fold_of[first],
        reach=dict.fromkeys(AXES, 0.0),
        smallest={a: float(c.min()) if len(c) else np.nan for a, c in ends.items()},
        largest={a: float(c.max()) if len(c) else np.nan for a, c in ends.items()},
    )
    return held_out, first


def _warnings(held_out: HeldOut, static: FittedLaws) -> tuple[str, ...]:
    out = []
    for axis in AXES:
        beyond, trained = static.within.largest[axis], held_out.largest[axis]
        if trained < 0.98 * beyond:
            out.append(
                f"staged runs reach {trained:g} in {axis}, the static ones {beyond:g}: the effect "
                "of the order is untested beyond"
            )
    return tuple(out)
