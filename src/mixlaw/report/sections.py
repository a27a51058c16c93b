"""The sections about the decision: the mixture and its forecast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mixlaw import plots
from mixlaw.laws import FittedLaws
from mixlaw.laws.links import LinkedLaws
from mixlaw.mixture import Domain
from mixlaw.optimize import Decision, Objective
from mixlaw.optimize.limits import CURVED, FLOOR
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.plots.evidence import Noise, noise_for, usable
from mixlaw.plots.marks import forecasts_of
from mixlaw.report.blocks import Code, Notes, Picture, Section, Stack, Table
from mixlaw.report.drawn import drawn
from mixlaw.report.words import (
    count,
    distance_words,
    interval,
    listing,
    number_of,
    objective_unit,
    over_words,
    percent,
    plain,
    regret_words,
    scale_words,
    sentence,
    signed,
    target_names,
    unit_of,
)
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.study import Study
from mixlaw.study.verification import RECOMMENDED, Verification

MOST_DRAWN_TARGETS = 12
WORTH_A_PICTURE = 0.5
"""Epochs below this in every mixture are in the table only."""
MOST_BESIDE = 2
"""With more baselines, tables of mixtures take the page's width."""
BOUND_REASONS = {
    "user": "the study's constraint",
    "epoch cap": "the cap on epochs",
    "support": "no trained mixture went further",
    "simplex": "no share can go further",
    "group": "the study's limit on a group",
    "limit": "the study's limit",
    "floor": "the floor of a target",
}
WORTH_SAYING = 1e-4
"""A promise of the unguarded law below this is not mentioned."""


@dataclass(frozen=True, eq=False)
class Facts:
    """All that the report is made from, read from the study once; `runs` are those of one mixture
    throughout."""

    study: Study
    runs: RunTable
    fitted: FittedLaws
    laws: FittedLaws | LinkedLaws
    decision: Decision
    verification: Verification | None
    front: ParetoFront | None
    domains: tuple[Domain, ...]
    noise: Noise | None
    swarm: RunTable = field(repr=False)

    @classmethod
    def of(cls, study: Study) -> Facts:
        decision, runs = study.optimize(), study.runs().static()
        return cls(
            study=study,
            runs=runs,
            fitted=study.fit(),
            laws=study.forecaster(),
            decision=decision,
            verification=study.verification(),
            front=study.pareto() if study.config.tradeoffs else None,
            domains=tuple(study.domains()),
            noise=noise_for(runs, decision.objective, decision),
            swarm=usable(runs, decision.objective),
        )

    @property
    def objective(self) -> Objective:
        return self.decision.objective

    @property
    def unit(self) -> str:
        return objective_unit(self.decision.objective)

    def drawn_targets(self) -> list[str]:
        """The targets that fit a picture: the objective's before others, and where they are too
        many those that the law explains least on held-out runs."""
        first, every = self.objective.targets, list(self.decision.forecast.targets)
        if len(every) > MOST_DRAWN_TARGETS:
            validation = self.laws.cross_validation
            error = validation.scores[self.laws.law][validation.deciding_split].normalised_error
            places = {target: t for t, target in enumerate(validation.targets)}
            every.sort(key=lambda target: (target not in first, -error[places[target]]))
        shown = every[:MOST_DRAWN_TARGETS]
        return sorted(shown, key=lambda t: first.index(t) if t in first else len(first))

    def not_drawn(self) -> str:
        """A sentence about targets that are in the tables only, or nothing."""
        missing = len(self.decision.forecast.targets) - len(self.drawn_targets())
        if not missing:
            return ""
        which = "the objective's and, of the others, those that the law explains least"
        if len(self.objective.targets) >= MOST_DRAWN_TARGETS:
            which = "those of the objective that the law explains least"
        return f" Shown are {which}; {number_of(missing, 'more target')} in the table only."


def mixture_section(facts: Facts) -> Section:
    decision, swarm = facts.decision, facts.swarm
    names = list(decision.recommended)
    order = [swarm.domains.index(name) for name in names]
    trained = swarm.weights[:, order]
    figure = plots.mixture(decision, swarm)
    label = "Bars: the recommended share of each domain, with marks for the baselines."
    picture = drawn(figure, name="mix", label=label, says=_shift_words(decision))
    exact = json.dumps(dict(decision.recommended), indent=1)
    beside: list[Table | Notes | Code] = [_mixture_table(facts, trained)]
    pictures: list[Picture] = [picture]
    if _repeats(decision):
        pictures.append(_epochs_picture(facts))
    if notes := _choice_words(decision):
        beside.append(Notes(notes))
    beside.append(Code("Exact proportions (JSON)", exact))
    return Section(
        "mixture",
        "The mixture",
        _certificate(decision),
        (
            Stack(tuple(pictures)),
            Stack(tuple(beside), wide=len(decision.baselines) > MOST_BESIDE),
        ),
    )


