"""What people see of forecasts and decisions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence, Set
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.cli.terminal import headed, line, notes, table
from mixlaw.plots.evidence import noise_for, usable
from mixlaw.report.next_steps import Known, next_steps
from mixlaw.report.verdict import (
    NOT_VERIFIED,
    guess_words,
    headline,
    level_words,
    other_scales,
)
from mixlaw.report.words import (
    against,
    distance_words,
    listing,
    number_of,
    objective_words,
    over_words,
    regret_words,
    scale_words,
    short_count,
)

if TYPE_CHECKING:
    from mixlaw.optimize import Decision, Interval
    from mixlaw.optimize.decision import AtOtherScale
    from mixlaw.optimize.pareto import ParetoFront
    from mixlaw.study import Study
    from mixlaw.study.verification import Verification

MOST_TARGETS = 3
"""Whose changes are shown beside the objective's."""

MOST_HEADING = 12
"""Characters of a mixture's name that may head a column beside others."""

MOST_STEPS = 3
"""The first of these are told, where no command does them."""

MOST_SURE = 0.99
"""Beyond it no number is said."""

WORTH_SAYING = 5e-5
"""A cost below this is none at the digits that are shown."""


def forecasts(names: Sequence[str], data: dict[str, Any]) -> None:
    """Forecasts of mixtures, as `mixlaw predict --json` has them; several whose names are their
    shares by letters, which are explained above."""
    if len(names) > 1 and max(map(len, names)) > MOST_HEADING:
        letters = [ascii_uppercase[k] if k < 26 else str(k + 1) for k in range(len(names))]
        for letter, name in zip(letters, names, strict=True):
            line(f"{letter}: {name}")
        names = letters
    found = [forecast["targets"] for forecast in data["forecasts"]]
    rows = {
        target: [(f[target]["value"], f[target]["half_width"]) for f in found]
        for target in found[0]
    }
    forecast_table("target", names, rows, scale_text(**data["scale"], level=data["level"]))
    for name, forecast in zip(names, data["forecasts"], strict=True):
        if forecast["extrapolates"]:
            outside = "; ".join(forecast["extrapolates"])
            notes([f"{name} lies outside the trained range ({outside}): a guess"])


def forecast_table(
    first: str, names: Sequence[str], rows: Mapping[str, Sequence[tuple[float, float]]], title: str
) -> None:
    """Values of mixtures with the half width of their intervals last: one, or from least to most
    where those of the mixtures differ."""
    out = []
    for target, found in rows.items():
        widths = sorted({f"{width:.4f}" for _, width in found}, key=float)
        ends = widths if len(widths) == 1 else (widths[0], widths[-1])
        out.append([target, *(f"{value:z.4f}" for value, _ in found), "-".join(ends)])
    table([first, *names, "±"], out, title=title)


def optimized(study: Study, found: Decision, *, everything: bool = False) -> None:
    """The mixture to train, in words; then what is expected of it, and why it is this one."""
    needs = study.forecaster().needs
    _answer(study, found, needs)
    _details(found, other_scales(needs, found), everything=everything)


def _details(found: Decision, scales: Sequence[AtOtherScale], *, everything: bool) -> None:
    """Shares and forecasts; everything: also what moves them, other scales, the certificate."""
    others = {name: comparison.forecast for name, comparison in found.baselines.items()}
    everyone = {"recommended": found.forecast, **others}
    _shares({name: forecast.mixture for name, forecast in everyone.items()}, found)
    weights = found.objective.shares
    targets = [t for t in found.forecast.targets if everything or weights.get(t, 0)]
    rows = {"objective": [pair(f.objective) for f in everyone.values()]}
    rows |= {
        f"  {target} ({weights.get(target, 0):.2g})": [
            pair(f.targets[target]) for f in everyone.values()
        ]
        for target in targets
    }
    title = scale_text(found.num_params, found.train_tokens, found.level)
    forecast_table("forecast (weight)", list(everyone), rows, f"\n{title}")
    if everything:
        _sensitivities(found)
        _other_scales(found, scales)
        _trust(found)
        return
    left = len(found.forecast.targets) - len(targets)
    more = f"{number_of(left, 'more target')}, " if left else ""
    line(f"--all: {more}what each domain changes, other scales, how the optimum was found")


