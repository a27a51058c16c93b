"""The sentences over a fit: numbers that follow from each other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mixlaw.runs import RunTable

ERRORS = r"off by ([\d.]+), (\S+)% of the ([\d.]+) that predicting the mean is off by"


@pytest.fixture(scope="module")
def three_sizes(tmp_path_factory) -> Path:
    """A study of three sizes, of which the largest is held out; loss/odd follows no law."""
    folder = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(2)
    rows = []
    for web in np.linspace(0.05, 0.95, 12):
        for num_params in (1e6, 4e6, 1.6e7):
            row = {"weight/web": web, "weight/code": 1 - web, "num_params": num_params}
            row |= {"loss/web": 2 + np.exp(-3 * web) + (num_params / 1e6) ** -0.3}
            rows.append(row | {"loss/odd": rng.normal(3, 0.1)})
    RunTable.from_rows(rows).write(folder / "runs.csv")
    (folder / "study.yaml").write_text(
        "table: runs.csv\nobjective: {loss/web: 1, loss/odd: 1}\n"
        "target: {num_params: 16_000_000}\nfit: {laws: [exponential-chinchilla, scaling]}\n"
    )
    return folder


def test_percents_follow_from_the_numbers_beside_them(three_sizes, mixlaw):
    code, out, err = mixlaw("fit", three_sizes)
    assert code == 0, err
    (headline,) = re.findall(r"on a new scale its error is (\S+)% of that of predicting", out)
    lines = {
        split: re.findall(f"{split} {ERRORS}", out)[0] for split in ("new mixtures", "new scale")
    }
    assert lines["new scale"][1] == headline
    for error, ratio, of_mean in lines.values():
        assert 100 * float(error) / float(of_mean) == pytest.approx(float(ratio), abs=0.6)
    assert re.search(r"weak on loss/odd \(\d+%\), .* of the mean's error on a new scale", out)
