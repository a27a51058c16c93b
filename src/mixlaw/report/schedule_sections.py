"""The section about schedules: whether the mixture should change during training, and how."""

from __future__ import annotations

import json
from dataclasses import replace

from mixlaw import plots
from mixlaw.report.blocks import Code, Notes, Part, Picture, Section, Stack, Table
from mixlaw.report.drawn import drawn
from mixlaw.report.next_steps import command_of, trainer_of
from mixlaw.report.schedule_words import (
    advice,
    alternatives_words,
    forecast_gain_words,
    forms_words,
    is_better,
    moves_words,
    observed_gain_words,
    stage_names,
)
from mixlaw.report.verdict import Headline, Step
from mixlaw.report.words import (
    against,
    interval,
    objective_unit,
    percent,
    plain,
    scale_words,
    sentence,
    target_names,
    value,
)
from mixlaw.stages import ScheduleDecision, ScheduleForecast
from mixlaw.study import Study
from mixlaw.study.schedule_verification import SAME_DOSE, STATIC, ScheduleVerification
from mixlaw.study.verification import Verification

BEST_STATIC = "best static"


def with_schedule(
    study: Study,
    head: Headline,
    found: ScheduleDecision | None,
    verified: ScheduleVerification | None,
) -> Headline:
    """The top of the page, with a word on a schedule that is better than the mixture it names."""
    if found is None or not is_better(found, verified):
        return head
    text = f"is {forecast_gain_words(found.over_static, 'the best static mixture')}"
    if verified is not None:
        mean = verified.compared.gains[STATIC].mean
        text = f"was {against(mean, 'the best static mixture')} when trained at the target scale"
    text = f"A staged schedule {text}: see the order of the data."
    command = command_of(study, "export", "--schedule", *trainer_of(study))
    step = Step("Or hand it the staged schedule, where it can change its mixture.", command)
    return replace(head, sentences=(*head.sentences, text), steps=(*head.steps, step))


def schedule_section(
    study: Study, found: ScheduleDecision, verified: ScheduleVerification | None
) -> Section:
    """Whether the mixture should change during training, and how."""
    parts: list[Part] = [_picture(found), Stack(tuple(_beside(study, found)))]
    parts.append(_forecasts(found))
    if verified is not None:
        parts += [_verified(found, verified.compared), Notes(_verified_words(verified))]
    if found.warnings:
        parts.append(Notes(tuple(sentence(plain(text)) for text in found.warnings)))
    return Section("schedule", "The order of the data", advice(found, verified), tuple(parts))


def _picture(found: ScheduleDecision) -> Picture:
    staged, static = found.staged.schedule, found.static.schedule
    panels = {"staged": staged, SAME_DOSE: found.same_dose.schedule, BEST_STATIC: static}
    if staged.is_static:
        panels = {BEST_STATIC: static}
    domains = list(found.static.schedule.dose)
    says = "No schedule of these stages is forecast better than one mixture throughout."
    if not staged.is_static:
        says = f"{moves_words(staged)}; the panels on the right are static mixtures."
    label = "Stacked bars: the share of each domain in every stage, and in the static mixtures."
    figure = plots.schedule_bars(panels, domains)
    return drawn(figure, name="schedule", label=label, says=says)


def _beside(study: Study, found: ScheduleDecision) -> list[Table | Notes | Code]:
    out: list[Table | Notes | Code] = [_stages_table(found)]
    notes = [sentence(forms_words(study.fit_stages()))]
    if not found.staged.schedule.is_static:
        over = "the static mixture of the same dose"
        notes += [
            sentence(
                f"staged: {forecast_gain_words(found.over_static, 'the best static mixture')}"
            ),
            sentence(f"the order alone: {forecast_gain_words(found.over_same_dose, over)}"),
        ]
    if len(found.alternatives) > 1:
        notes.append(sentence(alternatives_words(found)))
    out.append(Notes(tuple(notes)))
    exact = json.dumps(found.staged.schedule.to_list(), indent=1)
    out.append(Code("The staged schedule (JSON: share of training, mixture)", exact))
    return out


def _stages_table(found: ScheduleDecision) -> Table:
    staged, best = found.staged, found.static.schedule.dose
    columns = ["domain", *stage_names(staged.schedule), "dose"]
    columns += ["epochs"] if staged.epochs else []
    columns += [BEST_STATIC]
    rows = []
    for name in best:
        shares = [stage.mixture.get(name, 0.0) for stage in staged.schedule.stages]
        row = [plain(name), *map(percent, shares), percent(staged.schedule.dose.get(name, 0.0))]
        if staged.epochs:
            row.append(f"{staged.epochs[name]:.2f}" if name in staged.epochs else "-")
        rows.append([*row, percent(best[name])])
    note = "Stages by the share of training that is done; the dose is what the whole run sees."
    return Table("The staged schedule", columns, rows, note=note)


def _forecasts(found: ScheduleDecision) -> Table:
    everyone = {
        "staged": found.staged,
        SAME_DOSE: found.same_dose,
        BEST_STATIC: found.static,
    }
    if found.staged.schedule.is_static:
        everyone = {BEST_STATIC: found.static}
    rows = [["objective", "", *(interval(one.objective) for one in everyone.values())]]
    for target, name in target_names(list(found.static.targets)).items():
        weight = found.objective.shares.get(target)
        rows.append([name, f"{weight:.2g}" if weight else "-", *_of(everyone, target)])
    at = scale_words(found.num_params, found.train_tokens)
    unit = objective_unit(found.objective)
    caption = f"Forecasts at {at} ({unit}), {found.level:.0%} intervals"
    columns = ["target", "weight", *everyone]
    note = "An error of level is shared by all three and cancels in their differences."
    return Table(caption, columns, rows, strong=frozenset({0}), note=note, wide=True)


def _of(everyone: dict[str, ScheduleForecast], target: str) -> list[str]:
    return [interval(one.targets[target]) for one in everyone.values()]


def _verified(found: ScheduleDecision, verified: Verification) -> Table:
    rows = [
        [
            plain(name),
            interval(one.predicted),
            value(one.mean),
            "yes" if one.inside else "NO",
            ", ".join(value(seen) for seen in one.observed),
        ]
        for name, one in verified.mixtures.items()
    ]
    columns = ["", "predicted", "observed", "in the interval", "by seed"]
    at = scale_words(found.num_params, found.train_tokens)
    caption = f"Trained at {at}: the objective ({objective_unit(found.objective)})"
    note = "" if not verified.failed else f"Diverged and left out: {', '.join(verified.failed)}."
    return Table(caption, columns, rows, note=note, wide=True)


def _verified_words(verified: ScheduleVerification) -> tuple[str, ...]:
    out = [
        f"Staged against {plain(name)}: {observed_gain_words(gain.observed, gain.predicted)}."
        for name, gain in verified.compared.gains.items()
    ]
    online = verified.online
    if online is None:
        return tuple(out)
    out.append(f"Runs that adapted their own mixture online: {value(online.mean)}.")
    for name, by_seed in online.gains.items():
        seen = observed_gain_words(by_seed, what="the online run")
        out.append(f"Online against {plain(name)}: {seen}.")
    return tuple(out)
