"""The form is chosen by staged runs that were held out, and bad tables are refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mixlaw.errors import FitError, MixtureError
from mixlaw.mixture import Mixture
from mixlaw.optimize import Objective
from mixlaw.runs import VERIFY, RunTable
from mixlaw.schedule import Schedule
from mixlaw.stages import FORMS, FittedStages, fit_stages
from mixlaw.stages.effects import Recency
from mixlaw.stages.points import StagePoints


def test_recency_is_found_where_it_is_the_truth(recency, lab):
    assert recency.form == "recency"
    assert isinstance(recency.effect, Recency)
    np.testing.assert_allclose(recency.effect.rates, lab.rate, rtol=0.15)
    assert recency.scores["recency"].error < 0.3 < 1 == recency.scores["dose"].error
    assert set(recency.scores) == set(FORMS)
    new = lab.schedules(6, seed=33)
    found = recency.predict(new, lab.size, 1e6)
    expected = np.stack([lab.truth(schedule, 1e6, lab.rate) for schedule in new])
    assert np.abs(found - expected).max() < 0.03


def test_dose_is_kept_where_the_order_does_not_matter(orderless):
    assert orderless.form == "dose"
    assert min(one.error for one in orderless.scores.values()) > 0.9


def test_predictions_of_scores_are_held_out(recency, lab):
    """A schedule's own rows do not decide what is said of it: spoiling one leaves that alone."""
    runs = lab.table()
    spoiled = replace(runs, values=runs.values.copy())
    mine = spoiled.run == "1-3"
    spoiled.values[mine] *= 1.5
    again = fit_stages(spoiled, recency.static, candidates=["recency"])
    at = runs.staged().run == "1-3"
    for one, other in ((again, recency),):
        np.testing.assert_allclose(
            one.scores["recency"].predictions[at], other.scores["recency"].predictions[at]
        )
    elsewhere = again.scores["recency"].predictions[~at]
    assert np.abs(elsewhere - recency.scores["recency"].predictions[~at]).max() > 1e-4


def test_one_residual_per_schedule_at_its_end(recency, lab):
    held_out = recency.held_out
    assert held_out is not None
    assert held_out.residuals.shape == (8, 3)
    runs = lab.table().staged()
    last = runs.train_tokens == lab.horizons[-1]
    expected = recency.scores["recency"].predictions[last] - runs.select(last).values
    np.testing.assert_allclose(held_out.residuals, expected)
    judged = runs.select(last)
    assert recency.judged.schedules(recency.domains) == list(judged.schedule)
    static = recency.static.predict(judged.weights, lab.size, lab.horizons[-1])
    np.testing.assert_allclose(recency.orders, expected + judged.values - static, atol=1e-9)


def num_held_out(fitted: FittedStages) -> int:
    return 0 if fitted.held_out is None else len(fitted.held_out.residuals)


def test_seeds_of_a_schedule_are_held_out_together(lab, recency):
    static = lab.table(staged=0).rows()
    twice = lab.rows(lab.schedules(4), lab.rate, seed=1) + lab.rows(
        lab.schedules(4), lab.rate, seed=2
    )
    fitted = fit_stages(RunTable.from_rows(static + twice), recency.static)
    assert num_held_out(fitted) == 4
    assert len(fitted.folds) == 4


def test_fitted_stages_survive_json(recency, lab):
    again = FittedStages.from_dict(json.loads(json.dumps(recency.to_dict())))
    some = lab.schedules(3, seed=9)
    one, other = (fitted.predict(some, 2e5, 2e6) for fitted in (recency, again))
    np.testing.assert_array_equal(one, other)
    coefficients = np.array([0.5, 0.5, 0.0])
    for fitted in (recency, again):
        assert np.isfinite(fitted.half_width(coefficients, some, 1e5, 1e6)).all()
    assert again.to_dict() == recency.to_dict()
    with pytest.raises(FitError, match="format 0"):
        FittedStages.from_dict({**recency.to_dict(), "format": 0})


def test_domains_in_another_order_change_nothing(lab, recency):
    rows = lab.table().rows()
    turned = RunTable.from_rows([dict(reversed(list(row.items()))) for row in rows])
    assert turned.domains != recency.domains
    again = fit_stages(turned, recency.static)
    some = lab.schedules(3, seed=9)
    np.testing.assert_allclose(
        again.predict(some, 1e5, 1e6), recency.predict(some, 1e5, 1e6), rtol=1e-6
    )


def test_intervals_hold_new_staged_runs(recency, lab):
    new = lab.schedules(60, seed=77)
    coefficients = np.full(3, 1 / 3)
    truth = np.stack([lab.truth(schedule, 1e6, lab.rate) for schedule in new]) @ coefficients
    error = np.abs(recency.predict(new, 1e5, 1e6) @ coefficients - truth)
    width = recency.half_width(coefficients, new, 1e5, 1e6, level=0.9)
    assert np.mean(error <= width) >= 0.85
    assert (width >= recency.static.half_width(coefficients, doses(new, lab), 1e5, 1e6)).all()
    static = [Schedule.static(schedule.dose) for schedule in new]
    np.testing.assert_array_equal(
        recency.half_width(coefficients, static, 1e5, 1e6),
        recency.static.half_width(coefficients, doses(static, lab), 1e5, 1e6),
    )


def doses(schedules, lab) -> np.ndarray:
    return np.stack([schedule.dose.array(lab.names) for schedule in schedules])


