"""The staged schedule is recommended where it really is better, and only there."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from mixlaw.errors import InfeasibleError, MixtureError, StudyError
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Objective
from mixlaw.schedule import Schedule
from mixlaw.stages import ScheduleDecision, decide, fit_stages


def best_by_brute_force(lab, cap: float, share: float) -> float:
    """The lowest true loss on code of a two-stage schedule with a cap on the dose of code."""
    steps = np.linspace(0, 1, 21)
    grid = np.array([(a, b, 1 - a - b) for a, b in itertools.product(steps, steps) if a + b < 1.01])
    grid = np.maximum(grid, 0)
    first, last = (grid[k.reshape(-1)] for k in np.indices((len(grid), len(grid))))
    allowed = share * first[:, 0] + (1 - share) * last[:, 0] <= cap + 1e-9
    weight = share**lab.rate
    mixed = weight * first[allowed] + (1 - weight) * last[allowed]
    return float(lab.static_truth(mixed, 1e6)[:, 0].min())


def test_a_scarce_domain_goes_last_where_recency_is_real(recency, lab):
    decision = lab.decide(recency)
    assert decision.worthwhile
    assert decision.recommended == decision.staged.schedule
    assert decision.reason.startswith("staged: ")
    true = {
        name: lab.truth(getattr(decision, name).schedule, 1e6, lab.rate)[0]
        for name in ("staged", "static", "same_dose")
    }
    best = best_by_brute_force(lab, 0.2, 0.8)
    gain = true["static"] - best
    assert gain > 0.04
    assert true["staged"] < true["static"] - 0.7 * gain  # the guard keeps it from the corner
    free = lab.decide(recency, guard=False).staged.schedule
    assert lab.truth(free, 1e6, lab.rate)[0] < true["static"] - 0.95 * gain
    interval = decision.over_static.interval
    assert interval.low <= true["static"] - true["staged"] <= interval.high
    assert decision.over_static.probability > 0.95
    assert decision.staged.epochs["code"] <= 1 + 1e-9


def test_static_is_recommended_where_the_order_does_not_matter(orderless, lab):
    for objective in (None, Objective(dict.fromkeys(lab.targets, 1.0))):
        decision = lab.decide(orderless, objective)
        assert not decision.worthwhile
        assert decision.recommended.is_static
        assert decision.reason.startswith("static: ")
        assert decision.over_static.interval.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fitted", ["orderless", "recency"])
def test_a_static_optimum_that_was_missed_is_no_gain_of_the_order(
    fitted, lab, request, monkeypatch
):
    """A law with many minima may hide the best static mixture from its own search."""
    found = lab.decide(request.getfixturevalue(fitted))
    real = decide.optimize

    def missed(*args, **changes):
        best = real(*args, **changes)
        worse = Mixture({"code": 0.05, "docs": 0.5, "web": 0.45})
        return replace(best, forecast=replace(best.forecast, mixture=worse))

    monkeypatch.setattr(decide, "optimize", missed)
    decision = lab.decide(request.getfixturevalue(fitted))
    assert decision.static.objective.value == pytest.approx(found.static.objective.value, rel=1e-5)
    assert decision.recommended.is_static == found.recommended.is_static


def test_a_gain_inside_the_noise_is_no_gain(lab):
    runs = lab.table(rate=1.3, noise=0.02)
    fitted = fit_stages(runs, lab.static_laws(runs), candidates=["recency"])
    objective = Objective(dict.fromkeys(lab.targets, 1.0))
    decision = lab.decide(fitted, objective, constraints=Constraints())
    assert decision.recommended == decision.static.schedule
    assert not decision.over_static.sure


def test_the_three_schedules_of_a_decision(recency, lab):
    decision = lab.decide(recency)
    dose = decision.staged.schedule.dose
    assert decision.same_dose.schedule == Schedule.static(dose)
    assert decision.static.schedule.is_static
    assert decision.static.order_effect == decision.same_dose.order_effect == 0
    effect = decision.staged.objective.value - decision.same_dose.objective.value
    assert decision.staged.order_effect == pytest.approx(effect, abs=1e-12)
    assert decision.over_same_dose.interval.value == pytest.approx(-effect, abs=1e-12)
    assert decision.static.objective.value <= decision.same_dose.objective.value + 1e-9
    coefficients = np.array([1.0, 0.0, 0.0])
    for forecast in (decision.staged, decision.static, decision.same_dose):
        values = recency.predict(
            [forecast.schedule], 1e5, 1e6, available_tokens=np.array([2e5, 2e6, 2e6])
        )[0]
        np.testing.assert_allclose([i.value for i in forecast.targets.values()], values)
        width = recency.half_width(
            coefficients,
            [forecast.schedule],
            1e5,
            1e6,
            available_tokens=np.array([2e5, 2e6, 2e6]),
        )
        assert forecast.objective.half_width == pytest.approx(float(width[0]))


def test_the_best_of_several_stage_shares_is_taken(recency, lab):
    shares = [(0.5, 0.5), (0.8, 0.2)]
    decision = lab.decide(recency, stage_shares=shares)
    alone = {one: lab.decide(recency, stage_shares=one) for one in shares}
    values = {one: each.staged.objective.value for one, each in alone.items()}
    assert [one.shares for one in decision.alternatives] == sorted(shares, key=lambda s: values[s])
    assert decision.staged.objective.value == pytest.approx(min(values.values()))
    warned = [any("of the shares" in text for text in alone[one].warnings) for one in shares]
    assert warned == [True, False]


def test_decisions_survive_json(recency, lab):
    decision = lab.decide(recency, stage_shares=(0.6, 0.2, 0.2))
    again = ScheduleDecision.from_dict(json.loads(json.dumps(decision.to_dict())))
    assert again == decision
    assert again.recommended == decision.recommended
    with pytest.raises(StudyError, match="format 0"):
        ScheduleDecision.from_dict({**decision.to_dict(), "format": 0})


def test_untested_forms_recommend_static(recency, lab):
    fitted = fit_stages(lab.table(staged=0), recency.static, candidates=["dynamic"])
    decision = lab.decide(fitted)
    assert decision.recommended.is_static
    assert "too few staged runs that measured the objective have tested" in decision.reason
    assert np.isinf(decision.over_static.interval.half_width)
    again = ScheduleDecision.from_dict(json.loads(json.dumps(decision.to_dict())))
    assert again == decision


def test_changes_from_a_baseline(recency, lab):
    objective = Objective({"loss/code": 1.0, "loss/docs": 1.0}, relative_to="uniform")
    baselines = {"uniform": Mixture.uniform(lab.names)}
    decision = lab.decide(recency, objective, baselines=baselines)
    assert -0.5 < decision.staged.objective.value < decision.static.objective.value < 0.5
    assert 0 < decision.staged.objective.half_width < 0.5
    assert decision.objective.reference is not None


def test_warnings(recency, lab):
    decision = lab.decide(recency, constraints=Constraints(max_epochs=1.0, granularity=64))
    assert any("not rounded to multiples of 1/64" in text for text in decision.warnings)
    decision = lab.decide(recency, guard=False)
    assert any("no support guard" in text for text in decision.warnings)
    assert any("the stages differ more" in text for text in decision.warnings)


def test_refusals(recency, lab):
    for shares in ((0.8, 0.1), (1.2, -0.2), (0.5, float("nan"))):
        with pytest.raises(StudyError, match="each must be > 0 and they must sum to 1"):
            lab.decide(recency, stage_shares=shares)
    for shares in ((), [0.8, (0.1, 0.1)]):
        with pytest.raises(StudyError, match="or several such lists"):
            lab.decide(recency, stage_shares=shares)
    with pytest.raises(InfeasibleError, match="epoch"):
        lab.decide(recency, constraints=Constraints(max_epochs=0.1))
    with pytest.raises(MixtureError, match="poems"):
        lab.decide(recency, domains=[Domain("poems")])
    with pytest.raises(MixtureError, match="unknown domains"):
        lab.decide(recency, constraints=Constraints(lower={"poems": 0.1}))
    with pytest.raises(StudyError, match="not fitted"):
        lab.decide(recency, Objective({"loss/poems": 1.0}))
    with pytest.raises(StudyError, match="level"):
        lab.decide(recency, level=1.5)
