"""Schedules in words, for the page and the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from mixlaw.report.words import listing, percent, plain, signed
from mixlaw.schedule import Schedule
from mixlaw.stages import FittedStages, Gain, ScheduleDecision
from mixlaw.study.schedule_verification import SAME_DOSE, STATIC, ScheduleVerification
from mixlaw.study.verification import Gain as Observed

LEVEL = 0.9
"""Of intervals over seeds."""


def stage_names(schedule: Schedule) -> list[str]:
    """ "0-80%", "80-100%" of the training, one per stage."""
    ends = [*schedule.starts.tolist(), 1.0]
    marks = [f"{100 * end:.4g}" for end in ends]
    return [f"{begin}-{end}%" for begin, end in itertools.pairwise(marks)]


def moves_words(schedule: Schedule) -> str:
    """What the last stage has more and less of than the first."""
    first, last = schedule.stages[0].mixture, schedule.stages[-1].mixture
    changes = {name: last.get(name, 0.0) - first.get(name, 0.0) for name in schedule.domains}
    up, down = max(changes, key=changes.__getitem__), min(changes, key=changes.__getitem__)

    def words(name: str, does: str) -> str:
        before, after = percent(first.get(name, 0.0)), percent(last.get(name, 0.0))
        return f"{plain(name)} {does} most ({before} to {after})"

    return f"From the first stage to the last, {words(up, 'rises')} and {words(down, 'falls')}"


def forecast_gain_words(gain: Gain, over: str) -> str:
    """ "forecast 0.0123 ± 0.0040 lower than the best static mixture (probability 0.98)"."""
    value, width = gain.interval.value, gain.interval.half_width
    wide = f" ± {width:.4f}" if np.isfinite(width) else " (by how much more or less is unknown)"
    side = "lower" if value >= 0 else "HIGHER"
    chance = f"probability {gain.probability:.2f} that it is lower"
    return f"forecast {abs(value):.4f}{wide} {side} than {over}; {chance}"


BETTER, WORSE, NOISE = "is better", "is WORSE", "is inside the noise of the seeds"


def seed_interval(by_seed: Sequence[float]) -> tuple[float, float]:
    """Of the mean over seeds, by Student's t; infinite for one seed."""
    gains = np.array(by_seed)
    if len(gains) < 2:
        return -np.inf, np.inf
    width = stdtrit(len(gains) - 1, (1 + LEVEL) / 2) * gains.std(ddof=1) / len(gains) ** 0.5
    return float(gains.mean() - width), float(gains.mean() + width)


def seeds_say(by_seed: Sequence[float]) -> str:
    """Whether a gain is one, as far as the seeds can tell."""
    low, high = seed_interval(by_seed)
    return BETTER if low > 0 else WORSE if high < 0 else NOISE


def observed_gain_words(
    by_seed: Sequence[float], predicted: float | None = None, what: str = "the staged schedule"
) -> str:
    """A gain of `what` as trained, and what the seeds say of it."""
    text = f"{signed(float(np.mean(by_seed)))} observed"
    text += "" if predicted is None else f", {signed(predicted)} predicted"
    if len(by_seed) < 2:
        return f"{text}; one seed cannot tell it from noise"
    low, high = seed_interval(by_seed)
    seeds = listing(map(signed, by_seed), 8)
    return (
        f"{text} (by seed {seeds}): {what} {seeds_say(by_seed)} ({LEVEL:.0%} interval over seeds "
        f"{signed(low)} to {signed(high)})"
    )


def is_better(found: ScheduleDecision, verified: ScheduleVerification | None) -> bool:
    """Whether to change the mixture during training: by what was trained at the target scale, or
    without it (one seed tells nothing) by the forecast. No schedule is better that loses to the
    static mixture of its own dose."""
    if verified is None or len(verified.compared.gains[STATIC].observed) < 2:
        return found.worthwhile
    gains = {name: seeds_say(gain.observed) for name, gain in verified.compared.gains.items()}
    return gains[STATIC] == BETTER and gains[SAME_DOSE] != WORSE


def advice(found: ScheduleDecision, verified: ScheduleVerification | None) -> str:
    """What to do, and why."""
    better = is_better(found, verified)
    text = "Change the mixture during training" if better else "Keep one mixture"
    forecast = found.reason.partition(": ")[2]
    if verified is None:
        return f"{text}: {forecast}."
    static, same_dose = (verified.compared.gains[name] for name in (STATIC, SAME_DOSE))
    seen = f"over the best static mixture was {_gain_words(static)}"
    if not better and seeds_say(same_dose.observed) == WORSE:
        text = f"{text}, and look at that of the schedule's dose"
        seen += f", and over the static one of the same dose {_gain_words(same_dose)}"
    return (
        f"{text}: trained at the target scale, the staged schedule's gain {seen}. Before that: "
        f"{forecast}."
    )


def _gain_words(gain: Observed) -> str:
    return observed_gain_words(gain.observed, gain.predicted)


def alternatives_words(found: ScheduleDecision) -> str:
    """The stages that were tried, best first."""
    tried = (
        f"{'/'.join(f'{share:g}' for share in one.shares)} {one.objective:.4f}"
        for one in found.alternatives
    )
    return f"stages tried, and the best objective with each: {listing(tried)}"


def forms_words(fitted: FittedStages) -> str:
    """Every form on held-out staged runs, beside the one without an effect of the order."""
    if not fitted.scores:
        return f"stage law {fitted.form}, untested: too few staged runs to hold one out"
    found = ", ".join(f"{name} {one.error:.2f}" for name, one in fitted.scores.items())
    return (
        f"stage law {fitted.form}; squared error on held-out staged runs, as a share of that of "
        f"no effect of the order (dose): {found}"
    )