def test_differences_grow_with_how_unequal_the_stages_are(recency, lab):
    one, other = lab.mixtures(2, 3)
    coefficients = np.array([1.0, 0.0, 0.0])
    scales = []
    for share in (0.0, 0.1, 0.5, 1.0):
        part = {n: (1 - share) * one[n] + share * other[n] for n in lab.names}
        schedule = Schedule.of([(0.8, one), (0.2, Mixture(part))])
        pair = (schedule, Schedule.static(schedule.dose))
        scales.append(recency.difference_scale(coefficients, pair, 1e5, 1e6))
    assert scales[0] == pytest.approx(0, abs=1e-6)
    assert (np.diff(scales) > 0).all()


def test_without_staged_runs_only_trajectories_speak(lab, recency):
    assert fit_stages(lab.table(staged=0), recency.static).form == "dose"
    names = ["recency", "relaxation", "dynamic"]
    fitted = fit_stages(lab.table(staged=0), recency.static, candidates=names)
    assert fitted.form == "dynamic"
    assert set(fitted.refused) == {"recency", "relaxation"}
    assert "the table has none; train a few" in fitted.refused["recency"]
    assert "0 staged schedules in the table, 3 are needed" in fitted.warnings[0]
    some = lab.schedules(2)
    assert np.isfinite(fitted.predict(some, 1e5, 1e6)).all()
    assert np.isinf(fitted.half_width(np.ones(3), some, 1e5, 1e6)).all()
    again = FittedStages.from_dict(json.loads(json.dumps(fitted.to_dict())))
    np.testing.assert_array_equal(again.predict(some, 1e5, 1e6), fitted.predict(some, 1e5, 1e6))


def test_with_one_horizon_only_staged_runs_speak(lab):
    runs = lab.table(horizons=(1e6,))
    fitted = fit_stages(runs, lab.static_laws(runs))
    assert fitted.form == "recency"
    for name in ("dynamic", "trajectory"):
        assert "two horizons or more" in fitted.refused[name]


def test_two_staged_schedules_are_too_few_to_hold_one_out(lab, recency):
    fitted = fit_stages(lab.table(staged=2), recency.static)
    assert fitted.form == "recency"
    assert fitted.held_out is None
    assert fitted.scores == {}
    assert "2 staged schedules" in fitted.warnings[0]


def test_verification_rows_teach_nothing(lab, recency):
    runs = lab.table()
    role = runs.role.astype("<U8")
    role[runs.run == "1-0"] = VERIFY
    fitted = fit_stages(replace(runs, role=role), recency.static)
    assert num_held_out(fitted) == 7


def test_missing_values_are_left_out(lab, recency):
    runs = lab.table()
    values = runs.values.copy()
    values[runs.run == "1-2", 0] = np.nan
    fitted = fit_stages(replace(runs, values=values), recency.static)
    assert fitted.held_out is not None
    assert np.isnan(fitted.held_out.residuals[2, 0])
    found, expected = (one.effect.to_dict()["rates"] for one in (fitted, recency))
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_a_target_that_staged_runs_lack_has_no_interval(lab, recency):
    runs = lab.table()
    values = runs.values.copy()
    values[[schedule is not None for schedule in runs.schedule], 2] = np.nan
    fitted = fit_stages(replace(runs, values=values), recency.static)
    some = lab.schedules(2, seed=9)
    assert np.isfinite(fitted.half_width(np.array([1.0, 0, 0]), some, 1e5, 1e6)).all()
    assert np.isinf(fitted.half_width(np.array([1.0, 0, 1.0]), some, 1e5, 1e6)).all()
    pair = (some[0], Schedule.static(some[0].dose))
    assert np.isinf(fitted.difference_scale(np.array([0, 0, 1.0]), pair, 1e5, 1e6))
    assert np.isinf(lab.decide(fitted).staged.targets["loss/qa"].half_width)
    of_it = lab.decide(fitted, Objective({"loss/qa": 1.0}))
    assert of_it.reason.startswith("static: ")
    assert "inf" not in of_it.reason
    with pytest.raises(FitError, match="train more staged runs"):
        fitted.order_error(np.eye(3)[2])
    assert FittedStages.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))


def test_refusals(lab, recency):
    runs = lab.table()
    with pytest.raises(FitError, match=r"forms \['magic'\] are unknown; known are \['dose'"):
        fit_stages(runs, recency.static, candidates=["magic"])
    other = RunTable.from_rows(
        [
            {k.replace("weight/web", "weight/wiki"): v for k, v in row.items()}
            for row in lab.table(staged=0).rows()
        ]
    )
    with pytest.raises(FitError, match=r"the runs have the domains .* fit both to the same table"):
        fit_stages(other, recency.static)
    fewer = RunTable.from_rows(
        [{k: v for k, v in row.items() if k != "loss/qa"} for row in runs.rows()]
    )
    with pytest.raises(FitError, match=r"no column of \['loss/qa'\]"):
        fit_stages(fewer, recency.static)
    unknown = Schedule.of([(0.5, Mixture({"code": 1.0})), (0.5, Mixture({"poems": 1.0}))])
    warm = replace(runs, rewarm=np.where(np.arange(len(runs)) < 3, 0.5, np.nan))
    with pytest.raises(FitError, match=rf"3 of {len(runs)} rows continue a trained model"):
        fit_stages(warm, recency.static)
    with pytest.raises(MixtureError, match="poems"):
        recency.predict([unknown], 1e5, 1e6)
    with pytest.raises(FitError, match="say at which scale"):
        recency.predict(lab.schedules(1))


def test_rows_of_a_table_are_the_schedules_that_they_were(lab):
    runs = lab.table()
    at = StagePoints.of_table(runs)
    for i, schedule in enumerate(at.schedules(runs.domains)):
        assert schedule.is_static == (runs.schedule[i] is None)
        np.testing.assert_allclose(schedule.dose.array(runs.domains), runs.weights[i], atol=1e-12)
    assert (at.select(runs.train_tokens == 1e6).train_tokens == 1e6).all()
