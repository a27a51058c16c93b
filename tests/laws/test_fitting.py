"""Known truths are recovered; rows that cannot identify a law are refused with numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixlaw.errors import FitError
from mixlaw.laws import CANDIDATES, FittedLaw, Law, fit, make
from mixlaw.laws.nested import FittedNested, PowerStage

AXES = {"num_params": 1e5, "train_tokens": 1e6}


@pytest.mark.parametrize("name", [name for name in CANDIDATES if isinstance(make(name, AXES), Law)])
def test_truth_is_recovered_on_new_mixtures(name, lab, rng):
    law = lab.law_named(name)
    scales = 4 if make(name, lab.axes).axes else 1
    train = lab.grid(rng, mixtures=40, sizes=scales, horizons=scales)
    new = lab.grid(rng, mixtures=20, sizes=scales, horizons=scales)
    theta = lab.plausible_theta(law, train, rng)
    runs = lab.table(train, {"loss/code": law.predict(theta, train)})
    fitted = fit(make(name, lab.axes), runs, target="loss/code")
    truth = law.predict(theta, new)
    assert_allclose(fitted.predict(new), truth, atol=2e-3 * np.std(truth), rtol=0)


def test_nested_recovers_shared_power_laws(lab, rng):
    """Exactly the pipeline's own assumptions: a floor per mixture, shared exponents, M4 at every
    scale; forecast at twice the size and twice the tokens."""
    t = np.array([-1.0, 0.5, 0.2])

    def truth(points):
        shape = np.exp(points.weights @ t)
        size = (points.num_params / 1e5) ** -0.3
        tokens = (points.train_tokens / 1e6) ** -0.5
        return shape * (1 + 0.4 * size + 0.3 * tokens)

    train = lab.grid(rng, mixtures=12, sizes=4, horizons=4)
    recipe = make("nested", lab.axes)
    fitted = fit(recipe, lab.table(train, {"loss/code": truth(train)}), target="loss/code")
    assert isinstance(fitted, FittedNested)
    assert_allclose([step.exponent for step in fitted.steps], 0.5, rtol=1e-4)
    assert_allclose(fitted.size_stage(2e6).exponent, 0.3, rtol=1e-3)
    new = lab.grid(rng, mixtures=10, sizes=1, horizons=1)
    new = replace(new, num_params=new.num_params * 4, train_tokens=new.train_tokens * 4)
    assert_allclose(fitted.predict(new), truth(new), rtol=1e-3)


def test_power_stage_skips_missing_points():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    y = np.stack([1 + 2 * x**-0.4, 0.5 + x**-0.4, 3 + x**-0.4])
    y[1, 2] = np.nan
    y[2, 1:] = np.nan
    stage = PowerStage.fit(x, y)
    assert_allclose(stage.exponent, 0.4, rtol=1e-5)
    assert_allclose(stage(16.0)[:2], [1 + 2 * 16**-0.4, 0.5 + 16**-0.4], rtol=1e-5)
    assert np.isnan(stage(16.0)[2])


@pytest.fixture
def swarm(lab, rng):
    """Thirty mixtures at one scale, made by M4 with noise."""
    points = lab.grid(rng, mixtures=30, sizes=1, horizons=1)
    values = 2 + np.exp(points.weights @ [-2.0, 0.3, 0.1]) + 0.003 * rng.normal(size=30)
    return lab.table(points, {"loss/code": values})


def test_noise_is_seen_in_the_prior_strength(swarm, lab, rng):
    clean = fit(make("m4"), swarm, target="loss/code")
    shuffled = replace(swarm, values=rng.permutation(swarm.values))
    noisy = fit(make("m4"), shuffled, target="loss/code")
    assert isinstance(clean, FittedLaw)
    assert isinstance(noisy, FittedLaw)
    assert noisy.diagnostics.noise > 10 * clean.diagnostics.noise
    assert np.std(noisy.predict(lab.grid(rng, mixtures=50))) < 0.4 * np.std(swarm.values)
    assert clean.diagnostics.rmse == pytest.approx(0.003, rel=0.5)
    assert clean.diagnostics.condition < 1e4


def test_failed_and_missing_rows_are_left_out_and_said_so(swarm):
    status = np.where(np.arange(30) < 2, "failed", "done")
    values = swarm.values.copy()
    values[:2], values[5] = 900.0, np.nan
    fitted = fit(make("m4"), replace(swarm, status=status, values=values), target="loss/code")
    assert any("2 rows of failed runs" in text for text in fitted.warnings)
    assert any("1 rows without a value" in text for text in fitted.warnings)
    kept = swarm.select(np.flatnonzero((np.arange(30) >= 2) & (np.arange(30) != 5)))
    alone = fit(make("m4"), kept, target="loss/code")
    assert isinstance(fitted, FittedLaw)
    assert isinstance(alone, FittedLaw)
    assert_allclose(fitted.theta, alone.theta)


def test_no_usable_row(swarm):
    broken = replace(swarm, status=np.full(30, "failed"))
    with pytest.raises(FitError, match=r"no usable row among 30 \(30 of failed runs"):
        fit(make("m4"), broken, target="loss/code")


def test_fewer_runs_than_parameters(swarm):
    with pytest.raises(FitError, match=r"needs at least 4 distinct mixtures.*has 3; train 1 more"):
        fit(make("m4"), swarm.select(np.arange(3)), target="loss/code")


def test_seeds_of_one_mixture_do_not_count_as_mixtures(swarm):
    repeated = swarm.select(np.arange(30) % 3)
    repeated = replace(repeated, run=np.array([f"run{i}" for i in range(30)]))
    with pytest.raises(FitError, match=r"4 distinct mixtures.*has 3"):
        fit(make("m4"), repeated, target="loss/code")


def test_horizons_of_one_run_do_not_count_as_runs(lab, rng):
    points = lab.grid(rng, mixtures=2, sizes=2, horizons=5)  # 20 rows, 4 runs
    runs = lab.table(points, {"loss/code": 1 + rng.random(20)})
    with pytest.raises(FitError, match=r"at least \d+ distinct runs.*has 4; train"):
        fit(make("exponential-chinchilla", lab.axes), runs, target="loss/code")


def test_constant_target(swarm):
    flat = replace(swarm, values=np.full_like(swarm.values, 2.5))
    with pytest.raises(FitError, match=r"constant \(2.5 in all 30 rows\)"):
        fit(make("m4"), flat, target="loss/code")


def test_unknown_count(swarm, lab):
    unknown = replace(swarm, num_params=np.where(np.arange(30) < 4, np.nan, 1e5))
    with pytest.raises(FitError, match="reads num_params, which 4 of 30 rows"):
        fit(make("effective-sum", {"num_params": 1e5}), unknown, target="loss/code")


def test_one_size_for_a_law_of_size(swarm):
    with pytest.raises(FitError, match=r"at least 2 different values of num_params.*has 1"):
        fit(make("effective-sum", {"num_params": 1e5}), swarm, target="loss/code")


def test_nested_refuses_two_sizes(lab, rng):
    points = lab.grid(rng, mixtures=10, sizes=2, horizons=3)
    runs = lab.table(points, {"loss/code": 1 + rng.random(60)})
    with pytest.raises(FitError, match=r"needs 3 different values of num_params.*has 2"):
        fit(make("nested", lab.axes), runs, target="loss/code")


def test_a_parameter_that_ran_off_teaches_the_others_nothing():
    """Its variance is lost in the digits: the shared prior stays where the sound targets put it."""
    from types import SimpleNamespace

    from mixlaw.laws.learning import _share_exponents

    swapped = np.array([[0.0, 1.0], [1.0, 0.0]])  # its inverse has no variances
    sound = np.diag([50.0, 1.0])
    problems = SimpleNamespace(
        law=SimpleNamespace(alike=lambda points: np.array([0.3, np.inf])),
        points=None,
        mean=np.zeros((2, 2)),
        precision=np.tile(np.eye(2), (2, 1, 1)),
        normal=lambda theta, which, noise: (None, None, np.stack([swapped, sound])),
    )
    theta = np.array([[-2e21, 0.0], [0.5, 0.0]])
    _share_exponents(problems, theta, np.array([0, 1]), np.ones(2))
    assert np.isfinite(problems.mean).all()
    assert 0 < problems.mean[0, 0] == problems.mean[1, 0] < 0.6
