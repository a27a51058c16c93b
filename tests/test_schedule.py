"""Schedules: what they are, what of equal stages is left, and their way through run specs."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.errors import MixtureError
from mixlaw.mixture import Domain, Mixture
from mixlaw.schedule import Schedule, Stage

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
