"""What to do with a decision: computed from what is known, and what is not."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np

from mixlaw.mixture import Mixture
from mixlaw.optimize.decision import Decision
from mixlaw.optimize.limits import EPOCH_CAP, SUPPORT
from mixlaw.plots.evidence import usable
from mixlaw.report.verdict import CONFIRMED, NOT_CONFIRMED, SURE, UNTESTED, Step, rivals
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
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.study import Study

WORTH_RUNS = 1e-3
"""A promise beyond the trained range, below this share of the objective, is not worth runs."""
GIVEN_UP = 0.25
"""A target that gets worse by less than this share of its spread over the runs is not told."""
WORTH_SAYING = 5e-4
"""A difference below this is none at the digits that are shown."""
SAME_SHARE = 0.01
"""One percentage point: mixtures that differ by less in every domain count as the same."""
MOST_NAMED = 3
MORE_RUNS = 8


@dataclass(frozen=True, eq=False)
class Known:
    """What the next steps follow from.

    Attributes:
        runs: those of one mixture throughout, verified ones too.
        mood: of the headline.
        place: the study, as the commands name it.
    """

    study: Study
    decision: Decision
    runs: RunTable
    mood: str
    place: str

    def command(self, command: str, *more: str) -> str:
        """A command line for the study."""
        return shlex.join(["mixlaw", command, self.place, *more])


def next_steps(known: Known) -> tuple[Step, ...]:
    """The most pressing first."""
    steps = [_trial(known), _more_runs(known), _text(known.decision), _given_up(known)]
    steps += [_held_back(known.decision), _schedule(known)]
    export = _export(known)
    steps = [export, *steps] if known.mood == CONFIRMED else [*steps, export]
    return tuple(step for step in steps if step is not None)


def place_of(study: Study) -> str:
    """A study as one names it beside its folder."""
    return plain(study.folder.resolve().name)


def command_of(study: Study, command: str, *more: str) -> str:
    """A command line for a study, as one would type it beside its folder."""
    return shlex.join(["mixlaw", command, place_of(study), *more])


def trainer_of(study: Study) -> tuple[str, ...]:
    """The option of an export that the study does not settle."""
    return () if study.config.export.to else ("--to", "TRAINER")


def _trial(known: Known) -> Step | None:
    """Train it, before much depends on it."""
    decision = known.decision
    where = scale_words(decision.num_params, decision.train_tokens)
    if known.mood == CONFIRMED:
        return None
    if known.mood == NOT_CONFIRMED:
        return Step(
            "Do not train on it yet: a baseline was as good or better. Train more runs around it "
            "and fit again.",
            known.command("design", "--next", f"{MORE_RUNS}"),
            "runs that would make it surer",
        )
    if known.mood != UNTESTED:
        return Step(
            "Raise verify.seeds in study.yaml and verify again: what was trained does not settle "
            "it.",
            known.command("verify"),
            "train it with more seeds",
        )
    if not known.study.from_table:
        others = [plain(name) for name in decision.baselines] or ["what you use now"]
        text = f"Verify it: train a model of {where} on it and on {listing(others)}."
        return Step(text, known.command("verify"), "train it, and the baselines")
    if _is_trained(known, decision.recommended):
        return Step(
            f"Compare: the runs have a mixture within a percentage point of it in every domain, "
            f"trained at {where}."
        )
    allowed = rivals(decision)
    seen = [name for name in allowed if _is_trained(known, allowed[name].forecast.mixture)]
    others = [plain(name) for name in allowed if name not in seen]
    if not allowed:
        others = ["what you use now"]
    text = f"Train {listing(['it', *others])} once{' each' if others else ''} at {where}, or as "
    text += "near as you can afford, before much depends on it: this mixture is not verified yet"
    if seen:
        text += (
            f" ({listing(map(plain, seen))} {'was' if len(seen) == 1 else 'were'} trained there)"
        )
    return Step(f"{text}.")


def _is_trained(known: Known, mixture: Mixture) -> bool:
    """Whether a run of the target scale had this mixture."""
    runs = known.runs.done()
    here = np.abs(runs.weights - mixture.array(runs.domains)).max(axis=1) < SAME_SHARE
    for axis in ("num_params", "train_tokens"):
        wanted = getattr(known.decision, axis)
        if wanted is not None:
            here &= np.isclose(getattr(runs, axis), wanted, rtol=1e-9)
    return bool(here.any())


def _more_runs(known: Known) -> Step | None:
    """Where the runs do not yet decide. A baseline that breaks the constraints may well be better:
    more runs do not change that."""
    decision, reasons = known.decision, []
    unsure = [n for n, c in rivals(decision).items() if c.probability_better < SURE]
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
    text = f"Train more runs there: {'; '.join(reasons)}."
    command = known.command("design", "--next", f"{MORE_RUNS}")
    return Step(text, command, "runs that would make it surer")


def _text(decision: Decision) -> Step | None:
    """Which domain is worth more text."""
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


def _given_up(known: Known) -> Step | None:
    """Targets that get worse than under every baseline."""
    decision, losses = known.decision, {}
    swarm = usable(known.runs, decision.objective)
    for target, mine in decision.forecast.targets.items():
        others = [c.forecast.targets[target].value for c in decision.baselines.values()]
        spread = float(np.nanstd(swarm.column(target))) if len(swarm) else 0.0
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


def _held_back(decision: Decision) -> Step | None:
    """Baselines that are better because they break the constraints."""
    better = [
        f"{plain(name)} ({-comparison.gain:.3f} lower)"
        for name, comparison in decision.baselines.items()
        if comparison.forecast.violations and comparison.gain < -WORTH_SAYING
    ]
    if not better:
        return None
    return Step(
        "Loosen a constraint if that is worth it: forecast better than the recommended mixture, "
        f"but not allowed by your constraints: {listing(better)}."
    )


def _schedule(known: Known) -> Step | None:
    """The order of the data, where the study asks for it and there is no answer of today."""
    study = known.study
    if study.config.schedule is None or study.schedule_decision() is not None:
        return None
    text = "Ask whether the mixture should change during training: the study has a schedule section"
    return Step(f"{text}.", known.command("schedule"), "whether its order matters")


def _export(known: Known) -> Step | None:
    if known.mood == NOT_CONFIRMED:
        return None
    tokens = known.decision.train_tokens
    run = f" of {count(tokens)} tokens" if tokens else ""
    command = known.command("export", *trainer_of(known.study))
    return Step(f"Hand it to the trainer for the run{run}.", command, "hand it to your trainer")
