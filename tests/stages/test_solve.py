"""The best schedule keeps its limits, and more stages are never worse."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.mixture import Constraints, Domain, Group, Mixture, Near
from mixlaw.optimize import Floor, Objective, optimize
from mixlaw.optimize.decide import Question
from mixlaw.stages.solve import best_schedule

DOMAINS = [Domain("code", 200_000), Domain("docs", 2_000_000), Domain("web", 2_000_000)]
OPEN = Constraints()
CAPPED = Constraints(max_epochs=1.0)
LIMITED = Constraints(
    lower={"web": 0.1},
    upper={"code": 0.6},
    max_epochs=1.5,
    groups={"text": Group(("docs", "web"), 0.3, 0.9)},
)


def solved(fitted, constraints, shares, objective=None, guard=True):
    """Problem and solution, and the static decision."""
    static = fitted.static
    support = static.cross_validation.runs.weights
    objective = objective or Objective({"loss/code": 1.0})
    scale = (1e5, 1e6)
    question = Question(static, objective, DOMAINS, constraints, *scale, support, {}, guard)
    decision = optimize(
        static,
        objective,
        domains=DOMAINS,
        constraints=constraints,
        num_params=scale[0],
        train_tokens=scale[1],
        support=support,
        guard=guard,
    )
    found = best_schedule(
        fitted,
        question,
        question.problem(),
        shares=shares,
        best_static=decision.recommended.array(fitted.domains),
        seed=0,
    )
    return *found, decision


def test_one_stage_is_the_static_optimum(recency):
    for constraints in (OPEN, CAPPED, LIMITED):
        problem, solution, decision = solved(recency, constraints, (1.0,))
        assert solution.value == pytest.approx(decision.forecast.objective.value, rel=1e-9)
        found = problem.schedule(solution.proportions).dose.array(recency.domains)
        np.testing.assert_allclose(found, decision.recommended.array(recency.domains), atol=1e-4)


@pytest.mark.parametrize(
    "objective",
    [
        Objective({"loss/code": 1.0}),
        Objective({"loss/code": 1.0, "loss/docs": 1.0}),
        Objective({"loss/code": 1.0, "loss/docs": 1.0}, over="worst"),
    ],
    ids=["one", "mean", "worst"],
)
def test_more_stages_are_never_worse(recency, objective):
    values = [
        solved(recency, CAPPED, shares, objective)[1].value
        for shares in ((1.0,), (0.8, 0.2), (0.5, 0.3, 0.2))
    ]
    assert values[1] <= values[0] + 1e-9
    assert values[2] <= values[1] + 1e-9


def test_limits_hold_in_every_stage_and_caps_over_the_run(recency):
    shares = (0.5, 0.3, 0.2)
    problem, solution, _ = solved(recency, LIMITED, shares)
    schedule = problem.schedule(solution.proportions)
    stages = schedule.array(recency.domains)
    code, docs, web = stages.T
    assert (web >= 0.1 - 1e-9).all()
    assert (code <= 0.6 + 1e-9).all()
    assert (docs + web <= 0.9 + 1e-9).all()
    assert (docs + web >= 0.3 - 1e-9).all()
    dose = schedule.dose
    assert dose["code"] <= 0.3 + 1e-9  # 1.5 epochs of a fifth
    assert stages[:, 0].max() > 0.3 + 0.1  # a stage may have more
    np.testing.assert_allclose(stages.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(schedule.shares.sum(), 1, atol=1e-12)


def test_the_guard_keeps_stages_and_dose_within_what_was_trained(recency):
    problem, solution, _ = solved(recency, OPEN, (0.8, 0.2))
    schedule = problem.schedule(solution.proportions)
    stages, dose = schedule.array(recency.domains), schedule.dose.array(recency.domains)
    trained, support = recency.static.cross_validation.runs.weights, recency.support
    assert (stages >= support.min(axis=0) - 1e-9).all()
    assert (stages <= support.max(axis=0) + 1e-9).all()
    assert (dose >= trained.min(axis=0) - 1e-9).all()
    assert (dose <= trained.max(axis=0) + 1e-9).all()


def test_slopes_of_the_problem(recency):
    objective = Objective({"loss/code": 1.0, "loss/docs": 2.0}, floors={"loss/qa": Floor(1.9)})
    near = Near(Mixture({"code": 0.2, "docs": 0.5, "web": 0.3}), at_most=0.5, penalty=0.1)
    problem, solution, _ = solved(recency, Constraints(near=near), (0.6, 0.4), objective)
    point = 0.5 * solution.proportions + 0.5 * problem.polytope.centre
    values, step = problem.at(point), 1e-6
    for k in range(len(point)):
        up, down = (problem.at(point + sign * step * np.eye(len(point))[k]) for sign in (1, -1))
        for name, slopes in (("parts", values.part_slopes), ("limits", values.limit_slopes)):
            slope = (getattr(up, name) - getattr(down, name)) / (2 * step)
            np.testing.assert_allclose(slopes[:, k], slope, rtol=1e-5, atol=1e-7)
    assert len(values.limits) == 2


def test_floors_hold_at_the_end_of_the_schedule(recency):
    free = solved(recency, CAPPED, (0.8, 0.2))
    reached = recency.values(free[0].points(free[1].proportions[None]))[0]
    floor = float(reached[1] - 0.02)
    objective = Objective({"loss/code": 1.0}, floors={"loss/docs": Floor(floor)})
    problem, solution, _ = solved(recency, CAPPED, (0.8, 0.2), objective)
    again = recency.values(problem.points(solution.proportions[None]))[0]
    assert again[1] <= floor + 1e-7
    assert again[0] > reached[0]


def test_unique_tokens_count_for_the_whole_run(recency):
    at_least = Constraints(min_unique_tokens=9.5e5)
    problem, solution, _ = solved(recency, at_least, (0.8, 0.2))
    dose = problem.dose(solution.proportions)
    assert np.minimum(dose, [0.2, 2, 2]).sum() >= 0.95 - 1e-7
