"""The sections about scale: whether the law drifts with it, and the forecast along it."""

from __future__ import annotations

import numpy as np

from mixlaw import plots
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.points import AXES
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT
from mixlaw.plots.curves import LABELS, THINGS, Curves, curves_of
from mixlaw.plots.evidence import Drift, drifts
from mixlaw.plots.fits import residual_axis, scale_curves
from mixlaw.report.blocks import Part, Picture, Section, Table
from mixlaw.report.drawn import drawn, drawn_panels
from mixlaw.report.sections import Facts
from mixlaw.report.words import (
    count,
    interval,
    listing,
    number_of,
    percent,
    plain,
    scale_words,
    signed,
    target_names,
    unit_of,
    value,
)

MOST_PANELS = 6
TINY = 1e-12
NEGLIGIBLE = 0.1
"""A drift below this share of how far apart the mixtures are is called none."""


def drift_section(facts: Facts) -> Section | None:
    """Whether the law is off by more at one scale than at another; None for runs of one scale."""
    laws = facts.laws
    if residual_axis(laws) is None:
        return None
    found = {t: drifts(laws.cross_validation, laws.law, t) for t in laws.targets}
    first = [t for t in facts.objective.targets if t in found]
    rest = sorted((t for t in found if t not in first), key=lambda t: -_relative(found[t]))
    shown = [*first, *rest][:MOST_PANELS]
    names = target_names(laws.targets)
    label = "Mean held-out residual of {} at every scale."
    figures = {target: plots.residuals_by_scale(laws, target) for target in shown}
    says = (
        f"{_drift_words(found, names)} Shown are the targets of the objective"
        + (" and those that drift most" if len(shown) > len(first) else "")
        + f" (in {unit_of(found)}); a bar is one standard deviation over held-out mixtures."
    )
    if left_out := len(found) - len(shown):
        says += f" {number_of(left_out, 'more target')} in the table only."
    picture = drawn_panels(figures, name="drift", label=label, says=says)
    lead = (
        "A law that bends where the runs do not would be too high at small scales and too low at "
        "large ones, or the other way round: then its forecast beyond them is off, too."
    )
    return Section("drift", "Does the law drift with scale?", lead, (picture, _table(found, names)))


def _ends(found: list[Drift]) -> tuple[Drift, Drift]:
    """The smallest and the largest scale of the mixture split."""
    here = [one for one in found if one.split == MIXTURE_SPLIT]
    ranked = sorted(here, key=lambda one: (one.level, one.train_tokens or 0.0))
    return ranked[0], ranked[-1]


def _relative(found: list[Drift]) -> float:
    """The change of the mean residual from the smallest scale to the largest, over how far apart
    the mixtures are there."""
    first, last = _ends(found)
    return abs(last.mean - first.mean) / max(last.spread, TINY)


def _drift_words(found: dict[str, list[Drift]], names: dict[str, str]) -> str:
    worst = max(found, key=lambda target: _relative(found[target]))
    first, last = _ends(found[worst])
    share = _relative(found[worst])
    where = "on unseen mixtures at the trained scales"
    if share < NEGLIGIBLE:
        return (
            f"No drift to speak of {where}: from the smallest to the largest scale no mean "
            f"residual moves by more than {percent(share)} of how far apart the mixtures are."
        )
    return (
        f"{plain(names[worst])} drifts most {where}: {signed(first.mean)} at "
        f"{scale_words(first.num_params, first.train_tokens)}, {signed(last.mean)} at "
        f"{scale_words(last.num_params, last.train_tokens)}, which is {percent(share)} of how far "
        "apart the mixtures are there."
    )


def _table(found: dict[str, list[Drift]], names: dict[str, str]) -> Table:
    rows = []
    for target, each in found.items():
        first, last = _ends(each)
        held = [one.mean for one in each if one.split == SCALE_SPLIT]
        row = [names[target], signed(first.mean), signed(last.mean), percent(_relative(each))]
        rows.append([*row, signed(float(np.mean(held))) if held else "-"])
    columns = ["target", "smallest scale", "largest scale", "change over spread", "unseen scale"]
    caption = f"Mean residual, predicted less observed ({unit_of(found)})"
    note = (
        "On held-out mixtures; at the smallest and largest trained scale, and where that scale was "
        "held out as well. Spread: the standard deviation over mixtures at the largest scale."
    )
    return Table(caption, columns, rows, note=note, wide=True)


