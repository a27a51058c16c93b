"""The section about the fits, on runs held out."""

from __future__ import annotations

import numpy as np

from mixlaw import plots
from mixlaw.laws.scoring import Scores
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT
from mixlaw.laws.validation import CrossValidation
from mixlaw.plots.evidence import centred
from mixlaw.report.blocks import Notes, Picture, Section, Stack, Table
from mixlaw.report.drawn import drawn, drawn_panels
from mixlaw.report.sections import Facts
from mixlaw.report.words import (
    correlation,
    listing,
    percent,
    plain,
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
    laws = drawn(
        plots.law_comparison(fitted),
        name="laws",
        label="Held-out error of every candidate law; 1 is predicting the mean.",
        says=_laws_words(facts),
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
    figures = {t: plots.predicted_vs_observed(facts.laws, t) for t in facts.drawn_targets()}
    text = (
        "Each value less the observed mean of its scale, so that only differences between mixtures "
        "and errors of level remain; on the diagonal is right, the dashed line predicts the mean. "
    )
    says = text + _level_words(facts) + facts.not_drawn()
    label = "Predicted against observed for {}, held out."
    return drawn_panels(figures, name="held", label=label, says=says)


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
