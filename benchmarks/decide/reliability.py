"""Whether mixlaw knows how sure it is: probabilities against frequencies, bounds against regrets.

Events: "mixture a is better than mixture b", a being the one forecast lower, for held-out runs a
and b; b any run, or a the run chosen and b any run, the one nearest to uniform, or to natural.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.decide.regret import (
    Draw,
    Question,
    across_scales,
    default_fit,
    from_swarm,
    objectives,
    questions,
)
from benchmarks.decide.search import SLIMPAJAMA, prior_mixture
from benchmarks.laws import tables
from benchmarks.laws.common import LEVEL, Settings, report
from benchmarks.laws.scales import SIZES
from benchmarks.table import markdown
from mixlaw.laws import FittedLaws
from mixlaw.laws.regret import RegretBound, probability_better, regret_bound

MOST_RUNS = 128
NUM_PAIRS = 120
MOST_OBJECTIVES = 6
"""Of each kind: single targets and subsets."""

EDGES = np.linspace(0.5, 1, 11)
PAIRS, CHOSEN = "any two", "chosen and another"
GAP, PAIR = "by the gap alone", "by the two mixtures"
"""A plain rule, `chance_by_gap`, and mixlaw's, `regret.probability_better`."""

ABOUT = f"""Fits of {{seeds}} draws; objectives: the mean of the targets, single targets and means
of random subsets. `{GAP}`: the share of pairs of held-out mixtures whose residuals differ by less,
as if errors did not depend on the mixtures; `{PAIR}`: `mixlaw.laws.regret.probability_better`.
Calibration error: mean of |probability - frequency| over
ten bins, by their counts. Log score: mean log probability of what happened (log .5 = -.693 knows
nothing).
"""

BOUND_ABOUT = f"""Regret of the run forecast lowest among the held-out runs, as a share of (median -
best); `expected` and `bound` are `regret_bound`'s, `within` the share of decisions (draws x
objectives) whose regret is at most the bound of level {LEVEL:g}."""


def chance_by_gap(
    fitted: FittedLaws,
    gap: float,
    coefficients: np.ndarray,
    num_params: float | None,
    train_tokens: float | None,
) -> float:
    """Probability that a mixture predicted lower by `gap` is, when errors are independent of the
    mixtures: differences of held-out residuals, shrunk towards 1/2 as if by one more mixture."""
    held_out = fitted.beyond or fitted.within
    residual, _ = held_out.of_objective(coefficients)
    gap /= held_out.widening(num_params, train_tokens)
    m = len(residual)
    difference = (residual[:, None] - residual)[~np.eye(m, dtype=bool)]
    share = (np.sum(difference < gap) + 0.5 * np.sum(difference == gap)) / len(difference)
    return float((share * m + 0.5) / (m + 1))


@dataclass
class Events:
    """Forecast probabilities of events, and whether they happened."""

    probability: list[np.ndarray] = field(default_factory=list)
    happened: list[np.ndarray] = field(default_factory=list)

    def add(self, probability: np.ndarray, happened: np.ndarray) -> None:
        self.probability.append(np.asarray(probability, float))
        self.happened.append(np.asarray(happened, float))

    def bins(self) -> list[tuple[float, float, int]]:
        """Of each bin: mean probability, frequency, count; NaN where it is empty."""
        p, y = np.concatenate(self.probability), np.concatenate(self.happened)
        which = np.clip(np.searchsorted(EDGES, p, side="right") - 1, 0, len(EDGES) - 2)
        out = []
        for k in range(len(EDGES) - 1):
            at = which == k
            count = int(at.sum())
            means = (float(p[at].mean()), float(y[at].mean())) if count else (np.nan, np.nan)
            out.append((*means, count))
        return out

    def calibration_error(self) -> float:
        found = [(abs(p - y), count) for p, y, count in self.bins() if count]
        return sum(e * n for e, n in found) / sum(n for _, n in found)

    def log_score(self) -> float:
        p, y = np.concatenate(self.probability), np.concatenate(self.happened)
        return float(np.mean(np.log(np.where(y > 0, p, 1 - p))))


def cases(settings: Settings) -> dict[str, Question]:
    tasks, scales = tables.slimpajama_tasks(), tables.slimpajama_scales()
    prior = prior_mixture(SLIMPAJAMA, scales.domains)
    center = tasks.runs.weights.mean(axis=0)
    counts = settings.few((40,))
    return {
        **questions(settings),
        "dmsl_slimpajama, up to 310M to 680M": across_scales(scales, counts, prior, SIZES["680M"]),
        "slimpajama_tasks": from_swarm(
            "slimpajama_tasks", tasks, settings.few((24, 32, 64)), center
        ),
    }


