"""The sections about the evidence: the fits and the forecast along scale."""

from __future__ import annotations

import numpy as np

from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.scoring import Scores
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT
from mixlaw.laws.validation import CrossValidation
from mixlaw.report import figures
from mixlaw.report.blocks import Key, Notes, Picture, Section, Stack, Table
from mixlaw.report.evidence import (
    Curves,
    centred,
    curves_of,
    size_levels,
)
from mixlaw.report.sections import Facts
from mixlaw.report.style import size_look
from mixlaw.report.svg import inline_svg
from mixlaw.report.words import (
    correlation,
    count,
    interval,
    listing,
    percent,
    plain,
    short_count,
    target_names,
    unit_of,
    value,
)

SPLIT_TITLES = {SCALE_SPLIT: "unseen scale", MIXTURE_SPLIT: "unseen mixtures"}
TINY = 1e-12
POOR_RATIO = 0.5
"""A target whose held-out error is above this share of predicting the mean is called out."""


def fits_section(facts: Facts) -> Section:
    fitted, validation = facts.fitted, facts.fitted.cross_validation
    label = "Held-out error of every candidate law; 1 is predicting the mean."
    keys = [Key("natural", "square", "unseen mixtures, trained scales")]
    if SCALE_SPLIT in validation.splits:
        keys.append(Key("recommended", "circle", "unseen mixtures at an unseen scale (decides)"))
    laws = Picture(
        _laws_words(facts),
        (inline_svg(figures.law_errors(validation, fitted.law), name="laws", label=label),),
        tuple(keys),
    )
    tables: list[Table | Notes] = [_laws_table(facts)]
    reasons = [
        f"Refused: {name}: {plain(reason)}."
        for name, by_split in validation.refused.items()
        for reason in dict.fromkeys(by_split.values())
    ]
    if reasons:
        tables.append(Notes(tuple(reasons)))
    findings = facts.study.diagnose()
    if findings:
        notes = (f"{found.kind.capitalize()}: {plain(found.text)}." for found in findings)
        tables.append(Notes(("What speaks against trusting it:", *notes)))
    if fitted.at_largest is not None:
        tables.append(_mixture_laws_table(fitted.at_largest))
    parts = (laws, Stack(tuple(tables)), _panels(facts), _targets_table(facts))
    decides = validation.deciding_split == SCALE_SPLIT
    lead = (
        f"The law {fitted.law} was chosen among {len(validation.scores)} by cross-validation that "
        "holds out whole mixtures"
        + (
            " and the largest trained scale"
            if decides
            else "; the runs have too few scales to hold one out as well"
        )
        + ", never random rows. Every error here is on runs that the fit had not seen."
    )
    return Section("fits", "The fits, on runs held out", lead, parts)


def _laws_words(facts: Facts) -> str:
    validation = facts.fitted.cross_validation
    ranking = validation.ranking()
    error = ranking[facts.fitted.law]
    text = (
        f"On the deciding split {facts.fitted.law} leaves {percent(error)} of the squared error of "
        "predicting the mean"
    )
    others = [name for name in ranking if name != facts.fitted.law]
    if others:
        text += f"; next is {others[0]} with {percent(ranking[others[0]])}"
    return text + "."


def _laws_table(facts: Facts) -> Table:
    validation = facts.fitted.cross_validation
    ranking = list(validation.ranking())
    others = [name for name in validation.scores if name not in ranking]
    splits = [split for split in (SCALE_SPLIT, MIXTURE_SPLIT) if split in validation.splits]
    rows, columns = [], ["law"]
    for name in [*ranking, *others]:
        row = [name]
        for split in splits:
            row += _score_cells(validation.scores[name].get(split))
        rows.append(row)
    for split in splits:
        columns += [f"{SPLIT_TITLES[split]}: error", "mean abs. error", "rank corr."]
    note = (
        "Averages over targets. Error: squared error as a share of that of predicting the mean of "
        "the other mixtures at the same scale. Rank correlation: over mixtures within a scale. "
        "Bold: chosen. A dash: refused."
    )
    caption = "Every candidate law on held-out runs"
    return Table(
        caption, columns, rows, strong=frozenset({ranking.index(facts.fitted.law)}), note=note
    )


def _mixture_laws_table(validation: CrossValidation) -> Table:
    rows = [
        [name, *_score_cells(validation.scores[name][validation.deciding_split])]
        for name in validation.ranking()
    ]
    return Table(
        "For comparison: laws of the mixture alone, unseen mixtures at the largest trained scale",
        ["law", "error", "mean abs. error", "rank corr."],
        rows,
        note="They cannot forecast another scale, so they do not compete.",
    )


def _score_cells(scores: Scores | None) -> list[str]:
    if scores is None:
        return ["-", "-", "-"]
    error = float(np.mean(scores.normalised_error))
    return [
        f"{error:.3f}" if error < 1000 else f"{error:.1e}",
        f"{np.mean(scores.mae):.4f}"
        if np.mean(scores.mae) < 1000
        else f"{np.mean(scores.mae):.1e}",
        correlation(float(np.mean(scores.spearman))),
    ]


def _panels(facts: Facts) -> Picture:
    """Small multiples of predicted against observed."""
    validation, law = facts.laws.cross_validation, facts.laws.law
    svgs = tuple(
        inline_svg(
            figures.held_out(validation, law, target),
            name=f"held{i}",
            label=f"Predicted against observed for {plain(target)}, held out.",
        )
        for i, target in enumerate(facts.drawn_targets())
    )
    text = (
        "Each value less the observed mean of its scale, so that only differences between mixtures "
        "and errors of level remain; on the diagonal is right, the dashed line predicts the mean. "
    )
    return Picture(
        text + _level_words(facts) + facts.not_drawn(), svgs, _size_keys(facts), wide=True
    )


