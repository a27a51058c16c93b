"""Noise is read from repeated mixtures and weighs the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.laws import Points, fit, make
from mixlaw.laws.noise import measured_noise, noise_weights


@pytest.fixture
def repeated(lab, rng):
    """Six mixtures at two horizons with ten seeds; the short horizon is ten times noisier."""
    points = lab.grid(rng, mixtures=6, sizes=1, horizons=2)
    points = points.select(np.repeat(np.arange(12), 10))
    short = points.train_tokens == points.train_tokens.min()
    noise = np.where(short, 0.2, 0.02)
    values = 3 + points.weights[:, 0] + noise * rng.normal(size=len(points))
    return lab.table(points, {"loss/code": values, "loss/web": values * 2}), short


def test_noise_by_scale(repeated):
    runs, short = repeated
    found = measured_noise(runs)
    assert_array_equal(found.repeats, [108, 108])
    assert_allclose(found.of_row[short, 0], 0.2, rtol=0.2)
    assert_allclose(found.of_row[~short, 0], 0.02, rtol=0.2)
    assert_allclose(found.of_row[:, 1], 2 * found.of_row[:, 0])
    assert 0.1 < found.overall[0] < 0.2


def test_a_noisy_scale_counts_for_less(repeated):
    runs, short = repeated
    weights = noise_weights(runs, ["loss/code"])[0]
    assert weights.mean() == pytest.approx(1)
    assert weights[~short].min() > 1.5 * weights[short].max()


def test_without_repeats_all_rows_count_alike(lab, rng):
    runs = lab.table(lab.grid(rng, mixtures=5), {"loss/code": 2 + rng.random(45)})
    found = measured_noise(runs)
    assert np.isnan(found.overall).all()
    assert_array_equal(noise_weights(runs, ["loss/code"]), 1)


def test_failed_and_missing_runs_tell_no_noise(repeated):
    runs, _ = repeated
    values = runs.values.copy()
    values[::10, 0], values[1::10] = np.nan, 1e6
    failed = np.where(np.arange(len(runs)) % 10 == 1, "failed", "done")
    found = measured_noise(replace(runs, values=values, status=failed))
    assert_array_equal(found.repeats, [84, 96])
    assert found.overall[0] < 0.2


def test_repeats_that_agree_to_the_last_digit(lab, rng):
    points = lab.grid(rng, mixtures=8, sizes=1, horizons=1).select(np.tile(np.arange(8), 2))
    values = 2 + np.exp(-points.weights[:, 0])
    runs = lab.table(points, {"loss/code": values})
    assert measured_noise(runs).overall[0] == pytest.approx(0, abs=1e-12)
    law = fit(make("m4"), runs, target="loss/code")
    assert_allclose(law.predict(Points.of(runs)), values, atol=1e-3)


def test_copied_rows_do_not_silence_the_others(repeated):
    """Repeats that are copies look noise-free; the other scale still counts."""
    runs, short = repeated
    values = runs.values.copy()
    values[short] = 3 + runs.weights[short, :1]
    weights = noise_weights(replace(runs, values=values), ["loss/code"])[0]
    assert weights.min() > 0.005 * weights.max()
