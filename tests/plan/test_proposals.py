"""The planner against closed forms, brute force and known laws."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from mixlaw.errors import FitError, InfeasibleError, StudyError
from mixlaw.laws import fit_laws
from mixlaw.laws.points import Points
from mixlaw.mixture import Mixture
from mixlaw.plan.beliefs import believe, e_folds_away
from mixlaw.plan.knowledge import Belief, expected_falls
from mixlaw.plan.plans import Plan
from mixlaw.plan.proposals import fewest_mixtures, propose
from mixlaw.plan.question import Question, RunScale
from mixlaw.runs import RunTable

DOMAINS = ("code", "docs", "web")
OBJECTIVE = {"loss/code": 0.5, "loss/web": 0.5}
SIMPLEX = (np.zeros(3), np.ones(3))
SMALL, LARGE = RunScale(1e6, 2e7), RunScale(1e7, 2e8)


def question(**changes) -> Question:
    given = {"domains": DOMAINS, "objective": OBJECTIVE, "bounds": SIMPLEX, "laws": ["effective"]}
    return Question(**(given | changes))


Known = TypeVar("Known")


def sure(value: Known | None) -> Known:
    assert value is not None
    return value


def truth(weights: np.ndarray) -> np.ndarray:
    """(n, 2) losses; their mean is least at about half code and half web."""
    code = 1.5 + 1.2 * (0.1 + np.sqrt(weights @ [1.0, 0.15, 0.05])) ** -0.4
    web = 1.6 + 1.1 * (0.1 + np.sqrt(weights @ [0.1, 0.1, 1.0])) ** -0.4
    return np.stack([code, web], axis=1)


def table(
    weights: np.ndarray, values: np.ndarray | None = None, scale: RunScale | None = None
) -> RunTable:
    rows = []
    for w, v in zip(weights, truth(weights) if values is None else values, strict=True):
        row = {f"weight/{d}": x for d, x in zip(DOMAINS, w, strict=True)}
        row |= {"loss/code": v[0], "loss/web": v[1]}
        if scale is not None:
            row |= {"num_params": scale.num_params, "train_tokens": scale.train_tokens}
        rows.append(row)
    return RunTable.from_rows(rows)


def dirichlet(n: int, seed: int = 0, noise: float = 0.0) -> RunTable:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), n)
    return table(weights, truth(weights) + noise * rng.normal(size=(n, 2)))


def a_belief(n: int = 6, seed: int = 0) -> Belief:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n + 2, n + 2))
    return Belief(rng.normal(size=n), root @ root.T / n, rng.uniform(0.1, 1, n + 2))


# --- knowledge --------------------------------------------------------------------------------


def test_the_gain_of_two_independent_mixtures_has_a_closed_form():
    belief = Belief(np.array([0.0, 0.3]), np.diag([1.0, 4.0]), np.array([0.5, 2.0]))
    sd = np.array([1 / np.sqrt(1.5), 4 / np.sqrt(6)])  # of the posterior mean of the one run
    u = 0.3 / sd
    phi = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
    tail = np.array([normal_tail(x) for x in u])
    np.testing.assert_allclose(belief.gains(np.arange(2)), sd * (phi - u * tail), rtol=1e-10)


def normal_tail(x: float) -> float:
    from math import erfc, sqrt

    return erfc(x / sqrt(2)) / 2


def test_gains_are_those_of_brute_force():
    belief = a_belief()
    slopes = belief.slopes(np.arange(8))
    z = np.linspace(-9, 9, 200_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    lowest = (belief.mean[:, None, None] + slopes.T[:, :, None] * z).min(axis=0)
    expected = belief.mean.min() - lowest @ density
    np.testing.assert_allclose(belief.gains(np.arange(8)), expected, atol=1e-7)


def test_a_run_that_moves_all_mixtures_alike_gains_nothing():
    assert expected_falls(np.array([0.0, 1.0, 2.0]), np.full((1, 3), 5.0)) == 0.0


def test_a_batch_is_conditioned_as_if_one_after_another():
    belief, batch = a_belief(), [1, 7, 3]
    one_by_one = belief.observed(1).observed(7).observed(3)
    at_once = np.linalg.solve(
        belief.covariance[np.ix_(batch, batch)] + np.diag(belief.noise[batch]),
        belief.covariance[batch],
    )
    expected = belief.covariance - belief.covariance[:, batch] @ at_once
    np.testing.assert_allclose(one_by_one.covariance, expected, atol=1e-12)
    np.testing.assert_allclose(belief.observed_all(batch).covariance, expected, atol=1e-12)


def test_the_joint_gain_is_that_of_brute_force():
    belief, batch = a_belief(seed=2), [0, 7]
    rng = np.random.default_rng(1)
    noisy = belief.covariance[np.ix_(batch, batch)] + np.diag(belief.noise[batch])
    surprises = rng.multivariate_normal(np.zeros(2), noisy, 200_000)
    shifts = surprises @ np.linalg.solve(noisy, belief.covariance[batch, :6])
    expected = belief.mean.min() - (belief.mean + shifts).min(axis=1).mean()
    assert belief.joint_gain(batch) == pytest.approx(expected, rel=0.1)
    assert belief.joint_gain([0]) == pytest.approx(belief.gains(np.array([0]))[0])


def test_expected_regret_is_that_of_brute_force():
    belief = a_belief()
    draws = np.random.default_rng(3).multivariate_normal(
        belief.mean, belief.covariance[:6, :6], 200_000
    )
    expected = np.mean(draws[:, belief.decision] - draws.min(axis=1))
    assert belief.regret() == pytest.approx(expected, rel=0.1)
    certain = Belief(belief.mean, np.zeros((8, 8)), belief.noise)
    assert certain.regret() == 0.0


# --- beliefs ----------------------------------------------------------------------------------


def test_a_place_is_known_where_it_was_run_and_doubted_elsewhere():
    runs = dirichlet(12, noise=0.002)
    fitted = fit_laws(runs, candidates=["effective"])
    new = np.random.default_rng(9).dirichlet(np.ones(3) * 0.3, 12)
    places = Points.at(np.concatenate([runs.weights, new]))
    belief = believe(fitted, np.array([0.5, 0.5]), places, 24, seed=0)
    sd = np.sqrt(np.diagonal(belief.covariance))
    assert sd[:12].mean() < sd[12:].mean()
    true = truth(places.weights).mean(axis=1)
    assert np.abs(belief.mean - true).max() < 0.05
    assert np.mean(np.abs(belief.mean - true)[12:] < 3 * sd[12:]) > 0.8


def test_distance_is_measured_from_the_trained_scales():
    fitted = fit_laws(table(dirichlet(12).weights, scale=SMALL), candidates=["effective"])
    places = Points(np.full((3, 3), 1 / 3), np.array([1e6, 1e7, np.nan]), np.array([2e7, 2e7, 2e7]))
    np.testing.assert_allclose(e_folds_away(fitted, places), [0, np.log(10), 0], atol=1e-12)


def test_a_far_target_is_doubted_more():
    fitted = fit_laws(table(dirichlet(12).weights, scale=SMALL), candidates=["effective"])
    mixtures = np.random.default_rng(1).dirichlet(np.ones(3), 20)
    doubts = [
        believe(
            fitted, np.array([0.5, 0.5]), Points.at(mixtures, *vars(at).values()), 20, seed=0
        ).regret()
        for at in (SMALL, LARGE)
    ]
    assert doubts[0] < doubts[1]


# --- proposals --------------------------------------------------------------------------------


def test_without_runs_the_plan_is_a_design_at_the_cheapest_scale():
    plan = propose(None, question(scales=[LARGE, SMALL]), 5)
    assert not plan.stop
    assert plan.recommended is None
    assert plan.expected_regret is None
    assert {p.scale for p in plan.proposals} == {SMALL}
    assert plan.proposals[0].flops == 6 * 1e6 * 2e7
    weights = np.array([p.mixture.array(DOMAINS) for p in plan.proposals])
    apart = np.abs(weights[:, None] - weights).sum(axis=2)[np.triu_indices(5, 1)]
    assert apart.min() > 0.2
    assert f"0 mixtures are finished, {fewest_mixtures(3)} let a law" in plan.reason


def test_a_design_continues_around_what_is_there():
    first = propose(None, question(), 6).proposals
    asked = [(p.mixture, p.scale) for p in first[:3]]
    weights = np.array([p.mixture.array(DOMAINS) for p in first[:3]])
    rest = propose(table(weights), question(), 3).proposals
    assert [p.mixture for p in rest] == [p.mixture for p in first[3:]]
    pending = propose(None, question(), 3, pending=asked).proposals
    assert [p.mixture for p in pending] == [p.mixture for p in rest]


def test_the_same_arguments_give_the_same_plan():
    runs = dirichlet(10, noise=0.01)
    assert propose(runs, question(), 3, seed=4) == propose(runs, question(), 3, seed=4)


def test_proposals_keep_to_the_bounds():
    lower, upper = np.array([0.1, 0.0, 0.2]), np.array([0.6, 0.3, 0.7])
    for runs in (None, dirichlet(10, noise=0.01)):
        plan = propose(runs, question(bounds=(lower, upper)), 6)
        for p in plan.proposals:
            shares = p.mixture.array(DOMAINS)
            assert np.all(shares >= lower - 1e-9)
            assert np.all(shares <= upper + 1e-9)


def test_proposals_come_from_the_mixtures_that_can_be_run_and_never_twice():
    among = np.random.default_rng(5).dirichlet(np.ones(3), 12)
    allowed = {tuple(np.round(row, 9)) for row in among}
    runs = table(among[:8])
    pending = [(Mixture.from_array(DOMAINS, among[8]), RunScale())]
    plan = propose(runs, question(among=among), 6, pending=pending, threshold=0.0)
    chosen = [tuple(np.round(p.mixture.array(DOMAINS), 9)) for p in plan.proposals]
    assert sorted(chosen) == sorted(tuple(np.round(row, 9)) for row in among[9:])
    assert plan.recommended is not None
    assert tuple(np.round(plan.recommended.array(DOMAINS), 9)) in allowed
    done = propose(table(among), question(among=among), 2)
    assert done.stop
    assert not done.proposals
    assert "nothing is left" in done.reason


def test_a_pending_run_is_not_asked_for_again_and_teaches():
    runs = dirichlet(8, noise=0.02)
    first = propose(runs, question(), 2, threshold=0.0)
    second = propose(
        runs,
        question(),
        1,
        pending=[(first.proposals[0].mixture, first.proposals[0].scale)],
        threshold=0.0,
    )
    assert second.proposals[0].mixture == first.proposals[1].mixture
    assert second.proposals[0].expected_gain == pytest.approx(first.proposals[1].expected_gain)
    assert sure(second.expected_regret) < sure(first.expected_regret)


def test_a_dense_noiseless_swarm_says_stop():
    plan = propose(dirichlet(60), question(), 2, threshold=0.002)
    assert plan.stop
    assert "not worth doing" in plan.reason
    assert sure(plan.expected_regret) < 0.002
    best = np.argmin(truth(grid()).mean(axis=1))
    loss = truth(sure(plan.recommended).array(DOMAINS)[None]).mean()
    assert loss - truth(grid())[best].mean() < 0.002


def test_few_noisy_runs_say_go_on():
    plan = propose(dirichlet(8, noise=0.05), question(), 4, threshold=1e-4)
    assert not plan.stop
    assert sure(plan.expected_gain) > sure(plan.proposals[0].expected_gain)


def grid() -> np.ndarray:
    points = np.random.default_rng(0).dirichlet(np.full(3, 0.7), 4000)
    return np.vstack([points, np.eye(3), (np.eye(3) + np.roll(np.eye(3), 1, 0)) / 2])


def regret(rows: Callable[[RunTable | None], np.ndarray], last: int, seed: int) -> float:
    """Of the recommended mixture after `last` runs, those of `rows` at a time."""
    rng = np.random.default_rng(seed)
    weights, values, runs = np.empty((0, 3)), np.empty((0, 2)), None
    while len(weights) < last:
        new = rows(runs)
        weights = np.vstack([weights, new])
        values = np.vstack([values, truth(new) + 0.02 * rng.normal(size=(len(new), 2))])
        runs = table(weights, values)
    recommended = sure(propose(runs, question(), 1).recommended)
    return float(truth(recommended.array(DOMAINS)[None]).mean() - truth(grid()).mean(1).min())


def test_planned_runs_decide_better_than_random_ones():
    planned, drawn = [], []
    for seed in range(2):
        rng = np.random.default_rng([seed, 1])

        def plan(runs: RunTable | None, seed: int = seed) -> np.ndarray:
            found = propose(runs, question(), 6, seed=seed, threshold=0.0).proposals
            return np.array([p.mixture.array(DOMAINS) for p in found])

        planned.append(regret(plan, 12, seed))
        drawn.append(regret(lambda _, rng=rng: rng.dirichlet(np.ones(3) * 3, 6), 12, seed))
    assert np.mean(planned) < 0.7 * np.mean(drawn)


def test_cheap_scales_come_first_and_dear_ones_when_they_are_worth_it():
    both = question(scales=[SMALL, LARGE], target=LARGE)
    few = dirichlet(8, noise=0.05)
    runs = table(few.weights, few.values, SMALL)
    assert {p.scale for p in propose(runs, both, 2, threshold=1e-5).proposals} == {SMALL}
    dense = dirichlet(80)
    known = table(dense.weights, dense.values, SMALL)
    assert {p.scale for p in propose(known, both, 2, threshold=2e-4).proposals} == {LARGE}


def test_plans_survive_json():
    for runs in (None, dirichlet(10, noise=0.01)):
        plan = propose(runs, question(), 2)
        assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "at least 1"),
        ({"threshold": -1.0}, "threshold is -1"),
        ({"threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(StudyError, match=message):
        propose(None, question(), **({"count": 1} | arguments))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"objective": {}}, StudyError, "names no target"),
        ({"objective": {"loss/web": 0.0}}, StudyError, "coefficient of 'loss/web' is 0"),
        ({"scales": []}, StudyError, "no scale"),
        ({"scales": [SMALL, SMALL]}, StudyError, "named twice"),
        ({"scales": [SMALL, RunScale(1e6)]}, StudyError, "cost of .* is unknown"),
        ({"bounds": (np.zeros(3), np.full(3, 0.3))}, InfeasibleError, "sum"),
        ({"among": np.ones((2, 3))}, StudyError, "sums to 3.0000"),
        ({"among": np.full((2, 2), 0.5)}, StudyError, "shape"),
        (
            {"among": np.eye(3), "bounds": (np.zeros(3), np.full(3, 0.9))},
            StudyError,
            "none of the 3 mixtures",
        ),
    ],
)
def test_questions_without_an_answer_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        question(**changes)


def test_a_scale_must_be_positive():
    with pytest.raises(StudyError, match="num_params = -1"):
        RunScale(-1.0, 1e6)


def test_runs_must_answer_the_question():
    runs = dirichlet(10)
    with pytest.raises(StudyError, match=r"did you mean 'loss/web'"):
        propose(runs, question(objective={"loss/wbe": 1.0}), 1)
    with pytest.raises(StudyError, match="domains"):
        propose(runs, question(domains=("a", "b", "c")), 1)
    constant = table(runs.weights, np.ones((10, 2)))
    with pytest.raises(FitError, match="constant"):
        propose(constant, question(), 1)


def test_a_law_of_scale_needs_the_counts_of_the_target():
    weights = dirichlet(8).weights
    rows = [
        row | {"loss/code": row["loss/code"] * scale, "loss/web": row["loss/web"] * scale}
        for k, scale in enumerate((1.0, 0.9, 0.85))
        for row in table(weights, scale=RunScale(1e6 * 4**k, 2e7)).rows()
    ]
    runs = RunTable.from_rows(rows)
    laws = ["exponential-chinchilla"]
    with pytest.raises(StudyError, match=r"reads \['num_params'\], which the one scale lacks"):
        propose(runs, question(laws=laws), 1)
    far = RunScale(1e8, 2e7)
    plan = propose(runs, question(laws=laws, scales=[RunScale(1e6, 2e7), far]), 1, threshold=0.0)
    assert plan.proposals[0].scale in (RunScale(1e6, 2e7), far)
    assert sure(plan.expected_regret) >= 0


def test_too_few_runs_for_the_named_law_are_topped_up():
    plan = propose(dirichlet(6), question(laws=["implicit-2"]), 2)
    assert len(plan.proposals) == 2
    assert "too few runs for a law" in plan.reason
