"""Predicted against observed, on made-up runs with a known answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mixlaw.optimize import Objective
from mixlaw.runs import RunTable
from mixlaw.study.verification import objective_values, seed_noise, tokens_to_reach


@pytest.mark.parametrize(
    ("value", "share", "is_bound"),
    [
        (2.0, 1.0, False),  # only at its end
        (3.0, 0.5, False),  # at the horizon between
        (2.5, 2**-0.5, False),  # halfway in log tokens
        (4.0, 0.25, True),  # at the first horizon, perhaps before
        (9.0, 0.25, True),
        (1.9, None, False),
    ],
)
def test_tokens_to_reach(value, share, is_bound):
    found = tokens_to_reach(((100.0, 4.0), (200.0, 3.0), (400.0, 2.0)), value)
    assert found == (pytest.approx(share) if share else None, is_bound)
    json.dumps(found)


@pytest.mark.parametrize(("value", "expected"), [(2.0, (1.0, False)), (3.0, (1.0, True))])
def test_one_horizon_bounds_the_tokens(value, expected):
    found = tokens_to_reach(((400.0, 2.0),), value)
    assert found == expected
    json.dumps(found)


def test_seed_noise_pools_mixtures_and_ignores_their_means():
    rng = np.random.default_rng(0)
    rows = [
        {"weight/a": share, "weight/b": 1 - share, "num_params": 10, "train_tokens": 100}
        | {"seed": seed, "loss/x": 5 * share + 1 + rng.normal(0, 0.1), "loss/y": 7.0}
        for share in np.linspace(0, 1, 40)
        for seed in range(5)
    ]
    noise = seed_noise(RunTable.from_rows(rows), Objective({"loss/x": 1.0}))
    assert noise == {(10.0, 100.0): pytest.approx(0.1, rel=0.15)}
    halved = seed_noise(RunTable.from_rows(rows), Objective({"loss/x": 1.0, "loss/y": 1.0}))
    assert halved[(10.0, 100.0)] == pytest.approx(noise[(10.0, 100.0)] / 2)


def test_the_objective_of_a_row_is_its_weighted_mean():
    table = RunTable.from_rows([{"weight/a": 1, "loss/x": 1.0, "loss/y": 4.0}])
    found = objective_values(table, Objective({"loss/x": 1.0, "loss/y": 3.0}))
    assert found == pytest.approx([3.25])
