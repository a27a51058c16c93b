"""Shares of a stack come from held-out predictions, and its own scores are held out, too."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.laws.combination import STACK, FittedSum
from mixlaw.laws.splits import MIXTURE_SPLIT, Split
from mixlaw.laws.stacking import stack_shares, stacked_predictions


def test_errors_that_cancel_share_equally(rng):
    values = 2 + rng.random(50)
    error = 0.05 * rng.normal(size=50)
    shares = stack_shares(values * np.exp([error, -error, 4 + 0 * error]), values)
    assert_allclose(shares, [0.5, 0.5, 0], atol=0.01)


def test_a_perfect_law_gets_nearly_all(rng):
    values = 2 + rng.random(50)
    worse = values * np.exp(0.2 * rng.normal(size=50))
    assert stack_shares(np.stack([values * 1.001, worse]), values)[0] > 0.95


def test_shares_are_a_mean_whatever_the_predictions(rng):
    for _ in range(20):
        predictions = np.exp(rng.normal(size=(4, 9)))
        shares = stack_shares(predictions, np.exp(rng.normal(size=9)))
        assert np.all(shares >= 0)
        assert shares.sum() == pytest.approx(1)


def test_a_fold_has_no_say_in_its_own_shares(rng):
    values = 2 + rng.random(12)
    predictions = np.stack([values * 1.02, values * 0.9])
    fold = np.arange(12) % 3
    split = Split("mixture", tuple((fold != k, fold == k) for k in range(3)), {})
    before, shares = stacked_predictions(predictions, values, split)
    assert shares.shape == (3, 2)
    changed = values.copy()
    changed[fold == 1] *= 5
    after, _ = stacked_predictions(predictions, changed, split)
    assert_array_equal(before[fold == 1], after[fold == 1])
    assert not np.allclose(before[fold == 0], after[fold == 0], rtol=1e-9)


@pytest.fixture
def stacked(lab, rng):
    """Half of what one law says and half of what another does, with a little noise."""
    points = lab.grid(rng, mixtures=30, sizes=1, horizons=1)
    left, right = points.weights[:, 0], points.weights[:, 1]
    clean = 2 + np.exp(-3 * left) + 0.2 * (right + 0.01) ** -0.3
    runs = lab.table(points, {"loss/x": clean * np.exp(0.03 * rng.normal(size=30))})
    return fit_laws(runs, candidates=["m4", "log-ridge", STACK]), runs


def test_a_stack_competes_when_named(stacked):
    fitted, _ = stacked
    ranking = fitted.cross_validation.ranking()
    assert set(ranking) == {"m4", "log-ridge", STACK}
    assert ranking[STACK] < 1.1 * min(ranking["m4"], ranking["log-ridge"])
    law = fitted.cross_validation.fits[STACK].full["loss/x"]
    assert isinstance(law, FittedSum)
    assert [part.recipe.name for part in law.parts] == [n for n in ranking if n != STACK]
    assert MIXTURE_SPLIT in fitted.cross_validation.scores[STACK]


def test_a_stack_survives_json(lab, rng):
    points = lab.grid(rng, mixtures=20, sizes=1, horizons=1)
    clean = 2 + np.exp(-3 * points.weights[:, 0]) + np.exp(-points.weights[:, 1])
    runs = lab.table(points, {"loss/x": clean * np.exp(0.02 * rng.normal(size=20))})
    # Two forms that err alike cannot beat each other, so the stack is taken for its convexity.
    fitted = fit_laws(runs, candidates=["m1", "m2", "m4", STACK])
    again = FittedLaws.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    new = rng.dirichlet(np.ones(3), 5)
    assert_array_equal(again.predict(new), fitted.predict(new))
    assert_array_equal(again.half_width(np.ones(1), new), fitted.half_width(np.ones(1), new))