def _repeats(decision: Decision) -> bool:
    """Whether any mixture reads a domain often enough for a picture."""
    read = (one.epochs for one in forecasts_of(decision).values())
    return max(max(epochs.values(), default=0.0) for epochs in read) >= WORTH_A_PICTURE


def _epochs_picture(facts: Facts) -> Picture:
    found = facts.decision.forecast.epochs
    cap = facts.study.config.constraints.max_epochs
    label = "Bars: how often the target run reads each domain, with marks for the baselines."
    most = max(found, key=found.__getitem__)
    says = f"{plain(most)} is read most often, {found[most]:.2f} times"
    repeated = sum(epochs > 1 for epochs in found.values())
    says += f"; {number_of(repeated, 'domain')} more than once" if repeated else ", none twice"
    figure = plots.epochs(facts.decision, cap)
    return drawn(figure, name="epochs", label=label, says=f"{says}.")


def _shift_words(decision: Decision) -> str:
    """The largest moves against the first baseline."""
    if not decision.baselines:
        return "Recommended share of each domain."
    name, comparison = next(iter(decision.baselines.items()))
    before = comparison.forecast.mixture
    moves = {d: s - before.get(d, 0.0) for d, s in decision.recommended.items()}
    up, down = max(moves, key=moves.__getitem__), min(moves, key=moves.__getitem__)
    if moves[up] < 5e-4:
        return f"The recommended mixture is the {plain(name)} one."

    def words(domain: str) -> str:
        return (
            f"{plain(domain)} ({percent(decision.recommended[domain])} instead of "
            f"{percent(before.get(domain, 0.0))})"
        )

    return f"Against {plain(name)}, {words(up)} gains most and {words(down)} loses most."


def _certificate(decision: Decision) -> str:
    if decision.gap is not None:
        return (
            f"Certified: within the bounds, the law {decision.law} predicts no mixture lower by "
            f"more than {decision.gap:.1e}. That is about the law, not about the world; how far "
            "the law can be trusted is below."
        )
    return (
        f"No certificate: what is minimised is not convex in the mixture; searches from "
        f"different starts end within {decision.spread:.1e} of each other."
    )


def _choice_words(decision: Decision) -> tuple[str, ...]:
    """How the mixture came to be this one: refits, rounding, guard, distance from the trained."""
    notes = []
    if (robust := decision.robust) is not None:
        notes.append(
            f"Chosen for {over_words(robust.over)} of {robust.num_draws} refits to resampled "
            f"mixtures, which is {robust.value:.4f} here. The one fit to all runs would choose "
            f"{listing(f'{plain(d)} {percent(s)}' for d, s in robust.single.items())}."
        )
    if decision.rounding_cost is not None:
        notes.append(f"Rounding the shares raises the objective by {decision.rounding_cost:.2g}.")
    if decision.unguarded is not None:
        notes.append(_guard_words(decision))
    if decision.distance is not None:
        notes.append(sentence(distance_words(decision.distance)))
    return tuple(notes)


def _guard_words(decision: Decision) -> str:
    assert decision.unguarded is not None
    if (decision.guard_cost or 0) <= WORTH_SAYING:
        return "Each share is kept within the trained range, which costs nothing here."
    apart = {d: decision.unguarded.get(d, 0.0) - s for d, s in decision.recommended.items()}
    most = sorted(apart, key=lambda d: -abs(apart[d]))[:2]
    words = [f"{plain(d)} {percent(decision.unguarded.get(d, 0.0))}" for d in most]
    return (
        "Each share is kept within the trained range. Without that guard the law would go to "
        f"{listing(words)} and promise {decision.guard_cost:.4f} more; no run supports that yet."
    )


