"""What the pictures of the evidence show, taken from runs and fits; nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixlaw.laws import FittedLaws
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.points import NUM_PARAMS, SAME_SCALE, TRAIN_TOKENS, scale_levels
from mixlaw.laws.splits import scale_ids
from mixlaw.laws.validation import CrossValidation
from mixlaw.optimize import Decision, Interval, Objective
from mixlaw.report.style import size_look
from mixlaw.report.words import objective_unit, short_count
from mixlaw.runs import RunTable
from mixlaw.study.verification import objective_values, seed_noise

MOST_MIXTURES = 40
MOST_CURVES = 5
MOST_HORIZONS = 12
CURVE_POINTS = 60


@dataclass(frozen=True, eq=False)
class Swarm:
    """The trained mixtures at one scale, best objective first.

    Attributes:
        weights: (m, M), labels and scores (objective by seed) aligned with it.
        left_out: mixtures that are not shown, evenly taken from the ranks between the ends.
    """

    domains: tuple[str, ...]
    labels: tuple[str, ...]
    weights: np.ndarray
    scores: tuple[tuple[float, ...], ...]
    left_out: int
    num_params: float | None
    train_tokens: float | None
    unit: str

    @property
    def means(self) -> np.ndarray:
        return np.array([np.mean(values) for values in self.scores])


def usable(runs: RunTable, objective: Objective) -> RunTable:
    """Finished runs of the swarm for which the objective was measured."""
    done = runs.done()
    done = done.select(done.role != "verify")
    return done.select(np.isfinite(objective_values(done, objective)))


def _known(counts: np.ndarray) -> float | None:
    return float(counts.max()) if np.isfinite(counts).all() else None


def swarm_at_largest_scale(runs: RunTable, objective: Objective) -> Swarm:
    """The mixtures at the largest scale that at least half as many as anywhere were trained at."""
    runs = usable(runs, objective)
    scales, ids = scale_ids(runs), runs.mixture_ids()
    how_many = np.array([len(set(ids[scales == s])) for s in range(scales.max() + 1)])
    chosen = int(np.flatnonzero(how_many >= how_many.max() / 2)[-1])
    here = runs.select(scales == chosen)
    scores, ids = objective_values(here, objective), here.mixture_ids()
    rows = [np.flatnonzero(ids == k) for k in np.unique(ids)]
    rows.sort(key=lambda at: float(scores[at].mean()))
    keep = np.linspace(0, len(rows) - 1, min(MOST_MIXTURES, len(rows))).round().astype(int)
    shown = [rows[k] for k in keep]
    return Swarm(
        domains=runs.domains,
        labels=tuple(str(here.label[at[0]]) for at in shown),
        weights=np.array([here.weights[at[0]] for at in shown]),
        scores=tuple(tuple(scores[at].tolist()) for at in shown),
        left_out=len(rows) - len(shown),
        num_params=_known(here.num_params),
        train_tokens=_known(here.train_tokens),
        unit=objective_unit(objective),
    )


@dataclass(frozen=True, eq=False)
class Centred:
    """Held-out predictions of one target less the observed mean of their scale.

    Attributes:
        predicted, observed: (m,); level: (m,) which size, 0 the smallest (0 when unknown).
    """

    predicted: np.ndarray
    observed: np.ndarray
    level: np.ndarray
    num_levels: int


def centred(validation: CrossValidation, law: str, split: str, target: str) -> Centred:
    """See `figures.held_out`."""
    t = validation.targets.index(target)
    predicted = validation.scores[law][split].predictions[:, t]
    observed = validation.values()[:, t]
    scales, levels = scale_ids(validation.runs), size_levels(validation.runs)
    held = np.isfinite(predicted) & np.isfinite(observed)
    means = np.zeros(len(observed))
    for scale in np.unique(scales[held]):
        at = held & (scales == scale)
        means[at] = observed[at].mean()
    return Centred(
        (predicted - means)[held], (observed - means)[held], levels[held], int(levels.max()) + 1
    )


def size_levels(runs: RunTable) -> np.ndarray:
    """(n,) which size each row has, 0 the smallest; all 0 where sizes are unknown."""
    return np.maximum(scale_levels(runs.num_params), 0)


@dataclass(frozen=True)
class Noise:
    """How much the objective differs between seeds.

    Attributes:
        deviation: pooled standard deviation of one run.
        where: the scale.
        at_target: False when it was measured at another scale than the target.
    """

    deviation: float
    where: tuple[float, float]
    at_target: bool


def noise_for(runs: RunTable, objective: Objective, decision: Decision) -> Noise | None:
    """Seed noise at the target scale, else at the largest scale with replicates."""
    done = runs.done()
    done = done.select(np.isfinite(objective_values(done, objective)))
    found = {
        scale: deviation
        for scale, deviation in seed_noise(done, objective).items()
        if np.isfinite(scale).all()
    }
    if not found:
        return None
    target = (decision.num_params or np.nan, decision.train_tokens or np.nan)
    where = target if target in found else max(found)
    return Noise(found[where], where, where == target)


@dataclass(frozen=True, eq=False)
class Line:
    """The law along one size.

    Attributes:
        size: parameters, where that is what tells the lines apart.
        points: (k, 4) x, lowest and highest trained mixture, and the nearest one (NaN if absent).
    """

    text: str
    look: tuple[str, str]
    size: float | None
    x: np.ndarray
    y: np.ndarray
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Curves:
    """Forecasts along the tokens, or along the sizes when tokens do not vary.

    Attributes:
        target: x and forecast of the recommended mixture at the target scale.
        nearest: label of the trained mixture nearest to the recommended one, and how far it is
            (half the summed differences of shares).
    """

    lines: tuple[Line, ...]
    target: tuple[float, Interval]
    ticks: tuple[float, ...]
    x_label: str
    unit: str
    nearest: tuple[str, float]


def curves_of(
    fitted: FittedLaws | LinkedLaws, decision: Decision, objective: Objective, runs: RunTable
) -> Curves | None:
    """None when the law reads no scale."""
    along = TRAIN_TOKENS if TRAIN_TOKENS in fitted.needs else NUM_PARAMS
    if along not in fitted.needs:
        return None
    runs = usable(runs, objective)
    shares = decision.recommended.array(runs.domains)
    distance = 0.5 * np.abs(runs.weights - shares).sum(axis=1)
    nearest = int(np.argmin(distance))
    is_nearest = runs.mixture_ids() == runs.mixture_ids()[nearest]
    target_x = getattr(decision, along)
    x_all = np.append(getattr(runs, along), target_x)
    grid = np.geomspace(x_all.min(), x_all.max(), CURVE_POINTS)
    levels = size_levels(runs) if along == TRAIN_TOKENS else np.zeros(len(runs), int)
    scores = objective_values(runs, objective)
    mixture = decision.recommended.array(fitted.domains)[None]
    lines, num_levels = [], int(levels.max()) + 1
    shown = np.linspace(0, num_levels - 1, min(MOST_CURVES, num_levels)).round().astype(int)
    for level in shown.tolist():
        at = levels == level
        size = _known(runs.num_params[at]) if along == TRAIN_TOKENS else None
        same_size = num_levels == 1 or _same(size, decision.num_params)
        trained = np.append(getattr(runs, along)[at], target_x if same_size else 0).max()
        line_x = grid[grid <= 1.0001 * trained]
        lines.append(
            Line(
                text=f"{short_count(size)} parameters" if size else "trained runs",
                look=size_look(level, num_levels),
                size=size,
                x=line_x,
                y=_along(fitted, mixture, objective, size, line_x, along),
                points=_ranges(getattr(runs, along), scores, at, is_nearest),
            )
        )
    sizes = [line.size for line in lines]
    beyond = along == TRAIN_TOKENS and NUM_PARAMS in fitted.needs
    if beyond and not any(_same(s, decision.num_params) for s in sizes):
        y = _along(fitted, mixture, objective, decision.num_params, grid, along)
        text = f"{short_count(decision.num_params or 0)} parameters (target)"
        look, none = ("recommended", "diamond"), np.zeros((0, 4))
        lines.append(Line(text, look, decision.num_params, grid, y, none))
    return Curves(
        lines=tuple(lines),
        target=(float(target_x), decision.forecast.objective),
        ticks=tuple(sorted({*_distinct(getattr(runs, along)), float(target_x)})),
        x_label="training tokens (log scale)"
        if along == TRAIN_TOKENS
        else "parameters (log scale)",
        unit=objective_unit(objective),
        nearest=(str(runs.label[nearest]), float(distance[nearest])),
    )


def _same(size: float | None, other: float | None) -> bool:
    return bool(size and other and abs(np.log(size / other)) < SAME_SCALE)


def _along(
    fitted: FittedLaws | LinkedLaws,
    mixture: np.ndarray,
    objective: Objective,
    size: float | None,
    x: np.ndarray,
    along: str,
) -> np.ndarray:
    """The predicted objective at each x."""
    scales = [(size, v) if along == TRAIN_TOKENS else (v, None) for v in x.tolist()]
    values = np.concatenate([fitted.predict(mixture, *scale) for scale in scales])
    return objective.values(values, fitted.targets)


def _distinct(counts: np.ndarray) -> list[float]:
    """The largest of each level of counts, thinned to a dozen."""
    levels = scale_levels(counts)
    values = [float(counts[levels == level].max()) for level in range(levels.max() + 1)]
    keep = np.linspace(0, len(values) - 1, min(MOST_HORIZONS, len(values))).round().astype(int)
    return [values[k] for k in keep]


def _ranges(
    counts: np.ndarray, scores: np.ndarray, at: np.ndarray, is_nearest: np.ndarray
) -> np.ndarray:
    """(k, 4) for the horizons of the rows `at`; see `Line`."""
    levels = scale_levels(counts)
    out = []
    for x in _distinct(counts[at]):
        rows = at & (levels == levels[np.argmin(np.abs(counts - x))])
        near = scores[rows & is_nearest]
        out.append(
            (x, scores[rows].min(), scores[rows].max(), near.mean() if len(near) else np.nan)
        )
    return np.array(out)
