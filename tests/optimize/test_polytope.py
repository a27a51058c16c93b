"""Projection, vertices and the certificate's gap against linear programmes of scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from mixlaw.errors import InfeasibleError
from mixlaw.optimize.polytope import Polytope, quadratic

SEEDS = st.integers(0, 2**32 - 1)


def random_polytope(rng, domains, rows=0):
    """One with a mixture inside; some rows are equalities."""
    inside = rng.dirichlet(np.ones(domains))
    lower, upper = inside * rng.random(domains), inside + (1 - inside) * rng.random(domains)
    matrix = (rng.random((rows, domains)) < 0.5).astype(float)
    shares = matrix @ inside
    tight = rng.random(rows) < 0.2
    least = np.where(tight, shares, shares * rng.random(rows))
    most = np.where(tight, shares, shares + (1 - shares) * rng.random(rows))
    return Polytope(lower, upper, matrix, least, most), inside


def lowest(polytope, gradient):
    """The least of gradient . s over the polytope, by HiGHS."""
    found = linprog(
        gradient,
        A_ub=np.vstack([polytope.rows, -polytope.rows]),
        b_ub=np.concatenate([polytope.most, -polytope.least]),
        A_eq=np.ones((1, len(gradient))),
        b_eq=[1.0],
        bounds=list(zip(polytope.lower, polytope.upper, strict=True)),
    )
    assert found.status == 0
    return found.fun


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, domains=st.integers(1, 9), rows=st.integers(0, 4))
def test_the_gap_bounds_that_of_the_linear_programme_whatever_the_prices(seed, domains, rows):
    rng = np.random.default_rng(seed)
    polytope, point = random_polytope(rng, domains, rows)
    gradient, prices = rng.normal(0, 1, domains), rng.normal(0, 1, rows) * (rng.random(rows) < 0.7)
    true = gradient @ point - lowest(polytope, gradient)
    assert polytope.gap(point, gradient, prices) >= true - 1e-8
    if rows == 0:
        assert polytope.gap(point, gradient, prices) == pytest.approx(true, abs=1e-8)


def test_a_price_of_a_limit_that_is_not_there_does_not_spoil_the_gap():
    polytope = Polytope(
        np.zeros(2), np.ones(2), np.array([[1.0, 0.0]]), np.array([0.25]), np.array([np.inf])
    )
    point, slope = np.array([0.25, 0.75]), np.array([1.0, 0.0])
    assert polytope.gap(point, slope, np.array([-1.0])) == 0  # the multiplier
    assert polytope.gap(point, slope, np.array([1e-17])) == 0.25  # rounding of a zero


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, domains=st.integers(1, 9), rows=st.integers(0, 4))
def test_projection_is_the_nearest_point(seed, domains, rows):
    rng = np.random.default_rng(seed)
    polytope, _ = random_polytope(rng, domains, rows)
    point = rng.normal(0, 1, domains)
    nearest = polytope.project(point)
    assert (nearest >= polytope.lower).all()
    assert (nearest <= polytope.upper).all()
    assert abs(nearest.sum() - 1) <= 1e-14
    shares = polytope.rows @ nearest
    assert (shares >= polytope.least - 1e-9).all()
    assert (shares <= polytope.most + 1e-9).all()
    # (nearest - point) . (s - nearest) >= 0 for every s within the limits.
    away = nearest - point
    assert away @ nearest - lowest(polytope, away) <= 1e-8
    np.testing.assert_allclose(polytope.project(nearest), nearest, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, domains=st.integers(1, 9))
def test_the_extreme_point_is_that_of_the_linear_programme(seed, domains):
    rng = np.random.default_rng(seed)
    polytope, _ = random_polytope(rng, domains)
    gradient = rng.normal(0, 1, domains)
    best = polytope.extreme(gradient)
    assert best.sum() == pytest.approx(1, abs=1e-12)
    assert gradient @ best == pytest.approx(lowest(polytope, gradient), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=st.integers(2, 6), count=st.integers(0, 4))
def test_a_quadratic_programme_meets_its_conditions_of_optimality(seed, size, count):
    rng = np.random.default_rng(seed)
    root, matrix = rng.normal(size=(size, size)), rng.normal(size=(count, size))
    matrix = np.vstack([np.ones(size), matrix])
    hessian, linear = root @ root.T + 0.1 * np.eye(size), rng.normal(0, 3, size)
    inside = rng.normal(size=size)
    value = np.concatenate([inside, matrix @ inside])
    lower, upper = value - rng.random(len(value)), value + rng.random(len(value))
    lower[size] = upper[size] = value[size]
    x, prices = quadratic(hessian, linear, matrix, lower, upper, equal=size)
    rows = np.vstack([np.eye(size), matrix])
    np.testing.assert_allclose(hessian @ x + linear + rows.T @ prices, 0, atol=1e-8)
    at = rows @ x
    assert (at >= lower - 1e-9).all()
    assert (at <= upper + 1e-9).all()
    np.testing.assert_allclose(np.where(prices > 1e-9, at - upper, 0), 0, atol=1e-8)
    free = np.arange(len(at)) == size
    np.testing.assert_allclose(np.where((prices < -1e-9) & ~free, at - lower, 0), 0, atol=1e-8)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.6, 0.6], [1, 1], r"lower bounds sum to 1\.2"),
        ([0, 0], [0.4, 0.4], r"the upper to 0\.8"),
        ([0, 0.6], [1, 0.5], "domain number 1 has lower bound 0.6 above its upper bound 0.5"),
        ([0, np.nan], [1, 1], "domain number 1"),
    ],
)
def test_bounds_that_hold_no_mixture(lower, upper, message):
    with pytest.raises(InfeasibleError, match=message):
        Polytope(np.array(lower), np.array(upper)).check()


def test_groups_that_hold_no_mixture():
    limits = Polytope(np.zeros(3), np.ones(3)).with_rows(
        np.array([[1.0, 1, 0], [0, 1, 1]]), np.array([0.0, 0]), np.array([0.3, 0.8])
    )
    with pytest.raises(InfeasibleError, match="limits on groups"):
        limits.with_rows(np.array([0, 1.0, 0]), np.array(0.2), np.array(1.0)).check()
    limits.with_rows(np.array([0, 1.0, 0]), np.array(-np.inf), np.array(0.0)).check()
