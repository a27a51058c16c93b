"""The published run tables of ../shared/data as RunTables; each folder's README has the sources.

Losses are nats per token (`loss/`) or bits per byte (`bpb/`); `run`, `num_params` and
`train_tokens` are set where the source gives them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.runs import RunTable

Row = dict[str, Any]
ROUNDED = 0.01
"""Tables whose weights are rounded to three decimals sum to one within this."""


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


def data_folder() -> Path:
    """Where the tables are. Raises: SystemExit: nowhere."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("MIXLAW_DATA", default))
    if not folder.is_dir():
        raise SystemExit(
            f"no published run tables at {folder}; set MIXLAW_DATA to the folder that has "
            "regmix_pile/, olmix_swarms/, mixinglaws/, dmsl_slimpajama/, ..."
        )
    return folder


@cache
def _rows(path: str) -> list[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise SystemExit(
            "reading the tables needs pyarrow: pip install 'mixlaw[parquet]'"
        ) from None
    return parquet.read_table(data_folder() / path).to_pylist()


def _table(path: str, adapt: Callable[[Row], Row | None], tolerance: float = 1e-6) -> RunTable:
    adapted = (adapt(row) for row in _rows(path))
    rows = [row for row in adapted if row is not None]
    return RunTable.from_rows(rows, sum_tolerance=tolerance)


def _measures(row: Mapping[str, Any]) -> Row:
    """The columns that most tables name alike."""
    return {k: v for k, v in row.items() if k.startswith(("weight/", "loss/", "bpb/"))}


def _by_label(runs: RunTable, train: str, test: str) -> Swarm:
    return Swarm(runs, np.flatnonzero(runs.label == train), np.flatnonzero(runs.label == test))


def _all_to_draw(runs: RunTable) -> Swarm:
    return Swarm(runs, np.arange(len(runs)), np.arange(0))


def regmix_pile() -> Swarm:
    """512 runs to draw from and 256 to score on: 1M parameters, 17 domains, 13 targets."""

    def adapt(row: Row) -> Row | None:
        keep = row["split"] in {"train_1m", "test_1m"}
        return _measures(row) | {"label": row["split"]} if keep else None

    runs = _table("regmix_pile/runs.parquet", adapt, ROUNDED)
    return _by_label(runs, "train_1m", "test_1m")


def slimpajama_tasks() -> Swarm:
    """512 and 256 runs: 1M parameters, 7 domains, 11 targets, none of them a domain's own."""

    def adapt(row: Row) -> Row:
        return _measures(row) | {"label": row["split"]}

    runs = _table("grape_regmix_1m/slimpajama_tasks.parquet", adapt, ROUNDED)
    return _by_label(runs, *sorted(set(runs.label), key=lambda label: "test" in label))


def dclm_swarm() -> Swarm:
    """127 runs: 30M parameters, 24 topics (very sparse), 110 tasks in bits per byte."""
    return _all_to_draw(_table("olmix_swarms/dclm_swarm.parquet", _measures))


def slimpajama_scales() -> RunTable:
    """122M, 310M (60 mixtures each), 680M, 937M (40 of them), 11 checkpoints; 8 targets.

    One run is one (mixture, size).
    """

    def adapt(row: Row) -> Row:
        counts = {"num_params": row["params"], "train_tokens": row["tokens"]}
        name = f"{row['mixture']}-{row['params']:.0f}"
        return _measures(row) | counts | {"run": name, "label": str(row["mixture"])}

    return _table("dmsl_slimpajama/runs.parquet", adapt, ROUNDED)


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


def pile_suite(suite: str, *, only: Mapping[str, Any] | None = None) -> RunTable:
    """5Mix, RedPajama, 3Mix or 2Mix of Ye et al.: a row for each (run, step), 22, 3 or 2 targets.

    Steps at which some of the targets were not measured are left out.

    Args:
        only: columns of the source -> value that a row must have; model is "70M" to "1B".
    """
    found: dict[tuple, Row] = {}
    for row in _rows(f"mixinglaws/{suite}.parquet"):
        if row["step"] is None or any(row[key] != value for key, value in (only or {}).items()):
            continue
        key = (row["model"], row["run_id"], row["step"])
        found.setdefault(key, _suite_columns(row))[_loss_name(row["valid_domain"])] = row["loss"]
    complete = max(len(row) for row in found.values())
    rows = [row for row in found.values() if len(row) == complete]
    return RunTable.from_rows(rows, sum_tolerance=ROUNDED)


def _loss_name(valid_domain: str) -> str:
    """In the spelling of the training domains, so that a target finds its own domain."""
    return "loss/" + valid_domain.lower().replace("-", "_")


def _suite_columns(row: Row) -> Row:
    weights = json.loads(row["mixture"])
    if row["suite"] == "RedPajama" and weights["c4"] == 0.168375:
        weights["c4"] = 0.1484375  # makes the sum exactly one: a typo, see the README
    columns = {f"weight/{domain}": share for domain, share in weights.items()}
    counts = {"num_params": row["n_params_nonembedding"], "train_tokens": row["tokens"]}
    return columns | counts | {"run": f"{row['model']}-{row['run_id']}", "label": row["model"]}


def pile_shares(targets: tuple[str, ...]) -> np.ndarray:
    """(T,) shares of the 22 subsets in the overall Pile loss, in the order of `targets`."""
    rows = _rows("mixinglaws/valid_weight.parquet")
    shares = {_loss_name(row["valid_domain"]): row["weight"] for row in rows}
    return np.array([shares[target] for target in targets])


TINY_SIZES = {"20k": "A", "55k": "B", "150k": "C", "440k": "D"}


def tiny_env(size: str) -> RunTable:
    """Our own swarm on real text at one size (see TINY_SIZES), longest horizon, seed 0."""

    def adapt(row: Row) -> Row | None:
        if row["size"] != TINY_SIZES[size] or row["seed"] != 0 or row["step"] < 1200:
            return None
        counts = {
            "num_params": row["num_params_non_embedding"],
            "train_tokens": row["train_tokens"],
        }
        return _measures(row) | counts | {"run": row["mixture"]}

    return _table("tiny_env_swarm/runs.parquet", adapt, ROUNDED)
