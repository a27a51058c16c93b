"""Probabilities and bounds that hold: on runs made by known laws, and on published ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.laws.regret import (
    ErrorField,
    error_field,
    probability_better,
    regret_bound,
)

ONE = np.ones(1)
NEAR, ALIKE, FAR = np.array([[0.7, 0.2, 0.1], [0.69, 0.21, 0.1], [0.05, 0.05, 0.9]])


def truth(weights: np.ndarray) -> np.ndarray:
    """Losses (n,) that no law of the catalogue has exactly."""
    return 2 + np.exp(-2 * weights[:, 0] - weights[:, 1]) + 0.05 * np.sin(9 * weights[:, 2])


def swarm(lab, seed: int, *, mixtures: int = 24, noise: float = 0.01):
    rng = np.random.default_rng(seed)
    points = lab.grid(rng, mixtures=mixtures, sizes=1, horizons=1)
    values = truth(points.weights) + noise * rng.normal(size=mixtures)
    return lab.table(points, {"loss/held": values})


@pytest.fixture
def fitted(lab) -> FittedLaws:
    return fit_laws(swarm(lab, 0), candidates=["effective"])


class TestErrorField:
    def test_draws_have_the_scales_that_it_states(self, fitted):
        field = error_field(fitted, ONE)
        weights = np.stack([NEAR, ALIKE, FAR])
        draws = field.draws(weights, 40_000, np.random.default_rng(0))
        spread = np.std(draws[:, :, None] - draws[:, None, :], axis=0)
        # Student t with 5 degrees of freedom: its variance is 5/3 of the squared scale.
        assert_allclose(spread, np.sqrt(5 / 3) * field.scales(weights), rtol=0.05, atol=1e-9)

    def test_alike_mixtures_share_their_errors(self, fitted):
        scales = error_field(fitted, ONE).scales(np.stack([NEAR, ALIKE, FAR, NEAR]))
        assert scales[0, 1] < 0.8 * scales[0, 2]
        assert scales[0, 3] == pytest.approx(0, abs=1e-9)
        assert_allclose(scales, scales.T)

    def test_agreeing_folds_leave_what_is_each_mixtures_own(self):
        field = ErrorField(lambda weights: np.zeros((8, len(weights))), own=0.1)
        scales = field.scales(np.stack([NEAR, FAR]))
        assert scales[0, 1] == pytest.approx(0.1 * np.sqrt(2), rel=0.02)

    def test_jackknife_by_hand(self):
        values = np.array([[0.0, 1.0], [0.0, 3.0]])  # (folds, mixtures)
        scales = ErrorField(lambda weights: values, own=0.0).scales(np.stack([NEAR, FAR]))
        # (K - 1) / K times the sum of squares about the mean: 1/2 (1 + 1).
        assert scales[0, 1] == pytest.approx(1.0)

    def test_noise_widens_it(self, lab):
        quiet, loud = (
            error_field(fit_laws(swarm(lab, 1, noise=n), candidates=["effective"]), ONE).own
            for n in (0.01, 0.1)
        )
        assert loud > 3 * quiet
        assert loud == pytest.approx(0.1, rel=0.6)

    def test_a_shared_level_error_is_no_part_of_it(self, fitted):
        within = replace(fitted.within, residuals=fitted.within.residuals + 5)
        shifted = error_field(replace(fitted, within=within), ONE)
        assert shifted.own == pytest.approx(error_field(fitted, ONE).own)

    def test_a_stored_fit_has_the_same_field(self, fitted):
        stored = FittedLaws.from_dict(fitted.to_dict())
        assert error_field(stored, ONE).own == pytest.approx(error_field(fitted, ONE).own)

    def test_it_grows_beyond_the_trained_scales(self, lab, rng):
        points = lab.grid(rng, mixtures=12)
        decay = 1 + (points.num_params / 1e5) ** -0.3 + (points.train_tokens / 1e6) ** -0.4
        values = truth(points.weights) * decay * np.exp(0.01 * rng.normal(size=len(points)))
        fitted = fit_laws(
            lab.table(points, {"loss/held": values}), candidates=["effective-product"]
        )
        weights = np.stack([NEAR, FAR])
        inside, far = (
            error_field(fitted, ONE, *scale).scales(weights)[0, 1]
            / fitted.predict(weights, *scale).mean()
            for scale in ((1e5, 1e6), (1.6e6, 1.6e7))
        )
        assert far > inside


class TestProbability:
    def test_antisymmetric_and_a_half_for_itself(self, fitted):
        better = probability_better(fitted, ONE, np.stack([NEAR, ALIKE, FAR]))
        assert_allclose(better + better.T, 1)
        assert_allclose(np.diag(better), 0.5)

    def test_the_clear_case_is_clear(self, fitted):
        better = probability_better(fitted, ONE, np.stack([NEAR, FAR]))
        assert 0.98 < better[0, 1] < 1

    def test_calibrated_on_fresh_swarms(self, lab):
        """Of all pairs forecast with a probability in a bin, that share is right."""
        rng = np.random.default_rng(5)
        stated, right = [], []
        for seed in range(30):
            fitted = fit_laws(swarm(lab, seed, noise=0.05), candidates=["effective"])
            weights = rng.dirichlet(np.ones(3), 60)
            better = probability_better(fitted, ONE, weights)
            values = truth(weights) + 0.05 * rng.normal(size=60)
            stated.append(better.ravel())
            right.append((values[:, None] < values).ravel())
        stated, right = np.concatenate(stated), np.concatenate(right)
        for low in (0.5, 0.6, 0.7, 0.8, 0.9):
            at = (stated > low) & (stated <= low + 0.1)
            assert right[at].mean() == pytest.approx(stated[at].mean(), abs=0.08)


class TestBound:
    def test_it_holds_on_fresh_swarms_and_is_not_idle(self, lab):
        rng = np.random.default_rng(3)
        held, bounds, regrets = [], [], []
        for seed in range(40):
            fitted = fit_laws(swarm(lab, seed, noise=0.05), candidates=["effective"])
            weights = rng.dirichlet(np.ones(3), 80)
            chosen = weights[np.argmin(fitted.predict(weights)[:, 0])]
            found = regret_bound(fitted, ONE, chosen=chosen, candidates=weights)
            assert 0 <= found.expected <= found.bound
            values = truth(weights) + 0.05 * rng.normal(size=80)
            at_chosen = values[np.all(weights == chosen, axis=1)][0]
            regrets.append(at_chosen - values.min())
            held.append(regrets[-1] <= found.bound)
            bounds.append(found.bound)
        assert np.mean(held) >= 0.87
        assert np.mean(bounds) < 2.2 * np.quantile(regrets, 0.9)

    def test_nothing_is_lost_where_nothing_else_could_be_chosen(self, fitted):
        found = regret_bound(fitted, ONE, chosen=NEAR, candidates=NEAR[None])
        assert found.bound == pytest.approx(0, abs=1e-4)

    def test_a_poor_choice_is_known_to_be_poor(self, fitted):
        candidates = np.stack([NEAR, ALIKE, FAR])
        good = regret_bound(fitted, ONE, chosen=NEAR, candidates=candidates)
        poor = regret_bound(fitted, ONE, chosen=FAR, candidates=candidates)
        gap = truth(FAR[None])[0] - truth(NEAR[None])[0]
        assert poor.expected == pytest.approx(gap, rel=0.2)
        assert poor.expected > 10 * good.expected

    def test_higher_levels_are_farther_out(self, fitted, rng):
        weights = rng.dirichlet(np.ones(3), 30)
        low, high = (
            regret_bound(fitted, ONE, chosen=NEAR, candidates=weights, level=level).bound
            for level in (0.5, 0.99)
        )
        assert low < high

    def test_the_same_candidate_again_adds_nothing(self, fitted):
        candidates = np.stack([NEAR, ALIKE])
        once, often = (
            regret_bound(fitted, ONE, chosen=NEAR, candidates=np.tile(candidates, (times, 1)))
            for times in (1, 100)
        )
        assert often.expected == pytest.approx(once.expected, rel=0.25)

    def test_a_lucky_run_is_no_better_choice(self, fitted, rng):
        """Without the noise of runs the regret is smaller, and nothing else changes."""
        weights = rng.dirichlet(np.ones(3), 100)
        chosen = weights[np.argmin(fitted.predict(weights)[:, 0])]
        of_runs, on_average = (
            regret_bound(fitted, ONE, chosen=chosen, candidates=weights, noise=noise)
            for noise in (True, False)
        )
        assert 0 < on_average.expected < of_runs.expected
        assert on_average.bound < of_runs.bound

    def test_a_crowd_in_one_place_is_one_candidate(self, fitted, rng):
        crowd = NEAR + 1e-3 * (rng.dirichlet(np.ones(3), 400) - 1 / 3)
        spread = rng.dirichlet(np.ones(3), 400)
        near, wide = (
            regret_bound(fitted, ONE, chosen=NEAR, candidates=candidates).expected
            for candidates in (crowd, spread)
        )
        assert near < 0.2 * wide

    def test_hopeless_candidates_change_nothing(self, fitted, rng):
        hopeless = FAR + 0.001 * rng.dirichlet(np.ones(3), 800) - 0.001 / 3
        candidates = np.stack([NEAR, ALIKE])
        few = regret_bound(fitted, ONE, chosen=NEAR, candidates=candidates)
        many = regret_bound(fitted, ONE, chosen=NEAR, candidates=np.vstack([hopeless, candidates]))
        assert many.expected == pytest.approx(few.expected, rel=0.25)

    def test_same_seed_same_bound(self, fitted):
        candidates = np.stack([NEAR, FAR])
        first, second = (
            regret_bound(fitted, ONE, chosen=NEAR, candidates=candidates, seed=4) for _ in range(2)
        )
        assert_array_equal([first.expected, first.bound], [second.expected, second.bound])

    def test_what_it_refuses(self, fitted):
        with pytest.raises(FitError, match=r"chosen has shape \(2,\)"):
            regret_bound(fitted, ONE, chosen=NEAR[:2], candidates=FAR[None])
        with pytest.raises(FitError, match="the level of the bound is 1"):
            regret_bound(fitted, ONE, chosen=NEAR, candidates=FAR[None], level=1)


def test_bound_and_probability_on_regmix(published):
    """Sixty-four runs, single targets and their mean, 256 held-out runs."""
    runs, test = published("regmix/train-1m"), published("regmix/test-1m")
    drawn = np.random.default_rng(0).choice(len(runs), 64, replace=False)
    fitted = fit_laws(runs.select(drawn))
    num_targets = len(runs.targets)
    held, errors = [], []
    for c in [*np.eye(num_targets), np.full(num_targets, 1 / num_targets)]:
        values, forecast = test.values @ c, fitted.predict(test.weights) @ c
        best = int(np.argmin(forecast))
        bound = regret_bound(fitted, c, chosen=test.weights[best], candidates=test.weights)
        held.append(values[best] - values.min() <= bound.bound)
        better = probability_better(fitted, c, test.weights)
        errors.append(
            np.mean(better[better > 0.5]) - np.mean((values[:, None] < values)[better > 0.5])
        )
    assert np.mean(held) >= 0.85
    assert abs(np.mean(errors)) < 0.02
