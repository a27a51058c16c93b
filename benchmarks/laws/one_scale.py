"""Held-out accuracy at one scale: as many runs as given, mixtures never seen.

Every method gets the same rows in every draw. Regret is by how much the held-out run predicted
best is worse than the best, in the mean over targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

from benchmarks.laws import tables
from benchmarks.laws.common import (
    Scoreboard,
    Settings,
    column_mean,
    first_targets,
    forecasts,
    mae,
    regret,
    report,
    spearman,
)
from benchmarks.laws.peers import PEERS, Training
from benchmarks.laws.tables import Swarm
from mixlaw.errors import MixlawError
from mixlaw.laws import Points
from mixlaw.runs import RunTable

MEASURES = {"Spearman": 3, "MAE": 4, "regret": 4}
"""Measure -> digits."""

Forecast = Callable[[RunTable, Points, np.random.Generator], np.ndarray]


def own_domains(runs: RunTable) -> np.ndarray:
    """(T,) index of each target's own domain, -1 where it has none."""
    names = [target.partition("/")[2] for target in runs.targets]
    return np.array([runs.domains.index(n) if n in runs.domains else -1 for n in names])


def methods(laws: Sequence[str], without: Sequence[str] = ()) -> dict[str, Forecast]:
    """The default, laws of the catalogue by name, and the peers (but for some).

    Raises: SystemExit: a package of the peers is missing.
    """
    missing = [name for name in ("lightgbm", "sklearn") if find_spec(name) is None]
    if missing:
        raise SystemExit(f"the peers need {missing}: pip install lightgbm scikit-learn")
    ours: dict[str, Forecast] = {
        name: lambda train, points, rng, call=call: call(train, points)
        for name, call in forecasts(laws).items()
    }
    theirs: dict[str, Forecast] = {
        name: lambda train, points, rng, peer=peer: peer(
            Training(train.weights, train.values, own_domains(train), rng)
        )(points.weights)
        for name, peer in PEERS.items()
        if name not in without
    }
    return {**ours, **theirs}


def compare(
    swarm: Swarm, counts: Sequence[int], settings: Settings, chosen: dict[str, Forecast]
) -> dict[str, Scoreboard]:
    """A board of every measure: methods by number of runs."""
    boards = {measure: Scoreboard() for measure in MEASURES}
    for num_runs in counts:
        for seed in range(1 if num_runs == len(swarm.pool) else settings.seeds):
            train, test = swarm.draw(num_runs, seed)
            for name, forecast in chosen.items():
                rng = np.random.default_rng([seed, num_runs])
                column = str(num_runs)
                try:
                    predicted = forecast(train, Points.of(test), rng)
                except MixlawError as error:
                    for board in boards.values():
                        board.refuse(name, column, str(error))
                    continue
                figures = {
                    "Spearman": column_mean(spearman(predicted, test.values)),
                    "MAE": column_mean(mae(predicted, test.values)),
                    "regret": regret(predicted, test.values),
                }
                for measure, figure in figures.items():
                    boards[measure].add(name, column, figure)
    return boards


def body(boards: dict[str, Scoreboard], about: str) -> str:
    """One table a measure, then why cells are empty."""
    parts = [about]
    for measure, board in boards.items():
        parts.append(f"**{measure}**\n\n{board.table('runs', digits=MEASURES[measure])}")
    notes = boards["Spearman"].notes()
    return "\n\n".join([*parts, notes]).rstrip()


def regmix(settings: Settings) -> None:
    """RegMix's Pile runs: 13 targets, 256 held-out runs."""
    swarm = tables.regmix_pile()
    counts = settings.few((24, 32, 64, 128, 256, 512), 2)
    boards = compare(swarm, counts, settings, methods(["effective", "m1", "m2", "m4"]))
    about = (
        "1M parameters, 17 domains. Means over 13 targets on 256 held-out runs; columns are the "
        "number of training runs (512: all, hence one draw). LightGBM's number of rounds is chosen "
        "on a fifth of the training rows, not on the test rows as in RegMix's notebook."
    )
    report(settings, "regmix", "Laws at one scale: regmix_pile", body(boards, about))


SLOW_HERE = ("BiMix", "BiMix, summed (Olmix)", "AutoScale")
"""Left out of the table of 110 targets: minutes each, and BiMix says nothing about tasks."""


def olmix(settings: Settings) -> None:
    """Olmix's DCLM swarm: 24 topics, 110 tasks, scored on the runs not drawn."""
    swarm = tables.dclm_swarm()
    if settings.quick:
        swarm = Swarm(first_targets(swarm.runs, 8), swarm.pool, swarm.test)
    counts = settings.few((48, 75, 100))
    chosen = methods(["effective", "log-ridge"], without=SLOW_HERE)
    boards = compare(swarm, counts, settings, chosen)
    about = (
        "30M parameters, 24 topics, 86 % of the shares zero. Means over 110 tasks (bits per byte) "
        "on the runs that were not drawn, of 127."
    )
    report(settings, "olmix", "Laws at one scale: olmix dclm_swarm", body(boards, about))


def slimpajama(settings: Settings) -> None:
    """1M runs on SlimPajama judged by tasks that are nobody's own domain."""
    boards = compare(
        tables.slimpajama_tasks(),
        settings.few((16, 32, 64)),
        settings,
        methods(["effective", "log-ridge"]),
    )
    about = "1M parameters, 7 domains. Means over 11 targets on 256 held-out runs."
    report(settings, "slimpajama", "Laws at one scale: slimpajama_tasks", body(boards, about))


def dmsl_122m(settings: Settings) -> None:
    """The smallest size of the SlimPajama runs of 'Scaling laws for optimal data mixtures'."""
    boards = compare(
        tables.slimpajama_122m(),
        settings.few((16, 24, 40)),
        settings,
        methods(["effective", "m4"]),
    )
    about = "122M parameters, 20B tokens, 7 domains. Means over 8 targets on the runs not drawn."
    report(settings, "dmsl-122m", "Laws at one scale: dmsl_slimpajama, 122M", body(boards, about))
