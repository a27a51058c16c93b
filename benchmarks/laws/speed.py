"""Seconds of the default fit beside the recipes of others, on the same rows in the same process.

All 13 targets of regmix_pile at 512 runs, one thread. Methods take turns within each round, so a
busy machine slows them alike; figures are medians over rounds. What would take hours is timed on a
stated fraction.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import huber

from benchmarks.laws import authors, tables
from benchmarks.laws.common import Settings, intervals, report
from benchmarks.laws.peers import LIGHTGBM, LIGHTGBM_PATIENCE, LIGHTGBM_ROUNDS
from benchmarks.table import markdown
from mixlaw.laws import Points, fit, fit_laws, make
from mixlaw.runs import RunTable

ROUNDS = 3
STARTS_TIMED = 4
"""Of the authors' 6,000, for each target."""

STEPS_TIMED = 250
"""Of the 5,000 of one network, of 30 x 16 networks a target."""

OUR_STARTS = 3
"""From how many points mixlaw's own M4 fit descends."""


def default_with_intervals(train: RunTable, test: RunTable) -> None:
    """Choose and fit laws for all targets, and the interval of each at every test row."""
    fitted = fit_laws(train)
    for coefficients in np.eye(len(train.targets)):
        intervals(fitted, Points.of(test), coefficients)


def costs(predicted: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared error, and the Huber cost that the authors minimise, summed over the rows."""
    residual = predicted - y
    return np.array([np.sum(residual**2), np.sum(huber(authors.M4_DELTA, residual))])


def our_m4(train: RunTable) -> np.ndarray:
    """mixlaw's own M4 for every target. Returns: `costs` on the training rows."""
    return sum(
        costs(fit(make("m4"), train, target=target).predict(Points.of(train)), train.column(target))
        for target in train.targets
    )


def their_m4(train: RunTable) -> tuple[float, np.ndarray]:
    """A few of the authors' starts for every target. Returns: seconds a start; `costs` of the best
    of them."""
    reached, seconds = np.zeros(2), []
    for t, target in enumerate(train.targets):
        y = train.column(target)
        found = authors.fit_m4(train.weights, y, STARTS_TIMED, seed=t)
        reached += costs(found.predict(train.weights), y)
        seconds.append(found.seconds.mean())
    return float(np.mean(seconds)), reached


def regmix_lightgbm(train: RunTable, test: RunTable) -> None:
    """RegMix's recipe as shipped: stopped early on the test rows."""
    import lightgbm

    for target in train.targets:
        learned = lightgbm.Dataset(train.weights, train.column(target))
        held = lightgbm.Dataset(test.weights, test.column(target), reference=learned)
        stop = lightgbm.early_stopping(LIGHTGBM_PATIENCE, verbose=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = lightgbm.train(
                LIGHTGBM, learned, LIGHTGBM_ROUNDS, valid_sets=[held], callbacks=[stop]
            )
        model.predict(test.weights)


def seconds_of(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def speed(settings: Settings) -> None:
    """Time everything in turns."""
    torch.set_num_threads(1)
    swarm = tables.regmix_pile()
    train, test = swarm.runs.select(swarm.pool), swarm.runs.select(swarm.test)
    num_targets = len(train.targets)
    ours, ours_m4, trees, theirs_m4, mlps = [], [], [], [], []
    reached: dict[str, np.ndarray] = {}
    for round_ in range(1 if settings.quick else ROUNDS):
        ours.append(seconds_of(lambda: default_with_intervals(train, test)))
        trees.append(seconds_of(lambda: regmix_lightgbm(train, test)))
        ours_m4.append(seconds_of(lambda: reached.update(mixlaw=our_m4(train))))
        if round_ == 0:  # minutes; a fraction is timed anyhow
            a_start, reached["authors"] = their_m4(train)
            theirs_m4.append(a_start)
        y = train.column(train.targets[round_])
        mlps.append(authors.train_mlp(train.weights, y, STEPS_TIMED, seed=round_))
    default, m4 = statistics.median(ours), statistics.median(ours_m4)
    lightgbm, start = statistics.median(trees), statistics.median(theirs_m4)
    an_mlp = statistics.median(mlps) * authors.MLP_STEPS / STEPS_TIMED
    boosted = an_mlp * authors.NUM_MLPS * authors.NUM_BOOSTS * num_targets
    shipped = start * authors.NUM_STARTS * num_targets
    equal = start * OUR_STARTS * num_targets
    lines = [
        ["mixlaw: default fit_laws and intervals at 256 points", f"{default:.2f}", "1"],
        ["LightGBM, RegMix's script", *_against(lightgbm, default)],
        [f"M4, authors' LBFGS, {authors.NUM_STARTS} starts *", *_against(shipped, default)],
        ["mixing law, authors' AdaBoost of networks **", *_against(boosted, default)],
    ]
    m4_lines = [
        [f"mixlaw ({OUR_STARTS} starts)", f"{m4:.3f}", "1", *_costs(reached["mixlaw"])],
        [
            f"authors' LBFGS, {OUR_STARTS} starts *",
            *_against(equal, m4),
            *_costs(reached["authors"]),
        ],
        [f"authors' LBFGS, {authors.NUM_STARTS} starts *", *_against(shipped, m4), "", ""],
    ]
    body = (
        "All 13 targets of regmix_pile, 512 runs, one thread; seconds, median of "
        f"{len(ours)} rounds.\n\n"
        f"{markdown(['', 'seconds', 'times mixlaw'], lines)}\n\n"
        "**M4 alone**\n\n"
        f"{markdown(['', 'seconds', 'times mixlaw', 'squared error', 'Huber'], m4_lines)}\n\n"
        f"\\* extrapolated from {STARTS_TIMED} starts of each target ({start:.2f} s a start). "
        f"\\*\\* extrapolated from {STEPS_TIMED} of {authors.MLP_STEPS} steps of {len(mlps)} "
        f"networks ({an_mlp:.0f} s a network, {authors.NUM_MLPS} x {authors.NUM_BOOSTS} networks "
        "a target). Costs reached on the training rows, summed over targets, by the authors' best "
        f"of {STARTS_TIMED} starts: they minimise the Huber cost (delta {authors.M4_DELTA}), "
        "mixlaw the squared error with a weak prior."
    )
    report(settings, "speed", "Speed of the default fit", body)


def _costs(reached: np.ndarray) -> tuple[str, str]:
    return f"{reached[0]:.1f}", f"{reached[1]:.2f}"


def _against(seconds: float, ours: float) -> tuple[str, str]:
    return f"{seconds:,.1f}", f"{seconds / ours:,.3g}"
