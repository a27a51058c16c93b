"""What to do with a decision: computed from what is known, and what is not."""

from __future__ import annotations

import shlex

import numpy as np

from mixlaw.optimize.decision import Decision
from mixlaw.optimize.limits import EPOCH_CAP, SUPPORT
from mixlaw.report.sections import Facts
from mixlaw.report.verdict import CONFIRMED, NOT_CONFIRMED, UNTESTED, Step
from mixlaw.report.words import (
    count,
    listing,
    number_of,
    percent,
    plain,
    scale_words,
    signed,
    target_names,
)
from mixlaw.runs import higher_is_better
from mixlaw.study import Study

SURE = 0.8
"""Probability to beat a baseline below which more runs are proposed."""
WORTH_RUNS = 1e-3
"""A promise beyond the trained range, below this share of the objective, is not worth runs."""
GIVEN_UP = 0.25
"""A target that gets worse by less than this share of its spread over the runs is not told."""
MOST_NAMED = 3
MORE_RUNS = 8


def next_steps(facts: Facts, mood: str) -> tuple[Step, ...]:
    """The most pressing first.

    Args:
        mood: of the headline.
    """
    steps = [_trial(facts, mood), _more_runs(facts), _text(facts), _given_up(facts)]
    steps.append(_forbidden(facts.decision))
    export = _export(facts, mood)
    steps = [export, *steps] if mood == CONFIRMED else [*steps, export]
    return tuple(step for step in steps if step is not None)


def command_of(study: Study, command: str, *more: str) -> str:
    """A command line for a study, as one would type it beside its folder."""
    return shlex.join(["mixlaw", command, plain(study.folder.resolve().name), *more])


def trainer_of(study: Study) -> tuple[str, ...]:
    """The option of an export that the study does not settle."""
    return () if study.config.export.to else ("--to", "TRAINER")


def _trial(facts: Facts, mood: str) -> Step | None:
    """Train it, before much depends on it."""
    decision = facts.decision
    where = scale_words(decision.num_params, decision.train_tokens)
    if mood == CONFIRMED:
        return None
    if mood == NOT_CONFIRMED:
        return Step(
            "Do not train on it yet: a baseline was as good or better. Train more runs around it "
            "and fit again.",
            command_of(facts.study, "design", "--next", f"{MORE_RUNS}"),
        )
    if mood != UNTESTED:
        return Step(
            "Raise verify.seeds in study.yaml and verify again: what was trained does not settle "
            "it.",
            command_of(facts.study, "verify"),
        )
    others = [plain(name) for name in decision.baselines] or ["what you use now"]
    if facts.study.from_table:
        return Step(
            f"Train {listing(['it', *others])} once each at {where}, or as near as you can afford, "
            "before much depends on it: the gain is a forecast."
        )
    text = f"Verify it: train a model of {where} on it and on {listing(others)}."
    return Step(text, command_of(facts.study, "verify"))


def _more_runs(facts: Facts) -> Step | None:
    """Where the runs do not yet decide."""
    decision, reasons = facts.decision, []
    unsure = [n for n, c in decision.baselines.items() if c.probability_better < SURE]
    if unsure:
        reasons.append(f"it is not sure to be better than {listing(map(plain, unsure))}")
    edge = [b for b in decision.active_bounds if b.reason == SUPPORT]
    size = abs(decision.forecast.objective.value)
    if edge and (decision.guard_cost or 0) > WORTH_RUNS * size:
        ends = listing(f"{plain(b.domain)} ({b.side}, {percent(b.bound)})" for b in edge)
        reasons.append(
            f"{ends} is at the edge of the trained range, and the law would go on for "
            f"{decision.guard_cost:.4f}"
        )
    distance = decision.distance
    if distance is not None and distance.nearest > distance.largest:
        reasons.append("no trained mixture is near it")
    if not reasons:
        return None
    command = command_of(facts.study, "design", "--next", f"{MORE_RUNS}")
    return Step(f"Train more runs there: {'; '.join(reasons)}.", command)


def _text(facts: Facts) -> Step | None:
    """Which domain is worth more text."""
    decision = facts.decision
    capped = [
        bound.domain
        for bound in decision.active_bounds
        if bound.reason == EPOCH_CAP and decision.sensitivities[bound.domain].objective < 0
    ]
    if not capped:
        return None
    best = min(capped, key=lambda name: decision.sensitivities[name].objective)
    epochs = decision.forecast.epochs.get(best)
    often = f" (read {epochs:.3g} times)" if epochs else ""
    return Step(
        f"More text of {plain(best)} would pay: it is at its cap{often}, and one more point of it "
        f"would change the objective by {signed(decision.sensitivities[best].objective)}."
    )


def _given_up(facts: Facts) -> Step | None:
    """Targets that get worse than under every baseline."""
    decision = facts.decision
    losses = {}
    for target, mine in decision.forecast.targets.items():
        others = [c.forecast.targets[target].value for c in decision.baselines.values()]
        spread = float(np.nanstd(facts.swarm.column(target))) if len(facts.swarm) else 0.0
        sense = -1.0 if higher_is_better(target) else 1.0
        worse = min((sense * (mine.value - other) for other in others), default=0.0)
        if spread > 0 and worse > GIVEN_UP * spread:
            losses[target] = (worse / spread, sense * worse)
    if not losses:
        return None
    names = target_names(list(decision.forecast.targets))
    worst = sorted(losses, key=lambda target: -losses[target][0])
    told = [f"{plain(names[t])} ({signed(losses[t][1])})" for t in worst[:MOST_NAMED]]
    more = len(worst) - len(told)
    text = listing([*told, *([number_of(more, "more target")] if more else [])])
    return Step(
        f"Check that you can do without what is forecast worse than under every baseline: {text}. "
        "If not, weigh it in the objective or give it a floor (objective.floors)."
    )


def _forbidden(decision: Decision) -> Step | None:
    """Baselines that may not be trained as they are."""
    broken = {n: c.forecast.violations for n, c in decision.baselines.items()}
    told = [f"{plain(name)} ({plain(found[0])})" for name, found in broken.items() if found]
    if not told:
        return None
    return Step(
        f"Fall back on none of these as they are, they break your own constraints: {listing(told)}."
    )


def _export(facts: Facts, mood: str) -> Step | None:
    if mood == NOT_CONFIRMED:
        return None
    tokens = facts.decision.train_tokens
    run = f" of {count(tokens)} tokens" if tokens else ""
    command = command_of(facts.study, "export", *trainer_of(facts.study))
    return Step(f"Hand it to the trainer for the run{run}.", command)
