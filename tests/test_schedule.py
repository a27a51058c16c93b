"""Schedules: what they are, what of equal stages is left, and their way through run specs."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.errors import MixtureError
from mixlaw.mixture import Domain, Mixture
from mixlaw.schedule import Online, Schedule, Stage, stage_steps

WEB, CODE = Mixture({"web": 1.0}), Mixture({"web": 0.5, "code": 0.5})
NAMES = ("web", "code", "books")

mixtures = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda weights: Mixture.from_weights(dict(zip(NAMES, weights, strict=True)))
)
stages = st.lists(st.tuples(st.floats(0.05, 1), mixtures), min_size=1, max_size=4)


def schedule_of(stages):
    total = sum(share for share, _ in stages)
    return Schedule.of([(share / total, mixture) for share, mixture in stages])


def test_a_schedule_says_what_is_seen_when():
    schedule = Schedule.of([(0.8, WEB), (0.2, CODE)])
    assert schedule.domains == ("web", "code")
    np.testing.assert_allclose(schedule.starts, [0, 0.8])
    np.testing.assert_allclose(schedule.array(NAMES), [[1, 0, 0], [0.5, 0.5, 0]])
    assert dict(schedule.dose) == pytest.approx({"web": 0.9, "code": 0.1})
    assert [schedule.at(p) for p in (0, 0.79, 0.8, 1)] == [WEB, WEB, CODE, CODE]
    found = schedule.epochs(100, [Domain("web", 45), Domain("code", 100), Domain("books")])
    assert found == pytest.approx({"web": 2, "code": 0.1})
    assert schedule.until(0.8) == Schedule.static(WEB)
    assert dict(schedule.until(0.9).dose) == pytest.approx({"web": 17 / 18, "code": 1 / 18})


@given(stages, mixtures)
def test_equal_stages_are_the_static_mixture(parts, mixture):
    schedule = schedule_of([(share, mixture) for share, _ in parts])
    assert schedule == Schedule.static(mixture)
    assert schedule.is_static
    assert schedule.dose == mixture
    assert schedule.stages[0].share == 1.0


def test_a_mixture_is_the_same_with_and_without_a_domain_of_no_share():
    named = Mixture({"web": 1.0, "code": 0.0})
    assert Schedule.of([(0.5, WEB), (0.5, named)]) == Schedule.static(WEB)
    near = Mixture({"web": 0.5 + 1e-11, "code": 0.5 - 1e-11})
    found = Schedule.of([(0.25, named), (0.25, WEB), (0.2, CODE), (0.3, near)])
    assert found.stages == (Stage(0.5, named), Stage(0.5, CODE))
    assert not Schedule.of([(0.5, WEB), (0.5, CODE)]).is_static


def test_steps_of_stages_sum_to_those_of_the_run():
    assert stage_steps((0.8, 0.2), 1680) == [1344, 336]
    assert sum(stage_steps((1 / 3, 1 / 3, 1 / 3), 100)) == 100
    assert stage_steps((0.99, 0.01), 40) == [40, 0]


def test_what_a_horizon_sees_to_the_step():
    schedule = Schedule.of([(0.49, WEB), (0.51, CODE)])
    assert schedule.in_steps(20, num_steps=40) == Schedule.static(WEB)
    assert schedule.in_steps(40, num_steps=40) == Schedule.of([(0.5, WEB), (0.5, CODE)])
    assert schedule.in_steps(100, num_steps=100) == schedule
    thirds = Schedule.of([(1 / 3, WEB), (1 / 3, CODE), (1 / 3, WEB)])
    found = thirds.in_steps(30, num_steps=40)
    assert found.shares.tolist() == [13 / 30, 14 / 30, 3 / 30]
    assert [stage.mixture for stage in found.stages] == [WEB, CODE, WEB]


@given(stages)
def test_what_is_written_reads_back_the_same(parts):
    schedule = schedule_of(parts)
    again = Schedule.from_list(json.loads(json.dumps(schedule.to_list())))
    assert again == schedule
    assert again.to_list() == schedule.to_list()
    assert again.dose == schedule.dose
    assert hash(again) == hash(schedule)


@given(stages, st.floats(0.01, 0.99))
def test_the_dose_is_that_of_the_beginning_and_the_rest(parts, progress):
    schedule = schedule_of(parts)
    beginning = schedule.until(progress)
    rest = schedule.dose.array(NAMES) - progress * beginning.dose.array(NAMES)
    assert (rest >= -1e-9).all()
    later = np.linspace(progress, 1, 2001)[:-1]
    seen = np.mean([schedule.at(p).array(NAMES) for p in later], axis=0) * (1 - progress)
    np.testing.assert_allclose(rest, seen, atol=5e-3)


@given(stages)
def test_neighbours_differ(parts):
    found = schedule_of(parts).stages
    assert all(a.mixture != b.mixture for a, b in itertools.pairwise(found))
    assert sum(stage.share for stage in found) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(()), "they must sum to 1"),
        (lambda: Schedule.of([(0.5, WEB)]), r"\[0.5\]; they must sum to 1"),
        (lambda: Schedule.of([(0.5, WEB), (0.6, CODE)]), "they must sum to 1"),
        (lambda: Stage(0.0, WEB), r"must lie in \(0, 1\]"),
        (lambda: Stage(float("nan"), WEB), r"must lie in \(0, 1\]"),
        (lambda: Schedule.static(WEB).until(0.0), "progress is 0.0"),
        (lambda: Schedule.from_list([0.5]), "is no schedule"),  # type: ignore[list-item]
        (lambda: Schedule.from_list("web"), "is no schedule"),
        (lambda: Schedule.from_list([[1.0, {"web": 0.4}]]), "proportions sum to 0.4"),
    ],
)
def test_what_is_no_schedule_is_refused(make, message):
    with pytest.raises(MixtureError, match=message):
        make()


def test_numbers_of_numpy_are_as_good_as_others():
    half: Any = np.float32(0.5)
    schedule = Schedule.of([(half, WEB), (half, CODE)])
    assert json.dumps(schedule.to_list()) == json.dumps(
        Schedule.of([(0.5, WEB), (0.5, CODE)]).to_list()
    )
    given: dict[str, Any] = {"weights": {"loss/web": np.float32(2)}, "rounds": np.int64(4)}
    online = Online(**given, step_size=np.float64(1), max_epochs=np.float64(2))
    plain = Online({"loss/web": 2.0}, rounds=4, step_size=1.0, max_epochs=2.0)
    assert json.dumps(online.to_dict()) == json.dumps(plain.to_dict())
    assert Online({"loss/web": 2}, rounds=4, step_size=1, max_epochs=2) == plain


def test_sums_are_rescaled_within_a_tolerance():
    rounded = [[0.333, {"web": 0.999}], [0.666, {"web": 0.5, "code": 0.5}]]
    found = Schedule.from_list(rounded, sum_tolerance=0.01)
    np.testing.assert_allclose(found.shares, [1 / 3, 2 / 3], rtol=1e-12)
    assert found.stages[0].mixture == WEB
    with pytest.raises(MixtureError, match=r"proportions sum to 0\.999"):
        Schedule.from_list(rounded)
    with pytest.raises(MixtureError, match=r"sum to 0\.4"):
        Schedule.from_list([[1.0, {"web": 0.4}]], sum_tolerance=0.01)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": 2.5}, r"rounds of an online mixture is 2\.5; it must be a whole number >= 1"),
        ({"rounds": "8"}, "rounds of an online mixture is '8'; it must be a whole number >= 1"),
        ({"rounds": True}, "rounds of an online mixture is True"),
        ({"rounds": 0}, "rounds of an online mixture is 0"),
        ({"evaluation_tokens": 1.5}, "evaluation_tokens .* a whole number"),
        ({"tilt": "x"}, r"tilt of an online mixture is 'x'; it must be in \(0, 1\]"),
        ({"floor": float("nan")}, r"floor of an online mixture is nan; it must be in \[0, 1\)"),
        ({"max_epochs": float("inf")}, "max_epochs .* is inf; it must be finite and > 0, or None"),
        ({"step_size": 1e9}, r"step_size .* is 1000000000\.0; it must be in \(0, 100\]"),
        ({"weights": [1]}, r"are \[1\]; they must map targets to numbers"),
        ({"weights": None}, "are None; they must map targets"),
        ({"weights": {"loss/a": "x"}}, "are {'loss/a': 'x'}; they must map"),
        ({"weights": {1: 1.0}}, "they must map targets to numbers"),
        ({"weights": {"loss/a": 0.0}}, "one of them > 0"),
        ({"tild": 0.5}, "no settings of an online mixture: .*tild"),
    ],
)
def test_wrong_online_settings_are_refused_in_one_line(setting, message):
    with pytest.raises(MixtureError, match=message):
        Online.from_dict({"weights": {"loss/a": 1.0}, **setting})
    if "tild" not in setting:
        with pytest.raises(MixtureError, match=message):
            Online(**{"weights": {"loss/a": 1.0}, **setting})
