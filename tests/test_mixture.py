"""Mixtures, domains and constraints refuse what makes no sense, and say why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.mixture import Constraints, Domain, Mixture

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
