"""Few runs at a large scale: a law fitted at a small one as the prior, and simpler ways.

Test mixtures are held out at both scales. Normalised error: mean squared error over the variance
of the target at the large scale; 1 is predicting the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.laws import tables
from benchmarks.laws.common import Scoreboard, Settings, first_targets, report, spearman
from mixlaw.errors import MixlawError
from mixlaw.laws import Fitted, Points, make
from mixlaw.laws.fitting import batch_of, fit_transfer
from mixlaw.runs import RunTable

LAW = "effective+gp"
COUNTS = (4, 8, 16)
FEWEST_TEST = 4


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scales of the same domains and targets."""

    small: RunTable
    large: RunTable

    def draw(self, num_large: int, seed: int) -> tuple[RunTable, RunTable, RunTable]:
        """Small runs, `num_large` large ones, and a third of the large mixtures (as many as are
        left at least), which neither has."""
        order = np.random.default_rng(seed).permutation(len(self.large))
        num_test = min(len(order) // 3, len(order) - num_large)
        if num_test < FEWEST_TEST:
            raise ValueError(f"{len(order)} large runs leave {num_test} to test on")
        test = self.large.select(order[:num_test])
        drawn = self.large.select(order[num_test : num_test + num_large])
        known = {tuple(w) for w in np.round(test.weights, 9)}
        new = np.array([tuple(w) not in known for w in np.round(self.small.weights, 9)])
        return self.small.select(new), drawn, test


def at_scale(runs: RunTable, num_params: float) -> RunTable:
    """The rows of one size."""
    return runs.select(runs.num_params == num_params)


def pairs() -> dict[str, Callable[[], Pair]]:
    """Name -> how to load it."""

    def slimpajama() -> Pair:
        runs = tables.final(tables.slimpajama_scales())
        return Pair(at_scale(runs, 1.22e8), at_scale(runs, 9.37e8))

    def suite(name: str) -> Pair:
        small, large = (
            tables.pile_suite(name, model=model, step=30000) for model in ("70M", "410M")
        )
        return Pair(small, large)

    return {
        "dmsl 122M to 937M": slimpajama,
        "RedPajama 70M to 410M": lambda: suite("redpajama"),
        "5Mix 70M to 410M": lambda: suite("5mix"),
        "tiny_env 55k to 150k": lambda: Pair(tables.tiny_env("55k"), tables.tiny_env("150k")),
    }


def _laws(runs: RunTable) -> list[Fitted]:
    """A law of every target, fitted together."""
    return make(LAW).fit_batch(batch_of(runs, runs.targets))


def _values(laws: Iterable[Fitted], runs: RunTable) -> np.ndarray:
    """(n, T) what they say of the runs' mixtures."""
    return np.stack([law.predict(Points.of(runs)) for law in laws], axis=1)


def zero_shot(small: RunTable, drawn: RunTable, test: RunTable) -> np.ndarray:
    """The small laws, shifted to the mean of the large runs: they know nothing else of them."""
    laws = _laws(small)
    return _values(laws, test) + np.mean(drawn.values - _values(laws, drawn), axis=0)


def affine(small: RunTable, drawn: RunTable, test: RunTable) -> np.ndarray:
    """The line through the large runs over the small law's values."""
    laws = _laws(small)
    at_drawn, at_test = _values(laws, drawn), _values(laws, test)
    lines = [np.polyfit(x, y, 1) for x, y in zip(at_drawn.T, drawn.values.T, strict=True)]
    return np.stack([np.polyval(line, x) for line, x in zip(lines, at_test.T, strict=True)], axis=1)


def from_scratch(small: RunTable, drawn: RunTable, test: RunTable) -> np.ndarray:
    """The law fitted to the large runs alone."""
    return _values(_laws(drawn), test)


def prior(small: RunTable, drawn: RunTable, test: RunTable) -> np.ndarray:
    """The small laws as priors (`fit_transfer`)."""
    priors = dict(zip(small.targets, _laws(small), strict=True))
    return _values(fit_transfer(priors, drawn).values(), test)


METHODS = {
    "small law as prior": prior,
    "affine map of the small law": affine,
    "zero-shot, shifted": zero_shot,
    "from scratch": from_scratch,
}


def few_shot(settings: Settings) -> None:
    """4, 8 and 16 large runs."""
    parts = []
    for name, load in pairs().items():
        pair = load()
        if settings.quick:
            pair = Pair(first_targets(pair.small, 3), first_targets(pair.large, 3))
        boards = {"normalised error": Scoreboard(), "Spearman": Scoreboard()}
        for num_large in settings.few(COUNTS):
            for seed in range(settings.seeds):
                _measure(boards, pair, num_large, seed)
        text = [f"**{name}** ({len(pair.small)} and {len(pair.large)} runs)"]
        text += [f"{measure}:\n\n{board.table('large runs')}" for measure, board in boards.items()]
        text.append(boards["normalised error"].notes())
        parts.append("\n\n".join(text))
    about = (
        f"Law: {LAW}. Test mixtures, a third of the large ones (fewer where 16 leave fewer), are "
        "held out at both scales. Means over targets; columns with `mean` rank their mean."
        "\n\n"
    )
    report(settings, "few-shot", "Few large runs and a small swarm", about + "\n\n".join(parts))


def _measure(boards: dict[str, Scoreboard], pair: Pair, num_large: int, seed: int) -> None:
    small, drawn, test = pair.draw(num_large, seed)
    variance = pair.large.values.var(axis=0)
    column = str(num_large)
    for name, method in METHODS.items():
        try:
            predicted = method(small, drawn, test)
        except MixlawError as error:
            for board in boards.values():
                board.refuse(name, column, str(error))
            continue
        error = np.mean((predicted - test.values) ** 2, axis=0) / variance
        boards["normalised error"].add(name, column, error.mean())
        boards["Spearman"].add(name, column, spearman(predicted, test.values).mean())
        means = [values.mean(axis=1, keepdims=True) for values in (predicted, test.values)]
        boards["Spearman"].add(name, f"{column}, mean", spearman(*means)[0])
