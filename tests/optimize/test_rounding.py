"""Rounded mixtures against all rounded mixtures there are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InfeasibleError
from mixlaw.mixture import Constraints, Domain, Group, Mixture, Near
from mixlaw.optimize.objective import Objective
from mixlaw.optimize.rounding import round_mixture

NAMES = ("web", "code", "books")
SEEDS = st.integers(0, 2**32 - 1)


def problem_of(lab, seed, constraints, over="mean"):
    law = lab.KnownLaw(NAMES, seed=seed)
    return lab.problem_of(
        law,
        objective=Objective(dict.fromkeys(law.targets, 1.0), over=over),
        domains=[Domain(name, 1000) for name in NAMES],
        constraints=constraints,
        baselines={},
    )


def every(granularity):
    """All mixtures of three domains in steps of 1 / granularity."""
    counts = itertools.product(range(granularity + 1), repeat=2)
    return np.array([(a, b, granularity - a - b) for a, b in counts if a + b <= granularity])


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, granularity=st.integers(4, 30), over=st.sampled_from(["mean", "worst"]))
def test_rounding_costs_little_more_than_the_best_rounded_mixture(lab, seed, granularity, over):
    rng = np.random.default_rng(seed)
    groups = {"text": Group(("web", "books"), upper=rng.uniform(0.5, 0.9))}
    constraints = Constraints(upper={"code": rng.uniform(0.6, 1)}, groups=groups)
    problem = problem_of(lab, seed, constraints, over)
    optimum = problem.solve(np.full((1, 3), 1 / 3)).proportions
    points = every(granularity) / granularity
    kept = [p for p in points if not problem.violations(Mixture.from_array(NAMES, p))]
    rounded = round_mixture(problem, optimum, granularity)
    counts = rounded * granularity
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    assert rounded.sum() == pytest.approx(1)
    assert problem.violations(Mixture.from_array(NAMES, rounded)) == ()
    best = problem.objective(np.stack(kept)).min()
    exact = problem.objective(optimum[None])[0]
    cost, least = problem.objective(rounded[None])[0] - exact, best - exact
    assert cost >= least - 1e-12
    assert cost <= 2 * least + 1e-9


def test_a_granularity_too_coarse_for_the_limits(lab):
    constraints = Constraints(lower={"web": 0.3}, upper={"web": 0.4}, granularity=4)
    with pytest.raises(InfeasibleError, match=r"steps of 1/4 keeps all limits; use a finer"):
        round_mixture(problem_of(lab, 0, constraints), np.array([0.35, 0.35, 0.3]), 4)


def test_rounding_mends_a_distance_that_it_broke(lab):
    constraints = Constraints(near=Near(Mixture.uniform(NAMES), "l2", at_most=0.05))
    problem = problem_of(lab, 0, constraints)
    optimum = problem.solve(np.full((1, 3), 1 / 3)).proportions
    rounded = round_mixture(problem, optimum, 50)
    assert np.linalg.norm(rounded - 1 / 3) <= 0.05 + 1e-6


def test_the_decision_is_rounded_and_says_what_that_costs(lab):
    law = lab.KnownLaw()
    exact = lab.decide(law)
    decision = lab.decide(law, constraints=Constraints(granularity=10))
    counts = 10 * decision.recommended.array(lab.names)
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    cost = decision.forecast.objective.value - exact.forecast.objective.value
    assert decision.rounding_cost == pytest.approx(cost, abs=1e-9)
    assert 0 < decision.rounding_cost < 0.05
    assert exact.rounding_cost is None
