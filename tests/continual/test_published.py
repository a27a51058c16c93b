"""Published continued runs: Data Mixing Laws (arXiv 2403.16952), Pythia 70M, Pile with Python."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mixlaw.continual import fit_continual
from mixlaw.runs import RunTable

PUBLISHED = 0.2862
"""The critical share of Pile at the last horizon in the authors' notebook."""


@pytest.fixture(scope="module")
def laws():
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("MIXLAW_DATA", default)) / "mixinglaws"
    if not folder.is_dir():
        pytest.skip(f"no published run tables at {folder}; set MIXLAW_DATA to their folder")
    parquet = pytest.importorskip("pyarrow.parquet")
    parts = parquet.read_table(folder / "valid_weight.parquet").to_pylist()
    weights = {row["valid_domain"]: row["weight"] for row in parts}
    weights["starcoder_python"] = 0.0
    rows: dict[tuple, dict] = {}
    base = {"loss/pile": 0.0}
    for row in parquet.read_table(folder / "ct.parquet").to_pylist():
        part = row["valid_domain"]
        if row["r_pile"] is None:
            found = base
        else:
            found = rows.setdefault((row["run_id"], row["step"]), {"run": row["run_id"]})
            found |= {"weight/pile": row["r_pile"], "weight/python": row["r_python"]}
            found |= {"train_tokens": row["tokens"]}
        found["loss/pile"] = found.get("loss/pile", 0.0) + weights[part] * row["loss"]
        if part == "starcoder_python":
            found["loss/python"] = row["loss"]
    return fit_continual(RunTable.from_rows(rows.values()), new=["python"], base=base)


def test_the_critical_share_is_the_published_one(laws):
    """The notebook's .2862 by the exponential at one horizon; between the runs it is .280."""
    found = laws.critical(train_tokens=1e10)
    assert found.replay.value == pytest.approx(PUBLISHED, abs=0.015)
    assert found.replay.low < PUBLISHED < found.replay.high
    assert (found.binding, found.end, found.extrapolates) == ("loss/pile", None, ())


def test_the_critical_share_falls_with_tokens(laws):
    """Observed: .36 of Pile are needed at 4B tokens, .28 at 10B."""
    replay = [laws.critical(train_tokens=billion * 1e9).replay.value for billion in (4.2, 7, 10.5)]
    np.testing.assert_allclose(replay, [0.35, 0.31, 0.28], atol=0.025)


def test_held_out_shares_are_forecast(laws):
    """Spread of the runs: .027 and .046 nats. Noise of a checkpoint: .004."""
    errors = laws.held_out_error[laws.form]
    assert errors["loss/pile"] < 0.004
    assert errors["loss/python"] < 0.004
    plain = laws.held_out_error["exponential"]
    assert errors["loss/pile"] < 0.6 * plain["loss/pile"]
