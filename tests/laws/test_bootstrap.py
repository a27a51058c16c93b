"""Refits to resampled mixtures tell how sure the best mixture is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws, Points, fit_laws
from mixlaw.laws.bootstrap import Bootstrap, bootstrap

ONE = np.ones(1)


@pytest.fixture
def swarm(lab, rng):
    """Twenty-four mixtures of one scale with a little noise; more of the first domain is better."""
    points = lab.grid(rng, mixtures=24, sizes=1, horizons=1)
    values = 2 + np.exp(-2 * points.weights[:, 0]) + 0.01 * rng.normal(size=24)
    return lab.table(points, {"loss/held": values})


@pytest.fixture
def refits(swarm):
    return bootstrap(fit_laws(swarm, candidates=["effective"]), num_draws=40)


CANDIDATES = Points.at(np.array([[0.9, 0.05, 0.05], [0.85, 0.1, 0.05], [0.05, 0.05, 0.9]]))


def test_every_draw_is_another_fit_near_the_first(swarm, refits):
    fitted = fit_laws(swarm, candidates=["effective"])
    values = refits.objective(ONE, CANDIDATES)
    assert values.shape == (40, 3)
    assert np.all(values.std(axis=0) > 0)
    center = fitted.predict(CANDIDATES.weights)[:, 0]
    assert np.all(np.abs(values.mean(axis=0) - center) < 4 * values.std(axis=0))


def test_the_best_is_known_where_it_is_clear(refits):
    probability = refits.probability_best(ONE, CANDIDATES)
    assert probability.sum() == pytest.approx(1)
    assert probability[2] == 0
    assert 2 not in refits.confidence_set(ONE, CANDIDATES)
    better = refits.probability_better(ONE, CANDIDATES)
    assert better[0, 2] > 0.95
    assert_allclose(better + better.T, 1)


def test_confidence_set_by_hand():
    class Column:
        """A law that ranks three mixtures as it is told."""

        def __init__(self, *values):
            self.values = np.array(values, float)

        def predict(self, points):
            return self.values

    draws = [{"x": Column(0, 1, 2)}] * 6 + [{"x": Column(1, 0, 2)}] * 3 + [{"x": Column(2, 1, 0)}]
    refits = Bootstrap(draws)
    assert_allclose(refits.probability_best(ONE, CANDIDATES), [0.6, 0.3, 0.1])
    assert_array_equal(refits.confidence_set(ONE, CANDIDATES, level=0.9), [0, 1])
    assert_array_equal(refits.confidence_set(ONE, CANDIDATES, level=0.95), [0, 1, 2])


def test_same_seed_same_draws(swarm, refits):
    again = bootstrap(fit_laws(swarm, candidates=["effective"]), num_draws=40)
    first, second = (b.objective(ONE, CANDIDATES) for b in (refits, again))
    assert_array_equal(first, second)


def test_no_draws(swarm):
    with pytest.raises(FitError, match="num_draws is 0"):
        bootstrap(fit_laws(swarm, candidates=["effective"]), num_draws=0)


def test_spread_is_that_of_new_swarms(lab, rng):
    """The bootstrap's standard deviation against that over fresh draws of the same experiment."""
    truth = np.array([-2.0, 0.5, 0.3])

    def experiment():
        points = lab.grid(rng, mixtures=40, sizes=1, horizons=1)
        clean = 2 + np.exp(points.weights @ truth)
        return lab.table(points, {"loss/held": clean + 0.02 * rng.normal(size=40)})

    fresh = [fit_laws(experiment(), candidates=["m4"]) for _ in range(30)]
    wanted = np.std([f.predict(CANDIDATES.weights)[:, 0] for f in fresh], axis=0)
    found = bootstrap(fresh[0], num_draws=100).objective(ONE, CANDIDATES).std(axis=0)
    assert np.all((found > 0.4 * wanted) & (found < 2.5 * wanted))


def test_a_stored_fit_is_resampled_as_the_fresh_one(swarm):
    fresh = fit_laws(swarm, candidates=["effective"])
    stored = FittedLaws.from_dict(fresh.to_dict())
    first, second = (
        bootstrap(fitted, num_draws=5).objective(ONE, CANDIDATES) for fitted in (fresh, stored)
    )
    assert_allclose(first, second, rtol=1e-9)


def test_few_mixtures_are_drawn_again_until_the_law_can_be_fitted(swarm):
    few = swarm.select(np.arange(6))
    assert len(bootstrap(fit_laws(few, candidates=["m4"]), num_draws=60).draws) == 60
