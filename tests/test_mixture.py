"""Mixtures, domains and constraints refuse what makes no sense, and say why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.mixture import Constraints, Domain, Group, Mixture, Near

WEB, CODE = Domain("web", 900, found_tokens=9000), Domain("code", 100, found_tokens=1000)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"web": float("nan"), "code": 0.5}, "'web' is nan"),
        ({"web": float("inf"), "code": 0.5}, "'web' is inf"),
        ({"web": -0.1, "code": 1.1}, r"'web' is -0\.1"),
        ({"web": 0.5, "code": 0.4}, r"sum to 0\.900000"),
        ({"web": 0.5, "code": 0.50001}, r"sum to 1\.000010"),
        ({}, "no domain"),
    ],
)
def test_bad_proportions_are_named(shares, message):
    with pytest.raises(MixtureError, match=message):
        Mixture(shares)


def test_rounding_dust_is_rescaled():
    mixture = Mixture({"web": 0.3333333, "code": 0.6666666})
    assert mixture["web"] + mixture["code"] == pytest.approx(1, abs=1e-15)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(lambda w: sum(w) > 1e-9))
def test_weights_become_a_mixture_on_the_simplex(weights):
    mixture = Mixture.from_weights({f"d{j}": weight for j, weight in enumerate(weights)})
    array = mixture.array(list(mixture))
    assert abs(array.sum() - 1) < 1e-9
    assert (array >= 0).all()
    assert Mixture.from_array(list(mixture), array) == mixture
    assert dict(Mixture(dict(mixture))) == dict(mixture)  # bit for bit: the run_id hangs on it


def test_weights_without_a_sum_are_refused():
    for weights in ({"web": 0.0}, {"web": float("inf")}, {"web": float("nan")}):
        with pytest.raises(MixtureError, match="finite sum > 0"):
            Mixture.from_weights(weights)


def test_names_are_checked():
    mixture = Mixture({"web": 0.25, "code": 0.75})
    np.testing.assert_array_equal(mixture.array(["code", "books", "web"]), [0.75, 0, 0.25])
    with pytest.raises(MixtureError, match=r"\['code'\], not among \['web'\]"):
        mixture.array(["web"])
    with pytest.raises(MixtureError, match="'web' is named twice"):
        Mixture.from_array(["web", "web"], np.array([0.5, 0.5]))
    with pytest.raises(MixtureError, match="1 proportions for 2 domains"):
        Mixture.from_array(["web", "code"], np.array([1.0]))
    with pytest.raises(MixtureError, match="cannot replace"):
        mixture.replace(books=0.1)
    for name in ("", " web"):
        with pytest.raises(MixtureError, match="empty or padded"):
            Domain(name)
    with pytest.raises(MixtureError, match="available_tokens = 0"):
        Domain("web", 0)


def test_order_does_not_matter_to_equality_or_hash():
    one, two = Mixture({"web": 0.25, "code": 0.75}), Mixture({"code": 0.75, "web": 0.25})
    assert one == two
    assert hash(one) == hash(two)


def test_replace_keeps_the_ratios_of_the_rest():
    mixture = Mixture({"a": 0.5, "b": 0.3, "c": 0.2}).replace(a=0.0)
    assert mixture["b"] == pytest.approx(0.6)
    with pytest.raises(MixtureError, match="all have proportion 0"):
        Mixture({"a": 1.0, "b": 0.0}).replace(a=0.5)


def test_natural_mixture_and_epochs():
    natural = Mixture.natural([WEB, CODE])
    assert natural == Mixture({"web": 0.9, "code": 0.1})
    assert natural.epochs(2000, [WEB, CODE]) == {"web": 2.0, "code": 2.0}
    assert natural.epochs(2000, [WEB, Domain("code")]) == {"web": 2.0}
    with pytest.raises(MixtureError, match=r"unknown for \['code'\]"):
        Mixture.natural([WEB, Domain("code")])


def test_epoch_caps_fold_into_the_bounds():
    constraints = Constraints(lower={"web": 0.2}, upper={"web": 0.95}, max_epochs=2)
    lower, upper = constraints.bounds([WEB, CODE], train_tokens=1000)
    np.testing.assert_allclose(lower, [0.2, 0])
    np.testing.assert_allclose(upper, [0.95, 0.2])


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(lower={"web": 0.7, "code": 0.6}), r"lower bounds sum to 1\.3.*web: 0\.7"),
        (
            Constraints(upper={"web": 0.3, "code": 0.2}),
            r"upper\[web\] = 0\.3; upper\[code\] = 0\.2",
        ),
        (Constraints(lower={"web": 0.5}, upper={"web": 0.4}), r"lower\[web\].*upper\[web\] = 0\.4"),
        (Constraints(max_epochs=0.5), "max_epochs = 0.5 caps web"),
        (Constraints(lower={"code": 0.3}, max_epochs=2), "max_epochs = 2 caps code at 0.2"),
    ],
)
def test_infeasible_constraints_name_the_conflict(constraints, message):
    with pytest.raises(InfeasibleError, match=message):
        constraints.bounds([WEB, CODE], train_tokens=1000)


def test_constraints_that_make_no_sense():
    with pytest.raises(MixtureError, match=r"upper bound of 'web' is 1\.5"):
        Constraints(upper={"web": 1.5})
    with pytest.raises(MixtureError, match="lower bound of 'web' is nan"):
        Constraints(lower={"web": float("nan")})
    with pytest.raises(MixtureError, match="max_epochs is 0"):
        Constraints(max_epochs=0)
    with pytest.raises(MixtureError, match=r"unknown domains \['poems'\]"):
        Constraints(upper={"poems": 0.5}).bounds([WEB, CODE])
    with pytest.raises(MixtureError, match="needs available_tokens of 'code'"):
        Constraints(max_epochs=4).bounds([WEB, Domain("code")], train_tokens=1000)


def test_fixed_domains_have_no_other_bounds():
    lower, upper = Constraints(fixed={"web": 0.7}).bounds([WEB, CODE])
    assert (lower[0], upper[0]) == (0.7, 0.7)
    with pytest.raises(MixtureError, match="'web' is fixed and has a bound, too"):
        Constraints(fixed={"web": 0.7}, upper={"web": 0.8})
    with pytest.raises(MixtureError, match=r"fixed bound of 'web' is 1\.2"):
        Constraints(fixed={"web": 1.2})


def test_epoch_caps_of_single_domains():
    constraints = Constraints(max_epochs={"code": 3})
    assert constraints.epoch_cap("code") == 3
    assert constraints.epoch_cap("web") is None
    _, upper = constraints.bounds([Domain("web"), CODE], train_tokens=1000)
    np.testing.assert_allclose(upper, [1, 0.3])
    with pytest.raises(MixtureError, match="max_epochs of 'code' is -1"):
        Constraints(max_epochs={"code": -1})
    with pytest.raises(MixtureError, match=r"unknown domains \['poems'\]"):
        Constraints(max_epochs={"poems": 1}).bounds([WEB, CODE], 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domains": ("web",), "lower": 0.6, "upper": 0.5}, "limits 0.6 to 0.5"),
        ({"domains": ("web",), "upper": float("nan")}, "limits 0.0 to nan"),
        ({"domains": ()}, "no domain"),
        ({"domains": ("web", "web")}, "named twice"),
    ],
)
def test_groups_that_make_no_sense(arguments, message):
    with pytest.raises(MixtureError, match=message):
        Group(**arguments)


def test_a_group_of_unknown_domains():
    constraints = Constraints(groups={"text": Group(("web", "poems"), upper=0.5)})
    with pytest.raises(MixtureError, match=r"unknown domains \['poems'\]"):
        constraints.bounds([WEB, CODE])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measure": "cosine", "at_most": 1.0}, "'cosine' is unknown"),
        ({}, "or it would do nothing"),
        ({"at_most": 0.0}, "at_most of the distance is 0"),
        ({"penalty": float("inf")}, "penalty of the distance is inf"),
    ],
)
def test_distances_that_make_no_sense(arguments, message):
    with pytest.raises(MixtureError, match=message):
        Near("natural", **arguments)


def test_counts_that_make_no_sense():
    with pytest.raises(MixtureError, match="min_unique_tokens is -5"):
        Constraints(min_unique_tokens=-5)
    with pytest.raises(MixtureError, match="max_unique_tokens is inf"):
        Constraints(max_unique_tokens=float("inf"))
    with pytest.raises(MixtureError, match="granularity is 0"):
        Constraints(granularity=0)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda w: sum(w) > 1e-3),
    st.integers(1, 1000),
)
def test_rounding_is_to_the_nearest_multiples(weights, granularity):
    mixture = Mixture.from_weights({f"d{j}": weight for j, weight in enumerate(weights)})
    exact = granularity * mixture.array(list(mixture))
    counts = granularity * mixture.rounded(granularity).array(list(mixture))
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-6)
    assert round(counts.sum()) == granularity
    assert np.abs(counts - exact).max() < 1 + 1e-6
    # Nobody who was rounded down lost more than anybody who was rounded up kept.
    up = counts > exact + 1e-6
    if up.any() and not up.all():
        part = exact - np.floor(exact + 1e-9)
        assert part[up].min() >= part[~up].max() - 1e-6


def test_rounding_of_what_is_a_multiple_already():
    mixture = Mixture({"a": 0.3, "b": 0.6, "c": 0.1})
    assert mixture.rounded(10) == mixture
    assert mixture.rounded(1) == Mixture({"a": 0, "b": 1, "c": 0})
    with pytest.raises(MixtureError, match="granularity is 0"):
        mixture.rounded(0)
