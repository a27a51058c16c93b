"""What people see of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.cli.show_decision import forecast_table, observed, pair, scale_text
from mixlaw.cli.terminal import line, notes, table
from mixlaw.report.schedule_words import (
    advice,
    alternatives_words,
    forecast_gain_words,
    forms_words,
    observed_gain_words,
    stage_names,
)
from mixlaw.study.schedule_verification import SAME_DOSE

if TYPE_CHECKING:
    from mixlaw.stages import FittedStages, ScheduleDecision
    from mixlaw.study.schedule_verification import Adapted, ScheduleVerification


def as_json(found: ScheduleDecision, fitted: FittedStages) -> dict[str, Any]:
    """The decision, what it recommends, and how every form of stage law did."""
    forms = {
        name: {
            "error": one.error,
            "mae": {
                target: None if np.isnan(mae) else mae
                for target, mae in zip(fitted.targets, one.mae.tolist(), strict=True)
            },
        }
        for name, one in fitted.scores.items()
    }
    recommended = {"recommended": found.recommended.to_list(), "worthwhile": found.worthwhile}
    return {**recommended, **found.to_dict(), "forms": forms, "refused": dict(fitted.refused)}


def schedule(found: ScheduleDecision, fitted: FittedStages) -> None:
    """The stages, what is expected of them and of the static mixtures, and what to train."""
    _stages(found)
    forecasts = {"best static": found.static}
    if not found.staged.schedule.is_static:
        forecasts = {"staged": found.staged, "same dose": found.same_dose, **forecasts}
    rows = {"objective": [pair(one.objective) for one in forecasts.values()]}
    for target in found.staged.targets:
        text = f"  {target} ({found.objective.shares.get(target, 0):.2g})"
        rows[text] = [pair(one.targets[target]) for one in forecasts.values()]
    title = scale_text(found.num_params, found.train_tokens, found.level)
    forecast_table("forecast (weight)", list(forecasts), rows, title)
    if not found.staged.schedule.is_static:
        line(f"staged: {forecast_gain_words(found.over_static, 'the best static mixture')}")
        over = "the static mixture of the same dose"
        line(f"the order alone: {forecast_gain_words(found.over_same_dose, over)}")
    if len(found.alternatives) > 1:
        line(alternatives_words(found))
    line(forms_words(fitted))
    line(f"recommended: {found.reason}")
    for bound in found.active_bounds:
        line(f"dose of {bound}")
    notes(found.warnings)


def _stages(found: ScheduleDecision) -> None:
    """Domains as rows, stages as columns."""
    staged, static = found.staged, found.static
    best, dose = static.schedule.dose, staged.schedule.dose
    ordered = not staged.schedule.is_static
    columns = {name: [f"{best[name]:.3f}", *_epochs(static.epochs, name)] for name in best}
    heads = ["best static", *(["its epochs"] if static.epochs else [])]
    if ordered:
        heads = [
            *stage_names(staged.schedule),
            "dose",
            *(["epochs"] if staged.epochs else []),
            *heads,
        ]
        for name in best:
            stages = [f"{s.mixture.get(name, 0.0):.3f}" for s in staged.schedule.stages]
            seen = [f"{dose.get(name, 0.0):.3f}", *_epochs(staged.epochs, name)]
            columns[name] = [*stages, *seen, *columns[name]]
    title = "stages, by the share of training that is done" if ordered else ""
    table(["share", *heads], [[name, *cells] for name, cells in columns.items()], title=title)


def _epochs(epochs: Any, name: str) -> Sequence[str]:
    if not epochs:
        return []
    return [f"{epochs[name]:.2f}" if name in epochs else "-"]


def verification(decision: ScheduleDecision, found: ScheduleVerification) -> None:
    """Predicted against observed at the target scale, and online runs beside them."""
    observed(found.compared)
    gain = found.compared.gains[SAME_DOSE]
    line(f"the order alone: {observed_gain_words(gain.observed, gain.predicted)}")
    if found.online is not None:
        _online(found.online)
    line(advice(decision, found))


def _online(online: Adapted) -> None:
    seen = ", ".join(f"{value:.4f}" for value in online.observed)
    line(f"online: {online.mean:.4f} observed ({seen})")
    for name, by_seed in online.gains.items():
        line(f"online against {name}: {observed_gain_words(by_seed, what='the online run')}")
    rows = [
        [domain, *(f"{schedule.dose.get(domain, 0.0):.3f}" for schedule in online.schedules)]
        for domain in online.schedules[0].domains
    ]
    table(["dose", *(f"seed {k + 1}" for k in range(len(online.schedules)))], rows)
