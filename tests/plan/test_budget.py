"""What a budget buys: arithmetic that adds up, and expectations that move the right way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mixlaw.errors import StudyError
from mixlaw.plan.beliefs import DRIFT
from mixlaw.plan.budget import (
    LEARNING,
    OBJECTIVE,
    QUANTILE,
    SPREADS,
    BudgetPlan,
    default_scales,
    e_folds,
    plan_budget,
)
from mixlaw.plan.question import RunScale
from mixlaw.runs import RunTable

TARGET = RunScale(1e9, 2e10)
SMALL, MIDDLE, BIG = RunScale(1e6, 2e7), RunScale(1e7, 2e8), RunScale(1e8, 2e9)


def swarm(n: int, noise: float = 0.01, scale: RunScale | None = SMALL) -> RunTable:
    rng = np.random.default_rng(0)
    rows = []
    for w in rng.dirichlet(np.ones(4), n):
        loss = 2 + 0.5 * (0.05 + np.sqrt(w @ [1.0, 0.2, 0.1, 0.4])) ** -0.5
        row = {f"weight/{d}": x for d, x in zip("abcd", w, strict=True)}
        row |= {"loss/x": loss + noise * rng.normal()}
        if scale is not None:
            row |= {"num_params": scale.num_params, "train_tokens": scale.train_tokens}
        rows.append(row)
    return RunTable.from_rows(rows)


def test_one_size_costs_and_errs_as_the_formula_says():
    plan = plan_budget(6 * 1e6 * 2e7 * 25.5, num_domains=5, target=TARGET, scales=[SMALL])
    (group,) = plan.recommended.proxies
    assert group.num_runs == 25
    assert group.flops == 25 * 6 * 1e6 * 2e7
    assert group.share == pytest.approx(25 / 25.5)
    first, exponent = LEARNING
    away = math.log(1000) * math.sqrt(2)
    variance = first * 5**-exponent + DRIFT * away
    assert plan.recommended.half_width == pytest.approx(QUANTILE * math.sqrt(variance))
    assert plan.unit == SPREADS
    assert "public tables" in plan.source


def test_no_allocation_overspends_and_the_best_comes_first():
    plan = plan_budget(1e19, num_domains=8, target=TARGET)
    regrets = [item.expected_regret for item in plan.alternatives]
    assert regrets == sorted(regrets)
    assert plan.recommended in plan.alternatives
    assert plan.recommended.expected_regret <= 1.02 * regrets[0]
    assert {len(item.proxies) for item in plan.alternatives} == {1, 2, 3}
    for item in plan.alternatives:
        assert item.flops <= 1e19
        assert sum(group.share for group in item.proxies) == pytest.approx(item.flops / 1e19)
        assert item.tells_level == (len(item.proxies) == 3)


def test_a_larger_budget_is_worth_more():
    regrets = [
        plan_budget(flops, num_domains=8, target=TARGET).recommended.expected_regret
        for flops in (1e17, 1e18, 1e19, 1e20)
    ]
    assert regrets == sorted(regrets, reverse=True)
    assert regrets[-1] < 0.7 * regrets[0]


def test_the_default_ladder_lies_below_the_target():
    ladder = default_scales(TARGET)
    assert [scale.num_params for scale in ladder] == pytest.approx(
        [1e6, 1e9 / 300, 1e7, 1e9 / 30, 1e8]
    )
    assert [s.flops for s in ladder] == pytest.approx(
        [120 * (s.num_params or 0) ** 2 for s in ladder]
    )
    short = default_scales(RunScale(1e9, 1e8))
    assert [s.train_tokens for s in short][-1] == 1e8


def test_too_small_a_budget_states_the_least():
    with pytest.raises(StudyError, match=r"least that makes sense is 8 of them, 9.6e\+14 FLOPs"):
        plan_budget(1e14, num_domains=8, target=TARGET)
    plan_budget(9.61e14, num_domains=8, target=TARGET)


def test_with_runs_the_errors_are_theirs():
    objective = {"loss/x": 1.0}

    def planned(runs: RunTable) -> BudgetPlan:
        return plan_budget(1e17, num_domains=4, target=TARGET, runs=runs, objective=objective)

    clean, noisy = planned(swarm(20, 0.002)), planned(swarm(20, 0.02))
    assert clean.unit == OBJECTIVE
    assert clean.recommended.expected_regret < noisy.recommended.expected_regret
    assert "20 trained mixtures" in clean.source


def test_more_runs_leave_less_to_learn():
    regrets = [
        plan_budget(
            1e17,
            num_domains=4,
            target=SMALL,
            scales=[SMALL],
            runs=swarm(n, 0.002),
            objective={"loss/x": 1.0},
        ).recommended.expected_regret
        for n in (12, 80)
    ]
    assert regrets[1] < regrets[0]


def test_budgets_survive_json():
    plan = plan_budget(1e18, num_domains=6, target=TARGET, scales=[SMALL, MIDDLE, BIG])
    assert BudgetPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_an_allocation_is_weighed_once_and_what_the_cap_leaves_is_told():
    ladder = [SMALL, MIDDLE, BIG]
    plan = plan_budget(1e24, num_domains=5, target=TARGET, scales=ladder)
    runs = [item.proxies for item in plan.alternatives]
    assert len(set(runs)) == len(runs)
    left = 1e24 - plan.recommended.flops
    assert f"{left:.2g} FLOPs (100% of the budget) are left over" in plan.reason
    assert "at most 80 mixtures (16 a domain)" in plan.reason
    assert "larger proxies" in plan.reason
    small = plan_budget(2e15, num_domains=5, target=TARGET, scales=ladder)
    assert "left over" not in small.reason


def test_counts_are_short_and_units_read_well():
    plan = plan_budget(1e17, num_domains=4, target=TARGET, scales=[SMALL, MIDDLE])
    assert plan.recommended.name.startswith(f"{plan.recommended.proxies[0].num_runs} x 1")
    assert "e+0" not in plan.recommended.name
    objective = {"loss/x": 1.0}
    runs = swarm(20)
    known = plan_budget(1e17, num_domains=4, target=TARGET, runs=runs, objective=objective)
    assert "in the objective's unit)" in known.reason


def test_a_budget_is_planned_for_losses():
    with pytest.raises(StudyError, match=r"names the scores \['score/q'\]; give the losses"):
        plan_budget(1e17, num_domains=4, target=TARGET, runs=swarm(20), objective={"score/q": 1.0})


def test_e_folds_add_up_along_a_ladder():
    assert e_folds(SMALL, BIG) == pytest.approx(e_folds(SMALL, MIDDLE) + e_folds(MIDDLE, BIG))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flops": 0.0}, "budget is 0"),
        ({"flops": math.nan}, "budget is nan"),
        ({"num_domains": 1}, "at least 2"),
        ({"target": RunScale(1e9)}, "num_params and train_tokens of every scale"),
        ({"scales": [RunScale(1e10, 1e9)]}, "exceed the target"),
        ({"scales": [RunScale()]}, "num_params and train_tokens of every scale"),
        ({"runs": swarm(20)}, "without an objective"),
        ({"runs": swarm(20), "objective": {"loss/y": 1.0}, "num_domains": 4}, "loss/x"),
        ({"runs": swarm(20), "objective": {"loss/x": 1.0}, "num_domains": 5}, "the runs have 4"),
        (
            {"runs": swarm(20, scale=None), "objective": {"loss/x": 1.0}, "num_domains": 4},
            "have no num_params or train_tokens",
        ),
    ],
)
def test_nonsense_is_refused(arguments, message):
    given = {"flops": 1e18, "num_domains": 8, "target": TARGET} | arguments
    with pytest.raises(StudyError, match=message):
        plan_budget(given.pop("flops"), **given)
