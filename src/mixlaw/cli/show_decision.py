"""What people see of forecasts and decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixlaw.cli.terminal import line, notes, table
from mixlaw.report.words import distance_words, over_words, regret_words, short_count

if TYPE_CHECKING:
    from mixlaw.optimize import Decision, Interval
    from mixlaw.optimize.pareto import ParetoFront
    from mixlaw.study.verification import Verification

MOST_TARGETS = 3
"""Whose changes are shown beside the objective's."""

WORTH_SAYING = 5e-5
"""A cost below this is none at the digits that are shown."""


def forecasts(names: Sequence[str], data: dict[str, Any]) -> None:
    """Forecasts of mixtures, as `mixlaw predict --json` has them."""
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


def decision(found: Decision) -> None:
    """The mixture, what is expected of it, and why it is this one."""
    others = {name: comparison.forecast for name, comparison in found.baselines.items()}
    everyone = {"recommended": found.forecast, **others}
    _shares({name: forecast.mixture for name, forecast in everyone.items()}, found)
    targets = {
        f"  {target} ({found.objective.shares.get(target, 0):.2g})": target
        for target in found.forecast.targets
    }
    rows = {"objective": [pair(f.objective) for f in everyone.values()]}
    rows |= {
        text: [pair(f.targets[target]) for f in everyone.values()]
        for text, target in targets.items()
    }
    title = scale_text(found.num_params, found.train_tokens, found.level)
    forecast_table("forecast (weight)", list(everyone), rows, title)
    _freedom(found)
    _other_scales(found)
    for name, comparison in found.baselines.items():
        line(
            f"{'better' if comparison.gain >= 0 else 'WORSE'} than {name} by "
            f"{abs(comparison.gain):.4f}; probability that it is better "
            f"{comparison.probability_better:.2f}"
        )
    _trust(found)
    for bound in found.active_bounds:
        line(str(bound))
    notes(found.warnings)


def _shares(mixtures: Mapping[str, Mapping[str, float]], found: Decision) -> None:
    """With the unguarded optimum beside the others, where it is another one."""
    if found.unguarded is not None and (found.guard_cost or 0) > WORTH_SAYING:
        mixtures = {**mixtures, "unguarded": found.unguarded}
    rows = [[d, *(f"{m.get(d, 0.0):.3f}" for m in mixtures.values())] for d in found.recommended]
    table(["share", *mixtures], rows)


def _trust(found: Decision) -> None:
    """How far from the best it may be, and how it was chosen."""
    if found.regret is not None:
        line(regret_words(found.regret))
    if found.gap is not None:
        line(f"certificate: no allowed mixture is predicted lower by more than {found.gap:.1e}")
    else:
        line(f"no certificate: the problem is not convex; starts agree within {found.spread:.1e}")
    if found.unguarded is not None:
        cost = found.guard_cost or 0.0
        text = "the support guard costs nothing"
        if cost > WORTH_SAYING:
            text = (
                f"the support guard costs {cost:.4f}: the unguarded mixture is predicted lower by "
                "that, which no run supports"
            )
        line(text)
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


def _freedom(found: Decision) -> None:
    """Where the mixture may move, and what one more point of a domain changes."""
    targets = found.objective.targets[:MOST_TARGETS]
    rows = []
    for domain, share in found.recommended.items():
        low, high = found.region.ranges[domain]
        changes = found.sensitivities[domain]
        rows.append([domain, f"{share:.3f}", f"{low:.3f} to {high:.3f}"])
        rows[-1] += [f"{changes.objective:+.5f}", *(f"{changes.targets[t]:+.5f}" for t in targets)]
    title = (
        f"nearly as good: objective within {found.region.tolerance:.2g}; one more point: what one "
        "more percentage point of a domain changes"
    )
    columns = ["domain", "recommended", "nearly as good", "one more point", *targets]
    table(columns, rows, title=title)


def _other_scales(found: Decision) -> None:
    """How the optimum moves with scale, and what the recommended mixture loses there."""
    if not found.scales:
        return
    names = [
        "recommended",
        *(
            " x ".join(short_count(n) for n in (s.num_params, s.train_tokens) if n)
            for s in found.scales
        ),
    ]
    mixtures = [found.recommended, *(scale.mixture for scale in found.scales)]
    rows = [[d, *(f"{m.get(d, 0.0):.3f}" for m in mixtures)] for d in found.recommended]
    lost = (max(0.0, scale.recommended - scale.objective) for scale in found.scales)
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
    table([*found.objectives, *domains], rows, title=title)


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
    parts = []
    if num_params is not None:
        parts.append(f"{num_params:,.0f} parameters")
    if train_tokens is not None:
        parts.append(f"{train_tokens:,.0f} tokens")
    return f"at {' and '.join(parts) or 'the scale of the runs'}, {level:.0%} intervals"
