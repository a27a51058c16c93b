"""Contracts that every design method keeps, and what each promises of its own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.design import doptimal
from mixlaw.design.sampling import METHODS, candidate_pool, design, vertices
from mixlaw.design.space import SAME, Space, coordinates, distinct, farthest_first
from mixlaw.errors import DesignError, InfeasibleError, MixtureError
from mixlaw.mixture import Mixture

FIVE = ["web", "code", "books", "wiki", "math"]


def free(size):
    return np.zeros(size), np.ones(size)


def points_of(mixtures, domains):
    return np.array([mixture.array(domains) for mixture in mixtures])


def check_contract(points, space, count):
    assert len(points) == count
    assert space.contains(points).all()
    apart = np.abs(points[:, None] - points[None]).max(axis=2)
    assert (apart[np.triu_indices(count, 1)] > SAME).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [3, 5, 17])
def test_contract_under_bounds_and_minimum_share(method, size):
    domains = [f"d{j}" for j in range(size)]
    lower, upper = np.zeros(size), np.full(size, max(0.7, 2 / size))
    lower[0], upper[-1] = 0.1, 0.45
    space = Space(domains, lower, upper, 0.02)
    count = 5 if size == 3 else 20
    mixtures = design(
        domains, count, method=method, bounds=(lower, upper), prior=None, min_share=0.02, seed=3
    )
    check_contract(points_of(mixtures, domains), space, count)


@st.composite
def spaces(draw):
    """Bounds and a minimum share that some mixture satisfies, with that mixture."""
    size = draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inside = rng.dirichlet(np.full(size, draw(st.sampled_from([0.5, 5.0]))))
    lower = inside * rng.random(size) * (rng.random(size) < 0.4)
    upper = inside + (1 - inside) * rng.random(size)
    # Every domain present in `inside` with a share above the minimum keeps the space non-empty.
    min_share = draw(st.sampled_from([0.0, 0.9])) * inside.min()
    return Space([f"d{j}" for j in range(size)], lower, upper, min_share), inside


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(case=spaces(), seed=st.integers(0, 2**32 - 1))
def test_every_point_is_in_the_space_and_distinct(method, case, seed):
    space, _ = case
    prior = np.full(len(space.domains), 1 / len(space.domains))
    points = METHODS[method](space, 8, prior=prior, rng=np.random.default_rng(seed))
    check_contract(points, space, len(points))
    assert len(points) <= 8


@settings(max_examples=60, deadline=None)
@given(case=spaces(), seed=st.integers(0, 2**32 - 1))
def test_snap_reaches_the_space_and_leaves_its_points_alone(case, seed):
    space, inside = case
    rng = np.random.default_rng(seed)
    raw = rng.dirichlet(np.full(len(inside), 0.3), 50)
    snapped = space.snap(raw)
    assert space.contains(snapped).all()
    # A share below SAME may still be dropped, and the others share it.
    np.testing.assert_allclose(space.snap(snapped), snapped, rtol=0, atol=2 * SAME)
    np.testing.assert_allclose(space.snap(inside[None])[0], inside, rtol=0, atol=2 * SAME)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_design_and_another_seed_another(method):
    def run(seed, domains=FIVE):
        return design(
            domains, 12, method=method, bounds=free(5), prior=None, min_share=0.01, seed=seed
        )

    assert run(5) == run(5)
    if method != "simplex":  # at five domains the corner design makes no random choice
        assert run(5) != run(6)
    renamed = [name.upper() for name in FIVE]
    np.testing.assert_array_equal(points_of(run(5), FIVE), points_of(run(5, renamed), renamed))


@pytest.mark.parametrize("method", METHODS)
def test_too_many_mixtures_says_how_many_are_possible(method):
    bounds = np.array([0.5, 0.3, 0.2]), np.array([0.5, 0.3, 0.2])
    with pytest.raises(DesignError, match=r"only 1 distinct .* 2 were asked for"):
        design(["a", "b", "c"], 2, method=method, bounds=bounds, prior=None, min_share=0, seed=0)


def test_arguments_that_make_no_sense_are_named():
    def call(**changes):
        arguments = {"method": "dirichlet", "bounds": free(5), "prior": None, "min_share": 0.0}
        return design(FIVE, changes.pop("count", 3), **{**arguments, **changes}, seed=0)

    with pytest.raises(DesignError, match="did you mean 'dirichlet'"):
        call(method="dirichet")
    with pytest.raises(DesignError, match="0 mixtures"):
        call(count=0)
    with pytest.raises(DesignError, match=r"shapes \(4,\)"):
        call(bounds=free(4))
    with pytest.raises(DesignError, match="'code' has bounds nan"):
        call(bounds=(np.array([0, np.nan, 0, 0, 0]), np.ones(5)))
    with pytest.raises(DesignError, match="min_share is 2"):
        call(min_share=2.0)
    with pytest.raises(MixtureError, match="poems"):
        call(prior=Mixture({"poems": 1.0}))
    with pytest.raises(MixtureError, match="named twice"):
        design(["a", "a"], 1, bounds=free(2), prior=None, seed=0)


def test_infeasible_bounds_and_minimum_share_are_named():
    def space(lower, upper, min_share):
        return Space(["a", "b", "c"], np.array(lower), np.array(upper), min_share)

    with pytest.raises(InfeasibleError, match=r"'a' has upper bound 0\.05"):
        space([0.01, 0, 0], [0.05, 1, 1], 0.1)
    with pytest.raises(InfeasibleError, match=r"required domains sum to 1\.2"):
        space([0.1, 0.1, 0.1], [1, 1, 1], 0.4)
    with pytest.raises(InfeasibleError, match=r"upper bounds sum to 0\.9"):
        space([0, 0, 0], [0.3, 0.3, 0.3], 0.0)
    with pytest.raises(InfeasibleError, match="lower min_share"):
        # Two domains of at least .4 hold at most .9, and a third does not fit.
        space([0, 0, 0], [0.45, 0.45, 0.45], 0.4)


def test_a_domain_that_fits_only_below_the_minimum_share_is_left_out():
    upper = np.array([1, 1, 0.005])
    mixtures = design(
        ["a", "b", "tiny"], 6, bounds=(np.zeros(3), upper), prior=None, min_share=0.01, seed=0
    )
    assert all(mixture["tiny"] == 0 for mixture in mixtures)


def test_double_diminishing_halves_down_from_the_largest_share():
    upper = np.array([0.8, 0.5, 0.4, 0.3, 1.0])
    mixtures = design(
        FIVE,
        40,
        method="double-diminishing",
        bounds=(np.zeros(5), upper),
        prior=None,
        min_share=0.0,
        seed=1,
    )
    points = points_of(mixtures, FIVE)
    for shares, top in zip(points.T[:-1], upper, strict=False):
        halvings = np.log2(top / shares[shares > 0])
        np.testing.assert_allclose(halvings, np.round(halvings), atol=1e-6)
    assert (points == 0).any(axis=1).sum() == 10  # a quarter lacks a domain


def test_dirichlet_follows_the_prior():
    prior = Mixture({"web": 0.9, "code": 0.1})
    arguments = {"bounds": free(2), "min_share": 0.0, "seed": 0}
    mixtures = design(["web", "code"], 400, method="dirichlet", prior=prior, **arguments)
    mean = points_of(mixtures, ["web", "code"]).mean(axis=0)
    np.testing.assert_allclose(mean, [0.75, 0.25], atol=0.05)  # sqrt(9) : 1


def test_simplex_without_bounds_is_the_simplex_centroid_design():
    mixtures = design(
        ["a", "b", "c"], 7, method="simplex", bounds=free(3), prior=None, min_share=0.0, seed=0
    )
    found = {tuple(np.round(point, 6)) for point in points_of(mixtures, ["a", "b", "c"])}
    third, half = round(1 / 3, 6), 0.5
    assert found == {
        (1, 0, 0), (0, 1, 0), (0, 0, 1),
        (half, half, 0), (half, 0, half), (0, half, half),
        (third, third, third),
    }  # fmt: skip


def test_cut_corners_become_the_vertices_of_the_polytope():
    space = Space(["a", "b", "c"], np.zeros(3), np.array([0.6, 0.6, 0.6]), 0.0)
    found = {tuple(np.round(v, 6)) for v in vertices(space, np.random.default_rng(0))}
    assert found == {
        (0.6, 0.4, 0), (0.6, 0, 0.4), (0.4, 0.6, 0),
        (0, 0.6, 0.4), (0.4, 0, 0.6), (0, 0.4, 0.6),
    }  # fmt: skip


def test_d_optimal_subset_beats_random_ones():
    rng = np.random.default_rng(0)
    pool = candidate_pool(Space(FIVE, *free(5), 0.01), 400, prior=np.full(5, 0.2), rng=rng)
    count = 16
    chosen = doptimal.best_subset(pool, count, np.random.default_rng(1))
    assert len(set(chosen)) == count

    def quality(index):  # under other draws of t than those it was chosen for
        return doptimal.log_det(pool, index, np.random.default_rng(2))

    random = [quality(rng.choice(len(pool), count, replace=False)) for _ in range(50)]
    assert quality(chosen) > max(random)


def test_d_optimal_design_beats_random_and_keeps_its_distance():
    rng = np.random.default_rng(0)
    pool = candidate_pool(Space(FIVE, *free(5), 0.01), 1000, prior=np.full(5, 0.2), rng=rng)
    count = 16
    ours = doptimal.choose(pool, count, np.random.default_rng(1))
    everything = np.concatenate([ours, pool])

    def quality(index):
        return doptimal.log_det(everything, index, np.random.default_rng(2))

    random = [quality(rng.choice(len(everything), count, replace=False)) for _ in range(50)]
    assert quality(np.arange(count)) > np.median(random)
    _, separation = farthest_first(pool, math.ceil(doptimal.SPARE * count))
    where = coordinates(ours)
    apart = np.linalg.norm(where[:, None] - where[None], axis=2)[np.triu_indices(count, 1)]
    assert apart.min() >= separation - 1e-12


def test_information_updates_match_recomputation():
    rng = np.random.default_rng(0)
    rows = doptimal.jacobian(rng.dirichlet(np.ones(4), 40), rng)
    start = np.arange(10)
    information = doptimal.Information(rows, start)
    swap = information.swap_gain(3)[25]
    information.change(25, +1)
    information.change(3, -1)
    fresh = doptimal.Information(rows, np.append(np.delete(start, 3), 25))
    np.testing.assert_allclose(information.inverse, fresh.inverse, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(information.variance, fresh.variance, rtol=1e-7, atol=1e-9)
    before = doptimal.Information(rows, start).log_det
    assert fresh.log_det - before == pytest.approx(swap, rel=1e-7)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_distinct_matches_brute_force(seed):
    rng = np.random.default_rng(seed)
    base = rng.dirichlet(np.ones(4), 12)
    points = base[rng.integers(12, size=40)] + rng.choice([0, 4e-7, 3e-6], (40, 1)) * [1, -1, 0, 0]
    kept = distinct(points)
    apart = np.abs(kept[:, None] - kept[None]).max(axis=2)
    assert (apart[np.triu_indices(len(kept), 1)] > SAME).all()
    # Whatever was dropped is near something: no information is lost beyond chained neighbours.
    assert np.abs(points[:, None] - kept[None]).max(axis=2).min(axis=1).max() <= 3 * SAME


def test_the_temperature_smooths_the_prior():
    names = ["a", "b", "c"]
    prior = Mixture({"a": 0.9, "b": 0.09, "c": 0.01})
    options = {
        "method": "dirichlet",
        "bounds": (np.zeros(3), np.ones(3)),
        "prior": prior,
        "seed": 0,
    }
    shares = [
        np.mean([m["a"] for m in design(names, 400, temperature=t, **options)])
        for t in (0.0, 0.5, 1.0)
    ]
    assert shares[0] == pytest.approx(1 / 3, abs=0.05)
    assert shares[0] < shares[1] - 0.1 < shares[2] - 0.2
    with pytest.raises(DesignError, match="temperature is -1"):
        design(names, 3, temperature=-1, **options)
