"""Fit the forms to continued runs, and choose one by held-out shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from mixlaw.continual.doubt import doubt_of
from mixlaw.continual.evidence import FittedForm, Trained
from mixlaw.continual.forms import FEWEST_SHARES, FORMS, ContinualLaw, candidates_for, make
from mixlaw.continual.laws import ContinualLaws
from mixlaw.continual.table import SIDES, ContinuedRuns, continued_runs
from mixlaw.errors import FitError
from mixlaw.laws.base import FittedLaw
from mixlaw.laws.points import Axes
from mixlaw.runs import RunTable


def fit_continual(
    runs: RunTable,
    *,
    new: Sequence[str],
    base: Mapping[str, float] | None = None,
    targets: Sequence[str] | Mapping[str, str] | None = None,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
) -> ContinualLaws:
    """Fit laws of the share of new data to runs that continued a base model.

    Every form is fitted with each share held out in turn (all rows of a share together); the one
    of least error on held-out inner shares, in the mean over targets, is chosen for all targets.
    The others that did nearly as well say how far the choice matters. A form that turns around
    beyond the trained shares is set aside.

    Args:
        runs: rows of continued runs at four shares or more; `train_tokens` are those of the
            continued run. Rows of role "verify" are not used; failed ones are left out with a
            warning, and so are rows without `start/` columns when `base` is not given.
        new: the new domains; all others are old.
        base: target -> loss of the model continued from; default: the table's `start/` columns.
            Where both are there they must agree.
        targets: losses to fit, or a mapping to their side, "old" or "new", for those that are not
            named after a domain; default: all losses of the table.
        candidates: names from `FORMS`; default: all that suit what varies in the runs.
        seed: of the starting points.
    Raises: FitError: an unknown new domain, no base, a schedule, a score, fewer than four shares,
        no finished run, and so on; the message has the numbers and the remedy.
    """
    table = continued_runs(runs, new, base, targets)
    forms: dict[str, FittedForm] = {}
    refused: dict[str, str] = {}
    for name in _names(candidates, table.axes):
        try:
            forms[name] = _fit_form(table, make(name, table.axes, table.group_side), seed)
        except FitError as error:
            refused[name] = str(error)
    if not forms:
        raise FitError("no form could be fitted: " + "; ".join(dict.fromkeys(refused.values())))
    laws = ContinualLaws(
        form=_best(forms),
        forms=forms,
        refused=refused,
        aside={},
        targets=table.targets,
        sides=tuple(None if s < 0 else SIDES[s] for s in table.side),
        domains=table.domains,
        composition=table.composition,
        groups=table.groups,
        bases=tuple((size, tuple(losses.tolist())) for size, losses in table.bases),
        trained=Trained(
            share=table.share,
            train_tokens=table.points.train_tokens,
            num_params=table.points.num_params,
            rewarm=table.rewarm,
            losses=table.ratio * table.base,
            run=table.run,
            seed=table.seed,
            inner_mixtures=table.inner_mixtures,
        ),
        warnings=(*table.warnings, *_warnings(table)),
    )
    return _relied_on(laws)


def _names(candidates: Sequence[str] | None, axes: Axes) -> Sequence[str]:
    """The forms to fit. Raises: FitError: no list of known ones."""
    if candidates is None:
        return candidates_for(axes)
    unknown = isinstance(candidates, str) or set(candidates) - set(FORMS)
    if unknown or not len(candidates) or len(set(candidates)) < len(candidates):
        raise FitError(
            f"candidates={candidates!r}: no continual form is called so, or it is named twice; "
            f"give a list of some of {list(FORMS)}"
        )
    return candidates


def _best(forms: Mapping[str, FittedForm]) -> str:
    """The form of least held-out error."""
    return min(forms, key=lambda name: float(np.mean(forms[name].error)))


def _relied_on(laws: ContinualLaws) -> ContinualLaws:
    """Without forms that turn around beyond the trained shares, unless all do."""
    low, high = laws.trained.range("share")
    aside = {
        name: (
            f"its curve of {', '.join(turning)} turns around beyond the trained shares, "
            f"{low:g} to {high:g}, where no run says so"
        )
        for name in laws.forms
        if (turning := laws.turning(name))
    }
    kept = {name: form for name, form in laws.forms.items() if name not in aside}
    if not kept:
        warnings = (*laws.warnings, *(f"{name}: {why}" for name, why in aside.items()))
        return replace(laws, warnings=warnings)
    return replace(laws, form=_best(kept), aside=aside)


def _fit_form(table: ContinuedRuns, law: ContinualLaw, seed: int) -> FittedForm:
    """One form on all rows and without each share."""
    batch = table.batch()
    full = cast("list[FittedLaw]", law.fit_batch(batch, seed=seed))
    num_targets, ids = len(batch), table.share_ids
    held = np.stack([ids == share for share in range(ids.max() + 1)])  # (K, n)
    problems = np.repeat(np.arange(num_targets), len(held))
    folds = batch.times(np.tile(~held, (num_targets, 1)), problems)
    starts = [full[t].start for t in problems.tolist()]
    fitted = law.fit_batch(folds, seed=seed, starts=starts)
    left_out = np.empty(table.ratio.shape)
    for k, test in enumerate(held):
        points = table.points.select(test)
        for t in range(num_targets):
            left_out[t, test] = fitted[t * len(held) + k].predict(points)
    doubt = doubt_of(table, law, full, np.log(left_out))
    error = np.nanmean(np.abs(left_out - table.ratio)[:, table.inner], axis=1)
    return FittedForm(
        name=law.name,
        axes=table.axes,
        own=table.side,
        group_side=table.group_side,
        theta=np.stack([each.theta for each in full]),
        covariance=doubt.covariance,
        noise=doubt.noise,
        left_out=left_out * table.base,
        error=error / np.nanstd(table.ratio, axis=1),
    )


def _warnings(table: ContinuedRuns) -> list[str]:
    """What the rows cannot tell."""
    found = []
    if len(np.unique(table.seed)) == 1:
        found.append(
            "all runs have one seed: what another seed would change for all shares alike is not "
            "in the intervals; repeat some shares with others"
        )
    if len(np.unique(table.share_ids)) == FEWEST_SHARES:
        found.append(f"{FEWEST_SHARES} shares are the fewest that can be fitted; train more")
    if bare := [t for t, s in zip(table.targets, table.side, strict=True) if s < 0]:
        found.append(f"{bare} are of neither side: forms of a target's own side are not tried")
    return found
