"""A process over what a law leaves over: when it is there, what it learns, that it is a law."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import CANDIDATES, FittedLaw, Points, fit, load_fitted, make
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.residual import MOST_RUNS, FittedResidual
from mixlaw.laws.solver import Start


def misfit(points: Points) -> np.ndarray:
    """(n,) smooth in the mixture, of a shape that no law of the catalogue has."""
    return 0.03 * np.sin(9 * points.weights[:, 0]) * np.cos(5 * points.weights[:, 2])


def truth(points: Points) -> np.ndarray:
    """(n,) a law of the mixture and the counts."""
    size, tokens = points.num_params / 1e5, points.train_tokens / 1e6
    return 1.5 + (0.1 + points.weights[:, 0]) ** -0.3 * size**-0.2 * tokens**-0.1


def noisy(rng, values, scale=0.002):
    return values * np.exp(scale * rng.normal(size=len(values)))


def error(fitted, points, values) -> float:
    return float(np.mean(np.abs(fitted.predict(points) / values - 1)))


@pytest.fixture
def one_scale(lab, rng):
    points = lab.grid(rng, mixtures=60, sizes=1, horizons=1)
    return lab.table(points, {"loss/code": noisy(rng, truth(points) * np.exp(misfit(points)))})


def test_learns_a_smooth_misfit(one_scale, lab, rng):
    new = lab.grid(rng, mixtures=200, sizes=1, horizons=1)
    values = truth(new) * np.exp(misfit(new))
    with_gp, alone = (
        fit(make(name), one_scale, target="loss/code") for name in ("effective+gp", "effective")
    )
    assert error(with_gp, new, values) < 0.5 * error(alone, new, values)


def test_carries_the_misfit_to_a_larger_size(lab, rng):
    points = lab.grid(rng, mixtures=40)
    values = truth(points) * np.exp(misfit(points))
    largest = points.num_params == points.num_params.max()
    runs = lab.table(points, {"loss/code": noisy(rng, values)}).select(~largest)
    with_gp, alone = (
        fit(make(name, lab.axes), runs, target="loss/code")
        for name in ("effective-product+gp", "effective-product")
    )
    assert isinstance(with_gp, FittedResidual)
    assert with_gp.process is not None
    assert with_gp.process.kernel.reach is not None
    new, values = points.select(largest), values[largest]
    assert error(with_gp, new, values) < 0.5 * error(alone, new, values)


def test_off_on_data_of_the_law_itself(lab, rng):
    points = lab.grid(rng, mixtures=50, sizes=1, horizons=1)
    runs = lab.table(points, {"loss/code": noisy(rng, truth(points), 0.005)})
    fitted = fit(make("effective+gp"), runs, target="loss/code")
    assert isinstance(fitted, FittedResidual)
    assert fitted.process is None
    alone, new = fit(make("effective"), runs, target="loss/code"), lab.grid(rng, mixtures=9)
    assert_array_equal(fitted.predict(new), alone.predict(new))
    assert_array_equal(fitted.gradient(new), alone.gradient(new))


def test_off_on_noise(lab, rng):
    points = lab.grid(rng, mixtures=40, sizes=1, horizons=1)
    targets = {f"loss/{k}": 3 * np.exp(0.01 * rng.normal(size=40)) for k in range(30)}
    fitted = make("effective+gp").fit_batch(batch_of(lab.table(points, targets), list(targets)))
    assert sum(law.process is not None for law in fitted) <= 1  # pyright: ignore[reportAttributeAccessIssue]


def test_targets_of_the_same_rows_share_the_kernel_and_switch_themselves(lab, rng):
    points = lab.grid(rng, mixtures=60, sizes=1, horizons=1)
    bent = truth(points) * np.exp(misfit(points))
    values = {"loss/a": noisy(rng, bent), "loss/b": noisy(rng, bent + 1)}
    values["loss/c"] = noisy(rng, truth(points), 0.005)
    runs = lab.table(points, values)
    a, b, c = make("effective+gp").fit_batch(batch_of(runs, list(values)))
    assert a.process.kernel == b.process.kernel  # pyright: ignore[reportAttributeAccessIssue]
    assert c.process is None  # pyright: ignore[reportAttributeAccessIssue]


def test_rows_that_are_not_used_have_no_influence(one_scale, lab, rng):
    batch, new = batch_of(one_scale, ["loss/code"]), lab.grid(rng, mixtures=5)
    use = batch.use.copy()
    use[:, ::3] = 0
    other = np.where(use > 0, batch.y, 17.0)
    one, two = (
        make("effective+gp").fit_batch(replace(batch, use=use, y=y))[0] for y in (batch.y, other)
    )
    assert_array_equal(one.predict(new), two.predict(new))
    removed = make("effective+gp").fit_batch(batch.rows(use[0] > 0))[0]
    assert_allclose(one.predict(new), removed.predict(new), rtol=1e-6)


def test_folds_are_fitted_as_if_alone(one_scale, lab, rng):
    batch, new = batch_of(one_scale, ["loss/code"]), lab.grid(rng, mixtures=5)
    folds = batch.times(np.arange(60) % 4 != np.arange(4)[:, None], np.zeros(4, int))
    together = make("m4+gp").fit_batch(folds)
    for b, fitted in enumerate(together):
        alone = make("m4+gp").fit_batch(folds.select([b]))[0]
        assert_allclose(fitted.predict(new), alone.predict(new), rtol=1e-4)


def test_resamples_that_keep_their_start_share_the_kernel(one_scale, rng):
    batch = batch_of(one_scale, ["loss/code"])
    use = rng.multinomial(60, np.full(60, 1 / 60), 6).astype(float)
    resamples = batch.times(use, np.zeros(6, int))
    start = fit(make("effective+gp"), one_scale, target="loss/code").start
    assert isinstance(start, Start)
    kept = [replace(start, keep=True)] * 6
    fitted = make("effective+gp").fit_batch(resamples, starts=kept)
    kernels = {law.process and law.process.kernel for law in fitted}  # pyright: ignore[reportAttributeAccessIssue]
    assert len(kernels - {None}) == 1


@pytest.mark.parametrize("available", [None, np.array([2e5, np.inf, 4e5])])
def test_gradient(one_scale, available):
    fitted = fit(make("effective+gp"), one_scale, target="loss/code")
    # Off the trained mixtures and on them, inside and on the border.
    weights = np.array([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0], [0, 0, 1.0], one_scale.weights[0]])
    points, step = Points.at(weights, 1e5, 1e6, available_tokens=available), 1e-7
    slopes = fitted.gradient(points)
    assert np.all(np.isfinite(slopes))
    ahead = np.stack(
        [fitted.predict(replace(points, weights=weights + step * d)) for d in np.eye(3)], axis=1
    )
    assert_allclose((ahead - fitted.predict(points)[:, None]) / step, slopes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("target", ["loss/bent", "loss/straight"])
def test_bit_identical_after_json(lab, rng, target):
    points = lab.grid(rng, mixtures=40)
    bent = truth(points) * np.exp(misfit(points))
    values = {"loss/bent": noisy(rng, bent), "loss/straight": noisy(rng, truth(points), 0.01)}
    fitted = fit(make("effective-product+gp", lab.axes), lab.table(points, values), target=target)
    new = lab.grid(rng, mixtures=7)
    again = load_fitted(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert_array_equal(again.predict(new), fitted.predict(new))
    assert_array_equal(again.gradient(new), fitted.gradient(new))
    assert again.to_dict() == fitted.to_dict()
    assert again.recipe.name == "effective-product+gp"


def test_chunks_do_not_matter(one_scale, lab, rng, monkeypatch):
    fitted, new = (
        fit(make("effective+gp"), one_scale, target="loss/code"),
        lab.grid(rng, mixtures=9),
    )
    whole = fitted.predict(new), fitted.gradient(new)
    monkeypatch.setattr("mixlaw.laws.gaussian.CHUNK", 130)
    assert_allclose(fitted.predict(new), whole[0], rtol=1e-12)
    assert_allclose(fitted.gradient(new), whole[1], rtol=1e-9)


def test_more_runs_than_it_can_hold(lab, rng):
    points = lab.grid(rng, mixtures=MOST_RUNS + 200, sizes=1, horizons=1)
    runs = lab.table(points, {"loss/code": noisy(rng, truth(points) * np.exp(misfit(points)))})
    fitted = fit(make("m4+gp"), runs, target="loss/code")
    assert isinstance(fitted, FittedResidual)
    assert fitted.process is not None
    assert len(fitted.process.centres) == MOST_RUNS


def test_too_few_runs_for_a_process(lab, rng):
    points = lab.grid(rng, mixtures=7, sizes=1, horizons=1)
    runs = lab.table(points, {"loss/code": truth(points) * np.exp(misfit(points))})
    fitted = fit(make("m4+gp"), runs, target="loss/code")
    assert isinstance(fitted, FittedResidual)
    assert fitted.process is None


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_recipe_can_be_wrapped(name, lab):
    base, wrapped = make(name, lab.axes), make(name + "+gp", lab.axes)
    assert wrapped.name == name + "+gp"
    assert wrapped.axes == base.axes
    assert wrapped.needs == base.needs | {"mixture"}
    assert not wrapped.convex
    assert not wrapped.decreasing


def test_a_law_that_is_not_positive_gets_no_process(one_scale, monkeypatch):
    """It has no logarithm."""
    fitted = FittedLaw.predict
    monkeypatch.setattr(FittedLaw, "predict", lambda law, points: fitted(law, points) - 2.6)
    law = fit(make("m4+gp"), one_scale, target="loss/code")
    assert isinstance(law, FittedResidual)
    assert law.process is None
    assert law.predict(Points.of(one_scale)).min() <= 0


def test_unknown_base():
    with pytest.raises(FitError, match="no law is called 'm5'"):
        make("m5+gp")


@pytest.mark.parametrize("name", ["effective-sum", "effective-ratio"])
def test_forecasts_of_slimpajama_improve(published, name):
    """Fit up to 680M, forecast the last rows of 937M: which mixture is how much better, that is,
    the relative error less its mean. (The level at a new size is the law's affair.)"""
    runs = published("dmsl-slimpajama")
    runs = runs.select(runs.train_tokens >= 4e9)
    largest = runs.num_params == runs.num_params.max()
    test = runs.select(largest & (runs.train_tokens == runs.train_tokens[largest].max()))
    axes = {"num_params": 2e8, "train_tokens": 1e10}
    batch = batch_of(runs.select(~largest), runs.targets)
    errors = []
    for recipe in (name, f"{name}+gp"):
        laws = make(recipe, axes).fit_batch(batch)
        relative = [law.predict(Points.of(test)) / test.column(law.target) - 1 for law in laws]
        errors.append(np.mean([np.abs(e - e.mean()) for e in relative]))
    assert errors[1] < 0.9 * errors[0]
