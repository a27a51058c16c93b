"""Forecasts of larger models: fit on small sizes, score on runs of sizes never seen.

Every law is fitted to the same rows. `mixlaw` is the default `fit_laws`, which chooses or stacks by
its own cross-validation of the training rows; the others are forced by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.laws import tables
from benchmarks.laws.common import (
    Scoreboard,
    Settings,
    catalogue,
    first_targets,
    forecasts,
    mae,
    report,
    spearman,
)
from mixlaw.errors import MixlawError
from mixlaw.laws import Points
from mixlaw.runs import RunTable

PUBLISHED = ("additive", "joint", "exponential-chinchilla", "nested")
"""Laws of others: 2507.09404 (two), exponential + Chinchilla, the pipeline of 2403.16952."""

M1_TO_M4 = ("m1", "m2", "m3", "m4")


def laws_of_scale() -> list[str]:
    """Those of others first, then the rest of the catalogue."""
    return list(dict.fromkeys([*PUBLISHED, *catalogue(scales=True)]))


def mixinglaws(settings: Settings) -> None:
    """M1 to M4 as in the paper's tables: mixtures held out at one size and step."""
    suites = {
        "5Mix 70M, 30k steps, 20 + 6": ("5mix", "70M", 30000, 20),
        "RedPajama 70M, 30k steps, 20 + 22": ("redpajama", "70M", 30000, 20),
        "3Mix 410M, 60k steps, 24 + 8": ("3mix", "410M", 60000, 24),
        "2Mix 70M, 30k steps, 4 + 1": ("2mix", "70M", 30000, 4),
    }
    each, overall = Scoreboard(), Scoreboard()
    names = [*M1_TO_M4, "effective"]
    for suite, (name, model, step, num_train) in suites.items():
        runs = tables.pile_suite(name, model=model, step=step)
        runs = runs.select(_distinct_mixtures(runs))
        for seed in range(settings.seeds):
            order = np.random.default_rng(seed).permutation(len(runs))
            train, test = runs.select(order[:num_train]), runs.select(order[num_train:])
            for law, forecast in forecasts(names).items():
                try:
                    predicted = forecast(train, Points.of(test))
                except MixlawError as error:
                    each.refuse(law, suite, str(error))
                    continue
                each.add(law, suite, mae(predicted, test.values).mean())
                if len(runs.targets) == 22:
                    error = (predicted - test.values) @ tables.pile_shares(runs.targets)
                    overall.add(law, suite, np.abs(error).mean())
    body = (
        "Held-out mean absolute error in nats, mixtures drawn at random into train + test.\n\n"
        f"**Mean over the validation sets**\n\n{each.table('', digits=4)}\n\n"
        f"**Overall Pile loss** (sets weighed by their known shares)\n\n"
        f"{overall.table('', digits=4)}\n\n{each.notes()}"
    )
    report(settings, "mixinglaws", "Laws at one scale: M1 to M4 on the paper's suites", body)


def _distinct_mixtures(runs: RunTable) -> np.ndarray:
    """Indices of the first run of every mixture."""
    return np.sort(np.unique(runs.mixture_ids(), return_index=True)[1])


def forecast_1b(settings: Settings) -> None:
    """5Mix: fit on 70M to 410M at 10 to 30 thousand steps, forecast 1B."""
    runs = tables.pile_suite("5mix")
    runs = first_targets(runs, 3) if settings.quick else runs
    steps = np.round(runs.train_tokens / 2**20)
    train = runs.select((runs.label != "1B") & (steps >= 10000) & (steps <= 30000))
    test = runs.select((runs.label == "1B") & (steps <= 90000))
    test_steps = np.round(test.train_tokens / 2**20)
    shares = tables.pile_shares(runs.targets)
    board = Scoreboard()
    for law, forecast in forecasts(settings.few(laws_of_scale(), 3)).items():
        try:
            predicted = forecast(train, Points.of(test))
        except MixlawError as error:
            board.refuse(law, "overall, 20k..90k", str(error))
            continue
        wrong = np.abs((predicted - test.values) @ shares)
        board.add(law, "overall, 20k..90k", wrong.mean())
        board.add(law, "overall, 20k", wrong[test_steps == 20000].mean())
        board.add(law, "overall, 60k..90k", wrong[test_steps >= 60000].mean())
        board.add(law, "mean over sets", mae(predicted, test.values).mean())
        ranked = spearman(predicted[test_steps == 20000], test.values[test_steps == 20000])
        board.add(law, "Spearman, 20k", ranked.mean())
    body = (
        f"Fitted on {len(train)} rows of {len(set(train.run))} runs, 26 mixtures, at most 410M "
        f"parameters and 30k steps; mean absolute error in nats on {len(test)} rows of "
        f"{len(set(test.run))} runs at 1B: six mixtures at 20k steps, the default and the "
        "optimised one (trained at no smaller size) up to 90k. Overall is the Pile loss.\n\n"
        f"{board.table('', digits=4)}\n\n{board.notes()}"
    )
    report(settings, "forecast-1b", "Laws across scales: 5Mix, 410M to 1B", body)


