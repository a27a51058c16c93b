"""The optimum over many laws against the optima of their mean, worst and quantiles."""

from dataclasses import replace

import numpy as np
import pytest

from mixlaw.errors import StudyError
from mixlaw.laws.bootstrap import Bootstrap
from mixlaw.mixture import Constraints
from mixlaw.optimize.objective import Floor, Objective
from mixlaw.optimize.robust import Robust

DRAWS = 9


class Draw:
    """One target of a known law, as a fitted law."""

    def __init__(self, law, t):
        self.law, self.t = law, t

    def predict(self, points):
        return self.law.predict(points.weights, None, None)[:, self.t]

    def gradient(self, points):
        return self.law.gradient(points.weights, None, None)[:, self.t]


@pytest.fixture(scope="module")
def laws(lab):
    """The known law, and draws around it."""
    center, draws = lab.KnownLaw(), []
    for seed in range(DRAWS):
        rng, law = np.random.default_rng(seed), lab.KnownLaw()
        law.size = center.size * rng.lognormal(0, 0.4, center.size.shape)
        law.rate = center.rate * rng.lognormal(0, 0.2, center.rate.shape)
        draws.append(law)
    return center, draws


@pytest.fixture(scope="module")
def bootstrap(laws):
    center, draws = laws
    return Bootstrap([{t: Draw(law, i) for i, t in enumerate(center.targets)} for law in draws])


def values(draws, mixture, names, coefficients=None):
    """(R,) the mean of the targets in each draw."""
    point = mixture.array(names)[None]
    return np.array([law.predict(point, None, None)[0].mean() for law in draws])


def test_the_mean_is_the_optimum_of_the_mean_law(lab, laws, bootstrap):
    center, draws = laws

    class Mean(lab.KnownLaw):
        def predict(self, *arguments, **options):
            return np.mean([law.predict(*arguments, **options) for law in draws], axis=0)

        def gradient(self, *arguments, **options):
            return np.mean([law.gradient(*arguments, **options) for law in draws], axis=0)

    decision = lab.decide(center, robust=Robust(bootstrap))
    expected = lab.decide(Mean())
    np.testing.assert_allclose(
        decision.recommended.array(lab.names), expected.recommended.array(lab.names), atol=1e-4
    )
    assert decision.robust.value == pytest.approx(expected.forecast.objective.value, abs=1e-8)
    assert decision.robust.num_draws == DRAWS
    assert decision.robust.single == lab.decide(center).recommended
    found = values(draws, decision.recommended, lab.names)
    assert decision.robust.value == pytest.approx(found.mean())


def test_the_worst_and_the_quantiles_are_in_order(lab, laws, bootstrap):
    center, draws = laws
    levels = {q: lab.decide(center, robust=Robust(bootstrap, q)) for q in (0.2, 0.5, 0.9)}
    worst = lab.decide(center, robust=Robust(bootstrap, "worst"))
    single = lab.decide(center).recommended
    found = [levels[q].robust.value for q in (0.2, 0.5, 0.9)] + [worst.robust.value]
    assert (np.diff(found) >= -1e-9).all()
    assert worst.robust.value >= lab.decide(center, robust=Robust(bootstrap)).robust.value
    assert worst.robust.value == pytest.approx(values(draws, worst.recommended, lab.names).max())
    assert worst.robust.value <= values(draws, single, lab.names).max() + 1e-9
    assert worst.gap <= 1e-7
    for q, decision in levels.items():
        reached = np.sort(values(draws, decision.recommended, lab.names))
        kth = int(np.ceil(q * DRAWS)) - 1
        assert decision.robust.value == pytest.approx(reached[kth], abs=1e-9)
        # Better than what the one fit would have got, and than the worst case's optimum.
        for other in (worst.recommended, single):
            assert decision.robust.value <= np.sort(values(draws, other, lab.names))[kth] + 1e-9
        assert decision.gap is None


def test_the_worst_of_terms_and_draws(lab, laws, bootstrap):
    center, draws = laws
    objective = Objective(dict.fromkeys(center.targets, 1.0), over="worst")
    decision = lab.decide(center, objective=objective, robust=Robust(bootstrap, "worst"))
    grid = np.random.default_rng(0).dirichlet(np.ones(4), 5000)
    best = np.max([law.predict(grid, None, None).max(axis=1) for law in draws], axis=0).min()
    assert decision.robust.value <= best
    assert decision.robust.value > best - 0.05


def test_limits_and_floors_hold_for_the_robust_optimum(lab, laws, bootstrap):
    center, _ = laws
    objective = Objective({"loss/t0": 1.0}, floors={"loss/t1": Floor("uniform")})
    decision = lab.decide(
        center,
        objective=objective,
        constraints=Constraints(upper={"web": 0.3}),
        robust=Robust(bootstrap, "worst"),
    )
    assert decision.forecast.violations == ()


def test_over_what_must_be_known(bootstrap):
    for over in ("best", 0.0, 1.0, 2):
        with pytest.raises(StudyError, match="use 'mean', 'worst' or a quantile"):
            Robust(bootstrap, over)


def test_a_quantile_of_one_draw_is_that_draw(lab, laws, bootstrap):
    center, draws = laws
    one = replace(bootstrap, draws=bootstrap.draws[:1])
    decision = lab.decide(center, robust=Robust(one, 0.5))
    expected = lab.decide(draws[0])
    assert decision.robust.value == pytest.approx(expected.forecast.objective.value, abs=1e-8)
