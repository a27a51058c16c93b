"""The pictures of a decision: the mixture, what it promises, where it is free, what shares do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.errors import RunTableError, StudyError
from mixlaw.optimize.decision import Decision
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.plots.marks import (
    HOLLOW_STAR,
    SHARE,
    WIDTH,
    Key,
    add_legend,
    columns_on_top,
    draw_interval,
    draw_marks,
    draw_tiles,
    forecasts_of,
    mixture_keys,
    number_tiles,
    rows_down,
    targets_of,
)
from mixlaw.plots.style import GRID, MUTED, colour, mixture_look, new_figure, styled
from mixlaw.plots.words import listing, objective_unit, percent, short, target_names, unit_of
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.study.verification import RECOMMENDED, Verification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ABOVE = 6.0
"""A cap that is so many times the epochs of any domain no longer stands in the picture."""
MOST_NUMBERED = 14
"""Columns of tiles that have room for a number each."""


@styled
def mixture(decision: Decision, runs: RunTable | None = None) -> Figure:
    """A bar per domain for the recommended mixture, with a mark for each baseline.

    Args:
        runs: the trained ones, whose range is the thin line.
    Returns: the figure, the largest share on top.
    Raises: MissingExtraError: matplotlib is not installed. RunTableError: runs on other domains.
    """
    everyone = forecasts_of(decision)
    names = by_share(decision)
    if runs is not None and (strangers := [name for name in names if name not in runs.domains]):
        raise RunTableError(
            f"the runs have no weights of {strangers}, which the decision mixes; they have "
            f"{list(runs.domains)}: give the runs that the decision came from"
        )
    figure = new_figure(WIDTH, 70 + 34 * len(names))
    axes = figure.add_subplot()
    shares = decision.recommended.array(names)
    rows_down(axes, [f"{short(name)}  {percent(decision.recommended[name])}" for name in names])
    axes.barh(range(len(names)), 100 * shares, height=0.62, color=colour(RECOMMENDED), alpha=0.85)
    for name, look in mixture_look(list(decision.baselines)).items():
        baseline = everyone[name].mixture.array(names)
        draw_marks(axes, 100 * baseline, range(len(names)), look, markersize=8, markeredgewidth=1.2)
    if runs is not None:
        trained = 100 * runs.weights[:, [runs.domains.index(name) for name in names]]
        below = np.arange(len(names)) + 0.42
        least, most = trained.min(axis=0), trained.max(axis=0)
        axes.hlines(below, least, most, color=MUTED, linewidth=1.2)
    axes.set_xlim(left=0)
    axes.set_xlabel(SHARE)
    keys = [Key(RECOMMENDED, "bar", RECOMMENDED), *mixture_keys(list(decision.baselines))]
    if runs is not None:
        keys.append(Key("muted", "line", "range of the trained mixtures"))
    add_legend(figure, keys)
    return figure


def by_share(decision: Decision) -> list[str]:
    """The domains, the largest recommended share first."""
    return sorted(decision.recommended, key=lambda name: -decision.recommended[name])


@styled
def flat_region(decision: Decision) -> Figure:
    """The range of each share among mixtures that are predicted nearly as good.

    Returns: the figure; how good nearly is, is `decision.region.tolerance`.
    Raises: MissingExtraError: matplotlib is not installed.
    """
    names = by_share(decision)
    figure = new_figure(WIDTH, 70 + 30 * len(names))
    axes = figure.add_subplot()
    rows_down(axes, [short(name) for name in names])
    for row, name in enumerate(names):
        low, high = decision.region.ranges[name]
        axes.barh(row, 100 * (high - low), left=100 * low, height=0.5, color=MUTED, alpha=0.45)
        draw_marks(axes, 100 * decision.recommended[name], row, (RECOMMENDED, "circle"))
    axes.set_xlim(left=0)
    axes.set_xlabel(SHARE)
    near = Key("muted", "bar", "nearly as good")
    add_legend(figure, [near, Key(RECOMMENDED, "circle", RECOMMENDED)])
    return figure


@styled
def epochs(decision: Decision, max_epochs: float | Mapping[str, float] | None = None) -> Figure:
    """How often the target run reads each domain: bars; marks: under the baselines.

    Args:
        max_epochs: the study's cap, of all domains or by name; upright lines. One far above all
            that is read is told below, so that the rest can be seen.
    Returns: the figure, the most often read on top.
    Raises: MissingExtraError: matplotlib is not installed. StudyError: the decision knows no
        epochs, for want of tokens per domain or of the run.
    """
    found = decision.forecast.epochs
    if not found:
        raise StudyError(
            "the decision knows no epochs; give the study available_tokens per domain and the "
            "target's train_tokens"
        )
    names = sorted(found, key=lambda name: -found[name])
    figure = new_figure(WIDTH, 70 + 32 * len(names))
    axes = figure.add_subplot()
    rows_down(axes, [f"{short(name)}  {found[name]:.2g}" for name in names])
    bars = [found[name] for name in names]
    axes.barh(range(len(names)), bars, height=0.6, color=colour(RECOMMENDED), alpha=0.85)
    most_read = max(bars)
    for name, look in mixture_look(list(decision.baselines)).items():
        other = decision.baselines[name].forecast.epochs
        seen = [other.get(domain, np.nan) for domain in names]
        draw_marks(axes, seen, range(len(names)), look, markersize=8, markeredgewidth=1.2)
        most_read = max([most_read, *other.values()])
    caps = max_epochs if isinstance(max_epochs, Mapping) else dict.fromkeys(names, max_epochs)
    known = {name: cap for name in names if (cap := caps.get(name))}
    near = {name: cap for name, cap in known.items() if cap <= MOST_ABOVE * most_read}
    for name, cap in near.items():
        row = names.index(name)
        axes.vlines(cap, row - 0.45, row + 0.45, color=colour("rise"), linewidth=2.4)
    axes.set_xlim(left=0)
    label = "epochs (passes over a domain's tokens)"
    if far := sorted({cap for name, cap in known.items() if name not in near}):
        label += f"\nother caps, far to the right: {listing(f'{cap:g}' for cap in far)}"
    axes.set_xlabel(label if near else label.replace("other caps", "caps"))
    keys = [Key(RECOMMENDED, "bar", RECOMMENDED), *mixture_keys(list(decision.baselines))]
    add_legend(figure, [*keys, *([Key("rise", "line", "cap")] if near else [])])
    return figure


@styled
def sensitivities(decision: Decision) -> Figure:
    """How the objective's targets pull at each share: bars are what one more percentage point of a
    domain does to the objective through each target, the others giving in proportion; left of 0 is
    better. The diamond is their sum: 0 where the optimum is free, a price where a bound holds it.

    Returns: the figure, the largest share on top; up to five targets by name.
    Raises: MissingExtraError: matplotlib is not installed.
    """
    names, found = by_share(decision), pulls(decision)
    figure = new_figure(WIDTH, 100 + 34 * len(names))
    axes = figure.add_subplot()
    rows_down(axes, [short(name) for name in names])
    ends = np.zeros((2, len(names)))  # of the bars so far, left and right of 0
    for shade, changes in zip(PULL_SHADES, found.values(), strict=False):
        side = (changes > 0).astype(int)
        start = ends[side, np.arange(len(names))]
        axes.barh(range(len(names)), changes, left=start, height=0.6, color=colour(shade))
        ends[side, np.arange(len(names))] += changes
    net = [decision.sensitivities[name].objective for name in names]
    axes.axvline(0, color=MUTED, linewidth=1.2)
    draw_marks(axes, net, range(len(names)), ("ink", "diamond"))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(f"change per point of the mixture ({objective_unit(decision.objective)})")
    keys = [Key(shade, "bar", name) for shade, name in zip(PULL_SHADES, found, strict=False)]
    add_legend(figure, [*keys, Key("ink", "diamond", "sum")])
    return figure


PULL_SHADES = ("recommended", "natural", "other", "uniform", "size0", "muted")


def pulls(decision: Decision) -> dict[str, np.ndarray]:
    """Target in words -> (M,) what one more percentage point of each domain, in the order of
    `by_share`, does to the objective through it; the weakest targets together are "others".

    Empty for the worst of several terms, which no sum makes up.
    """
    targets, objective = list(decision.forecast.targets), decision.objective
    if not objective.linear:
        return {}
    weights = objective.terms(targets)[0][0]
    changes = [
        [decision.sensitivities[name].targets[target] for target in targets]
        for name in by_share(decision)
    ]
    parts = weights * np.array(changes)
    labels = target_names(list(objective.targets))
    ranked = sorted(labels, key=lambda target: -np.abs(parts[:, targets.index(target)]).max())
    most = len(PULL_SHADES) - 1
    kept = ranked if len(ranked) <= most else ranked[: most - 1]
    out = {labels[target]: parts[:, targets.index(target)] for target in kept}
    if rest := [targets.index(target) for target in ranked[len(kept) :]]:
        out[f"{len(rest)} others"] = parts[:, rest].sum(axis=1)
    return out


def change_per_point(
    decision: Decision, targets: Sequence[str], units: Mapping[str, float] | None = None
) -> np.ndarray:
    """(M, T) what one more percentage point of each domain changes each target by, in units of it;
    domains in the order of `by_share`, and a target without a finite unit is NaN.

    Args:
        units: target -> what counts as one; default: the half width of its interval.
    """
    given = units or {t: decision.forecast.targets[t].half_width for t in targets}
    size = np.array([given.get(target, np.nan) for target in targets], float)
    size[~(np.isfinite(size) & (size > 0))] = np.nan
    found = decision.sensitivities
    changes = [[found[name].targets[t] for t in targets] for name in by_share(decision)]
    return np.array(changes) / size


def improvement(targets: Sequence[str]) -> np.ndarray:
    """(T,) the sign of a change for the better: 1 for scores, -1 for losses."""
    return np.array([1.0 if higher_is_better(target) else -1.0 for target in targets])


@styled
def interactions(
    decision: Decision,
    targets: Sequence[str] | None = None,
    *,
    units: Mapping[str, float] | None = None,
    unit: str | None = None,
) -> Figure:
    """What one more percentage point of each domain does to each target, at the recommended
    mixture, the others giving in proportion. Blue: the target gets better.

    Args:
        targets: the columns; default: all.
        units: target -> what counts as one, for instance its seed noise; default: the half width
            of its interval.
        unit: the name of those units, which the figure tells below the tiles.
    Returns: the figure, numbers in the tiles of up to 14 columns.
    Raises: MissingExtraError: matplotlib is not installed. StudyError: a target that the decision
        does not forecast.
    """
    targets = targets_of(decision, targets)
    found = change_per_point(decision, targets, units)
    better = improvement(targets) * found
    rows, columns = found.shape
    labels = target_names(targets)
    unit = unit or ("those given" if units else f"the {decision.level:.0%} interval's half width")
    figure = new_figure(max(WIDTH, 190 + 46 * columns), 60 + 26 * rows + 100)
    axes = figure.add_subplot()
    rows_down(axes, [short(name) for name in by_share(decision)])
    most = float(np.nanmax(np.abs(found))) if np.isfinite(found).any() else 1.0
    # The root lets small effects be seen beside large ones.
    depths = np.sqrt(np.abs(found) / (most or 1.0))
    draw_tiles(axes, np.where(better > 0, depths, 0), "heat")
    draw_tiles(axes, np.where(better < 0, depths, 0), "rise")
    if columns <= MOST_NUMBERED:
        number_tiles(
            axes, {(i, j): tile_text(float(found[i, j])) for i, j in np.ndindex(rows, columns)}
        )
    narrow = columns <= 6 and max(len(name) for name in labels.values()) <= 8
    columns_on_top(axes, [short(labels[target], 18) for target in targets], narrow=narrow)
    axes.set_xlabel(f"change of a target per percentage point, in units of\n{unit}")
    add_legend(figure, [Key("heat", "bar", "better"), Key("rise", "bar", "worse")])
    return figure


def tile_text(number: float) -> str:
    """Two digits at most: "+.4", "−12", "0"."""
    if not np.isfinite(number):
        return "?"
    if abs(number) < 0.005:
        return "0"
    digits = 0 if abs(number) >= 9.95 else 1 if abs(number) >= 0.0995 else 2
    text = f"{number:+.{digits}f}".replace("-", "−")
    return text.replace("0.", ".") if abs(number) < 1 else text


@styled
def pareto(front: ParetoFront) -> Figure:
    """Each objective against the first, one panel a pair; a point is a mixture.

    Returns: the figure.
    Raises: MissingExtraError: matplotlib is not installed.
    """
    values = np.array(front.values)
    others = range(1, values.shape[1])
    figure = new_figure(WIDTH, 300 * len(others))
    for row, k in enumerate(others):
        axes = figure.add_subplot(len(others), 1, row + 1)
        order = np.argsort(values[:, 0])
        if len(others) == 1:
            axes.plot(values[order, 0], values[order, k], color=colour("recommended"))
        draw_marks(axes, values[:, 0], values[:, k], ("recommended", "circle"))
        axes.set_xlabel(f"{short(front.objectives[0])}, lower is better")
        axes.set_ylabel(short(front.objectives[k]))
    return figure


@styled
def forecasts(
    decision: Decision,
    targets: Sequence[str] | None = None,
    *,
    verification: Verification | None = None,
) -> Figure:
    """Prediction and interval of the objective and of targets, for each mixture.

    Args:
        targets: default: all.
        verification: what was observed when the mixtures were trained: hollow stars.
    Returns: the figure, a panel for each unit.
    Raises: MissingExtraError: matplotlib is not installed. StudyError: a target that the decision
        does not forecast.
    """
    targets = targets_of(decision, targets)
    panels: dict[str, list[str | None]] = {objective_unit(decision.objective): [None]}
    for target in targets:
        panels.setdefault(unit_of([target]), []).append(target)
    row = 20 * (1 + len(decision.baselines)) + 12
    figure = new_figure(WIDTH, 70 * len(panels) + row * (1 + len(targets)))
    heights = [len(rows) for rows in panels.values()]
    found = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (unit, rows) in zip(found[:, 0], panels.items(), strict=True):
        _forecast_panel(axes, decision, rows, verification)
        better = "" if "better" in unit else ", lower is better"
        axes.set_xlabel(unit + better)
    keys = mixture_keys([RECOMMENDED, *decision.baselines])
    if verification is not None:
        keys.append(Key("ink", "star", "observed when trained"))
    add_legend(figure, keys)
    return figure


def _forecast_panel(
    axes: Any, decision: Decision, rows: Sequence[str | None], verification: Verification | None
) -> None:
    """Rows of one unit; None is the objective."""
    everyone = forecasts_of(decision)
    looks, names = mixture_look(list(everyone)), target_names(list(decision.forecast.targets))
    rows_down(axes, [short(names[target], 18) if target else "objective" for target in rows])
    step = 0.8 / len(everyone)
    for k, (name, found) in enumerate(everyone.items()):
        seen = verification.mixtures.get(name) if verification else None
        for row, target in enumerate(rows):
            y = row + step * (k - (len(everyone) - 1) / 2)
            interval = found.targets[target] if target else found.objective
            draw_interval(axes, y, interval, looks[name])
            if seen is not None:
                measured = [seen.targets[target][1]] if target and target in seen.targets else []
                observed = measured if target else list(seen.observed)
                draw_marks(axes, observed, [y] * len(observed), ("ink", "star"), **HOLLOW_STAR)
    for row in range(1, len(rows)):
        axes.axhline(row - 0.5, color=GRID, linewidth=0.8)
