"""Repeated tokens count for less, in every law, and leave convex laws convex."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError, RunTableError
from mixlaw.laws import Points, fit, make
from mixlaw.laws.points import REPETITIONS
from mixlaw.runs import RunTable


def at(weights, available, train_tokens=1000.0):
    return Points.at(np.atleast_2d(weights), 1e6, train_tokens, available_tokens=available)


def test_up_to_one_epoch_nothing_changes():
    points = at([0.3, 0.7], np.array([300.0, np.inf]))
    assert_array_equal(points.discounted.weights, points.weights)
    assert_array_equal(points.discount_slopes, 1)


def test_four_epochs_by_hand():
    points = at([0.4, 0.6], np.array([100.0, np.inf]))
    worth = 100 + 100 * REPETITIONS * (1 - np.exp(-3 / REPETITIONS))
    assert_allclose(points.discounted.weights, [[worth / 1000, 0.6]])


def test_endless_repetition_is_worth_a_bounded_number_of_epochs():
    points = at([1.0, 0.0], np.array([1e-3, np.inf]))
    assert points.discounted.weights[0, 0] * 1000 == pytest.approx(1e-3 * (1 + REPETITIONS))


@given(share=st.floats(0.001, 0.99), unique=st.floats(1, 2000))
def test_slope_is_that_of_the_worth(share, unique):
    available, step = np.array([unique, np.inf]), 1e-6
    low, high = (
        at([share + s, 1 - share], available).discounted.weights[0, 0] for s in (-step, step)
    )
    slope = at([share, 1 - share], available).discount_slopes[0, 0]
    assert_allclose((high - low) / (2 * step), slope, rtol=1e-3, atol=1e-6)


def test_unique_tokens_need_the_tokens_trained_on():
    with pytest.raises(FitError, match="train_tokens"):
        Points.at(np.ones((1, 2)) / 2, available_tokens=np.ones(2))


@pytest.fixture
def repeated(lab, rng):
    """Forty mixtures whose first domain has unique tokens for a tenth of the run, and the truth."""
    points = lab.grid(rng, mixtures=40, sizes=1, horizons=1)
    unique = np.tile([1e5, np.inf, np.inf], (len(points), 1))
    points = replace(points, available_tokens=unique)
    law = lab.law_named("effective")
    theta = lab.plausible_theta(law, points, rng)
    theta[5] = 2.0  # the first domain matters
    runs = lab.table(
        points,
        {"loss/code": law.predict(theta, points)},
        **{"available_tokens/code": unique[:, 0]},
    )
    return runs, points


def test_a_fit_sees_repetition(repeated):
    runs, points = repeated
    assert_array_equal(runs.available_tokens, points.available_tokens)
    blind = replace(runs, available_tokens=np.full_like(runs.available_tokens, np.inf))
    errors = []
    for table in (runs, blind):
        law = fit(make("effective"), table, target="loss/code")
        predicted = law.predict(Points.of(table))
        errors.append(np.std(predicted - table.column("loss/code")))
    assert errors[0] < 0.1 * errors[1]


def test_gradient_and_convexity_under_repetition(lab, rng):
    """A falling law stays convex; a tilted one (`effective`) does not say that it does."""
    assert not make("effective").decreasing
    law, points = lab.law_named("effective-chinchilla"), lab.grid(rng, mixtures=40)
    assert law.law.decreasing
    points = replace(points, available_tokens=np.tile([2e4, 1e5, np.inf], (len(points), 1)))
    theta = lab.plausible_theta(law, points, rng)
    step = 1e-7
    for j in range(3):
        moved = [
            law.predict(theta, replace(points, weights=points.weights + s * np.eye(3)[j]))
            for s in (step, -step)
        ]
        slope = (moved[0] - moved[1]) / (2 * step)
        assert_allclose(law.gradient(theta, points)[:, j], slope, rtol=1e-3, atol=1e-5)
    other = replace(points, weights=rng.permutation(points.weights))
    middle = replace(points, weights=(points.weights + other.weights) / 2)
    ends = (law.predict(theta, points) + law.predict(theta, other)) / 2
    assert np.all(law.predict(theta, middle) <= ends + 1e-12)


def test_available_tokens_survive_a_table(repeated, tmp_path):
    runs, _ = repeated
    for name in ("runs.csv", "runs.jsonl", "runs.parquet"):
        runs.write(tmp_path / name)
        again = RunTable.read(tmp_path / name)
        assert_array_equal(again.available_tokens, runs.available_tokens)


def test_unique_tokens_of_a_stranger_or_without_a_budget():
    row = {"weight/a": 1.0, "loss/x": 2.0}
    with pytest.raises(RunTableError, match=r"\['b'\], which have no weight"):
        RunTable.from_rows([row | {"available_tokens/b": 5, "train_tokens": 10}])
    with pytest.raises(RunTableError, match="no train_tokens"):
        RunTable.from_rows([row | {"available_tokens/a": 5}])