def _answer(study: Study, found: Decision, needs: Set[str]) -> None:
    """What a person needs who reads no further; needs: what the law reads."""
    runs = study.runs().static()
    level = level_words(needs, usable(runs, found.objective), found)
    expected = found.forecast.objective
    width = f"{expected.half_width:.3f}" if np.isfinite(expected.half_width) else "unknown"
    points = {
        "gain": [
            f"{against(comparison.gain, name)}, {_sure(comparison.probability_better)} that it is "
            f"lower{guess_words(comparison)}"
            for name, comparison in found.baselines.items()
        ],
        "forecast": [
            f"{expected.value:.3f} ± {width} ({found.level:.0%} interval), "
            f"{objective_words(found.objective)}, at "
            f"{scale_words(found.num_params, found.train_tokens)}"
        ],
        "how sure": [regret_words(found.regret)] if found.regret is not None else [],
        "limited by": [str(bound) for bound in found.active_bounds],
        "mind": [
            *([f"{level[0].lower()}{level[1:-1]}"] if level else []),
            *dict.fromkeys(found.warnings),
        ],
    }
    if (found.guard_cost or 0) > WORTH_SAYING:
        points["limited by"].append(_guard_words(found))
    seen = study.verification()
    points["how sure"].append(NOT_VERIFIED)
    if seen is not None:
        gains = [against(gain.mean, name) for name, gain in seen.gains.items()]
        points["how sure"][-1] = f"trained at that scale it was {listing(gains)}"
    head = headline(found, seen, noise_for(runs, found.objective, found))
    steps = next_steps(Known(study, found, runs, head.mood, str(study.home)))
    points["to do"] = [step.text for step in steps[:MOST_STEPS] if not step.command]
    following = {step.command: step.gives for step in steps if step.command}
    following[shlex.join(["mixlaw", "report", str(study.home)])] = "evidence, other mixtures"
    text = f"{head.verb} {head.mixture}."
    headed(text, {word: said for word, said in points.items() if said}, following)


def _sure(probability: float) -> str:
    """ "95% sure"; a normal tail is never believed to the last digit."""
    if probability > MOST_SURE:
        return f"more than {MOST_SURE:.0%} sure"
    if probability < 1 - MOST_SURE:
        return f"less than {1 - MOST_SURE:.0%} sure"
    return f"{probability:.0%} sure"


def _shares(mixtures: Mapping[str, Mapping[str, float]], found: Decision) -> None:
    """With what is nearly as good, and the unguarded optimum where it is another one."""
    if found.unguarded is not None and (found.guard_cost or 0) > WORTH_SAYING:
        mixtures = {**mixtures, "unguarded": found.unguarded}
    rows = []
    for domain in found.recommended:
        low, high = found.region.ranges[domain]
        shares = (f"{mixture.get(domain, 0.0):.3f}" for mixture in mixtures.values())
        rows.append([domain, *shares, f"{low:.3f} to {high:.3f}"])
    title = f"shares; nearly as good: the objective rises by {found.region.tolerance:.2g} at most"
    table(["share", *mixtures, "nearly as good"], rows, title=title)


def _trust(found: Decision) -> None:
    """How it was found."""
    if found.gap is not None:
        line(f"certificate: no allowed mixture is predicted lower by more than {found.gap:.1e}")
    else:
        line(f"no certificate: the problem is not convex; starts agree within {found.spread:.1e}")
    if found.unguarded is not None:
        costs = (found.guard_cost or 0) > WORTH_SAYING
        line(_guard_words(found) if costs else "the support guard costs nothing")
    if found.distance is not None:
        line(distance_words(found.distance))
    if (robust := found.robust) is not None:
        line(
            f"chosen for {over_words(robust.over)} of {robust.num_draws} refits to resampled "
            f"mixtures, here {robust.value:.4f}; the one fit to all runs would choose "
            + ", ".join(f"{domain} {share:.3f}" for domain, share in robust.single.items())
        )
    if found.rounding_cost is not None:
        line(f"rounding the shares costs {found.rounding_cost:.2g}")


