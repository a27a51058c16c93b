"""Values worked out by hand, one for each published form that is not pinned elsewhere."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from mixlaw.errors import FitError, MissingExtraError
from mixlaw.laws import Law, Points, fit, make
from mixlaw.laws.capacity import allocate

LOG = np.log
HALF = 0.0  # the logit of 1/2


def value_of(name, theta, weights, *, size=1.0, tokens=1.0) -> float:
    """A law at one point; its own domain is the first, its references 1e5 and 1e6."""
    law = make(name, {"num_params": 1e5, "train_tokens": 1e6})
    assert isinstance(law, Law)
    points = Points.at(np.array(weights), size * 1e5, tokens * 1e6)
    return law.for_targets(np.array([0])).value(np.array([theta], float), points).item()


def test_implicit_aggregation():
    # 1 + .5 exp(0 * .5 + 2 * .5) + .25 exp(-2 * .5 + 0 * .5)
    theta = [0, LOG(0.5), 0, 2, LOG(0.25), -2, 0]
    assert value_of("implicit-2", theta, [0.5, 0.5]) == pytest.approx(2.4511107744)


def test_one_implicit_domain_more_is_one_exponential_more():
    theta = [0.3, -0.2, 0.5, -1.0, 0.1, 0.4, -0.6]
    silent = [*theta, -50.0, 0.0, 0.0]
    two, three = (value_of(f"implicit-{k}", t, [0.3, 0.7]) for k, t in ((2, theta), (3, silent)))
    assert two == pytest.approx(three, rel=1e-14)


def test_bimix():
    # (.249 + .001)^-.5 = 2; 1 + 1 * 4^-.5 = 1.5
    theta = [0, 0, LOG(0.5), LOG(0.5)]
    assert value_of("bimix", theta, [0.249, 0.751], tokens=4) == pytest.approx(3.0)


def test_bimix_at_one_scale():
    law = make("bimix")
    assert isinstance(law, Law)
    theta = np.array([[LOG(1.5), LOG(0.5)]])
    points = Points.at(np.array([0.249, 0.751]))
    assert_allclose(law.for_targets(np.array([0])).value(theta, points), [[3.0]])


def test_autoscale():
    # 1 + 2 ((1 + 2 * .5)^-1 + (.5 + 2 * .5)^-2)
    theta = [0, LOG(2), 0, LOG(0.5), 0, LOG(2)]
    assert value_of("autoscale", theta, [0.5, 0.5], tokens=2) == pytest.approx(2.8888888889)


def test_scaling_power():
    # 1 + (3 * 4^-.5 + 2 * 2^-1)^2
    theta = [0, LOG(2), LOG(3), LOG(0.5), LOG(2), 0]
    assert value_of("scaling-power", theta, [0.5, 0.5], size=4, tokens=2) == pytest.approx(7.25)


def test_additive():
    # 1 + 1 * 4^-.5 + .5 + 1 / (2 * .25^.5 + .75^.5)
    theta = [0, 0, LOG(0.5), LOG(0.5), 0, 0, LOG(2), 0, HALF, HALF]
    assert value_of("additive", theta, [0.249, 0.749], size=4) == pytest.approx(2.5358983849)


def test_joint():
    # 1 + 1 / (2 * .25^.5 + .75^.5) + (.249 + 3 * .749)^2 4^-.5 + .5 (.249 + .749)
    of_params = [0, LOG(2), 0, LOG(3), LOG(0.5)]
    of_tokens = [LOG(0.5), 0, 0, 0, 0]
    theta = [0, 0, LOG(2), 0, HALF, HALF, *of_params, *of_tokens]
    assert value_of("joint", theta, [0.249, 0.749], size=4) == pytest.approx(5.1499063849)


def test_d_cpt():
    # 1 + 2 * .25^.5 * 4^-.5 + .5 * .25^-.5 + 4^-.5
    theta = [0, LOG(2), LOG(0.5), LOG(0.5), LOG(0.5), LOG(0.5), 0, LOG(0.5)]
    assert value_of("d-cpt", theta, [0.249, 0.751], size=4, tokens=4) == pytest.approx(3.0)


class TestCapacityCompetition:
    def test_value(self):
        # Equal shares, b = 1, c = (4, 1): x goes as sqrt(c), 2 : 1 of N + H = 1.01, so
        # c_1 / x_1 = 4 / (2/3 * 1.01); the data term is (2 * .5)^-.5, the floor 1.
        theta = [0, LOG(0.01), 0, 0, LOG(4), 0, 0, LOG(0.5)]
        value = value_of("capacity", theta, [0.499, 0.499], tokens=2)
        assert value == pytest.approx(4 / (2 / 3 * 1.01) + 2)

    def test_crowded_out_domain_keeps_the_head(self):
        # c = (1, 400) would give the first 1/21 of 1.2, less than H = .2.
        theta = [0, LOG(0.2), 0, 0, 0, LOG(400), 0, LOG(0.5)]
        assert value_of("capacity", theta, [0.499, 0.499], tokens=2) == pytest.approx(1 / 0.2 + 2)

    @pytest.mark.parametrize("head", [1e-3, 0.1, 0.5])
    def test_allocation_satisfies_its_optimality_conditions(self, head, rng):
        shares = rng.dirichlet(np.full(6, 0.5), (4, 50)) + 1e-6
        c, b = np.exp(rng.normal(size=(4, 1, 6))), np.exp(0.5 * rng.normal(size=(4, 1, 6)))
        size = np.exp(rng.normal(size=(4, 50, 1))) + head
        x = allocate(np.log(shares * c * b), b, np.full_like(size, head), size)
        assert_allclose(x.sum(axis=2, keepdims=True), size + 5 * head, rtol=1e-12)
        assert np.all(x >= head)
        gain = shares * c * b * x ** (-b - 1)  # of the objective, per unit of capacity
        free = x > head
        largest = gain.max(axis=2, keepdims=True)
        # Free domains gain alike; one held at the head gains no more.
        assert_allclose(np.where(free, gain, largest), np.broadcast_to(largest, x.shape), rtol=1e-9)
        assert np.any(~free) or head < 0.01

    def test_allocation_is_the_optimum_that_a_solver_finds(self):
        shares, c, b = np.array([0.6, 0.3, 0.1]), np.array([1.0, 2.0, 0.1]), np.array([0.3, 1, 0.5])
        head, size = 0.1, 2.0
        found = minimize(
            lambda x: np.sum(shares * c * x**-b),
            np.full(3, (size + 2 * head) / 3),
            bounds=[(head, None)] * 3,
            constraints={"type": "eq", "fun": lambda x: x.sum() - size - 2 * head},
            options={"ftol": 1e-15},
        )
        ours = allocate(np.log(shares * c * b), b, np.array([head]), np.array([size]))
        assert_allclose(ours, found.x, rtol=1e-5)

    def test_model_smaller_than_the_head(self):
        ours = allocate(np.zeros(3), np.ones(3), np.array([0.5]), np.array([0.5]))
        assert_allclose(ours, 0.5)


@pytest.mark.parametrize("name", ["bimix", "d-cpt", "capacity"])
def test_target_without_own_domain_is_refused(name, lab, rng):
    points = lab.grid(rng, mixtures=20)
    runs = lab.table(points, {"loss/held": 1 + rng.random(len(points))})
    with pytest.raises(FitError, match=r"reads the share of a target's own domain.*'loss/held'"):
        fit(make(name, lab.axes), runs, target="loss/held")


class TestLightGBM:
    @pytest.fixture(autouse=True)
    def _lightgbm(self):
        pytest.importorskip("lightgbm")

    @pytest.fixture
    def runs(self, lab, rng):
        points = lab.grid(rng, mixtures=20)
        law = lab.law_named("effective-sum")
        values = law.predict(lab.plausible_theta(law, points, rng), points)
        return lab.table(points, {"loss/code": values})

    def test_learns_and_never_rises_with_scale(self, runs, lab, rng):
        fitted = fit(make("lightgbm", lab.axes), runs, target="loss/code")
        observed, points = runs.column("loss/code"), Points.of(runs)
        assert np.mean((fitted.predict(points) - observed) ** 2) < 0.05 * np.var(observed)
        new = lab.grid(rng, mixtures=30)
        for axis in lab.axes:
            larger = replace(new, **{axis: 2 * getattr(new, axis)})
            assert np.all(fitted.predict(larger) <= fitted.predict(new))

    def test_failed_rows_are_left_out(self, runs, lab):
        broken = runs.values.copy()
        broken[:20] = 1e6
        status = np.where(np.arange(len(runs)) < 20, "failed", "done")
        recipe, points = make("lightgbm", lab.axes), Points.of(runs)
        fitted = fit(recipe, replace(runs, values=broken, status=status), target="loss/code")
        kept = fit(recipe, runs.select(np.arange(20, len(runs))), target="loss/code")
        np.testing.assert_array_equal(fitted.predict(points), kept.predict(points))

    def test_too_few_rows(self, runs, lab):
        few = runs.select((runs.num_params == 1e5) & (runs.train_tokens == 1e6))
        with pytest.raises(FitError, match=r"at least 40 rows.*has 20; train 20 more"):
            fit(make("lightgbm"), few, target="loss/code")


def test_lightgbm_missing(monkeypatch, lab, rng):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    points = lab.grid(rng, mixtures=20)
    runs = lab.table(points, {"loss/code": 1 + rng.random(len(points))})
    with pytest.raises(MissingExtraError, match=r"mixlaw\[baselines\]"):
        fit(make("lightgbm", lab.axes), runs, target="loss/code")
