"""Sums of fitted laws: predictions, gradients, convexity, storage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import fit, load_fitted, make
from mixlaw.laws.combination import aggregate


@pytest.fixture
def runs(lab, rng):
    points = lab.grid(rng, mixtures=20, sizes=1, horizons=1)
    code = 2 + np.exp(-3 * points.weights[:, 0])
    web = 1 + np.exp(-1 * points.weights[:, 2])
    return lab.table(
        points, {"loss/code": code, "loss/web": web, "loss/all": 0.3 * code + 0.7 * web}
    )


@pytest.fixture
def laws(runs):
    return {name: fit(make("m1"), runs, target=name) for name in ("loss/code", "loss/web")}


SHARES = {"loss/code": 0.3, "loss/web": 0.7}


def test_a_whole_is_the_sum_of_its_parts(runs, laws, lab, rng):
    whole, new = aggregate(laws, SHARES, target="loss/all"), lab.grid(rng, mixtures=5)
    parts = 0.3 * laws["loss/code"].predict(new) + 0.7 * laws["loss/web"].predict(new)
    assert_array_equal(whole.predict(new), parts)
    assert whole.gradient(new).shape == (len(new), 3)
    assert whole.recipe.convex


def test_bit_identical_after_json(laws, lab, rng):
    whole, new = aggregate(laws, SHARES, target="loss/all"), lab.grid(rng, mixtures=5)
    again = load_fitted(json.loads(json.dumps(whole.to_dict())))
    assert_array_equal(again.predict(new), whole.predict(new))
    assert_array_equal(again.gradient(new), whole.gradient(new))


def test_a_part_that_is_not_convex_makes_the_whole_so(runs, laws):
    laws["loss/web"] = fit(make("log-ridge"), runs, target="loss/web")
    assert not aggregate(laws, SHARES, target="loss/all").recipe.convex


def test_better_than_a_law_of_the_whole(runs, laws, lab, rng):
    """Two exponentials of different rates are not one M4, but their laws add up."""
    new = lab.grid(rng, mixtures=30, sizes=1, horizons=1)
    truth = 0.3 * (2 + np.exp(-3 * new.weights[:, 0])) + 0.7 * (1 + np.exp(-new.weights[:, 2]))
    summed = aggregate(laws, SHARES, target="loss/all").predict(new)
    direct = fit(make("m4"), runs, target="loss/all").predict(new)
    assert np.abs(summed - truth).mean() < 0.2 * np.abs(direct - truth).mean()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"loss/music": 1.0}, r"no law was fitted to \['loss/music'\]"),
        ({"loss/code": -0.1}, "must be >= 0"),
        ({"loss/code": float("nan")}, "must be >= 0"),
        ({}, "at least one target"),
    ],
)
def test_bad_shares(laws, shares, message):
    with pytest.raises(FitError, match=message):
        aggregate(laws, shares, target="loss/all")


def test_a_sum_has_no_fit_of_its_own(laws):
    whole = aggregate(laws, SHARES, target="loss/all")
    with pytest.raises(FitError, match="fit its parts"):
        whole.recipe.fit_batch(None)  # pyright: ignore[reportArgumentType]