def curves_section(facts: Facts) -> Section | None:
    """None when the law reads no scale."""
    domains = facts.domains if facts.decision.forecast.epochs else ()
    every = (
        curves_of(facts.laws, facts.decision, facts.runs, axis, domains=domains)
        for axis in reversed(AXES)
    )
    found = [curves for curves in every if curves is not None]
    if not found:
        return None
    parts: list[Part] = [_picture(facts, curves, first=k == 0) for k, curves in enumerate(found)]
    parts.append(_curves_table(found[0]))
    return Section("curves", "The forecast along scale", _formula_words(facts), tuple(parts))


def _picture(facts: Facts, curves: Curves, *, first: bool) -> Picture:
    thing = THINGS[curves.along]
    label = f"The forecast for the recommended mixture along {thing}, with observations."
    figure = scale_curves(curves, facts.verification)
    says = _reach_words(facts, curves)
    says += f" {_curve_words(facts, curves)}" if first else ""
    return drawn(figure, name=f"along-{thing}", label=label, says=says)


def _reach_words(facts: Facts, curves: Curves) -> str:
    """How far the target lies from what was trained, and how the interval grows on the way."""
    seen, target = getattr(facts.swarm, curves.along), curves.target[0]
    thing = THINGS[curves.along]
    ratio = target / seen.max()
    text = f"Along {thing}, the target lies at {ratio:.3g} times the largest run's"
    if abs(np.log(ratio)) < 1e-9:
        text = f"The target has as many {thing} as the largest run"
    if len(curves.band) and ratio > 1:
        x, low, high = curves.band.T
        at = [float(np.interp(np.log(v), np.log(x), high - low)) / 2 for v in (seen.max(), target)]
        text += f"; the interval grows from ± {at[0]:.3f} there to ± {at[1]:.3f}"
    return f"{text}."


def _curve_words(facts: Facts, curves: Curves) -> str:
    """How the observations lie to the lines."""
    name, distance = curves.nearest
    apart = [
        near - np.interp(np.log(x), np.log(line.x), line.y)
        for line in curves.lines
        for x, _, _, near in line.points
        if np.isfinite(near)
    ]
    text = (
        f"{plain(name)}, the trained mixture nearest to the recommended one, differs from it in "
        f"{percent(distance)} of the tokens"
    )
    if apart:
        side = "above" if np.mean(apart) > 0 else "below"
        text += f" and was observed on average {abs(np.mean(apart)):.3f} {side} its lines"
    if facts.verification is not None:
        verified = facts.verification.mixtures["recommended"]
        miss = verified.mean - verified.predicted.value
        side = "above" if miss > 0 else "below"
        text += f"; when trained, the recommended one ended {abs(miss):.3f} {side} its forecast"
    return text + "."


def _curves_table(curves: Curves) -> Table:
    rows = []
    for line in curves.lines:
        for x, low, high, near in line.points:
            law = float(np.interp(np.log(x), np.log(line.x), line.y))
            seen = value(near) if np.isfinite(near) else "-"
            rows.append([line.text, count(x), value(law), seen, f"{value(low)} to {value(high)}"])
    x, found = curves.target
    rows.append([curves.lines[-1].text, count(x), interval(found), "-", "-"])
    columns = ["at", LABELS[curves.along].partition(" (")[0], "law, recommended"]
    caption = f"Forecast and observations along scale, objective ({curves.unit})"
    return Table(caption, [*columns, plain(curves.nearest[0]), "range of the trained"], rows)


def _formula_words(facts: Facts) -> str:
    law = next(iter(facts.fitted.laws.values())).recipe
    text = f"The law {law.name}, fitted to each loss: {law.formula}"
    if not isinstance(facts.laws, LinkedLaws):
        return text
    links = (
        f"{plain(name)} is a falling {fitted.link.form} of "
        f"{listing(map(plain, fitted.link.losses))}"
        for name, fitted in facts.laws.links.items()
    )
    return f"{text}. Scores follow from the losses by links: {listing(links)}."
