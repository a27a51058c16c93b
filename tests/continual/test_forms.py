"""Forms: derivatives, limits, and what each can be asked."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.continual.forms import FORMS, NEED_TOKENS, ContinualPoints, candidates_for, make
from mixlaw.errors import FitError
from mixlaw.laws.batch import Batch

ALL = [(name, ("train_tokens",)) for name in FORMS]
ALL += [(name, ("num_params", "train_tokens", "rewarm")) for name in FORMS]
ALL += [(name, ("rewarm",)) for name in FORMS if name not in NEED_TOKENS]


@pytest.mark.parametrize(("name", "axes"), ALL)
def test_derivatives_are_those_of_the_values(name, axes, made, rng):
    sides = (0, 0, 1)
    form = made.form(name, {axis: made.axes[axis] for axis in axes}, sides)
    points = made.points(9, rng, groups=3)
    theta = form.draw(points, rng)
    values, jacobian = form.both.evaluate(theta, points)
    np.testing.assert_allclose(form.both.value(theta, points), values, rtol=1e-12)
    step = 1e-6
    for k in range(theta.shape[1]):
        moved = step * np.eye(theta.shape[1])[k]
        ahead, behind = (form.both.value(theta + sign * moved, points) for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(jacobian[:, :, k], slope, rtol=1e-5, atol=1e-7)
    gradient = form.both.gradient(theta, points)
    for j in range(3):
        moved = step * np.eye(3)[j]
        at = (points.weights + moved, points.weights - moved)
        ahead, behind = (
            form.both.value(
                theta,
                ContinualPoints(w, points.num_params, points.train_tokens, rewarm=points.rewarm),
            )
            for w in at
        )
        slope = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(gradient[:, :, j], slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", sorted(NEED_TOKENS))
def test_an_anchored_form_is_its_base_before_the_first_token(name, made, rng):
    form = made.form(name, {"train_tokens": 2e6})
    points = made.points(5, rng)
    theta = form.draw(points, rng)
    none = ContinualPoints(points.weights, points.num_params, np.full(5, 1e-6))
    np.testing.assert_allclose(form.both.value(theta, none), 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_stays_positive_and_finite_far_from_its_prior(name, made, rng):
    form = made.form(name, made.axes)
    points = made.points(20, rng)
    for _ in range(20):
        values, jacobian = form.both.evaluate(form.draw(points, rng, spread=1e3) * 30, points)
        assert (values > 0).all()
        assert np.isfinite(values).all()
        assert np.isfinite(jacobian).all()


def test_points_keep_their_rewarming_when_selected(made, rng):
    points = made.points(6, rng)
    np.testing.assert_array_equal(
        points.select(points.rewarm > 1).rewarm, points.rewarm[points.rewarm > 1]
    )


def test_what_does_not_vary_has_no_form():
    assert set(candidates_for({"rewarm": 1.0})) == set(FORMS) - NEED_TOKENS
    with pytest.raises(FitError, match="train another horizon"):
        make("anchored-power", {}, np.array([0, 1]))
    with pytest.raises(FitError, match="no continual form is called 'cubic'"):
        make("cubic", {}, np.array([0, 1]))


@pytest.mark.parametrize("name", ["d-cpt", "power"])
def test_a_target_of_neither_side_is_refused_by_forms_of_a_side(name, made, rng):
    law = make(name, {}, np.array([0, 1]))
    points = made.points(4, rng)
    ones, ids = np.ones((1, 4)), np.arange(4)
    batch = Batch(("loss/x",), ("old", "new"), np.array([-1]), points, ones, ones, ids, ids, ((),))
    with pytest.raises(FitError, match="named after no domain"):
        law.fit_batch(batch)