def _guard_words(found: Decision) -> str:
    return (
        f"the support guard costs {found.guard_cost or 0:.4f}: the unguarded mixture is predicted "
        "lower by that, which no run supports"
    )


def _sensitivities(found: Decision) -> None:
    """What one more point of a domain changes."""
    targets = found.objective.targets[:MOST_TARGETS]
    rows = []
    for domain, share in found.recommended.items():
        changes = found.sensitivities[domain]
        rows.append([domain, f"{share:.3f}", f"{changes.objective:+.5f}"])
        rows[-1] += [f"{changes.targets[t]:+.5f}" for t in targets]
    title = "what one more percentage point of a domain changes"
    table(["domain", "recommended", "objective", *targets], rows, title=title)


def _other_scales(found: Decision, scales: Sequence[AtOtherScale]) -> None:
    """How the optimum moves with scale, and what the recommended mixture loses there."""
    if not scales:
        return
    names = [
        "recommended",
        *(" x ".join(short_count(n) for n in (s.num_params, s.train_tokens) if n) for s in scales),
    ]
    mixtures = [found.recommended, *(scale.mixture for scale in scales)]
    rows = [[d, *(f"{m.get(d, 0.0):.3f}" for m in mixtures)] for d in found.recommended]
    lost = (max(0.0, scale.recommended - scale.objective) for scale in scales)
    rows.append(["recommended loses", "-", *(f"{cost:.4f}" for cost in lost)])
    table(["share", *names], rows, title="the optimum at other scales (parameters x tokens)")


def front(found: ParetoFront) -> None:
    """The Pareto front, one mixture a row."""
    domains = list(found.mixtures[0])
    rows = [
        [*(f"{value:.4f}" for value in values), *(f"{mixture[d]:.3f}" for d in domains)]
        for values, mixture in zip(found.values, found.mixtures, strict=True)
    ]
    title = "no mixture is better in all objectives than one of these"
    table([*found.objectives, *(f"share of {domain}" for domain in domains)], rows, title=title)


def verification(found: Verification) -> None:
    """Predicted against observed at the target scale."""
    observed(found)
    for name, gain in found.gains.items():
        text = f"against {name}: gain {gain.mean:.4f} observed, {gain.predicted:.4f} predicted; "
        if gain.tokens_share is None:
            text += "never as good"
        else:
            most = "at most " if gain.tokens_share_is_bound else ""
            text += (
                f"its final objective was reached with {most}{gain.tokens_share:.0%} of its tokens"
            )
        line(text)


def observed(found: Verification) -> None:
    """What was predicted of each mixture, and what its runs showed."""
    rows = [
        [
            name,
            f"{verified.predicted.value:.4f} ± {verified.predicted.half_width:.4f}",
            f"{verified.mean:.4f}",
            ", ".join(f"{value:.4f}" for value in verified.observed),
            "yes" if verified.inside else "NO",
        ]
        for name, verified in found.mixtures.items()
    ]
    table(["mixture", "predicted", "observed", "by seed", "in the interval"], rows)
    for failed in found.failed:
        line(f"diverged and left out: {failed}")


def pair(interval: Interval) -> tuple[float, float]:
    """As a cell of `forecast_table`."""
    return interval.value, interval.half_width


def scale_text(num_params: float | None, train_tokens: float | None, level: float) -> str:
    """Over a table of forecasts: where they are, and their level."""
    return f"at {scale_words(num_params, train_tokens)}, {level:.0%} intervals"
