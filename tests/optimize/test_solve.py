"""The solver against cvxpy with Clarabel, and its certificate against the truth."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import FitError, InfeasibleError
from mixlaw.optimize import solve
from mixlaw.optimize.curved import Distance, UniqueTokens
from mixlaw.optimize.polytope import Polytope
from mixlaw.optimize.solve import BROKEN, Values, minimize_mixture

SEEDS = st.integers(0, 2**32 - 1)
KINDS = ("groups", "equal group", "kl", "l2", "floors", "unique tokens")
NONE = np.empty(0)


class Exponentials:
    """c_i + k_i exp(t_i . r) for T targets."""

    def __init__(self, rng, domains, targets):
        self.rate = rng.normal(0, 1.5, (targets, domains))
        self.rate[np.arange(targets), rng.integers(domains, size=targets)] -= 2
        self.size, self.constant = rng.uniform(0.3, 3, targets), rng.uniform(1, 2, targets)

    def value(self, point):
        return self.constant + self.size * np.exp(self.rate @ point)

    def slope(self, point):
        return (self.size * np.exp(self.rate @ point))[:, None] * self.rate

    def bend(self, point, coefficients):
        return (self.rate.T * (coefficients * self.size * np.exp(self.rate @ point))) @ self.rate

    def expression(self, r):
        return self.constant + cp.multiply(self.size, cp.exp(self.rate @ r))


class EffectiveData:
    """c_i + (b_i + sum_j w_ij (r_j + eps)^g)^-a_i: slopes at zero share are many times those at
    one half."""

    eps = 1e-3

    def __init__(self, rng, domains, targets):
        self.constant, self.fall = rng.uniform(1, 2, targets), rng.uniform(0.05, 0.4, targets)
        self.base, self.power = rng.uniform(0.02, 0.1, targets), rng.uniform(0.3, 0.9)
        self.weight = rng.lognormal(-1, 1.5, (targets, domains))

    def _parts(self, point):
        inner = self.base + self.weight @ (point + self.eps) ** self.power
        return inner, self.weight * self.power * (point + self.eps) ** (self.power - 1)

    def value(self, point):
        return self.constant + self._parts(point)[0] ** -self.fall

    def slope(self, point):
        inner, slopes = self._parts(point)
        return (-self.fall * inner ** (-self.fall - 1))[:, None] * slopes

    def bend(self, point, coefficients):
        inner, slopes = self._parts(point)
        outer = coefficients * self.fall * inner ** (-self.fall - 1)
        fading = outer @ slopes * (1 - self.power) / (point + self.eps)
        return (slopes.T * (outer * (self.fall + 1) / inner)) @ slopes + np.diag(fading)

    def expression(self, r):
        inner = self.base + self.weight @ cp.power(r + self.eps, self.power, approx=False)
        terms = [cp.power(x, -float(a), approx=False) for x, a in zip(inner, self.fall)]  # noqa: B905
        return self.constant + cp.hstack(terms)


class Random:
    """A random convex problem that some mixture, `inside`, keeps with a little room."""

    def __init__(self, seed, *, domains, targets, law=Exponentials, worst=False, kinds=()):
        rng = np.random.default_rng(seed)
        self.law, self.worst, self.m = law(rng, domains, targets), worst, domains
        self.weights = rng.uniform(0.5, 1.5, targets) / (1 if worst else targets)
        self.inside = inside = rng.dirichlet(np.ones(domains))
        self.lower = 0.8 * inside * rng.random(domains) * (rng.random(domains) < 0.4)
        self.upper = np.minimum(1, np.maximum(1.2 * inside, rng.uniform(1, 6, domains) / domains))
        count = min(4, domains - 1) if "groups" in kinds else 0
        self.rows = (rng.random((count, domains)) < 0.5).astype(float)
        shares = self.rows @ inside
        self.least = shares * rng.uniform(0.5, 1, count)
        self.most = shares + (1 - shares) * rng.uniform(0, 0.4, count)
        if count and "equal group" in kinds:
            self.least[0] = self.most[0] = shares[0]
        prior = rng.dirichlet(np.ones(domains))
        self.smooth = []
        if "kl" in kinds:
            near = float(inside @ np.log(inside / prior)) + rng.uniform(0.01, 0.1)
            self.smooth.append(Distance(prior, "p", "kl", near))
        if "l2" in kinds:
            near = float(np.linalg.norm(inside - prior)) + rng.uniform(0.01, 0.05)
            self.smooth.append(Distance(prior, "p", "l2", near))
        available = rng.uniform(0.3, 2, domains) / domains
        seen = np.minimum(inside, available).sum() * rng.uniform(0.97, 1)
        self.unique = (
            UniqueTokens(available, seen, 1.0, False) if "unique tokens" in kinds else None
        )
        self.floors = rng.permutation(targets)[: 3 if "floors" in kinds else 0]
        self.worst_allowed = self.law.value(inside)[self.floors] + rng.uniform(0.005, 0.02)

    @property
    def polytope(self):
        return Polytope(self.lower, self.upper, self.rows, self.least, self.most)

    def at(self, point):
        value, slope = self.law.value(point), self.law.slope(point)
        parts, part_slopes = self.weights * value, self.weights[:, None] * slope
        if not self.worst:
            parts, part_slopes = parts.sum(keepdims=True), part_slopes.sum(axis=0)[None]
        limits = [limit.value(point) for limit in self.smooth]
        slopes = [limit.slope(point) for limit in self.smooth]
        return Values(
            parts,
            part_slopes,
            np.concatenate([limits, value[self.floors] - self.worst_allowed]),
            np.concatenate([np.reshape(slopes, (-1, self.m)), slope[self.floors]]),
        )

    def bend(self, point, weights, prices):
        coefficients = self.weights * weights  # one weight, or one for each target
        s = len(self.smooth)
        coefficients[self.floors] += prices[s:]
        diagonal = sum((p * limit.bend(point) for p, limit in zip(prices, self.smooth)), 0.0)  # noqa: B905
        return self.law.bend(point, coefficients) + np.diag(diagonal * np.ones(self.m))

    def cut(self, point):
        if self.unique is None or (value := self.unique.value(point)) <= BROKEN:
            return None
        slope = self.unique.slope(point)
        return -slope, value - slope @ point

    def solve(self, *, exact=True, start=None):
        start = np.full(self.m, 1 / self.m) if start is None else start
        return minimize_mixture(
            self.at,
            self.polytope,
            starts=start[None],
            convex=True,
            curvature=self.bend if exact else None,
            cut=self.cut,
        )

    def oracle(self):
        r = cp.Variable(self.m)
        value = self.law.expression(r)
        limits = [cp.sum(r) == 1, r >= self.lower, r <= self.upper]
        if len(self.rows):
            limits += [self.rows @ r >= self.least, self.rows @ r <= self.most]
        for limit in self.smooth:
            if limit.measure == "kl":
                limits.append(cp.sum(cp.kl_div(r, limit.other)) <= limit.at_most)
            else:
                limits.append(cp.norm(r - limit.other) <= limit.at_most)
        if self.unique is not None:
            limits.append(cp.sum(cp.minimum(r, self.unique.available)) >= self.unique.limit)
        if len(self.floors):
            limits.append(value[self.floors] <= self.worst_allowed)
        over = cp.max if self.worst else cp.sum
        problem = cp.Problem(cp.Minimize(over(cp.multiply(self.weights, value))), limits)
        tight = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for tolerances in (tight, {}):
                try:
                    return float(problem.solve(solver=cp.CLARABEL, **tolerances))
                except cp.SolverError:
                    continue
        pytest.skip("Clarabel fails on this problem")

    def check(self, point):
        """Every limit is kept."""
        assert (point >= self.lower).all()
        assert (point <= self.upper).all()
        assert abs(point.sum() - 1) <= 1e-14
        shares = self.rows @ point
        assert (shares >= self.least - 1e-10).all()
        assert (shares <= self.most + 1e-10).all()
        assert self.at(point).limits.max(initial=0) <= BROKEN
        assert self.cut(point) is None


# Clarabel keeps limits to about 1e-10, which a steep floor turns into that many times its price.
ORACLE = 1e-7


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "bfgs"])
@pytest.mark.parametrize("worst", [False, True], ids=["mean", "worst"])
@pytest.mark.parametrize("law", [Exponentials, EffectiveData])
@pytest.mark.parametrize(("domains", "targets"), [(3, 2), (17, 13), (60, 30)])
def test_matches_clarabel_with_bounds_and_groups(law, worst, exact, domains, targets):
    problem = Random(
        domains, domains=domains, targets=targets, law=law, worst=worst, kinds=["groups"]
    )
    solution, best = problem.solve(exact=exact), problem.oracle()
    problem.check(solution.proportions)
    assert abs(solution.value - best) <= 1e-7
    assert solution.converged
    assert solution.value - best <= solution.gap + 1e-8
    assert solution.spread == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("worst", [False, True], ids=["mean", "worst"])
@pytest.mark.parametrize("seed", range(3))
def test_matches_clarabel_with_every_kind_of_limit(kind, worst, seed):
    for law in (Exponentials, EffectiveData):
        problem = Random(seed, domains=9, targets=7, law=law, worst=worst, kinds=["groups", kind])
        solution, best = problem.solve(), problem.oracle()
        problem.check(solution.proportions)
        assert abs(solution.value - best) <= ORACLE
        assert solution.gap <= 1e-7


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    domains=st.integers(2, 12),
    targets=st.integers(1, 10),
    law=st.sampled_from([Exponentials, EffectiveData]),
    worst=st.booleans(),
    exact=st.booleans(),
    kinds=st.sets(st.sampled_from(KINDS)),
)
def test_any_mix_of_limits(seed, domains, targets, law, worst, exact, kinds):
    problem = Random(seed, domains=domains, targets=targets, law=law, worst=worst, kinds=kinds)
    solution = problem.solve(exact=exact)
    problem.check(solution.proportions)
    # No mixture that is known to keep the limits is better than the certificate allows.
    inside = problem.at(problem.inside).parts.max()
    assert solution.value - solution.gap <= inside + 1e-9
    assert solution.gap <= 1e-5 * max(1, solution.value)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, steps=st.integers(1, 4), exact=st.booleans(), worst=st.booleans())
def test_the_certificate_holds_when_stopped_early(seed, steps, exact, worst):
    problem = Random(
        seed, domains=6, targets=5, worst=worst, law=EffectiveData, kinds=["groups", "kl", "floors"]
    )
    best = problem.solve().value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "_MAX_STEPS", steps)
        try:
            early = problem.solve(exact=exact)
        except InfeasibleError:  # stopped before the limits were kept
            return
    assert early.gap >= early.value - best - 1e-8
    problem.check(early.proportions)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, domains=st.integers(2, 12), worst=st.booleans())
def test_renaming_domains_permutes_the_optimum(seed, domains, worst):
    one = Random(seed, domains=domains, targets=2 * domains, worst=worst, kinds=["groups", "l2"])
    two = Random(seed, domains=domains, targets=2 * domains, worst=worst, kinds=["groups", "l2"])
    order = np.random.default_rng(seed).permutation(domains)
    two.law.rate, two.rows = one.law.rate[:, order], one.rows[:, order]
    two.lower, two.upper = one.lower[order], one.upper[order]
    near = one.smooth[0]
    two.smooth = [Distance(near.other[order], near.name, near.measure, near.at_most)]
    before, after = one.solve(), two.solve()
    assert after.value == pytest.approx(before.value, abs=before.gap + after.gap + 1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, domains=st.integers(2, 12), worst=st.booleans())
def test_looser_limits_never_worsen_the_optimum(seed, domains, worst):
    arguments = {"domains": domains, "targets": 4, "worst": worst, "kinds": ["groups", "kl"]}
    tight, loose = Random(seed, **arguments), Random(seed, **arguments)
    room = np.random.default_rng(seed).random(domains)
    loose.lower, loose.upper = tight.lower * room, tight.upper + (1 - tight.upper) * room
    loose.least, loose.most = tight.least / 2, (1 + tight.most) / 2
    near = tight.smooth[0]
    loose.smooth = [Distance(near.other, "p", "kl", near.at_most + 0.1)]
    wide = loose.solve()
    assert wide.value <= tight.solve().value + wide.gap + 1e-9


@pytest.mark.parametrize("start", [np.eye(6)[0], np.full(6, 5.0), -np.ones(6), np.zeros(6)])
def test_starts_outside_the_limits(start):
    problem = Random(1, domains=6, targets=4, worst=True, kinds=["groups", "kl"])
    assert problem.solve(start=start).value == pytest.approx(problem.solve().value, abs=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("exact", [True, False])
def test_the_unit_of_the_function_does_not_matter(scale, exact):
    for worst in (False, True):
        arguments = {"domains": 8, "targets": 6, "worst": worst, "kinds": ["groups", "l2"]}
        usual, other = Random(3, **arguments), Random(3, **arguments)
        other.weights = usual.weights * scale
        solution = other.solve(exact=exact)
        assert solution.value == pytest.approx(scale * usual.solve().value, rel=1e-8)
        assert solution.gap <= 1e-7 * solution.value


def test_a_hundred_targets():
    problem = Random(0, domains=17, targets=100, worst=True)
    solution = problem.solve()
    assert abs(solution.value - problem.oracle()) <= 1e-7
    assert solution.weights.sum() == pytest.approx(1)
    parts = problem.at(solution.proportions).parts
    # What counts is what is worst.
    np.testing.assert_allclose(parts[solution.weights > 1e-6], parts.max(), atol=1e-7)


def smooth(value, slope):
    """A function of one part without limits."""

    def at(point):
        return Values(
            np.array([value(point)], float), slope(point)[None], NONE, np.empty((0, len(point)))
        )

    return at


def simplex(m, **changes):
    return Polytope(**{"lower": np.zeros(m), "upper": np.ones(m), **changes})


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_linear_function_is_solved_at_a_vertex(size):
    slope = size * np.array([3.0, 1.0, 2.0, 5.0])
    limits = simplex(4, lower=np.full(4, 0.1), upper=np.array([1, 0.3, 1, 1]))
    for curvature in (None, lambda r, w, p: np.zeros((4, 4))):
        found = minimize_mixture(
            smooth(lambda r: slope @ r, lambda r: slope),
            limits,
            starts=np.full((1, 4), 0.25),
            convex=True,
            curvature=curvature,
        )
        np.testing.assert_allclose(found.proportions, [0.1, 0.3, 0.5, 0.1], atol=1e-10)
        assert found.gap <= 1e-8 * found.value


def test_a_flat_function_is_optimal_everywhere():
    flat = smooth(lambda r: 2.5, lambda r: np.zeros(3))
    found = minimize_mixture(flat, simplex(3), starts=np.full((1, 3), 1 / 3), convex=True)
    assert found.gap == 0
    assert found.converged


@pytest.mark.parametrize("point", [[1.0], [0.2, 0.8]])
def test_a_space_of_one_point(point):
    fixed = np.array(point)
    found = minimize_mixture(
        smooth(lambda r: r @ r, lambda r: 2 * r),
        Polytope(fixed, fixed),
        starts=fixed[None],
        convex=True,
    )
    np.testing.assert_array_equal(found.proportions, fixed)
    assert found.gap == 0


def test_equal_groups_and_fixed_domains_leave_one_point():
    limits = Polytope(
        np.array([0.2, 0, 0, 0]),
        np.array([0.2, 1, 1, 1]),
        np.array([[0, 1.0, 1, 0], [0, 1, 0, 1]]),
        np.array([0.5, 0.5]),
        np.array([0.5, 0.5]),
    )
    found = minimize_mixture(
        smooth(lambda r: r @ r, lambda r: 2 * r), limits, starts=np.full((1, 4), 0.25), convex=True
    )
    np.testing.assert_allclose(found.proportions, [0.2, 0.2, 0.3, 0.3], atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_many_minima_the_best_of_them_is_found(seed):
    # Concave: every vertex is a local minimum, of the value -size.
    size = np.random.default_rng(seed).uniform(1, 3, 5)
    function = smooth(lambda r: -(size * r) @ r, lambda r: -2 * size * r)
    starts = np.eye(5) * 0.9 + 0.02
    found = minimize_mixture(function, simplex(5), starts=starts, convex=False)
    np.testing.assert_allclose(found.proportions, np.eye(5)[np.argmax(size)], atol=1e-9)
    assert found.gap is None
    assert found.spread == pytest.approx(np.ptp(size))


def test_two_wells_on_a_segment():
    # f(x) = (x - .2)^2 (x - .8)^2 - .01 x: minima near .2 and .8, the second one lower.
    def value(r):
        x = r[0]
        return (x - 0.2) ** 2 * (x - 0.8) ** 2 - 0.01 * x

    def slope(r):
        x = r[0]
        return np.array([2 * (x - 0.2) * (x - 0.8) * (2 * x - 1) - 0.01, 0])

    grid = np.linspace(0, 1, 100_001)
    starts = np.array([[0.1, 0.9], [0.9, 0.1]])
    found = minimize_mixture(smooth(value, slope), simplex(2), starts=starts, convex=False)
    assert found.value == pytest.approx(min(value([x]) for x in grid), abs=1e-9)
    assert found.spread > 0.005


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_law_that_is_not_finite_is_an_error(bad):
    starts = np.full((1, 2), 0.5)
    with pytest.raises(FitError, match=f"gives .*{bad}.*at the proportions"):
        minimize_mixture(smooth(lambda r: bad, lambda r: r), simplex(2), starts=starts, convex=True)
    with pytest.raises(FitError, match="slope that is not finite"):
        minimize_mixture(
            smooth(lambda r: 1.0, lambda r: bad * np.ones(2)),
            simplex(2),
            starts=starts,
            convex=True,
        )


@pytest.mark.parametrize("convex", [True, False])
def test_limits_that_exclude_each_other(convex):
    far = Distance(np.array([0.5, 0.3, 0.2]), "p", "l2", 0.1)

    def at(point):
        return Values(
            np.array([0.0]),
            np.zeros((1, 3)),
            np.array([far.value(point)]),
            far.slope(point)[None],
        )

    limits = simplex(3, lower=np.array([0, 0, 0.6]))
    with pytest.raises(InfeasibleError, match="broken by"):
        minimize_mixture(at, limits, starts=np.full((1, 3), 1 / 3), convex=convex)
