"""Objectives, the support guard and the decision, on a law whose truth is known."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InfeasibleError, MixtureError, StudyError
from mixlaw.mixture import Constraints, Domain, Group, Mixture, Near
from mixlaw.optimize.decision import Decision, Interval
from mixlaw.optimize.limits import ActiveBound
from mixlaw.optimize.objective import Floor, Objective


def test_decision_beats_its_baselines_and_a_fine_grid(lab):
    law, decision = lab.KnownLaw(), lab.decide()
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


def test_forecast_has_intervals_and_epochs(lab):
    decision = lab.decide(objective=Objective({"loss/t0": 3.0, "loss/t1": 1.0}))
    assert decision.objective.weights == {"loss/t0": 0.75, "loss/t1": 0.25}
    values = lab.KnownLaw().predict(decision.recommended.array(lab.names)[None], None, None)[0]
    assert decision.forecast.objective.value == pytest.approx(0.75 * values[0] + 0.25 * values[1])
    assert decision.forecast.objective.half_width == pytest.approx(0.1 * np.hypot(0.75, 0.25))
    target = decision.forecast.targets["loss/t2"]
    assert (target.low, target.high) == pytest.approx((values[2] - 0.1, values[2] + 0.1))
    assert decision.forecast.epochs["books"] == pytest.approx(decision.recommended["books"] / 3)


def test_support_guard_bounds_every_domain_and_states_its_cost(lab):
    law = lab.KnownLaw()
    law.rate[:, 3], law.size[:, 3] = 5, 9  # all the gain is in wiki, trained up to .4
    decision = lab.decide(law, support=lab.support)
    free = lab.decide(law)
    assert decision.recommended["wiki"] == pytest.approx(0.4)
    assert ActiveBound("wiki", "upper", "support", 0.4) in decision.active_bounds
    assert decision.unguarded["wiki"] > 0.5
    cost = decision.forecast.objective.value - free.forecast.objective.value
    assert decision.guard_cost == pytest.approx(cost, abs=1e-7)
    assert any("edge of the trained range: wiki" in w for w in decision.warnings)
    shares = decision.recommended.array(lab.names)
    assert (shares >= lab.support.min(axis=0) - 1e-12).all()
    assert (shares <= lab.support.max(axis=0) + 1e-12).all()


def test_active_bounds_say_who_set_them(lab):
    law = lab.KnownLaw()
    law.rate[:], law.size[:] = 3, [4, 1, 4, 0.01]
    constraints = Constraints(lower={"wiki": 0.05}, upper={"books": 0.35}, max_epochs=0.3)
    decision = lab.decide(law, constraints=constraints)
    reasons = {bound.domain: (bound.side, bound.reason) for bound in decision.active_bounds}
    # 0.3 epochs of 1,000 tokens over a run of 1,000: at most .3 of web.
    assert reasons["web"] == ("upper", "epoch cap")
    assert reasons["books"] == ("upper", "user")
    assert reasons["wiki"] == ("lower", "user")
    free = lab.decide(law)
    assert free.recommended["wiki"] == 0  # exactly: no dust
    assert ActiveBound("wiki", "lower", "simplex", 0.0) in free.active_bounds


def test_a_baseline_that_breaks_the_constraints_is_reported_and_flagged(lab):
    decision = lab.decide(constraints=Constraints(max_epochs=0.2), support=lab.support)
    uniform = decision.baselines["uniform"]
    assert uniform.forecast.violations == ("web 0.25 > 0.2 (epoch cap)",)
    assert any("'uniform' breaks the constraints" in warning for warning in decision.warnings)
    assert decision.forecast.violations == ()
    one = lab.decide(support=lab.support, baselines={"all web": Mixture({"web": 1.0})})
    assert one.baselines["all web"].forecast.extrapolates[0] == "web 1, trained 0.1 to 0.7"


def test_a_baseline_outside_the_trained_range_is_a_guess(lab):
    far = Mixture({"web": 0.85, "code": 0.05, "books": 0.05, "wiki": 0.05})
    near = Mixture({"web": 0.4, "code": 0.2, "books": 0.2, "wiki": 0.2})
    decision = lab.decide(support=lab.support, baselines={"far": far, "near": near})
    (told,) = [w for w in decision.warnings if "outside the trained range" in w]
    assert "'far'" in told
    assert "web 0.85, trained 0.1 to 0.7" in told


def test_conflicts_with_the_support_are_named(lab):
    def conflict(**changes):
        with pytest.raises(
            InfeasibleError, match="relax one of them, train mixtures that"
        ) as found:
            lab.decide(**changes)
        return str(found.value).partition("these conflict: ")[2]

    text = conflict(support=lab.support, constraints=Constraints(lower={"code": 0.6}))
    assert text.startswith("lower[code] = 0.6 (user); upper[code] = 0.5 (support); relax")
    roomy = [Domain("web", 90), *(Domain(name, 10**6) for name in lab.names[1:])]
    text = conflict(domains=roomy, support=lab.support, constraints=Constraints(max_epochs=1))
    assert text.startswith("lower[web] = 0.1 (support); upper[web] = 0.09 (epoch cap: 1 epochs of")
    text = conflict(
        support=np.array([[0.3, 0.2, 0.1, 0.4], [0.3, 0.1, 0.2, 0.4]]),
        constraints=Constraints(upper={"web": 0.3, "code": 0.1, "books": 0.1}),
    )
    assert text.startswith(
        "upper[web] = 0.3 (user); upper[code] = 0.1 (user); upper[books] = 0.1 (user); "
        "upper[wiki] = 0.4 (support); relax"
    )


def test_names_that_do_not_match_are_errors(lab):
    with pytest.raises(MixtureError, match=r"\['wiki'\] are missing"):
        lab.decide(domains=lab.domains[:3])
    with pytest.raises(MixtureError, match=r"\['poems'\] are new"):
        lab.decide(domains=[*lab.domains, Domain("poems")])
    with pytest.raises(MixtureError, match="poems"):
        lab.decide(baselines={"odd": Mixture({"poems": 1.0})})
    with pytest.raises(StudyError, match="did you mean 'loss/t1'"):
        lab.decide(objective=Objective({"loss/tt1": 1.0}))
    with pytest.raises(MixtureError, match="support has shape"):
        lab.decide(support=lab.support[:, :3])
    with pytest.raises(StudyError, match=r"level of the intervals is 90"):
        lab.decide(level=90)


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


def test_a_law_that_is_not_convex_says_so(lab):
    law = lab.KnownLaw()
    law.convex = False
    decision = lab.decide(law, support=lab.support)
    assert decision.gap is None
    assert any("no certificate" in warning for warning in decision.warnings)
    assert decision.guard_cost >= 0
    assert lab.decide(law, support=lab.support) == decision  # same seed


@pytest.mark.parametrize("guarded", [False, True])
def test_json_round_trip(lab, guarded):
    support = lab.support if guarded else None
    decision = lab.decide(support=support)
    text = json.dumps(decision.to_dict(), allow_nan=False)
    assert Decision.from_dict(json.loads(text)) == decision


def test_json_round_trip_of_everything_that_can_be_asked(lab):
    law = lab.KnownLaw()
    objective = Objective(
        {"ab": 2.0, "loss/t2": 1.0},
        families={"ab": ("loss/t0", "loss/t1")},
        over="worst",
        relative_to="natural",
        floors={"loss/t0": Floor("uniform", 0.2), "loss/t1": Floor(9.0)},
    )
    constraints = Constraints(
        groups={"text": Group(("web", "books"), upper=0.7)},
        near=Near("uniform", at_most=0.5, penalty=0.01),
        min_unique_tokens=500,
        granularity=50,
    )
    decision = lab.decide(
        law,
        objective=objective,
        constraints=constraints,
        support=lab.support,
        scales=[(1e6, 800.0), (1e7, 900.0)],
    )
    text = json.dumps(decision.to_dict(), allow_nan=False)
    again = Decision.from_dict(json.loads(text))
    assert again == decision
    assert json.dumps(again.to_dict()) == text
    assert len(decision.scales) == 2
    assert decision.rounding_cost is not None
    assert decision.region.ranges.keys() == set(lab.names)
    assert decision.sensitivities["web"].targets.keys() == set(law.targets)


def test_at_other_scales_caps_move_and_the_recommended_mixture_is_forecast(lab):
    law = lab.KnownLaw()
    law.rate[:], law.size[:] = 3, [5, 1, 1, 1]  # web is wanted, 1,000 tokens of it
    decision = lab.decide(
        law, constraints=Constraints(max_epochs=1), scales=[(1e6, 2000.0), (1e6, 5000.0)]
    )
    assert decision.recommended["web"] > 0.5
    for scale, most in zip(decision.scales, (0.5, 0.2), strict=True):
        assert scale.mixture["web"] == pytest.approx(most)
        expected = law.predict(decision.recommended.array(lab.names)[None], None, None).mean()
        assert scale.recommended == pytest.approx(expected)
        assert scale.objective > scale.recommended  # which breaks the cap of that scale


def test_sensitivities_show_what_a_cap_costs(lab):
    law = lab.KnownLaw()
    law.rate[:], law.size[:] = 3, [5, 1, 1, 1]
    decision = lab.decide(law, constraints=Constraints(upper={"web": 0.3}))
    assert decision.sensitivities["web"].objective < -0.001
    assert all(decision.sensitivities[name].objective > 0 for name in ("books", "wiki"))


def test_an_unknown_width_survives_json_and_a_foreign_format_does_not(lab):
    unknown = Interval(2.0, np.inf)
    assert Interval.from_dict(json.loads(json.dumps(unknown.to_dict()))) == unknown
    with pytest.raises(StudyError, match="format 99"):
        Decision.from_dict({**lab.decide().to_dict(), "format": 99})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_looser_constraints_never_worsen_the_decision(lab, seed):
    rng = np.random.default_rng(seed)
    law, inside = lab.KnownLaw(seed=seed), rng.dirichlet(np.ones(4))
    upper = inside + (1 - inside) * rng.random(4)
    looser = upper + (1 - upper) * rng.random(4)

    def value(bounds):
        constraints = Constraints(upper=dict(zip(lab.names, bounds.tolist(), strict=True)))
        return lab.decide(law, constraints=constraints).forecast.objective.value

    assert value(looser) <= value(upper) * (1 + 1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_renaming_domains_permutes_the_decision(lab, seed):
    law, order = lab.KnownLaw(seed=seed), np.random.default_rng(seed).permutation(4)
    constraints = Constraints(upper={"web": 0.4}, lower={"wiki": 0.1})
    one = lab.decide(law, constraints=constraints, support=lab.support)
    two = lab.decide(law.renamed(order), constraints=constraints, support=lab.support[:, order])
    for name in lab.names:
        assert two.recommended[name] == pytest.approx(one.recommended[name], abs=1e-3)
    assert two.forecast.objective.value == pytest.approx(one.forecast.objective.value, rel=1e-8)
