"""Figures on published run tables, so that a change that loses accuracy is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from mixlaw.laws import Points, cross_validate, fit, make
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.splits import MIXTURE_SPLIT


@pytest.mark.parametrize(
    ("num_runs", "least_spearman", "most_mae"), [(32, 0.977, 0.092), (64, 0.982, 0.081)]
)
def test_effective_law_on_regmix(published, num_runs, least_spearman, most_mae):
    """The prototype had .979 / .092 at 32 runs and .985 / .077 at 64, means of five draws."""
    runs, test = published("regmix/train-1m"), published("regmix/test-1m")
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        drawn = runs.select(rng.choice(len(runs), num_runs, replace=False))
        for target in runs.targets:
            predicted = fit(make("effective"), drawn, target=target).predict(Points.of(test))
            y = test.column(target)
            found.append((spearmanr(predicted, y)[0], np.abs(predicted - y).mean()))
    spearman, mae = np.mean(found, axis=0)
    assert spearman >= least_spearman
    assert mae <= most_mae


def test_held_out_mixtures_of_the_tiny_swarm(published):
    """Issue 2: Spearman >= .9 and error <= half of predicting the mean, on every target."""
    runs = published("tiny-env")
    largest = np.char.startswith(runs.run, "D")
    runs = runs.select(~largest & (runs.train_tokens >= 300 * 512))
    names = ["effective-product", "effective-sum", "effective-ratio"]
    cv = cross_validate(runs, candidates=names)
    for name in names:
        for split in cv.splits:
            scores = cv.scores[name][split]
            assert scores.spearman.min() >= 0.9
            assert np.all(scores.mae <= 0.5 * scores.mae_of_mean)
        assert cv.scores[name][MIXTURE_SPLIT].normalised_error.mean() <= 0.07


def test_scale_forecast_on_slimpajama(published):
    """Fit 122M and 310M, forecast 680M: mean relative error."""
    runs = published("dmsl-slimpajama")
    runs = runs.select((runs.train_tokens >= 4e9) & (runs.num_params < 7e8))
    largest = runs.num_params == runs.num_params.max()
    axes = {"num_params": 2e8, "train_tokens": 1e10}
    errors = []
    for target in ("loss/github", "loss/c4", "loss/openhermes"):
        fitted = fit(make("effective-product", axes), runs.select(~largest), target=target)
        test = runs.select(largest)
        errors.append(np.nanmean(np.abs(fitted.predict(Points.of(test)) / test.column(target) - 1)))
    assert np.mean(errors) <= 0.015


@pytest.mark.parametrize(
    ("name", "num_runs", "least_spearman", "most_mae"),
    [
        ("bimix", 64, 0.87, 0.24),
        ("autoscale", 64, 0.93, 0.19),
        ("lightgbm", 64, 0.87, 0.23),
        ("implicit-3", 512, 0.98, 0.08),
    ],
)
def test_other_laws_on_regmix(published, name, num_runs, least_spearman, most_mae):
    """One draw; DESIGN's LightGBM with the same settings had .896 / .210 at 64 runs, M4 has .974 /
    .156 at 512."""
    if name == "lightgbm":
        pytest.importorskip("lightgbm")
    runs, test = published("regmix/train-1m"), published("regmix/test-1m")
    drawn = runs.select(np.random.default_rng(0).choice(len(runs), num_runs, replace=False))
    found = []
    for fitted in make(name).fit_batch(batch_of(drawn, runs.targets)):
        predicted, y = fitted.predict(Points.of(test)), test.column(fitted.target)
        found.append((spearmanr(predicted, y)[0], np.abs(predicted - y).mean()))
    spearman, mae = np.mean(found, axis=0)
    assert spearman >= least_spearman
    assert mae <= most_mae


@pytest.mark.parametrize(
    ("name", "most"), [("additive", 0.011), ("joint", 0.016), ("d-cpt", 0.018), ("capacity", 0.04)]
)
def test_joint_laws_on_slimpajama(published, name, most):
    """Fit 122M and 310M, forecast 680M: mean relative error over the seven domains."""
    runs = published("dmsl-slimpajama")
    runs = runs.select((runs.train_tokens >= 4e9) & (runs.num_params < 7e8))
    largest = runs.num_params == runs.num_params.max()
    targets = [f"loss/{domain}" for domain in runs.domains]
    recipe = make(name, {"num_params": 2e8, "train_tokens": 1e10})
    test = runs.select(largest)
    errors = [
        np.nanmean(np.abs(fitted.predict(Points.of(test)) / test.column(fitted.target) - 1))
        for fitted in recipe.fit_batch(batch_of(runs.select(~largest), targets))
    ]
    assert np.mean(errors) <= most
