"""What people see of a fit: how far to trust it, then how every law and target did."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.cli.show import left_out
from mixlaw.cli.terminal import headed, heading, line, marked, notes, table
from mixlaw.errors import StudyError
from mixlaw.laws.noise import Noise, measured_noise
from mixlaw.report.words import correlation, listing, number_of, percent, scale_words, unit_of

if TYPE_CHECKING:
    from mixlaw.laws import CrossValidation, FittedLaws
    from mixlaw.laws.scoring import Scores
    from mixlaw.study import Study

SPLITS = {"scale": "new scale", "mixture": "new mixtures"}
HELD_OUT = {"scale": "a new scale", "mixture": "new mixtures"}
MOST_COMPARED, MOST_LAWS, MOST_TARGETS = 3, 6, 15
MOST_WEAK = 4

WORDS = {0.3: "well", 0.5: "fairly well", 0.8: "poorly", 1.0: "hardly better than the mean would"}
"""Most of the error of predicting the mean -> what to call it."""
USELESS = "no better than the mean would"
WEAK = 0.5
"""A target whose error is a larger share of the mean's is named."""


def fit(study: Study, *, everything: bool = False) -> None:
    """How well the chosen law predicts, every candidate on held-out runs, and what to read."""
    fitted, findings = study.fit(), study.diagnose()
    validation, half_widths = fitted.cross_validation, study.half_widths()
    _answer(study, fitted, half_widths, num_findings=len(findings))
    _candidates(validation, fitted.law, MOST_LAWS if not everything else None)
    noise = measured_noise(validation.runs)
    most = None if everything else MOST_TARGETS
    _by_target(fitted, half_widths, noise, level=study.config.fit.level, most=most)
    if everything and fitted.at_largest is not None:
        best = list(fitted.at_largest.ranking().items())[:MOST_COMPARED]
        found = ", ".join(f"{name} {error:.3f}" for name, error in best)
        line(f"for comparison, laws of the mixture alone at the largest scale: {found}")
    if everything:
        for name, reasons in validation.refused.items():
            for reason in dict.fromkeys(reasons.values()):
                line(f"refused {name}: {reason}")
    left_out(study)
    if findings:
        heading("\nRead this")
    for found in findings:
        marked(found.kind, found.text)
    told = {found.text for found in findings}
    notes([text for text in fitted.warnings if text not in told])


def _answer(
    study: Study,
    fitted: FittedLaws,
    half_widths: Mapping[str, tuple[float, float]],
    *,
    num_findings: int,
) -> None:
    """What a person needs who reads no further."""
    validation = fitted.cross_validation
    scores = validation.scores[fitted.law]
    deciding = validation.deciding_split
    ratio = _of_mean(scores[deciding])
    word = next((text for most, text in WORDS.items() if ratio <= most), USELESS)
    runs, unit = validation.runs, unit_of(fitted.targets)
    mixtures = number_of(len(np.unique(runs.mixture_ids())), "mixture")
    points = {
        "learned from": [
            f"{mixtures} of {number_of(len(runs.domains), 'domain')}, {number_of(len(runs), 'row')}"
            f", {number_of(len(fitted.targets), 'target')}"
        ]
    }
    for split in ("mixture", "scale"):
        if split in scores:
            points[SPLITS[split]] = [
                f"off by {scores[split].mae.mean():.4f}, {percent(_of_mean(scores[split]))} of the "
                f"{scores[split].mae_of_mean.mean():.4f} that predicting the mean is off by "
                f"({unit}); rank correlation {correlation(scores[split].spearman.mean())} (1 is "
                "perfect)"
            ]
    points["at the target"] = [_widths(study, half_widths)]
    points["weak on"] = [_weak(fitted.targets, scores[deciding], f"on {HELD_OUT[deciding]}")]
    if num_findings:
        points["first read"] = [f"{number_of(num_findings, 'finding')}, at the end"]
    name = shlex.quote(str(study.home))
    following = {f"mixlaw optimize {name}": "the mixture to train"}
    if ratio > max(WORDS):
        following = {f"mixlaw design {name} --next 8": "more runs, for a law that predicts"}
    text = f"The law {fitted.law} predicts runs that it has not seen {word}: on "
    text += f"{HELD_OUT[deciding]} its error is {percent(ratio)} of that of predicting the mean."
    headed(text, points, following)


def _of_mean(scores: Scores) -> float:
    """The law's error as a share of that of predicting the mean, both over all targets."""
    return float(scores.mae.mean() / scores.mae_of_mean.mean())