def pairs_of(
    scores: np.ndarray, weights: np.ndarray, prior: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Kind of event -> indices (2, k) of runs, the one forecast lower first."""
    n = len(scores)
    drawn = rng.integers(0, n, (2, NUM_PAIRS))
    drawn = drawn[:, scores[drawn[0]] != scores[drawn[1]]]
    first = np.where(scores[drawn[0]] < scores[drawn[1]], *drawn)
    best = int(np.argmin(scores))
    landmarks = [np.full(len(prior), 1 / len(prior)), prior]
    near = [int(np.argmin(np.linalg.norm(weights - mark, axis=1))) for mark in landmarks]
    others = np.concatenate([rng.integers(0, n, NUM_PAIRS // 4), near])
    others = others[scores[others] != scores[best]]
    return {
        PAIRS: np.stack([first, drawn.sum(axis=0) - first]),
        CHOSEN: np.stack([np.full(len(others), best), others]),
    }


def asked(num_targets: int) -> Iterator[np.ndarray]:
    """Objectives (T,): the mean and some of each other kind."""
    for coefficients in objectives(num_targets).values():
        spread = np.linspace(0, len(coefficients) - 1, min(len(coefficients), MOST_OBJECTIVES))
        yield from coefficients[spread.astype(int)]


@dataclass
class Record:
    """What one table and number of runs gave.

    Attributes:
        events: (kind of event, method) -> events.
        bounds: (true regret, bound, spread) of every decision, in the unit of the targets.
    """

    events: dict[tuple[str, str], Events] = field(default_factory=dict)
    bounds: list[tuple[float, RegretBound, float]] = field(default_factory=list)

    def look(self, fitted: FittedLaws, draw: Draw, prior: np.ndarray, seed: int) -> None:
        """Add the events and bounds of one fit."""
        rng, test = np.random.default_rng(seed), draw.test
        predicted = fitted.predict(test.weights, *draw.scale)
        for c in asked(len(test.targets)):
            truth, scores = test.values @ c, predicted @ c
            better = probability_better(fitted, c, test.weights, *draw.scale)
            for kind, (a, b) in pairs_of(scores, test.weights, prior, rng).items():
                by_gap = [
                    chance_by_gap(fitted, gap, c, *draw.scale) for gap in scores[b] - scores[a]
                ]
                for method, p in ((GAP, by_gap), (PAIR, better[a, b])):
                    events = self.events.setdefault((kind, method), Events())
                    events.add(np.array(p), truth[a] < truth[b])
            best = int(np.argmin(scores))
            num_params, train_tokens = draw.scale
            bound = regret_bound(
                fitted,
                c,
                chosen=test.weights[best],
                candidates=test.weights,
                num_params=num_params,
                train_tokens=train_tokens,
                level=LEVEL,
                seed=seed,
            )
            spread = float(np.median(truth) - truth.min())
            self.bounds.append((float(truth[best] - truth.min()), bound, spread))


def summary(records: dict[tuple[str, int], Record]) -> str:
    """Calibration error and log score of every table, number of runs and kind of event."""
    columns = ["table", "runs", "events"]
    columns += [f"{what} {m}" for m in (GAP, PAIR) for what in ("calibration error", "log score")]
    lines = []
    for (name, num_runs), record in records.items():
        for kind in (PAIRS, CHOSEN):
            figures = []
            for method in (GAP, PAIR):
                events = record.events[kind, method]
                figures += [f"{events.calibration_error():.3f}", f"{events.log_score():.3f}"]
            lines.append([name, num_runs, kind, *figures])
    return markdown(columns, lines)


def curve(records: Sequence[Record]) -> str:
    """The bins of all events of a table."""
    columns = ["bin"]
    found = []
    for method in (GAP, PAIR):
        merged = Events()
        for record in records:
            for kind in (PAIRS, CHOSEN):
                events = record.events[kind, method]
                merged.probability += events.probability
                merged.happened += events.happened
        columns += [f"{method}: probability", "frequency", "count"]
        found.append(merged.bins())
    lines = [
        [
            f"{low:.2f} to {high:.2f}",
            *(f"{v:.3f}" if i < 2 else v for one in row for i, v in enumerate(one)),
        ]
        for low, high, *row in zip(EDGES[:-1], EDGES[1:], *found, strict=True)
    ]
    return markdown(columns, lines)


def bound_table(records: dict[tuple[str, int], Record]) -> str:
    """Bounds beside true regrets, of every table and number of runs."""
    lines = []
    for (name, num_runs), record in records.items():
        true, expected, bound = (
            np.array(values)
            for values in zip(
                *((t / s, b.expected / s, b.bound / s) for t, b, s in record.bounds), strict=True
            )
        )
        figures = [true.mean(), np.quantile(true, LEVEL), expected.mean(), bound.mean()]
        lines.append([name, num_runs, *(f"{v:.3f}" for v in (*figures, np.mean(true <= bound)))])
    columns = ["table", "runs", "true regret", "its .9 quantile", "expected", "bound", "within"]
    return markdown(columns, lines)


def reliability(settings: Settings) -> None:
    """All tables: calibration, bounds, curves."""
    records: dict[tuple[str, int], Record] = {}
    for name, question in cases(settings).items():
        for num_runs in (count for count in question.counts if count <= MOST_RUNS):
            record = records[name, num_runs] = Record()
            for seed, draw in enumerate(question.draws(num_runs, settings)):
                record.look(default_fit(draw), draw, question.prior, seed)
    parts: list[str] = [ABOUT.format(seeds=settings.seeds), summary(records)]
    parts += ["## Bounds on the regret", BOUND_ABOUT, bound_table(records)]
    for name in dict.fromkeys(name for name, _ in records):
        of_table = [record for (table, _), record in records.items() if table == name]
        parts += [f"## {name}, all events", curve(of_table)]
    body = "\n\n".join(parts)
    report(settings, "reliability", "Reliability of decisions", body, group="decide")
