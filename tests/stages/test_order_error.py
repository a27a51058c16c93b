"""The order's own error is told from that of the static law, by schedules of one dose."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.special import stdtrit

from mixlaw.laws import fit_laws
from mixlaw.laws.regret import FREEDOM
from mixlaw.runs import RunTable
from mixlaw.stages import fit_stages
from mixlaw.stages.order_error import own_scales, reasons_of

PAIRS = 40


def shared_by_pairs(scale: float) -> np.ndarray:
    """(2 PAIRS, 2 PAIRS) of errors that the two schedules of a pair share."""
    return scale**2 * np.kron(np.eye(PAIRS), np.ones((2, 2)))


def drawn(true, seed: int, shared: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals of pairs of one dose, their shared covariance, and reasons: a gain and a harm."""
    rng = np.random.default_rng(seed)
    sizes, effects = rng.uniform(0.05, 0.3, PAIRS), rng.uniform(0, 0.3, (2, PAIRS))
    gains = np.stack([effects[0], np.zeros(PAIRS)], axis=1).reshape(-1)
    harms = np.stack([np.zeros(PAIRS), effects[1]], axis=1).reshape(-1)
    reasons = np.column_stack([np.repeat(sizes, 2), gains, harms])
    own = np.sqrt(reasons**2 @ np.square(true)) * rng.normal(size=2 * PAIRS)
    residuals = np.repeat(shared * rng.normal(size=PAIRS), 2) + own
    return residuals, shared_by_pairs(shared), reasons


@pytest.mark.parametrize("true", [(0.02, 0.1, 0.6), (0.02, 0.6, 0.1), (0.15, 0.05, 0.05)])
def test_known_scales_are_found_under_a_larger_error_of_the_static_law(true):
    found = np.mean([own_scales(*drawn(true, seed)) for seed in range(4)], axis=0)
    largest = np.argmax(true)
    assert found[largest] == pytest.approx(true[largest], rel=0.25)
    assert np.argmax(found) == largest


def test_an_error_that_schedules_of_one_dose_share_is_not_the_orders():
    found = own_scales(*drawn((0.001, 0.001, 0.001), 0))
    assert (found * [0.3, 0.3, 0.3] < 0.02).all()


def test_without_residuals_there_is_no_error():
    _, shared, reasons = drawn((0.1, 0.1, 0.1), 0)
    np.testing.assert_array_equal(own_scales(np.zeros(2 * PAIRS), shared, reasons), 0)


def test_gains_do_not_make_up_for_harms():
    effects = np.array([[-0.2, 0.2], [-0.1, -0.3]])
    found = reasons_of(np.array([0.5, 0.5]), np.array([0.1, 0.2]), effects)
    np.testing.assert_allclose(found, [[0.1, 0.1, 0.1], [0.2, 0.2, 0.0]])
    of_a_score = reasons_of(np.array([1.0, -1.0]), np.array([0.1, 0.2]), effects)
    np.testing.assert_allclose(of_a_score[0], [0.1, 0.4, 0.0])


def test_intervals_hold_what_trained_pairs_of_one_dose_differ_by():
    """Real runs, of which some are pairs of one dose turned round: the static law errs by .05 to
    .2, alike for both. An error of the order learned beside that as noise is lost in it: such
    intervals of 90 % held a third of these differences."""
    table = Path(__file__).parents[2] / "examples/staged/runs.csv"
    runs = RunTable.read(table)
    fitted = fit_stages(runs, fit_laws(runs.static(), candidates=["effective-ratio"]))
    at, held = fitted.judged, []
    assert fitted.held_out is not None
    schedules, residuals = at.schedules(fitted.domains), fitted.held_out.residuals
    for i, j in itertools.combinations(range(len(at)), 2):
        if np.abs(at.dose[i] - at.dose[j]).max() > 2e-3:
            continue
        for t, coefficients in enumerate(np.eye(len(fitted.targets))):
            pair = (schedules[i], schedules[j])
            scale = fitted.difference_scale(coefficients, pair, 55_296, 307_200)
            missed = abs(residuals[i, t] - residuals[j, t])
            held.append(missed <= stdtrit(FREEDOM, 0.95) * scale)
    assert len(held) == 6 * 7
    assert np.mean(held) >= 0.8