def _widths(study: Study, half_widths: Mapping[str, tuple[float, float]]) -> str:
    """How wide intervals are where the decision is made."""
    try:
        where = scale_words(**vars(study.scale))
    except StudyError:  # a fit may leave it open
        where = scale_words(None, None)
    found = sorted(width for _, width in half_widths.values())
    level = f"{study.config.fit.level:.0%} intervals"
    if not np.isfinite(found[-1]):
        return f"{where}: the runs cannot tell how wide {level} are there"
    if len(found) == 1:
        return f"{where}: {level} of ±{found[0]:.4f}"
    return f"{where}: {level} of ±{found[0]:.4f} to ±{found[-1]:.4f}, by target"


def _weak(targets: Sequence[str], scores: Scores, where: str) -> str:
    """Targets that the law predicts badly, worst first."""
    ratio = (scores.mae / scores.mae_of_mean).tolist()
    order = sorted(range(len(ratio)), key=lambda t: -ratio[t])
    weak = [f"{targets[t]} ({percent(ratio[t])})" for t in order if ratio[t] > WEAK]
    if weak:
        return f"{listing(weak, MOST_WEAK)}, in brackets the share of the mean's error {where}"
    worst = order[0]
    if len(targets) == 1:
        return f"no target; {targets[0]} is off by {percent(ratio[0])} of the mean's error {where}"
    return (
        f"no target; the worst is {targets[worst]}, {percent(ratio[worst])} of the mean's error "
        f"{where}"
    )


def _candidates(validation: CrossValidation, chosen: str, most: int | None) -> None:
    """The laws side by side, best first; the chosen one also where it is not among them."""
    splits = [split for split in SPLITS if split in validation.splits]
    deciding = validation.deciding_split
    rows = []
    ranked = list(validation.ranking())
    names = [*ranked, *(name for name in validation.refused if name not in ranked)]
    shown = [name for k, name in enumerate(names) if most is None or k < most or name == chosen]
    for name in shown:
        row = [("* " if name == chosen else "  ") + name]
        for split in splits:
            scores = validation.scores.get(name, {}).get(split)
            if scores is None:
                row += ["refused", ""]
            else:
                row += [_short(scores.normalised_error.mean()), f"{scores.spearman.mean():.3f}"]
        scores = validation.scores.get(name, {}).get(deciding)
        row.append("" if scores is None else _short(scores.mae.mean(), 4))
        rows.append(row)
    columns = [text for split in splits for text in (SPLITS[split], "rank corr.")]
    of_mean = validation.scores[chosen][deciding].mae_of_mean.mean()
    table(["law (* chosen)", *columns, "abs. error"], rows, title="squared error, held out")
    decides = f"; {SPLITS[deciding]} decide" + ("s" if deciding == "scale" else "")
    line(
        "squared error: as a share of that of predicting the mean, over targets (0 perfect, 1 "
        f"useless){decides if len(splits) > 1 else ''}; the mean's abs. error is {of_mean:.4f}"
    )
    if len(shown) < len(names) or (validation.refused and most is not None):
        line(f"{len(names)} laws were tried; --all shows each, and why one was refused")


def _by_target(
    fitted: FittedLaws,
    half_widths: Mapping[str, tuple[float, float]],
    noise: Noise,
    *,
    level: float,
    most: int | None,
) -> None:
    """The chosen law, worst targets first where they are many."""
    validation = fitted.cross_validation
    scores = validation.scores[fitted.law]["mixture"]
    ratio = scores.mae / scores.mae_of_mean
    overall = dict(zip(noise.targets, noise.overall.tolist(), strict=True))
    order = range(len(ratio))
    if most is not None and len(ratio) > most:
        order = sorted(order, key=lambda t: -ratio[t])[:most]
    far = any(near != target for near, target in half_widths.values())
    rows = []
    for t in order:
        target = fitted.targets[t]
        near, at_target = half_widths[target]
        row = [target, f"{scores.mae[t]:.4f}", f"{scores.mae_of_mean[t]:.4f}", f"{ratio[t]:.2f}"]
        row += [f"{scores.spearman[t]:.3f}", f"± {near:.4f}"]
        row += [f"± {at_target:.4f}"] if far else []
        known = overall[target] == overall[target]
        rows.append([*row, f"{overall[target]:.4f}" if known else "-"])
    columns = ["target", "abs. error", "the mean's", "ratio", "rank corr.", f"{level:.0%} here"]
    columns += ["at target", "seed noise"] if far else ["seed noise"]
    table(columns, rows, title=f"\n{fitted.law}: new mixtures at the trained scales")
    if len(order) < len(ratio):
        line(f"the {len(order)} worst of {len(ratio)} targets; --all shows the others")


def _short(number: float, digits: int = 3) -> str:
    return f"{number:.{digits}f}" if number < 1000 else f"{number:.1e}"
