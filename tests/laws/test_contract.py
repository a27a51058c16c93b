"""What every law of the catalogue promises, whatever its formula."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import CANDIDATES, Law, fit, load_fitted, make
from mixlaw.laws.catalogue import (
    BASELINES,
    DEFAULT_MANY_SCALES,
    DEFAULT_ONE_SCALE,
    MANY_SCALES,
    ONE_SCALE,
)
from mixlaw.laws.residual import SUFFIX

BOTH_AXES = {"num_params": 1e5, "train_tokens": 1e6}
FLAT_FOR_SOME = {"capacity"}  # a domain left with only the head gains nothing from a larger model
WITH_PROCESS = ["effective+gp", "effective-product+gp", "nested+gp"]
LAWS = [name for name in CANDIDATES if isinstance(make(name, BOTH_AXES), Law)]


def central_difference(function, x, step=1e-6):
    """Derivatives of `function` (n,) along each coordinate of x (k,): (n, k)."""
    steps = step * np.eye(len(x))
    return np.stack([(function(x + s) - function(x - s)) / (2 * step) for s in steps], axis=1)


@pytest.mark.parametrize("name", LAWS)
class TestEveryLaw:
    def test_jacobian_is_that_of_predict(self, name, lab, rng):
        law, points = lab.law_named(name), lab.grid(rng, mixtures=6)
        theta = lab.plausible_theta(law, points, rng)
        assert len(theta) == law.num_parameters(len(lab.domains))
        expected = central_difference(lambda t: law.predict(t, points), theta)
        assert_allclose(law.evaluate(theta, points)[1], expected, rtol=1e-5, atol=1e-7)

    def test_evaluate_agrees_with_predict(self, name, lab, rng):
        law, points = lab.law_named(name), lab.grid(rng, mixtures=6)
        theta = lab.plausible_theta(law, points, rng)
        assert_allclose(law.evaluate(theta, points)[0], law.predict(theta, points), rtol=1e-13)

    def test_gradient_is_that_of_predict(self, name, lab, rng):
        law, points = lab.law_named(name), lab.grid(rng, mixtures=6)
        theta = lab.plausible_theta(law, points, rng)

        def shifted(shift):
            return law.predict(theta, replace(points, weights=points.weights + shift))

        expected = central_difference(shifted, np.zeros(len(lab.domains)), step=1e-7)
        assert_allclose(law.gradient(theta, points), expected, rtol=1e-3, atol=1e-6)

    def test_predictions_are_positive_and_fall_with_scale(self, name, lab, rng):
        law, points = lab.law_named(name), lab.grid(rng, mixtures=6)
        for _ in range(5):
            theta = lab.plausible_theta(law, points, rng)
            value = law.predict(theta, points)
            assert np.all(value > 0)
            for axis in lab.axes:
                larger = replace(points, **{axis: 2 * getattr(points, axis)})
                change = law.predict(theta, larger) - value
                if axis not in law.needs:
                    assert np.all(change == 0)
                elif name in FLAT_FOR_SOME:
                    assert np.all(change <= 0)
                    assert np.mean(change < 0) > 0.5
                else:
                    assert np.all(change < 0)

    def test_convex_where_it_says_so(self, name, lab, rng):
        law, points = lab.law_named(name), lab.grid(rng, mixtures=40)
        other = replace(points, weights=rng.permutation(points.weights))
        middle = replace(points, weights=(points.weights + other.weights) / 2)
        bulge = []
        for _ in range(20):
            theta = lab.plausible_theta(law, points, rng)
            ends = (law.predict(theta, points) + law.predict(theta, other)) / 2
            bulge.append(law.predict(theta, middle) - ends)
        if law.convex:
            assert np.max(bulge) <= 1e-12
        else:
            assert np.max(bulge) > 1e-6, "never seen to bulge: is it convex after all?"

    def test_gauges_are_the_directions_that_change_nothing(self, name, lab, rng):
        law, points = lab.law_named(name), lab.grid(rng, mixtures=200)
        theta = lab.plausible_theta(law, points, rng)
        jacobian = law.evaluate(theta, points)[1]
        singular = np.linalg.svd(jacobian / np.linalg.norm(jacobian, axis=0), compute_uv=False)
        assert np.sum(singular > 1e-10 * singular[0]) == law.num_identified(len(lab.domains))

    def test_prior_carries_every_gauge(self, name, lab, rng):
        law, points = lab.law_named(name), lab.grid(rng, mixtures=200)
        _, sd = law.prior(points, 3.0)
        theta = lab.plausible_theta(law, points, rng)
        jacobian = np.concatenate([law.evaluate(theta, points)[1], np.diag(1 / sd)])
        assert np.linalg.matrix_rank(jacobian) == len(theta)


def swarm_of(lab, rng, *, mixtures=16, targets=("loss/code", "loss/held")):
    """A table over three sizes and three horizons made by the product law, with a little noise."""
    points = lab.grid(rng, mixtures=mixtures)
    law = lab.law_named("effective-product")
    values = {}
    for target in targets:
        clean = law.predict(lab.plausible_theta(law, points, rng), points)
        values[target] = clean * np.exp(0.005 * rng.normal(size=len(clean)))
    return lab.table(points, values)


@pytest.mark.parametrize("name", [*CANDIDATES, *WITH_PROCESS])
class TestEveryRecipe:
    @pytest.fixture(autouse=True)
    def _needs_its_package(self, name):
        if name in BASELINES:
            pytest.importorskip(name)

    def runs_for(self, name, lab, rng):
        runs = swarm_of(lab, rng)
        if not make(name, lab.axes).axes:
            return runs.select((runs.num_params == 1e5) & (runs.train_tokens == 1e6))
        return runs

    def test_predicts_bit_identically_after_json(self, name, lab, rng):
        runs, new = self.runs_for(name, lab, rng), lab.grid(rng, mixtures=4)
        fitted = fit(make(name, lab.axes), runs, target="loss/code")
        again = load_fitted(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
        assert_array_equal(again.predict(new), fitted.predict(new))
        assert_array_equal(again.gradient(new), fitted.gradient(new))
        assert again.to_dict() == fitted.to_dict()

    def test_same_seed_same_fit(self, name, lab, rng):
        runs, new = self.runs_for(name, lab, rng), lab.grid(rng, mixtures=4)
        first, second = (fit(make(name, lab.axes), runs, target="loss/code") for _ in range(2))
        assert_array_equal(first.predict(new), second.predict(new))

    def test_order_of_domains_and_rows_does_not_matter(self, name, lab, rng):
        runs, new = self.runs_for(name, lab, rng), lab.grid(rng, mixtures=4)
        order = [2, 0, 1]
        turned = replace(
            runs,
            domains=tuple(runs.domains[j] for j in order),
            weights=runs.weights[:, order],
        ).select(rng.permutation(len(runs)))
        recipe = make(name, lab.axes)
        # One formula with many starts may end at different digits, not at different forecasts.
        straight = fit(recipe, runs, target="loss/code").predict(new)
        other = fit(recipe, turned, target="loss/code")
        again = other.predict(replace(new, weights=new.weights[:, order]))
        assert_allclose(again, straight, rtol=5e-3)

    def test_fitted_gradient_is_that_of_its_predictions(self, name, lab, rng):
        runs, new = self.runs_for(name, lab, rng), lab.grid(rng, mixtures=3)
        fitted = fit(make(name, lab.axes), runs, target="loss/code")

        def shifted(shift):
            return fitted.predict(replace(new, weights=new.weights + shift))

        expected = central_difference(shifted, np.zeros(3), step=1e-7)
        assert_allclose(fitted.gradient(new), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", LAWS)
@settings(max_examples=20, deadline=None)
@given(theta_seed=st.integers(0, 10**6), scale=st.floats(0.1, 8.0))
def test_no_theta_overflows(name, theta_seed, scale):
    """A trial step of the minimiser may go anywhere; it must come back as a finite number."""
    from mixlaw.laws import Points

    law = make(name, BOTH_AXES).for_targets(np.array([0]))
    points = Points.at(np.eye(3), 1e8, 1e9)
    theta = scale * 10 * np.random.default_rng(theta_seed).normal(size=(1, law.num_parameters(3)))
    value, jacobian = law.evaluate(theta, points)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(jacobian))
    assert np.all(np.isfinite(law.gradient(theta, points)))


def test_identified_parameters_of_the_papers_laws():
    counts = {name: make(name).num_identified(5) for name in ("m1", "m2", "m3", "m4")}
    assert counts == {"m1": 11, "m2": 7, "m3": 3, "m4": 6}


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        (name, axes)
        for name in LAWS
        for axes in ([], ["num_params"], ["train_tokens"])
        if axes or name not in MANY_SCALES
    ],
)
def test_axes_that_do_not_vary_are_not_read(name, axes, lab, rng):
    """A law over some of the axes takes points whose other counts are unknown."""
    law = make(name, {axis: BOTH_AXES[axis] for axis in axes}).for_targets(np.array([0]))
    known = lab.grid(rng, mixtures=6)
    unknown = {axis: np.full(len(known), np.nan) for axis in BOTH_AXES if axis not in axes}
    points = replace(known, **unknown)
    level = np.array([3.0])
    mean, sd = law.prior(points, level)
    assert mean.shape == sd.shape == (1, law.num_parameters(3))
    assert set(law.axes) <= set(axes)
    assert law.num_required(3) <= law.num_identified(3)
    theta = mean + np.minimum(sd, 0.5) * rng.normal(size=mean.shape)
    value, jacobian = law.evaluate(theta, points)
    expected = central_difference(lambda t: law.value(t[None], points)[0], theta[0])
    assert_allclose(jacobian[0], expected, rtol=1e-5, atol=1e-7)
    assert_allclose(value, law.value(theta, points), rtol=1e-13)
    # At its prior's mean a law is about as large as the target.
    assert_allclose(np.exp(np.mean(np.log(law.value(mean, points)))), level, rtol=0.15)


def test_defaults_are_candidates():
    assert {name.removesuffix(SUFFIX) for name in DEFAULT_ONE_SCALE} <= set(ONE_SCALE)
    assert {name.removesuffix(SUFFIX) for name in DEFAULT_MANY_SCALES} <= set(MANY_SCALES)
    assert set(CANDIDATES) == {*ONE_SCALE, *MANY_SCALES, *BASELINES}


def test_unknown_law_names_the_known():
    with pytest.raises(FitError, match=r"no law is called 'm5'.*effective"):
        make("m5")


@pytest.mark.parametrize("name", MANY_SCALES)
def test_law_of_scale_needs_an_axis(name):
    with pytest.raises(FitError, match="one size and one horizon"):
        make(name)
