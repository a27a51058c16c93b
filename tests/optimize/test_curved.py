"""Distances and unique tokens against their definitions, and in a decision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InfeasibleError
from mixlaw.mixture import Constraints, Domain, Mixture, Near
from mixlaw.optimize.curved import Distance, UniqueTokens
from mixlaw.optimize.objective import Floor, Objective

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, measure=st.sampled_from(["kl", "l2"]))
def test_distances_are_what_they_say(seed, measure):
    rng = np.random.default_rng(seed)
    r, p = rng.dirichlet(np.ones(5), 2)
    limit = Distance(p, "p", measure, 0.3)
    if measure == "kl":
        assert limit.value(r) == pytest.approx((r * np.log(r / p)).sum() - 0.3)
    else:
        assert limit.value(r) == pytest.approx(((r - p) ** 2).sum() - 0.3**2)
    steps = 1e-6 * r.min() * np.eye(5)
    slope = [(limit.value(r + s) - limit.value(r - s)) / (2 * s.max()) for s in steps]
    np.testing.assert_allclose(limit.slope(r), slope, rtol=1e-3, atol=1e-4)
    bend = [(limit.slope(r + s) - limit.slope(r - s)) @ s / (2 * s.max() ** 2) for s in steps]
    np.testing.assert_allclose(limit.bend(r), bend, rtol=1e-3, atol=1e-4)


def test_kl_at_and_near_a_share_of_zero():
    p = np.array([0.5, 0.3, 0.2])
    limit = Distance(p, "p", "kl", 0.0)
    point = np.array([0.6, 0.4, 0.0])
    assert limit.value(point) == pytest.approx(0.6 * np.log(1.2) + 0.4 * np.log(4 / 3), abs=1e-8)
    shares = np.concatenate([[0], np.logspace(-12, -6, 200)])
    values = np.array([limit.value(np.array([0.6, 0.4 - s, s])) for s in shares])
    slopes = np.array([limit.slope(np.array([0.6, 0.4 - s, s]))[2] for s in shares])
    assert np.isfinite(slopes).all()
    assert (np.diff(slopes) > 0).all()  # convex
    assert (np.diff(values) < 0).all()


def test_unique_tokens_are_counted():
    least = UniqueTokens(np.array([0.2, 0.5, 0.1]), 0.75, 1000.0, False)
    point = np.array([0.3, 0.5, 0.2])
    assert least.value(point) == pytest.approx(0.75 - 0.8)
    assert least.label == "at least 750 unique tokens"
    assert least.seen(point) == "800 unique tokens, at least 750 unique tokens"
    assert UniqueTokens(least.available, 0.75, 1000.0, True).value(point) == pytest.approx(0.05)


def wants_web(lab):
    """A law that wants little but web."""
    law = lab.KnownLaw()
    law.rate[:], law.size[:] = 2, 0.1
    law.size[:, 0] = 5
    return law


@pytest.mark.parametrize("measure", ["kl", "l2"])
def test_a_ball_around_a_baseline_is_reached_but_not_left(lab, measure):
    constraints = Constraints(near=Near("uniform", measure, at_most=0.1))
    decision = lab.decide(wants_web(lab), constraints=constraints)
    r, p = decision.recommended.array(lab.names), np.full(4, 0.25)
    far = (r @ np.log(r / p)) if measure == "kl" else np.linalg.norm(r - p)
    assert far == pytest.approx(0.1, abs=1e-6)
    np.testing.assert_allclose(r[1:], r[1], atol=1e-5)
    assert decision.gap <= 1e-7
    (bound,) = [b for b in decision.active_bounds if b.reason == "limit"]
    assert bound.domain == f"{measure} distance from uniform at most 0.1"
    broken = decision.baselines["natural"].forecast.violations
    assert len(broken) == 1
    assert broken[0].startswith(f"{measure} distance from uniform 0.")


def test_a_price_of_distance_pulls_towards_the_other_mixture(lab):
    def share(price):
        constraints = Constraints(near=Near("uniform", penalty=price))
        return lab.decide(wants_web(lab), constraints=constraints).recommended["web"]

    shares = [share(price) for price in (0.01, 0.3, 3, 300)]
    assert shares[0] > shares[1] > shares[2] > shares[3]
    assert shares[3] == pytest.approx(0.25, abs=0.01)


def test_a_price_of_distance_does_not_empty_the_flat_region(lab):
    constraints = Constraints(near=Near("uniform", penalty=0.5))
    decision = lab.decide(constraints=constraints)
    for name, (low, high) in decision.region.ranges.items():
        assert low < decision.recommended[name] < high


def test_unique_tokens_spread_a_mixture_that_would_repeat(lab):
    law = wants_web(lab)  # web, of which there are 1,000 tokens
    run = {"train_tokens": 4000.0}
    greedy = lab.decide(law, **run)
    decision = lab.decide(law, constraints=Constraints(min_unique_tokens=3000), **run)
    available = np.array([d.available_tokens for d in lab.domains])

    def seen(decision):
        return np.minimum(decision.recommended.array(lab.names) * 4000, available).sum()

    assert seen(greedy) < 2500
    assert seen(decision) == pytest.approx(3000)
    # The best place for the others' 2,000 fresh tokens leaves web with half of the run.
    assert decision.recommended["web"] == pytest.approx(0.5)
    most = lab.decide(law, constraints=Constraints(max_unique_tokens=2000), **run)
    assert seen(most) <= 2000 * (1 + 1e-6)
    assert most.gap is None  # not convex


def conflict(lab, law=None, **changes):
    with pytest.raises(InfeasibleError) as found:
        lab.decide(law, **changes)
    text = str(found.value)
    if text.startswith("no mixture keeps all limits; these conflict: "):
        return text.partition("conflict: ")[2].partition("; relax one of them")[0].split("; ")
    return [text.removeprefix("no mixture keeps ").removesuffix("; relax it")]


def test_a_ball_against_a_lower_bound(lab):
    for measure in ("kl", "l2"):
        constraints = Constraints(
            near=Near("uniform", measure, at_most=0.1), lower={"web": 0.8}, upper={"wiki": 0.3}
        )
        assert conflict(lab, constraints=constraints) == [
            "lower[web] = 0.8 (user)",
            f"{measure} distance from uniform at most 0.1",
        ]


def test_a_floor_against_caps(lab):
    law = wants_web(lab)
    objective = Objective({"loss/t0": 1.0}, floors={"loss/t0": Floor(2.0), "loss/t1": Floor(9.0)})
    found = conflict(
        lab, law, objective=objective, constraints=Constraints(max_epochs=1), train_tokens=4000.0
    )
    cap = "1 epochs of 1,000 tokens in a run of 4,000"
    assert found == [f"upper[web] = 0.25 (epoch cap: {cap})", "loss/t0 at most 2"]


def test_unique_tokens_against_an_upper_bound(lab):
    domains = [Domain(name, 1000 * (j + 1)) for j, name in enumerate(lab.names)]
    constraints = Constraints(min_unique_tokens=3500, upper={"wiki": 0.02, "books": 0.05})
    found = conflict(lab, domains=domains, constraints=constraints, train_tokens=4000.0)
    assert found == [
        "upper[books] = 0.05 (user)",
        "upper[wiki] = 0.02 (user)",
        "at least 3,500 unique tokens",
    ]
    alone = Constraints(min_unique_tokens=20_000)
    assert conflict(lab, constraints=alone, train_tokens=30_000.0) == [
        "at least 20,000 unique tokens"
    ]


def test_a_floor_that_no_mixture_reaches(lab):
    objective = Objective({"loss/t1": 1.0}, floors={"loss/t0": Floor(0.5)})
    assert conflict(lab, objective=objective) == ["loss/t0 at most 0.5"]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_what_a_known_mixture_keeps_is_feasible(lab, seed):
    rng = np.random.default_rng(seed)
    law, inside = lab.KnownLaw(seed=seed), rng.dirichlet(np.ones(4))
    values = law.predict(inside[None], None, None)[0]
    other = rng.dirichlet(np.ones(4))
    near = Near(
        Mixture.from_array(lab.names, other), at_most=float(inside @ np.log(inside / other)) + 1e-6
    )
    floors = {t: Floor(float(v) + 1e-6) for t, v in zip(law.targets, values, strict=True)}
    decision = lab.decide(
        law,
        objective=Objective(dict.fromkeys(law.targets, 1.0), floors=floors),
        constraints=Constraints(near=near, lower={"web": float(inside[0])}),
    )
    assert decision.forecast.violations == ()
    assert decision.forecast.objective.value <= values.mean() + 1e-6
