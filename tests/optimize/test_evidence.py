"""The flat region against a fine grid, sensitivities against predictions, distances by hand."""

import numpy as np
import pytest

from mixlaw.mixture import Constraints, Domain, Group, Mixture
from mixlaw.optimize.evidence import distance_from_trained, flat_region, one_percent_more
from mixlaw.optimize.objective import Objective

NAMES = ("web", "code", "books")
STEPS = 400


def problem_of(lab, seed, over="mean", constraints=None):
    law = lab.KnownLaw(NAMES, seed=seed)
    return lab.problem_of(
        law,
        objective=Objective(dict.fromkeys(law.targets, 1.0), over=over),
        domains=[Domain(name) for name in NAMES],
        constraints=constraints or Constraints(),
        baselines={},
    )


@pytest.mark.parametrize("over", ["mean", "worst"])
@pytest.mark.parametrize("seed", range(4))
def test_the_flat_region_is_that_of_a_fine_grid(lab, seed, over):
    groups = {"text": Group(("web", "books"), upper=0.8)}
    problem = problem_of(lab, seed, over, Constraints(lower={"code": 0.1}, groups=groups))
    best = problem.solve(np.full((1, 3), 1 / 3)).proportions
    value = problem.objective(best[None])[0]
    low, high = flat_region(problem, best, 0.01)
    i, j = np.indices((STEPS + 1, STEPS + 1)).reshape(2, -1)
    grid = np.stack([i, j, STEPS - i - j], axis=1)[i + j <= STEPS] / STEPS
    inside = (grid[:, 1] >= 0.2 - 1e-9) & (problem.objective(grid) <= value + 0.01)
    np.testing.assert_allclose(low, grid[inside].min(axis=0), atol=2 / STEPS)
    np.testing.assert_allclose(high, grid[inside].max(axis=0), atol=2 / STEPS)
    # The grid is within the region, up to the optimiser's tolerance.
    assert (low <= grid[inside].min(axis=0) + 1e-6).all()
    assert (high >= grid[inside].max(axis=0) - 1e-6).all()
    assert (low <= best).all()
    assert (best <= high).all()


def test_the_ends_of_the_decisions_region_are_predicted_nearly_as_good(lab):
    decision = lab.decide(support=lab.support)
    assert decision.region.tolerance == pytest.approx(0.002 * decision.forecast.objective.value)
    for name, (low, high) in decision.region.ranges.items():
        assert low <= decision.recommended[name] <= high
        trained = lab.support[:, lab.names.index(name)]
        assert trained.min() - 1e-9 <= low
        assert high <= trained.max() + 1e-9


def test_one_percent_more_is_what_the_law_predicts(lab):
    law, problem = lab.KnownLaw(NAMES), problem_of(lab, 0)
    mixture = Mixture({"web": 0.5, "code": 0.3, "books": 0.2})
    objective, targets = one_percent_more(problem, mixture.array(NAMES))
    before = law.predict(mixture.array(NAMES)[None], None, None)[0]
    for j, name in enumerate(NAMES):
        after = mixture.replace(**{name: mixture[name] + 0.01}).array(NAMES)
        change = law.predict(after[None], None, None)[0] - before
        np.testing.assert_allclose(targets[j], change, atol=1e-12)
        assert objective[j] == pytest.approx(change.mean())


def test_one_percent_more_of_everything_there_is(lab):
    objective, _ = one_percent_more(problem_of(lab, 0), np.array([1.0, 0, 0]))
    assert objective[0] == 0
    nearly, _ = one_percent_more(problem_of(lab, 0), np.array([0.995, 0.005, 0]))
    assert np.isfinite(nearly).all()


def test_distances_from_the_trained_mixtures_by_hand():
    support = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 1, 0]])
    found = distance_from_trained(Mixture({"web": 1.0, "code": 0, "books": 0}), NAMES, support)
    half = np.sqrt(1 - np.sqrt(0.5))  # Hellinger between (0, 1, 0) and (0, .5, .5)
    assert found.nearest == 0
    assert found.typical == pytest.approx(half)  # of 1, half, half
    assert found.largest == pytest.approx(1)
    assert not found.far
    one = distance_from_trained(Mixture({"books": 1.0}), NAMES, support[:1])
    assert (one.nearest, one.typical, one.largest) == (1, 0, 0)
    assert one.far
