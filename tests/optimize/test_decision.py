"""Objectives, the support guard and the decision, on a law whose truth is known."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InfeasibleError, MixtureError, StudyError
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize.decide import optimize
from mixlaw.optimize.decision import Decision, Interval
from mixlaw.optimize.limits import ActiveBound
from mixlaw.optimize.objective import Objective

NAMES = ("web", "code", "books", "wiki")
DOMAINS = [Domain(name, available_tokens=1000 * (j + 1)) for j, name in enumerate(NAMES)]
SUPPORT = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.3, 0.1], [0.2, 0.2, 0.2, 0.4]])


class KnownLaw:
    """c_i + sum_j k_ij exp(-t_ij r_j): convex; the standard error of every target is 0.1."""

    law = "known"
    convex = True
    decreasing = True

    def __init__(self, domains=NAMES, seed=0, targets=3):
        rng = np.random.default_rng(seed)
        self.domains = tuple(domains)
        self.targets = tuple(f"loss/t{i}" for i in range(targets))
        self.rate = rng.uniform(1, 5, (targets, len(domains)))
        self.size = rng.uniform(0.2, 2, (targets, len(domains)))

    def renamed(self, order):
        """The same law with its domains in another order."""
        twin = KnownLaw([self.domains[j] for j in order])
        twin.targets, twin.rate, twin.size = self.targets, self.rate[:, order], self.size[:, order]
        return twin

    def predict(self, weights, num_params, train_tokens, *, available_tokens=None):
        assert weights.shape[1] == len(self.domains)
        return 1 + (self.size * np.exp(-self.rate * weights[:, None, :])).sum(axis=2)

    def gradient(self, weights, num_params, train_tokens, *, available_tokens=None):
        return -self.rate * self.size * np.exp(-self.rate * weights[:, None, :])

    def half_width(self, coefficients, weights, num_params, train_tokens, *, level):
        return np.full(len(weights), 0.1 * float(np.linalg.norm(coefficients)))

    def probability_better(self, gap, coefficients, num_params=None, train_tokens=None):
        return 0.5 + 0.5 * np.tanh(gap / 0.1)


def decide(law=None, **changes):
    law = law or KnownLaw()
    arguments = {
        "domains": DOMAINS,
        "constraints": Constraints(),
        "num_params": 1e6,
        "train_tokens": 1000.0,
        "support": None,
        "baselines": {"uniform": Mixture.uniform(NAMES), "natural": Mixture.natural(DOMAINS)},
    }
    objective = changes.pop("objective", Objective(dict.fromkeys(law.targets, 1.0)))
    return optimize(law, objective, **{**arguments, **changes})


def test_decision_beats_its_baselines_and_a_fine_grid():
    law, decision = KnownLaw(), decide()
    grid = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    assert decision.forecast.objective.value <= law.predict(grid, None, None).mean(axis=1).min()
    assert decision.gap <= 1e-8 * decision.forecast.objective.value
    for comparison in decision.baselines.values():
        expected = comparison.forecast.objective.value - decision.forecast.objective.value
        assert comparison.gain == pytest.approx(expected)
        assert comparison.gain > 0
        assert comparison.probability_better > 0.5
    assert decision.unguarded is None
    assert decision.guard_cost is None
    assert any("no support guard" in warning for warning in decision.warnings)


def test_forecast_has_intervals_and_epochs():
    decision = decide(objective=Objective({"loss/t0": 3.0, "loss/t1": 1.0}))
    assert decision.objective == {"loss/t0": 0.75, "loss/t1": 0.25}
    values = KnownLaw().predict(decision.recommended.array(NAMES)[None], None, None)[0]
    assert decision.forecast.objective.value == pytest.approx(0.75 * values[0] + 0.25 * values[1])
    assert decision.forecast.objective.half_width == pytest.approx(0.1 * np.hypot(0.75, 0.25))
    target = decision.forecast.targets["loss/t2"]
    assert (target.low, target.high) == pytest.approx((values[2] - 0.1, values[2] + 0.1))
    assert decision.forecast.epochs["books"] == pytest.approx(decision.recommended["books"] / 3)


def test_support_guard_bounds_every_domain_and_states_its_cost():
    law = KnownLaw()
    law.rate[:, 3], law.size[:, 3] = 5, 9  # all the gain is in wiki, trained up to .4
    decision = decide(law, support=SUPPORT)
    free = decide(law)
    assert decision.recommended["wiki"] == pytest.approx(0.4)
    assert ActiveBound("wiki", "upper", "support", 0.4) in decision.active_bounds
    assert decision.unguarded["wiki"] > 0.5
    cost = decision.forecast.objective.value - free.forecast.objective.value
    assert decision.guard_cost == pytest.approx(cost, abs=1e-7)
    assert any("edge of the trained range: wiki" in w for w in decision.warnings)
    shares = decision.recommended.array(NAMES)
    assert (shares >= SUPPORT.min(axis=0) - 1e-12).all()
    assert (shares <= SUPPORT.max(axis=0) + 1e-12).all()


def test_active_bounds_say_who_set_them():
    law = KnownLaw()
    law.rate[:], law.size[:] = 3, [4, 1, 4, 0.01]
    constraints = Constraints(lower={"wiki": 0.05}, upper={"books": 0.35}, max_epochs=0.3)
    decision = decide(law, constraints=constraints)
    reasons = {bound.domain: (bound.side, bound.reason) for bound in decision.active_bounds}
    # 0.3 epochs of 1,000 tokens over a run of 1,000: at most .3 of web.
    assert reasons["web"] == ("upper", "epoch cap")
    assert reasons["books"] == ("upper", "user")
    assert reasons["wiki"] == ("lower", "user")
    free = decide(law)
    assert free.recommended["wiki"] == 0  # exactly: no dust
    assert ActiveBound("wiki", "lower", "simplex", 0.0) in free.active_bounds


def test_a_baseline_that_breaks_the_constraints_is_reported_and_flagged():
    decision = decide(constraints=Constraints(max_epochs=0.2), support=SUPPORT)
    uniform = decision.baselines["uniform"]
    assert uniform.forecast.violations == ("web 0.25 > 0.2 (epoch cap)",)
    assert any("'uniform' breaks the constraints" in warning for warning in decision.warnings)
    assert decision.forecast.violations == ()
    one = decide(support=SUPPORT, baselines={"all web": Mixture({"web": 1.0})})
    assert one.baselines["all web"].forecast.extrapolates[0] == "web 1, trained 0.1 to 0.7"


def test_conflicts_with_the_support_are_named():
    with pytest.raises(
        InfeasibleError, match=r"lower\[code\] = 0\.6 \(user\) is above its largest"
    ):
        decide(support=SUPPORT, constraints=Constraints(lower={"code": 0.6}))
    roomy = [Domain("web", 90), *(Domain(name, 10**6) for name in NAMES[1:])]
    with pytest.raises(InfeasibleError, match=r"upper\[web\] = 0\.09 \(epoch cap\) is below"):
        decide(domains=roomy, support=SUPPORT, constraints=Constraints(max_epochs=1))
    with pytest.raises(InfeasibleError, match=r"upper bounds sum to 0\.9.*wiki 0\.4 \(support\)"):
        decide(
            support=np.array([[0.3, 0.2, 0.1, 0.4], [0.3, 0.1, 0.2, 0.4]]),
            constraints=Constraints(upper={"web": 0.1 + 0.2, "code": 0.1, "books": 0.1}),
        )
    with pytest.raises(InfeasibleError, match="lower bounds sum to 1"):
        decide(support=SUPPORT, constraints=Constraints(lower={"web": 0.6, "code": 0.3}))


def test_names_that_do_not_match_are_errors():
    with pytest.raises(MixtureError, match=r"\['wiki'\] are missing"):
        decide(domains=DOMAINS[:3])
    with pytest.raises(MixtureError, match=r"\['poems'\] are new"):
        decide(domains=[*DOMAINS, Domain("poems")])
    with pytest.raises(MixtureError, match="poems"):
        decide(baselines={"odd": Mixture({"poems": 1.0})})
    with pytest.raises(StudyError, match="did you mean 'loss/t1'"):
        decide(objective=Objective({"loss/tt1": 1.0}))
    with pytest.raises(MixtureError, match="support has shape"):
        decide(support=SUPPORT[:, :3])
    with pytest.raises(StudyError, match=r"level of the intervals is 90"):
        decide(level=90)


def test_an_objective_needs_positive_finite_weights():
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(StudyError, match="finite and > 0"):
            Objective({"loss/t0": weight})
    with pytest.raises(StudyError, match="no target"):
        Objective({})
    np.testing.assert_allclose(
        Objective({"loss/b": 2.0, "loss/a": 6.0}).coefficients(("loss/a", "loss/b", "loss/c")),
        [0.75, 0.25, 0],
    )


def test_a_law_that_is_not_convex_says_so():
    law = KnownLaw()
    law.convex = False
    decision = decide(law, support=SUPPORT)
    assert decision.gap is None
    assert any("no certificate" in warning for warning in decision.warnings)
    assert decision.guard_cost >= 0
    assert decide(law, support=SUPPORT) == decision  # same seed


@pytest.mark.parametrize("support", [None, SUPPORT])
def test_json_round_trip(support):
    decision = decide(support=support)
    text = json.dumps(decision.to_dict(), allow_nan=False)
    assert Decision.from_dict(json.loads(text)) == decision


def test_an_unknown_width_survives_json_and_a_foreign_format_does_not():
    unknown = Interval(2.0, np.inf)
    assert Interval.from_dict(json.loads(json.dumps(unknown.to_dict()))) == unknown
    with pytest.raises(StudyError, match="format 99"):
        Decision.from_dict({**decide().to_dict(), "format": 99})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_looser_constraints_never_worsen_the_decision(seed):
    rng = np.random.default_rng(seed)
    law, inside = KnownLaw(seed=seed), rng.dirichlet(np.ones(4))
    upper = inside + (1 - inside) * rng.random(4)
    looser = upper + (1 - upper) * rng.random(4)

    def value(bounds):
        constraints = Constraints(upper=dict(zip(NAMES, bounds.tolist(), strict=True)))
        return decide(law, constraints=constraints).forecast.objective.value

    assert value(looser) <= value(upper) * (1 + 1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_renaming_domains_permutes_the_decision(seed):
    law, order = KnownLaw(seed=seed), np.random.default_rng(seed).permutation(4)
    constraints = Constraints(upper={"web": 0.4}, lower={"wiki": 0.1})
    one = decide(law, constraints=constraints, support=SUPPORT)
    two = decide(law.renamed(order), constraints=constraints, support=SUPPORT[:, order])
    for name in NAMES:
        assert two.recommended[name] == pytest.approx(one.recommended[name], abs=1e-3)
    assert two.forecast.objective.value == pytest.approx(one.forecast.objective.value, rel=1e-8)