SIZES = {"122M": 1.22e8, "310M": 3.1e8, "680M": 6.8e8, "937M": 9.37e8}
WARM_UP = 0.2
"""Checkpoints in the first fifth of training are left out."""


def relative_error(predicted: np.ndarray, observed: np.ndarray) -> float:
    """Mean over targets of the mean of |predicted / observed - 1|, in percent."""
    return 100 * float(np.nanmean(np.abs(predicted / observed - 1), axis=0).mean())


def score_laws(
    board: Scoreboard,
    laws: Sequence[str],
    runs: RunTable,
    train: np.ndarray,
    tests: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Fit the default and the named laws to the rows `train` and score them on each test's rows.

    Args:
        train: (n,) boolean; tests: column -> (n,) boolean.
    Returns: law -> its values (n, T) at all rows.
    """
    every = {}
    for law, forecast in forecasts(laws).items():
        try:
            predicted = forecast(runs.select(train), Points.of(runs))
        except MixlawError as error:
            board.refuse(law, next(iter(tests)), str(error))
            continue
        every[law] = predicted
        for column, rows in tests.items():
            board.add(law, column, relative_error(predicted[rows], runs.values[rows]))
    return every


def _slimpajama(settings: Settings) -> tuple[RunTable, dict[str, np.ndarray]]:
    """The runs, and which rows (n,) are checkpoints past 20 % and last checkpoints."""
    runs = tables.slimpajama_scales()
    runs = first_targets(runs, 2) if settings.quick else runs
    share = tables.share_of_training(runs)
    return runs, {"all": share > WARM_UP, "finals": share == 1}


def dmsl(settings: Settings) -> None:
    """Fit on at most 310M or 680M parameters, forecast the larger sizes; same mixtures."""
    runs, kinds = _slimpajama(settings)
    laws = settings.few(laws_of_scale(), 3)
    parts = []
    for largest, names in (("310M", ("680M", "937M")), ("680M", ("937M",))):
        small = runs.num_params <= SIZES[largest]
        for trained_on, scored_on in (("all", ("all", "finals")), ("finals", ("finals",))):
            board = Scoreboard()
            tests = {
                f"{name}, {kind}": (runs.num_params == SIZES[name]) & kinds[kind]
                for name in names
                for kind in scored_on
            }
            every = score_laws(board, laws, runs, small & kinds[trained_on], tests)
            parts.append(
                f"**Fitted on {trained_on}, up to {largest}**\n\n"
                f"{board.table('')}\n\n{board.notes()}".rstrip()
            )
            if trained_on == "all":
                parts.append(_by_target(every, runs, runs.num_params == SIZES["937M"], kinds))
    body = ABOUT_DMSL + "\n\n".join(parts)
    report(settings, "dmsl", "Laws across scales: dmsl_slimpajama", body)


def _by_target(
    every: Mapping[str, np.ndarray],
    runs: RunTable,
    at: np.ndarray,
    kinds: Mapping[str, np.ndarray],
) -> str:
    """The error of each target at the rows `at` (n,) past 20 %."""
    board, rows = Scoreboard(), at & kinds["all"]
    for law, predicted in every.items():
        for t, target in enumerate(runs.targets):
            one = (rows, slice(t, t + 1))
            board.add(law, target, relative_error(predicted[one], runs.values[one]))
    return f"By target, 937M, all:\n\n{board.table('')}"


def dmsl_mixtures(settings: Settings) -> None:
    """The same with a third of the mixtures held out at all sizes; scored on those."""
    runs, kinds = _slimpajama(settings)
    laws = settings.few(laws_of_scale(), 3)
    ids = runs.mixture_ids()
    at_all_sizes = np.unique(ids[runs.num_params == SIZES["937M"]])
    board = Scoreboard()
    for seed in range(settings.seeds):
        drawn = np.random.default_rng(seed).permutation(at_all_sizes)
        held = np.isin(ids, drawn[: len(drawn) // 3])
        for largest, names in (("310M", ("680M", "937M")), ("680M", ("937M",))):
            tests = {
                f"{largest} to {name}, {kind}": held & (runs.num_params == SIZES[name]) & rows
                for name in names
                for kind, rows in kinds.items()
            }
            small = runs.num_params <= SIZES[largest]
            score_laws(board, laws, runs, small & kinds["all"] & ~held, tests)
    about = (
        f"{ABOUT_DMSL}13 of the 40 mixtures that all sizes have are held out at every size, and "
        f"scored; the laws are fitted on all checkpoints past 20 %.\n\n"
    )
    body = f"{about}{board.table('')}\n\n{board.notes()}"
    report(settings, "dmsl-mixtures", "Laws across scales: dmsl_slimpajama, new mixtures", body)


ABOUT_DMSL = (
    "Mean relative error in percent, mean over 8 targets. 122M and 310M have 60 mixtures, 680M and "
    "937M 40 of them. All: checkpoints past 20 % of the training; finals: the last one.\n\n"
)