def _level_words(facts: Facts) -> str:
    """How much of the error at the unseen scale is shared by all mixtures."""
    validation, law = facts.laws.cross_validation, facts.laws.law
    if SCALE_SPLIT not in validation.splits:
        return _rank_words(validation.scores[law][MIXTURE_SPLIT])
    shift, relative = {}, {}
    for target in validation.targets:
        found = centred(validation, law, SCALE_SPLIT, target)
        if len(found.observed):  # a score need not be measured at the largest scale
            shift[target] = float(np.mean(found.predicted - found.observed))
            relative[target] = abs(shift[target]) / max(float(np.std(found.observed)), TINY)
    worst = max(relative, key=relative.__getitem__)
    name = target_names(validation.targets)[worst]
    side = "too high" if shift[worst] > 0 else "too low"
    return (
        f"At the unseen scale the level is missed most, for how far apart the mixtures are, on "
        f"{name}: on average predicted {abs(shift[worst]):.3f} {side}."
    )


def _rank_words(scores: Scores) -> str:
    low, high = scores.spearman.min(), scores.spearman.max()
    return f"Rank correlations over held-out mixtures run from {low:.2f} to {high:.2f}."


def _size_keys(facts: Facts) -> tuple[Key, ...]:
    runs = facts.fitted.cross_validation.runs
    levels = size_levels(runs)
    num_levels = int(levels.max()) + 1
    keys = {}
    for level in range(num_levels):
        sizes = runs.num_params[levels == level]
        known = np.isfinite(sizes).all()
        name = f"{short_count(float(sizes.max()))} parameters" if known else "held-out mixture"
        keys.setdefault(size_look(level, num_levels), name)
    out = tuple(Key(shade, mark, text) for (shade, mark), text in keys.items())
    if SCALE_SPLIT in facts.fitted.cross_validation.splits:
        out += (Key("ink", "ring", "unseen scale"),)
    return out


def _targets_table(facts: Facts) -> Table:
    """One row per target, scores forecast through their links too."""
    validation, law = facts.laws.cross_validation, facts.laws.law
    splits = [s for s in (SCALE_SPLIT, MIXTURE_SPLIT) if s in validation.scores[law]]
    rows, poor = [], []
    names = target_names(validation.targets)
    for t, target in enumerate(validation.targets):
        row = [names[target]]
        for split in splits:
            scores = validation.scores[law][split]
            ratio = scores.mae[t] / scores.mae_of_mean[t]
            row += [value(scores.mae[t]), f"{ratio:.2f}", correlation(scores.spearman[t])]
            if split == validation.deciding_split and ratio > POOR_RATIO:
                poor.append(names[target])
        rows.append(row)
    columns = ["target"]
    for split in splits:
        columns += [
            f"{SPLIT_TITLES[split]}: mean abs. error",
            "ratio to the mean",
            "rank correlation",
        ]
    note = "Ratio to the mean: the error divided by that of predicting the mean; below 0.5 is good."
    if poor:
        note += f" Lean with care on {listing(poor)}: above 0.5 on the deciding split."
    caption = f"The chosen law by target ({unit_of(validation.targets)})"
    return Table(caption, columns, rows, note=note, wide=True)


def curves_section(facts: Facts) -> Section | None:
    """None when the law reads no scale."""
    curves = curves_of(facts.laws, facts.decision, facts.objective, facts.runs)
    if curves is None:
        return None
    seen = {}
    if facts.verification is not None:
        seen = {curves.target[0]: facts.verification.mixtures["recommended"].observed}
        if "tokens" in curves.x_label:
            seen |= {x: [y] for x, y in facts.verification.mixtures["recommended"].curve[:-1]}
    label = "The law's forecast for the recommended mixture along scale, with observations."
    svg = inline_svg(figures.forecast_curves(curves, seen), name="scale", label=label)
    keys = [Key(line.look[0], "line", line.text) for line in curves.lines]
    name, _ = curves.nearest
    keys.append(Key("muted", "bar", "range of the trained mixtures"))
    keys.append(Key("muted", "circle", f"{plain(name)}, the trained mixture nearest to it"))
    keys.append(Key("recommended", "diamond", "forecast with interval"))
    if seen:
        keys.append(Key("ink", "star", "recommended mixture, observed"))
    picture = Picture(f"{_curve_words(facts, curves)} {_reach_words(facts)}", (svg,), tuple(keys))
    parts = (picture, _curves_table(curves))
    return Section("curves", "The forecast along scale", _formula_words(facts), parts)


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
    columns = ["", curves.x_label.partition(" (")[0], "law, recommended", plain(curves.nearest[0])]
    caption = f"Forecast and observations along scale, objective ({curves.unit})"
    return Table(caption, [*columns, "range of the trained"], rows)


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


def _reach_words(facts: Facts) -> str:
    decision, runs = facts.decision, facts.swarm
    parts = []
    for name, target, seen in (
        ("parameters", decision.num_params, runs.num_params),
        ("tokens", decision.train_tokens, runs.train_tokens),
    ):
        if target is not None and np.isfinite(seen).all():
            parts.append(f"{target / seen.max():.3g} times the {name}")
    return f"The target has {listing(parts)} of the largest run." if parts else ""
