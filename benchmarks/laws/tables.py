"""The published run tables that benchmarks use, cut to what each of them asks; see
`mixlaw.datasets.info` for what they are and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixlaw import datasets
from mixlaw.runs import RunTable


@dataclass(frozen=True, eq=False)
class Swarm:
    """Runs of one scale.

    Attributes:
        runs: all of them.
        pool: indices of the runs to learn from.
        test: indices of the runs to score on; empty: those of the pool that were not drawn.
    """

    runs: RunTable
    pool: np.ndarray
    test: np.ndarray

    def draw(self, num_runs: int, seed: int) -> tuple[RunTable, RunTable]:
        """`num_runs` runs of the pool, without replacement, and the runs to score on."""
        order = np.random.default_rng(seed).permutation(self.pool)
        test = self.test if len(self.test) else order[num_runs:]
        return self.runs.select(order[:num_runs]), self.runs.select(test)


def _by_label(runs: RunTable, train: str, test: str) -> Swarm:
    return Swarm(runs, np.flatnonzero(runs.label == train), np.flatnonzero(runs.label == test))


def _all_to_draw(runs: RunTable) -> Swarm:
    return Swarm(runs, np.arange(len(runs)), np.arange(0))


def _by_place(runs: RunTable) -> RunTable:
    """Runs called by their rows, as when the results of this folder were measured: runs are taken
    in the order of their names, and the search for a law ends elsewhere in the fourth digit."""
    return replace(runs, run=np.array([f"row{i}" for i in range(len(runs))]))


def regmix_pile() -> Swarm:
    """512 runs to draw from and 256 to score on: 1M parameters, 17 domains, 13 targets."""
    runs = datasets.load("regmix")
    runs = _by_place(runs.select(runs.label != "extra-1m"))
    return _by_label(runs, "train-1m", "test-1m")


def slimpajama_tasks() -> Swarm:
    """512 and 256 runs: 1M parameters, 7 domains, 11 targets, none of them a domain's own."""
    return _by_label(_by_place(datasets.load("slimpajama-tasks")), "train", "test")


def dclm_swarm() -> Swarm:
    """127 runs: 30M parameters, 24 topics (very sparse), 110 tasks in bits per byte."""
    return _all_to_draw(_by_place(datasets.load("olmix/dclm")))


def olmix_reuse() -> Swarm:
    """64 runs: 30M parameters, 21 topics and the earlier mixture, 110 tasks in bits per byte."""
    return _all_to_draw(datasets.load("olmix/full-reuse"))


def slimpajama_scales() -> RunTable:
    """122M, 310M (60 mixtures each), 680M, 937M (40 of them), 11 checkpoints; 8 targets."""
    return datasets.load("dmsl-slimpajama")


def final(runs: RunTable) -> RunTable:
    """The last checkpoint of every size."""
    return runs.select(share_of_training(runs) == 1)


def share_of_training(runs: RunTable) -> np.ndarray:
    """(n,) tokens seen over the tokens at that size's last checkpoint."""
    last = {n: runs.train_tokens[runs.num_params == n].max() for n in np.unique(runs.num_params)}
    return runs.train_tokens / np.array([last[n] for n in runs.num_params])


def slimpajama_122m() -> Swarm:
    """60 finished runs at 122M."""
    runs = final(slimpajama_scales())
    return _all_to_draw(runs.select(runs.num_params == runs.num_params.min()))


def pile_suite(suite: str, *, model: str | None = None, step: int | None = None) -> RunTable:
    """A suite of Ye et al. ("5mix"): a row for each (run, step), 22, 3 or 2 targets; the label is
    the model, "70M" to "1B". Steps at which some of the targets were not measured are left out.

    Args: model, step: those of all rows.
    """
    runs = datasets.load(f"mixinglaws/{suite}")
    steps = _steps(runs)
    runs = replace(runs, label=np.array([run.partition("_")[0] for run in runs.run]))
    keep = np.asarray(np.isfinite(runs.values).all(axis=1))
    if step is not None:
        keep = keep & (steps == step)
    if model is not None:
        keep = keep & (runs.label == model)
    return runs.select(keep)


def _steps(runs: RunTable) -> np.ndarray:
    """(n,) steps of a suite; where tokens are unknown the label ends with them, or with "last"."""
    if np.isfinite(runs.train_tokens).all():
        return np.round(runs.train_tokens / 2**20)
    words = [label.rpartition(" ")[2] for label in runs.label]
    return np.array([float(word) if word.isdigit() else np.nan for word in words])


def pile_shares(targets: tuple[str, ...]) -> np.ndarray:
    """(T,) shares of the 22 subsets in the overall Pile loss, in the order of `targets`."""
    shares = datasets.target_weights("mixinglaws/5mix")
    return np.array([shares[target] for target in targets])


TINY_SIZES = {"20k": "A", "55k": "B", "150k": "C", "440k": "D"}
TINY_LONGEST = 1200 * 512


def tiny_env(size: str) -> RunTable:
    """Our own swarm on real text at one size (see TINY_SIZES), longest horizon, seed 0."""
    runs = datasets.load("tiny-env")
    at_size = np.char.startswith(runs.run, f"{TINY_SIZES[size]}-")
    return runs.select(at_size & (runs.seed == 0) & (runs.train_tokens >= TINY_LONGEST))
