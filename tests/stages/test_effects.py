"""Every form is exact for equal stages, composes, and has the slopes that it claims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule
from mixlaw.stages.effects import Blend, Dynamic, Recency, Relaxation, Trajectory
from mixlaw.stages.forms import FORMS, load_effect
from mixlaw.stages.points import StagePoints

FLOORS = np.array([0.5, 0.6, 0.7])
RATES = np.array([0.6, 1.0, 2.7])
EFFECTS = [
    Recency(RATES),
    Dynamic(np.zeros(3), FLOORS),
    Relaxation(RATES, FLOORS),
    Trajectory(np.arange(-4.0, 5.0).reshape(3, 3) / 20, np.array([0.0, 0.5, 2.0]), 1.5e5),
]
EFFECTS.append(Blend((Recency(RATES), Relaxation(RATES, FLOORS))))
SCARCE = np.array([5e4, 3e5, np.inf])

shares = st.lists(st.floats(0.05, 1.0), min_size=2, max_size=4)
proportions = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)


@pytest.fixture(params=EFFECTS, ids=lambda effect: effect.form)
def fitted(request, recency):
    return replace(recency, effect=request.param)


def points(fitted, stages, lengths, available=None) -> StagePoints:
    """One schedule as it stands: equal neighbours stay apart."""
    mixtures = np.asarray(stages, float)[None]
    lengths = np.asarray(lengths, float)[None] / np.sum(lengths)
    unique = None if available is None else available[None]
    return StagePoints(lengths, mixtures, np.array([1e5]), np.array([1e6]), unique)


@settings(max_examples=25, deadline=None)
@given(lengths=shares, mixture=proportions, scarce=st.booleans())
def test_equal_stages_are_the_static_law_to_the_bit(recency, lengths, mixture, scarce):
    one = np.array(mixture) / np.sum(mixture)
    available = SCARCE if scarce else None
    static = recency.static.predict(one, 1e5, 1e6, available_tokens=available)
    for effect in EFFECTS:
        fitted = replace(recency, effect=effect)
        at = points(fitted, [one] * len(lengths), lengths, available)
        np.testing.assert_array_equal(fitted.values(at), static)
        schedule = Schedule.of(
            (share / sum(lengths), Mixture.from_array(fitted.domains, one)) for share in lengths
        )
        found = fitted.predict([schedule], 1e5, 1e6, available_tokens=available)
        expected = recency.static.predict(
            schedule.dose.array(fitted.domains), 1e5, 1e6, available_tokens=available
        )
        np.testing.assert_array_equal(found, expected)


def test_a_stage_cut_in_two_is_one(fitted, lab):
    for seed in range(3):
        stages = [m.array(lab.names) for m in lab.mixtures(3, seed)]
        whole = points(fitted, stages, [0.5, 0.3, 0.2], SCARCE)
        cut = points(fitted, np.repeat(stages, 2, axis=0), [0.4, 0.1, 0.1, 0.2, 0.05, 0.15], SCARCE)
        np.testing.assert_allclose(fitted.values(cut), fitted.values(whole), rtol=1e-12)
        assert np.abs(fitted.values(whole) - fitted.static.predict(whole.dose, 1e5, 1e6)).max() > 0


def test_short_schedules_stand_beside_long_ones(fitted, lab):
    some = [lab.schedules(1)[0], Schedule.static(lab.mixtures(1, 9)[0])]
    a, b, c = lab.mixtures(3, 4)
    some.append(Schedule.of([(0.3, a), (0.3, b), (0.4, c)]))
    together = fitted.predict(some, 1e5, 1e6)
    alone = np.concatenate([fitted.predict([one], 1e5, 1e6) for one in some])
    np.testing.assert_allclose(together, alone, rtol=1e-13)


def test_slopes_are_those_of_the_values(fitted, lab):
    stages = [m.array(lab.names) for m in lab.mixtures(3, 5)]
    at = points(fitted, stages, [0.5, 0.3, 0.2], SCARCE)
    slopes, step = fitted.slopes(at), 1e-6
    for s in range(3):
        for j in range(3):
            shift = np.zeros_like(at.mixtures)
            shift[0, s, j] = step
            up, down = (
                fitted.values(replace(at, mixtures=at.mixtures + sign * shift)) for sign in (1, -1)
            )
            expected = (up - down) / (2 * step)
            np.testing.assert_allclose(slopes[:, :, s, j], expected, rtol=1e-6, atol=1e-8)


def test_recency_of_rate_one_is_the_dose(recency, lab):
    at = recency.at(lab.schedules(4), 1e5, 1e6)
    same = replace(recency, effect=Recency(np.ones(3)))
    np.testing.assert_allclose(same.values(at), recency.static.predict(at.dose, 1e5, 1e6))


def test_nothing_but_the_end_counts_when_the_start_is_forgotten(recency, lab):
    some = lab.schedules(4)
    ends = np.stack([schedule.stages[-1].mixture.array(lab.names) for schedule in some])
    expected = recency.static.predict(ends, 1e5, 1e6)
    for effect in (Recency(np.full(3, 500.0)), Relaxation(np.full(3, 500.0), FLOORS)):
        found = replace(recency, effect=effect).predict(some, 1e5, 1e6)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_dynamic_makes_the_static_progress_of_the_last_stage(recency, lab):
    schedule = lab.schedules(1)[0]
    first, last = (stage.mixture.array(lab.names)[None] for stage in schedule.stages)
    law = recency.static.predict
    before = law(first, 1e5, 0.8e6) - FLOORS
    progress = (law(last, 1e5, 1e6) - FLOORS) / (law(last, 1e5, 0.8e6) - FLOORS)
    found = replace(recency, effect=Dynamic(np.zeros(3), FLOORS)).predict([schedule], 1e5, 1e6)
    np.testing.assert_allclose(found, FLOORS + before * progress, rtol=1e-12)


def test_repetition_counts_the_whole_run(recency, lab):
    """Twice the epochs in one stage and none in the other is not twice as stale."""
    late = Schedule.of(
        [(0.5, Mixture({"docs": 0.5, "web": 0.5})), (0.5, Mixture({"code": 0.5, "web": 0.5}))]
    )
    at = recency.at([late], 1e5, 1e6, SCARCE)
    static = recency.at([Schedule.static(late.dose)], 1e5, 1e6, SCARCE)
    np.testing.assert_allclose(at.worth_at_dose, static.worth_at_dose)
    np.testing.assert_allclose(at.worth[0, 1, 0] / 0.5, static.worth[0, 0, 0] / 0.25)
    assert at.worth[0, 1, 0] < 0.5  # 5 epochs


def test_effects_survive_json(fitted):
    again = load_effect(fitted.effect.to_dict())
    assert type(again) is type(fitted.effect)
    assert again.to_dict() == fitted.effect.to_dict()
    assert set(FORMS) == {"dose", *(effect.form for effect in EFFECTS)}
