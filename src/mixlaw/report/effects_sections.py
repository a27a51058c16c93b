"""What each domain does to each target, at the recommended mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mixlaw import plots
from mixlaw.optimize.decision import Decision
from mixlaw.optimize.limits import CURVED, FIXED, FLOOR, GROUP, ActiveBound
from mixlaw.plots.decisions import by_share, change_per_point, improvement, pulls, tile_text
from mixlaw.plots.evidence import target_noise
from mixlaw.report.blocks import Picture, Section, Table
from mixlaw.report.drawn import drawn
from mixlaw.report.sections import Facts
from mixlaw.report.words import listing, percent, plain, signed, target_names
from mixlaw.runs import higher_is_better

SIGN = {"lower": 1, "upper": -1}
MOST_BESIDE = 3
"""Targets of the table beside a picture."""
MOST_ROWS_BESIDE, MOST_COLUMNS_BESIDE = 14, 8
"""With more domains or targets the picture of the tiles takes the page's width."""


def effects_section(facts: Facts) -> Section:
    """Tiles, the objective's slopes, and both as a table."""
    lead = (
        "What one more percentage point of a domain does at the recommended mixture and the "
        "target scale, the others giving in proportion. Bounds are not regarded: a domain at its "
        "cap shows what the cap costs. It is the law's word, and holds nearby only."
    )
    figure = plots.sensitivities(facts.decision)
    label = "Bars: change of the objective by one more point of each domain, through each target."
    slopes = drawn(figure, name="slopes", label=label, says=_objective_words(facts.decision))
    tiles, targets = _tiles(facts), list(facts.decision.forecast.targets)
    parts = [slopes, tiles, _table(facts, targets)]
    if tiles.wide:
        beside = _table(facts, facts.drawn_targets()[:MOST_BESIDE])
        parts = [slopes, beside, tiles, replace(_table(facts, targets), folded=True)]
    return Section("effects", "What each domain does", lead, tuple(parts))


def _objective_words(decision: Decision) -> str:
    """What holds the mixture: targets that pull against each other, and bounds."""
    text = ""
    by_domain = {
        domain: [changes[j] for changes in pulls(decision).values()]
        for j, domain in enumerate(by_share(decision))
    }
    torn = {
        domain: min(sum(c for c in changes if c > 0), -sum(c for c in changes if c < 0))
        for domain, changes in by_domain.items()
    }
    most = max(torn, key=torn.__getitem__)
    if torn[most] > 0:
        text = (
            f"Targets pull hardest against each other on {plain(most)}: a point of it helps some "
            f"and hurts others by {torn[most]:.4f} of the objective each way. "
        )
    return text + held_words(decision)


def held_words(decision: Decision) -> str:
    """Which bounds and limits the pulls that are left go against."""
    if not decision.active_bounds:
        return "No bound holds a share, so at the optimum the pulls cancel out."
    found = {name: one.objective for name, one in decision.sensitivities.items()}
    joint = [bound for bound in decision.active_bounds if bound.reason in (GROUP, CURVED, FLOOR)]
    held = [bound for bound in decision.active_bounds if bound not in joint]
    # A lower bound holds a share that would rather fall, so that more of it hurts.
    held = [b for b in held if b.reason == FIXED or found[b.domain] * SIGN[b.side] > 0]
    sentences = []
    if held:
        dearest = max(held, key=lambda bound: abs(found[bound.domain]))
        what = "fixed share" if dearest.reason == FIXED else f"{dearest.side} one"
        sentences.append(
            f"The bound that matters most is the {what} of {plain(dearest.domain)} at "
            f"{percent(dearest.bound)}: one more point changes the objective by "
            f"{signed(found[dearest.domain])}."
        )
    if joint:
        also, what = "also " if held else "", listing(map(_joint_words, joint))
        sentences.append(f"Several shares at once are {also}held by {what}.")
    return " ".join(sentences) or "No single bound holds the mixture."


def _joint_words(bound: ActiveBound) -> str:
    """A limit on more than one share."""
    if bound.reason == FLOOR:
        return f"the floor of {plain(bound.domain)}"
    if bound.reason == CURVED:
        return plain(bound.domain)
    return f"the {bound.side} bound {percent(bound.bound)} of group {plain(bound.domain)}"


def _units(facts: Facts, targets: list[str]) -> tuple[Mapping[str, float], str]:
    """What a target's change is counted in, and its name."""
    noise = target_noise(facts.runs, targets)
    if set(noise) == set(targets):
        return noise, "its seed noise (standard deviation of one run)"
    forecast = facts.decision.forecast.targets
    widths = {target: forecast[target].half_width for target in targets}
    if np.isfinite(list(widths.values())).all():
        return widths, f"the half width of its {facts.decision.level:.0%} interval"
    spread = {target: _spread(facts, target) for target in targets}
    return spread, "how far apart the trained mixtures are (standard deviation)"


def _spread(facts: Facts, target: str) -> float:
    column = facts.swarm.column(target)
    return float(np.nanstd(column))


def _tiles(facts: Facts) -> Picture:
    decision, targets = facts.decision, facts.drawn_targets()
    units, unit = _units(facts, targets)
    found = change_per_point(decision, targets, units)
    domains, names = by_share(decision), target_names(targets)
    says = f"Change of each target per point of a domain, in units of {unit}. "
    across = np.array([[not _own(domain, target) for target in targets] for domain in domains])
    better = np.where(across, improvement(targets) * found, np.nan)
    if np.isfinite(better).any():
        picks = (np.nanargmax, np.nanargmin)
        ends = [np.unravel_index(pick(better), better.shape) for pick in picks]
        words = [
            f"{plain(domains[i])} {verb} {plain(names[targets[j]])} most ({tile_text(found[i, j])})"
            for (i, j), verb in zip(ends, ("helps", "hurts"), strict=True)
            if better[i, j] != 0
        ]
        says += f"Apart from a domain's own target, {' and '.join(words)}."
    figure = plots.interactions(decision, targets, units=units, unit=unit)
    label = "Tiles: how much better or worse each target gets by one more point of each domain."
    wide = len(domains) > MOST_ROWS_BESIDE or len(targets) > MOST_COLUMNS_BESIDE
    return drawn(figure, name="tiles", label=label, says=says + facts.not_drawn(), wide=wide)


def _own(domain: str, target: str) -> bool:
    return target.rpartition("/")[2] == domain


def _table(facts: Facts, targets: list[str]) -> Table:
    decision = facts.decision
    names, rows = target_names(list(decision.forecast.targets)), []
    for domain in by_share(decision):
        found = decision.sensitivities[domain]
        changes = [found.objective, *(found.targets[target] for target in targets)]
        rows.append([plain(domain), *map(signed, changes)])
    columns = ["domain", "objective", *(names[target] for target in targets)]
    note = "Below 0 is better for the objective and for losses"
    note += ", above 0 for scores." if any(map(higher_is_better, targets)) else "."
    every = "every target" if len(targets) == len(decision.forecast.targets) else "the objective"
    caption = f"Change of {every} by one more percentage point of a domain"
    wide = len(targets) > MOST_BESIDE
    return Table(caption, columns, rows, note=note, wide=wide)