def _mixture_table(facts: Facts, trained: np.ndarray) -> Table:
    decision = facts.decision
    baselines = {name: c.forecast.mixture for name, c in decision.baselines.items()}
    tokens = {d.name: d.available_tokens for d in facts.domains}
    epochs = decision.forecast.epochs
    with_epochs = bool(epochs)
    rows = []
    for j, (name, share) in enumerate(decision.recommended.items()):
        row = [
            plain(name),
            f"{share:.2%}",
            *(f"{m.get(name, 0.0):.2%}" for m in baselines.values()),
        ]
        row.append(f"{trained[:, j].min():.1%} to {trained[:, j].max():.1%}")
        if with_epochs:
            known = tokens.get(name)
            row += [f"{epochs[name]:.2f}" if name in epochs else "-"]
            row += [count(known) if known else "unknown"]
        rows.append(row)
    columns = ["domain", RECOMMENDED, *map(plain, baselines), "trained range"]
    columns += ["epochs", "available tokens"] if with_epochs else []
    cap = facts.study.config.constraints.max_epochs
    note = _cap_words(cap)
    if not with_epochs:
        note += " Epochs are unknown: the study gives no tokens per domain or no training tokens."
    note = " ".join([note, *_bound_words(decision)])
    return Table("Shares of training tokens", columns, rows, note=note.strip())


def _cap_words(cap: float | Mapping[str, float] | None) -> str:
    if not cap:
        return ""
    if isinstance(cap, Mapping):
        each = listing(f"{most:g} of {plain(name)}" for name, most in cap.items())
        return f"At most these epochs were allowed: {each}."
    return f"At most {cap:g} epochs of a domain were allowed."


def _bound_words(decision: Decision) -> list[str]:
    """One sentence for each kind of bound that the mixture sits on."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for bound in decision.active_bounds:
        share = bound.reason not in (CURVED, FLOOR)
        text = plain(bound.domain)
        if share or bound.reason == FLOOR:
            text += f" ({percent(bound.bound) if share else f'{bound.bound:.4g}'})"
        kinds.setdefault((bound.side, bound.reason), []).append(text)
    return [
        f"At the {side} bound, {BOUND_REASONS.get(reason, reason)}: {listing(names)}."
        for (side, reason), names in kinds.items()
    ]


def forecast_section(facts: Facts) -> Section:
    decision, verification = facts.decision, facts.verification
    everyone = forecasts_of(decision)
    targets = list(decision.forecast.targets)
    names = target_names(targets)
    shown = facts.drawn_targets()
    figure = plots.forecasts(decision, shown, verification=verification)
    label = "Dots with intervals: predicted objective and targets for each mixture."
    says = _forecast_words(facts) + facts.not_drawn()
    picture = drawn(figure, name="forecast", label=label, says=says)
    rows = [["objective", "", *(interval(f.objective) for f in everyone.values())]]
    for target in targets:
        weight = decision.objective.shares.get(target)
        found = [interval(f.targets[target]) for f in everyone.values()]
        rows.append([names[target], f"{weight:.2g}" if weight else "-", *found])
    columns = ["target", "weight", *map(plain, everyone)]
    caption = f"Forecasts ({unit_of(targets)}), {decision.level:.0%} intervals"
    wide = len(decision.baselines) > MOST_BESIDE
    table = Table(caption, columns, rows, strong=frozenset({0}), wide=wide)
    lead = (
        f"At {scale_words(decision.num_params, decision.train_tokens)}. The intervals are about "
        "the level of each number. An error of level is shared by all mixtures and cancels in a "
        "comparison, so the gain can be surer than overlapping intervals suggest: "
        + listing(
            f"{signed(c.gain)} over {plain(name)} with probability {c.probability_better:.2f}"
            for name, c in decision.baselines.items()
        )
        + "."
    )
    if decision.regret is not None:
        lead += f" {sentence(regret_words(decision.regret))}"
    return Section("forecast", "The forecast", lead, (picture, table))


def _forecast_words(facts: Facts) -> str:
    decision = facts.decision
    name, comparison = next(iter(decision.baselines.items()))
    other, mine = comparison.forecast.targets, decision.forecast.targets
    sense = {t: -1 if higher_is_better(t) else 1 for t in mine}
    better = [t for t in mine if sense[t] * (other[t].value - mine[t].value) > 0]
    text = f"Predicted better than under {plain(name)}: "
    text += f"{len(better)} of {number_of(len(mine), 'target')}"
    if len(better) < len(mine):
        worst = min(mine, key=lambda t: sense[t] * (other[t].value - mine[t].value))
        change = signed(mine[worst].value - other[worst].value)
        text += f"; {plain(target_names(list(mine))[worst])} loses most ({change})"
    if facts.verification is None:
        return text + "."
    hits = [
        found.low <= seen <= found.high
        for verified in facts.verification.mixtures.values()
        for found, seen in verified.targets.values()
    ]
    return (
        f"{text}; when trained, {sum(hits)} of {len(hits)} observed target values fell in their "
        f"{decision.level:.0%} intervals."
    )
