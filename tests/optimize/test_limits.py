"""The smallest set of limits that conflict is named, and nothing is named where nothing does."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.mixture import Constraints, Domain, Group, Mixture, Near
from mixlaw.optimize.conflict import smallest_conflict
from mixlaw.optimize.limits import Limits

NAMES = ("web", "code", "books", "wiki")
DOMAINS = [Domain(name, available_tokens=1000 * (j + 1)) for j, name in enumerate(NAMES)]
SEEDS = st.integers(0, 2**32 - 1)


def limits_of(constraints, *, domains=DOMAINS, mixtures=None):
    return Limits.of(domains, constraints, 1000.0, mixtures)


def conflict(constraints, support=None):
    """The phrases between "these conflict:" and the remedy."""
    try:
        limits = limits_of(constraints)
        assert support is not None, "no conflict was found"
        limits.guarded(support)
    except InfeasibleError as error:
        text = str(error)
    assert text.startswith("no mixture keeps all limits; these conflict: ")
    assert "relax one of them" in text
    named = text.partition("these conflict: ")[2].partition("; relax one of them")[0]
    return set(named.split("; "))


def test_a_lower_bound_above_an_upper_one():
    found = conflict(Constraints(lower={"web": 0.5, "code": 0.1}, upper={"web": 0.4}))
    assert found == {"lower[web] = 0.5 (user)", "upper[web] = 0.4 (user)"}


def test_lower_bounds_that_sum_to_more_than_one_without_the_small_ones():
    found = conflict(Constraints(lower={"web": 0.7, "code": 0.6, "books": 0.05, "wiki": 0.01}))
    assert found == {"lower[web] = 0.7 (user)", "lower[code] = 0.6 (user)"}


def test_caps_that_sum_to_less_than_one():
    found = conflict(Constraints(max_epochs=0.05))
    assert found == {
        f"upper[{name}] = {0.05 * k:.4g} "
        f"(epoch cap: 0.05 epochs of {k},000 tokens in a run of 1,000)"
        for k, name in enumerate(NAMES, 1)
    }


def test_a_group_against_the_bounds_of_its_domains():
    groups = {"text": Group(("web", "books"), lower=0.7), "rest": Group(("code", "wiki"))}
    found = conflict(Constraints(upper={"web": 0.3, "books": 0.3, "code": 0.5}, groups=groups))
    assert found == {
        "group 'text' at least 0.7",
        "upper[web] = 0.3 (user)",
        "upper[books] = 0.3 (user)",
    }


def test_groups_that_overlap():
    groups = {
        "a": Group(("web", "code"), lower=0.8),
        "b": Group(("code", "books"), upper=0.1),
        "c": Group(("web", "books"), upper=0.6),
    }
    found = conflict(Constraints(groups=groups))
    assert found == {"group 'a' at least 0.8", "group 'b' at most 0.1", "group 'c' at most 0.6"}


def test_the_support_against_the_users_bounds():
    support = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.3, 0.1]])
    found = conflict(Constraints(lower={"code": 0.6}), support)
    assert found == {"lower[code] = 0.6 (user)", "upper[code] = 0.5 (support)"}
    with pytest.raises(InfeasibleError, match="or turn off the support guard"):
        limits_of(Constraints(lower={"code": 0.6})).guarded(support)


def test_the_support_must_have_the_domains():
    with pytest.raises(MixtureError, match=r"support has shape \(2, 3\)"):
        limits_of(Constraints()).guarded(np.full((2, 3), 1 / 3))


@pytest.mark.parametrize("slack", [0, 1e-12, 1e-7])
def test_what_is_only_just_possible_is_possible(slack):
    exact = {"web": 0.1, "code": 0.2, "books": 0.3, "wiki": 0.4 + slack / 2}
    limits_of(Constraints(upper=exact))
    limits_of(Constraints(lower={**exact, "wiki": 0.4}))
    limits_of(Constraints(fixed={**exact, "wiki": 0.4}))
    third = Group(("web", "code", "books"), upper=0.6, lower=0.6)
    limits_of(Constraints(upper={"wiki": 0.4 + slack}, groups={"most": third}))
    limits_of(Constraints(max_epochs=0.1))  # .1 + .2 + .3 + .4


def feasible(rows, most):
    found = linprog(
        np.zeros(rows.shape[1]),
        A_ub=rows,
        b_ub=most,
        A_eq=np.ones((1, rows.shape[1])),
        b_eq=[1.0],
        bounds=(0, None),
    )
    return found.status == 0


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 7), domains=st.integers(1, 5))
def test_the_conflict_is_as_small_as_brute_force_finds(seed, count, domains):
    rng = np.random.default_rng(seed)
    rows = rng.choice([-1.0, 0, 1], (count, domains)) * rng.choice([1, 0.01], (count, 1))
    most = rows @ rng.dirichlet(np.ones(domains)) + np.round(rng.normal(0, 0.1, count), 2)
    found = smallest_conflict(rows, most)
    sizes = [
        len(chosen)
        for k in range(1, count + 1)
        for chosen in itertools.combinations(range(count), k)
        if not feasible(rows[list(chosen)], most[list(chosen)] + 1e-5)
    ]
    if sizes:
        assert len(found) <= min(sizes)
    if len(found):
        assert not feasible(rows[list(found)], most[list(found)] - 1e-9)
    if feasible(rows, most):
        assert len(found) == 0


def test_a_hundred_domains_in_conflict():
    domains = [Domain(f"d{j}") for j in range(100)]
    groups = {
        f"g{g}": Group(tuple(f"d{j}" for j in range(10 * g, 10 * g + 10)), upper=0.09)
        for g in range(10)
    }
    lower = {f"d{j}": 0.002 for j in range(100)}
    with pytest.raises(InfeasibleError, match="these conflict") as caught:
        limits_of(Constraints(lower=lower, groups=groups), domains=domains)
    assert str(caught.value).count("group 'g") == 10
    assert "lower[" not in str(caught.value)


def test_limits_on_unique_tokens_need_counts():
    with pytest.raises(MixtureError, match=r"unknown: \['new'\]"):
        limits_of(Constraints(min_unique_tokens=100), domains=[Domain("web", 1000), Domain("new")])


def test_a_distance_from_a_mixture_that_lacks_a_domain_is_refused():
    other = Mixture({"web": 0.5, "code": 0.5, "books": 0.0, "wiki": 0.0})
    with pytest.raises(MixtureError, match=r"no share of \['books', 'wiki'\].*infinite"):
        limits_of(Constraints(near=Near(other, at_most=0.1)))
    limits_of(Constraints(near=Near(other, at_most=0.1), fixed={"books": 0}, upper={"wiki": 0}))
    limits_of(Constraints(near=Near(other, "l2", at_most=0.1)))
    with pytest.raises(MixtureError, match="'natural', which is not among the baselines"):
        limits_of(Constraints(near=Near("natural", at_most=0.1)), mixtures={"uniform": other})


def test_active_bounds_and_violations_agree():
    groups = {"text": Group(("web", "books"), lower=0.4, upper=0.6)}
    limits = limits_of(
        Constraints(lower={"wiki": 0.1}, upper={"web": 0.3}, groups=groups, min_unique_tokens=950)
    )
    point = np.array([0.3, 0.3, 0.3, 0.1])
    names = [(bound.domain, bound.side) for bound in limits.active(point)]
    assert names == [("web", "upper"), ("wiki", "lower"), ("text", "upper")]
    assert limits.violations(Mixture.from_array(NAMES, point)) == ()
    near = np.array([0.3 - 4e-6, 0.3, 0.3, 0.1 + 4e-6])
    assert [(bound.domain, bound.side) for bound in limits.active(near)] == names
    off = np.array([0.3 - 4e-5, 0.3, 0.3, 0.1 + 4e-5])
    assert limits.active(off) == ()
    broken = limits.violations(Mixture(dict(zip(NAMES, (0.35, 0.3, 0.3, 0.05), strict=True))))
    assert broken == ("web 0.35 > 0.3 (user)", "wiki 0.05 < 0.1 (user)", "group text 0.65 > 0.6")


@pytest.mark.parametrize("measure", ["kl", "l2"])
def test_a_distance_is_reached_where_no_reader_tells_it_from_its_limit(measure):
    there, centre = np.array([0.1, 0.2, 0.3, 0.4]), np.full(4, 0.25)
    far = there @ np.log(there / centre) if measure == "kl" else np.linalg.norm(there - centre)

    def reached(at_most):
        near = Near(Mixture.uniform(NAMES), measure, at_most=at_most)
        return [bound.reason for bound in limits_of(Constraints(near=near)).active(there)]

    assert reached(far) == reached(far + 3e-7) == ["limit"]  # the solver stops inside
    assert reached(far * 1.001) == []


def test_unique_tokens_are_reached_where_no_reader_tells_them_from_their_limit():
    rare = [Domain("web", available_tokens=400), *DOMAINS[1:]]

    def reached(point):
        limits = limits_of(Constraints(min_unique_tokens=950), domains=rare)
        return [bound.reason for bound in limits.active(np.array(point))]

    at = np.array([0.45, 0.25, 0.2, 0.1])  # 50 tokens are read twice
    inside = np.array([-2e-6, 1e-6, 1e-6, 0])
    assert reached(at) == reached(at + inside) == ["limit"]
    assert reached(at - np.array([0.001, 0, 0, -0.001])) == []


def test_domains_with_narrow_limits_touch_one_of_them():
    caps = dict.fromkeys(NAMES[1:], 1e-5)
    point = np.array([1 - 1.5e-5, 5e-6, 1e-5, 0])
    found = limits_of(Constraints(upper=caps)).active(point)
    sides = {bound.domain: bound.side for bound in found}
    assert sides == {NAMES[2]: "upper", NAMES[3]: "lower"}
