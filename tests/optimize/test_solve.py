"""The solver against cvxpy with Clarabel, and its certificate against the truth."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import FitError, InfeasibleError
from mixlaw.optimize.polytope import extreme, frank_wolfe_gap, project
from mixlaw.optimize.solve import minimize_mixture


class Exponentials:
    """A random problem: f(r) = c + sum_i k_i exp(t_i . r), with bounds that cut the simplex."""

    def __init__(self, seed, domains, targets):
        rng = np.random.default_rng(seed)
        self.t = rng.normal(0, 1.5, (targets, domains))
        self.t[np.arange(targets), rng.integers(domains, size=targets)] -= 2
        self.scale = rng.dirichlet(np.ones(targets)) * rng.uniform(0.5, 3, targets)
        self.constant = rng.uniform(1, 2)
        self.upper = np.minimum(1, rng.uniform(1.5, 6, domains) / domains)
        self.lower = rng.uniform(0, 0.3, domains) / domains * (rng.random(domains) < 0.3)

    def __call__(self, point):
        terms = self.scale * np.exp(self.t @ point)
        return self.constant + terms.sum(), self.t.T @ terms

    def solve(self, **changes):
        start = np.full((1, len(self.upper)), 1 / len(self.upper))
        arguments = {"lower": self.lower, "upper": self.upper, "starts": start, "convex": True}
        return minimize_mixture(self, **{**arguments, **changes})

    def oracle(self):
        r = cp.Variable(len(self.upper))
        value = self.constant + self.scale @ cp.exp(self.t @ r)
        constraints = [cp.sum(r) == 1, r >= self.lower, r <= self.upper]
        problem = cp.Problem(cp.Minimize(value), constraints)
        problem.solve(solver=cp.CLARABEL)
        return problem.value


def check_inside(point, lower, upper):
    assert (point >= lower).all()
    assert (point <= upper).all()
    assert abs(point.sum() - 1) <= 1e-14


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("domains", "targets"), [(3, 2), (17, 13), (17, 17), (50, 5), (100, 60)])
def test_matches_clarabel_on_random_convex_problems(seed, domains, targets):
    problem = Exponentials(seed, domains, targets)
    solution = problem.solve()
    best = problem.oracle()
    check_inside(solution.proportions, problem.lower, problem.upper)
    assert solution.gap <= 1e-8 * solution.value
    assert solution.value - best <= 1e-7 * best
    assert solution.value - best <= solution.gap + 1e-7 * best  # the certificate holds
    assert solution.spread == 0


def test_steep_kinks_near_zero_share_close_the_gap():
    # The effective-data law: the slope at zero share is about 40 times that at one half.
    rng = np.random.default_rng(0)
    weights, power = rng.lognormal(0, 1, 20), 0.35

    def function(point):
        base = 0.05 + weights @ (point + 1e-3) ** power
        slope = -0.1 * base**-1.1 * weights * power * (point + 1e-3) ** (power - 1)
        return base**-0.1, slope

    solution = minimize_mixture(
        function, np.zeros(20), np.full(20, 0.2), starts=np.full((1, 20), 0.05), convex=True
    )
    assert solution.gap <= 1e-8 * solution.value


def test_a_linear_function_is_solved_at_a_vertex():
    slope = np.array([3.0, 1.0, 2.0, 5.0])
    lower, upper = np.full(4, 0.1), np.array([1, 0.3, 1, 1])
    solution = minimize_mixture(
        lambda r: (slope @ r, slope), lower, upper, starts=np.full((1, 4), 0.25), convex=True
    )
    np.testing.assert_allclose(solution.proportions, [0.1, 0.3, 0.5, 0.1], atol=1e-12)


@pytest.mark.parametrize("point", [[1.0], [0.2, 0.8]])
def test_a_space_of_one_point(point):
    fixed = np.array(point)
    solution = minimize_mixture(
        lambda r: (float(r @ r), 2 * r), fixed, fixed, starts=fixed[None], convex=True
    )
    np.testing.assert_array_equal(solution.proportions, fixed)
    assert solution.gap == 0


def test_many_minima_carry_no_certificate_and_show_their_spread():
    def function(point):  # concave: every vertex is a local minimum
        return -float(point @ (point * [1, 2, 3])), -2 * point * [1, 2, 3]

    starts = np.eye(3) * 0.9 + 0.1 / 3
    solution = minimize_mixture(function, np.zeros(3), np.ones(3), starts=starts, convex=False)
    np.testing.assert_allclose(solution.proportions, [0, 0, 1], atol=1e-9)
    assert solution.gap is None
    assert solution.spread == pytest.approx(2)


def test_a_law_that_is_not_finite_is_an_error():
    with pytest.raises(FitError, match="gives nan"):
        minimize_mixture(
            lambda r: (np.nan, r), np.zeros(2), np.ones(2), starts=np.eye(2), convex=True
        )


def test_bounds_that_hold_no_mixture():
    def solve(lower, upper):
        starts = np.full((1, 2), 0.5)
        minimize_mixture(lambda r: (0.0, r), lower, upper, starts=starts, convex=True)

    with pytest.raises(InfeasibleError, match=r"sum to 1\.2"):
        solve([0.6, 0.6], [1, 1])
    with pytest.raises(InfeasibleError, match=r"the upper to 0\.8"):
        solve([0, 0], [0.4, 0.4])
    with pytest.raises(InfeasibleError, match="domain number 1"):
        solve([0, 0.6], [1, 0.5])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), domains=st.integers(2, 12))
def test_looser_bounds_never_worsen_the_optimum(seed, domains):
    problem = Exponentials(seed, domains, 4)
    problem.upper = np.minimum(1, problem.upper / problem.upper.sum() * 1.5)
    room = np.random.default_rng(seed).random(domains)
    looser = problem.lower * room, problem.upper + (1 - problem.upper) * room
    tight, loose = problem.solve(), problem.solve(lower=looser[0], upper=looser[1])
    assert loose.value <= tight.value + loose.gap + 1e-12
    assert tight.value - loose.value >= -loose.gap - 1e-12


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), domains=st.integers(2, 12))
def test_renaming_domains_permutes_the_optimum(seed, domains):
    problem = Exponentials(seed, domains, 2 * domains)  # more targets than domains: one optimum
    before = problem.solve()
    order = np.random.default_rng(seed).permutation(domains)
    problem.t, problem.lower, problem.upper = (
        problem.t[:, order],
        problem.lower[order],
        problem.upper[order],
    )
    after = problem.solve()
    assert after.value == pytest.approx(before.value, abs=before.gap + after.gap + 1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), domains=st.integers(1, 9))
def test_projection_is_the_nearest_point(seed, domains):
    rng = np.random.default_rng(seed)
    inside = rng.dirichlet(np.ones(domains))
    lower, upper = inside * rng.random(domains), inside + (1 - inside) * rng.random(domains)
    point = rng.normal(0, 1, domains)
    nearest = project(point, lower, upper)
    check_inside(nearest, lower, upper)
    # Optimality of the projection: (nearest - point) . (s - nearest) >= 0 for every feasible s.
    assert frank_wolfe_gap(nearest, nearest - point, lower, upper) <= 1e-12
    np.testing.assert_allclose(project(nearest, lower, upper), nearest, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), domains=st.integers(1, 9))
def test_extreme_point_beats_random_feasible_points(seed, domains):
    rng = np.random.default_rng(seed)
    inside = rng.dirichlet(np.ones(domains))
    lower, upper = inside * rng.random(domains), inside + (1 - inside) * rng.random(domains)
    gradient = rng.normal(0, 1, domains)
    best = extreme(gradient, lower, upper)
    np.testing.assert_allclose(best.sum(), 1, atol=1e-12)
    for _ in range(20):
        other = project(rng.normal(0, 1, domains), lower, upper)
        assert gradient @ best <= gradient @ other + 1e-12
