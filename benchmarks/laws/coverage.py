"""How often the nominal 90 % intervals of the default fit hold what they promise.

At one scale: runs that were not fitted. Across scales: runs of a larger size, both of mixtures that
smaller sizes were trained on and of new ones. A promise kept reads .87 to .95.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.laws import tables
from benchmarks.laws.common import LEVEL, Settings, first_targets, intervals, report
from benchmarks.laws.scales import SIZES, WARM_UP
from benchmarks.laws.tables import Swarm
from benchmarks.table import markdown
from mixlaw.errors import MixlawError
from mixlaw.laws import Points, fit_laws
from mixlaw.runs import RunTable

COLUMNS = ("table", "runs", "targets", "worst target", "objective", "width / sd")


def covered(train: RunTable, test: RunTable) -> tuple[np.ndarray, float, float]:
    """Coverage of the intervals of a fit to `train` on the rows of `test`.

    Returns: per target (T,); of the mean of the targets; half width of the targets' intervals
        over the standard deviation of what they cover, mean over targets (an interval that is
        always right because it is endless would show here).
    """
    fitted = fit_laws(train)
    points, num_targets = Points.of(test), len(test.targets)
    observed = test.values
    coefficients = [*np.eye(num_targets), np.full(num_targets, 1 / num_targets)]
    found, widths = [], []
    for c in coefficients:
        low, high = intervals(fitted, points, c)
        y = np.where(c != 0, observed, 0) @ c  # a target that is not asked for may be missing
        known = np.isfinite(y)
        found.append(np.mean((low <= y)[known] & (y <= high)[known]))
        widths.append(np.mean(high - low) / 2 / np.std(y[known]))
    return np.array(found[:-1]), float(found[-1]), float(np.mean(widths[:-1]))


def row(name: str, num_runs: str, pairs: Sequence[tuple[RunTable, RunTable]]) -> list[str]:
    """One line of the table: coverage over all (train, test) pairs, one a seed."""
    try:
        found = [covered(train, test) for train, test in pairs]
    except MixlawError as error:
        return [name, num_runs, f"refused: {error}", "", "", ""]
    targets = np.mean([each for each, _, _ in found], axis=0)
    objective = [each for _, each, _ in found]
    width = np.mean([each for _, _, each in found])
    figures = (targets.mean(), targets.min(), np.mean(objective), width)
    return [name, num_runs, *(f"{figure:.3f}" for figure in figures)]


ABOUT = (
    f"Share of held-out values inside the nominal {LEVEL:.0%} interval, mean over seeds; targets: "
    "mean over the targets; objective: the mean of the targets. Width: half an interval over the "
    "standard deviation of what it covers, mean over targets.\n\n"
)


def one_scale(settings: Settings) -> None:
    """Runs held out at the trained scale."""
    cases: dict[str, tuple[Swarm, Sequence[int]]] = {
        "regmix_pile": (tables.regmix_pile(), (24, 32, 64, 128, 256, 512)),
        "olmix dclm_swarm": (tables.dclm_swarm(), (48, 75, 100)),
        "slimpajama_tasks": (tables.slimpajama_tasks(), (24, 32, 64, 128)),
        "dmsl 122M": (tables.slimpajama_122m(), (24, 40)),
        "RedPajama 70M": (_suite("redpajama"), (24, 32)),
    }
    lines = []
    for name, (swarm, counts) in cases.items():
        if settings.quick:
            swarm = Swarm(first_targets(swarm.runs, 4), swarm.pool, swarm.test)
        for num_runs in settings.few(counts):
            draws = 1 if num_runs == len(swarm.pool) else settings.seeds
            pairs = [swarm.draw(num_runs, seed) for seed in range(draws)]
            lines.append(row(name, str(num_runs), pairs))
    report(settings, "coverage", "Coverage at one scale", ABOUT + markdown(COLUMNS, lines))


def _suite(name: str) -> Swarm:
    runs = tables.pile_suite(name, model="70M", step=30000)
    return Swarm(runs, np.arange(len(runs)), np.arange(0))


def scales(settings: Settings) -> None:
    """Runs of sizes larger than any fitted."""
    runs = tables.slimpajama_scales()
    runs = first_targets(runs, 2) if settings.quick else runs
    late = tables.share_of_training(runs) > WARM_UP
    final = tables.share_of_training(runs) == 1
    ids = runs.mixture_ids()
    at_all_sizes = np.unique(ids[runs.num_params == SIZES["937M"]])
    lines = []
    for largest, name in settings.few([("310M", "680M"), ("310M", "937M"), ("680M", "937M")]):
        small, large = runs.num_params <= SIZES[largest], runs.num_params == SIZES[name]
        case = f"dmsl, {largest} to {name}"
        seen = [(runs.select(small & late), runs.select(large & final))]
        lines.append(row(f"{case}, same mixtures", "60", seen))
        pairs = []
        for seed in range(settings.seeds):
            drawn = np.random.default_rng(seed).permutation(at_all_sizes)
            held = np.isin(ids, drawn[: len(drawn) // 3])
            pairs.append((runs.select(small & late & ~held), runs.select(large & final & held)))
        lines.append(row(f"{case}, new mixtures", "47", pairs))
    for suite, model, largest in settings.few(
        [("5Mix", "1B", "410M"), ("RedPajama", "410M", "305M")]
    ):
        lines.append(_pile_row(suite, model, largest, settings))
    report(settings, "coverage-scales", "Coverage of forecasts", ABOUT + markdown(COLUMNS, lines))


def _pile_row(suite: str, model: str, largest: str, settings: Settings) -> list[str]:
    """Fit a suite below a model size at 10 to 30 thousand steps; all steps of that size."""
    runs = tables.pile_suite(suite.lower())
    runs = first_targets(runs, 2) if settings.quick else runs
    steps = np.round(runs.train_tokens / 2**20)
    size = runs.num_params[runs.label == model][0]
    train = runs.select((runs.num_params < size) & (steps >= 10000) & (steps <= 30000))
    test = runs.select((runs.label == model) & (steps >= 20000))
    mixtures = str(len(np.unique(train.mixture_ids())))
    return row(f"{suite}, {largest} to {model}", mixtures, [(train, test)])
