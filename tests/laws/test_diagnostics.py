"""Each signature of failure is found where it was built in, and a sound swarm has none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixlaw.laws import FittedLaw, FittedLaws, fit, fit_laws, make
from mixlaw.laws.diagnostics import diagnose
from mixlaw.laws.findings import design_findings, unit_findings
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.solver import leverage
from mixlaw.runs import RunTable

SCALE_LAWS = ["effective-product", "exponential-chinchilla"]


def kinds(found) -> set[str]:
    return {finding.kind for finding in found}


def only(found, kind: str):
    (finding,) = (finding for finding in found if finding.kind == kind)
    return finding


@pytest.fixture
def m4_swarm(lab, rng):
    """Thirty mixtures at one scale made by M4 with little noise, four of them run three times."""
    points = lab.grid(rng, mixtures=30, sizes=1, horizons=1)
    points = points.select(np.concatenate([np.arange(30), np.repeat(np.arange(4), 2)]))
    clean = 2 + np.exp(points.weights @ [-2.0, 0.3, 0.1])
    runs = lab.table(points, {"loss/code": clean + 0.003 * rng.normal(size=len(points))})
    return replace(runs, run=np.array([f"r{i}" for i in range(len(runs))]))


@pytest.fixture
def swarm(lab, rng):
    """Sixteen mixtures at nine scales made by a law of the catalogue."""
    points = lab.grid(rng, mixtures=16)
    law = lab.law_named("effective-product")
    clean = law.predict(lab.plausible_theta(law, points, rng), points)
    return lab.table(points, {"loss/code": clean * np.exp(0.005 * rng.normal(size=len(clean)))})


class TestFitted:
    def test_a_sound_swarm_has_no_finding(self, m4_swarm):
        assert diagnose(fit_laws(m4_swarm, candidates=["m4"])) == ()

    def test_same_after_storing(self, swarm):
        fitted = fit_laws(swarm, candidates=SCALE_LAWS)
        stored = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
        far = {"num_params": 1e7, "train_tokens": 1e8}
        before, after = diagnose(fitted, **far), diagnose(FittedLaws.from_dict(stored), **far)
        assert before == after
        json.dumps([finding.to_dict() for finding in after], allow_nan=False)

    def test_noise_floor_and_misfit_are_told_apart(self, m4_swarm, rng):
        noise = 2.5 + 0.1 * rng.normal(size=len(m4_swarm))
        # Up and down many times along one share: no law here can follow.
        wave = 2.5 + 0.1 * np.sin(60 * m4_swarm.weights[:, 0])
        wave += 1e-3 * rng.normal(size=len(m4_swarm))
        values = np.column_stack([m4_swarm.values, noise, wave])
        runs = replace(m4_swarm, values=values, targets=("loss/code", "loss/noise", "loss/wave"))
        found = diagnose(fit_laws(runs, candidates=["m4"]))
        assert only(found, "noise floor").names == ("loss/noise",)
        assert only(found, "large error").names == ("loss/wave",)
        assert "misses" in only(found, "large error").text

    def test_without_repeats_it_says_so(self, m4_swarm, rng):
        runs = m4_swarm.select(np.arange(30))
        runs = replace(runs, values=2.5 + 0.1 * rng.normal(size=(30, 1)))
        found = diagnose(fit_laws(runs, candidates=["m4"]))
        assert "no mixture was repeated" in only(found, "large error").text

    def test_a_level_that_jumps_at_the_largest_scale(self, swarm):
        top = swarm.num_params == swarm.num_params.max()
        runs = replace(swarm, values=np.where(top[:, None], 0.7, 1.0) * swarm.values)
        finding = only(diagnose(fit_laws(runs, candidates=SCALE_LAWS)), "level shift")
        assert finding.figures["loss/code"] > 0
        assert "too high" in finding.text

    def test_a_trend_with_scale(self, swarm):
        rising = (swarm.num_params / 1e5) ** 0.4
        runs = replace(swarm, values=swarm.values * rising[:, None])
        finding = only(diagnose(fit_laws(runs, candidates=["effective-product"])), "scale trend")
        assert "num_params" in finding.text  # losses that rise with size, which no law here allows

    def test_an_optimum_that_moves(self, lab, rng):
        points = lab.grid(rng, mixtures=16)
        share = points.weights[:, 0]
        tilt = np.log(points.num_params / 1e5) / np.log(2)  # -1, 0, 1
        clean = 3 + np.exp(-tilt * (share - 0.5)) - 0.1 * np.log(points.train_tokens / 1e6)
        runs = lab.table(points, {"loss/x": clean + 1e-3 * rng.normal(size=len(clean))})
        fitted = fit_laws(runs, candidates=["m1-product"])
        assert "moving optimum" not in kinds(diagnose(fitted))  # one order for all scales

        class Tilted:
            recipe = fitted.laws["loss/x"].recipe

            def predict(self, at):
                return 3 - np.log(at.num_params / 1e5) * at.weights[:, 0]

        moved = diagnose(replace(fitted, laws={"loss/x": Tilted()}))
        assert only(moved, "moving optimum").figures["rank_correlation"] == pytest.approx(-1)

    def test_rivals_with_other_optima(self, swarm):
        fitted = fit_laws(swarm, candidates=SCALE_LAWS)

        class Opposite:
            def predict(self, at):
                return 5 - fitted.laws["loss/code"].predict(at)

        against = replace(fitted, rivals={"opposite": {"loss/code": Opposite()}})
        assert only(diagnose(against), "rivals disagree").names == ("opposite",)
        agreeing = replace(fitted, rivals={"same": fitted.laws})
        assert "rivals disagree" not in kinds(diagnose(agreeing))

    def test_a_wrong_run_is_named(self, m4_swarm):
        values = m4_swarm.values.copy()
        values[17] *= 1.05
        labels = np.array([f"m{i}" for i in range(len(values))])
        found = diagnose(
            fit_laws(replace(m4_swarm, values=values, label=labels), candidates=["m4"])
        )
        assert only(found, "outlier").names[0] == "m17"

    def test_a_lone_mixture_in_its_corner_has_leverage(self, lab, rng):
        points = lab.grid(rng, mixtures=12, sizes=1, horizons=1)
        weights = np.vstack([0.05 * points.weights + [0, 0.475, 0.475], [[1.0, 0.0, 0.0]]])
        points = replace(
            points,
            weights=weights,
            num_params=np.full(13, 1e5),
            train_tokens=np.full(13, 1e6),
        )
        clean = 2 + np.exp(weights @ [-2.0, 0.3, 0.1])
        runs = lab.table(points, {"loss/x": clean + 1e-4 * rng.normal(size=13)})
        runs = replace(runs, label=np.array([f"m{i}" for i in range(13)]))
        finding = only(diagnose(fit_laws(runs, candidates=["m4"])), "leverage")
        assert finding.names[0] == "m12"

    def test_few_runs_and_a_far_target(self, m4_swarm):
        few = fit_laws(m4_swarm.select(np.arange(7)), candidates=["effective"])
        identified = few.laws["loss/code"].law.num_identified(3)
        found = diagnose(few, num_params=5e6)
        assert only(found, "few runs").figures["loss/code"] == pytest.approx(7 / identified)
        assert only(found, "far target").figures["times"] == pytest.approx(50)


def table_of(weights, **columns) -> RunTable:
    names = [f"weight/{chr(97 + j)}" for j in range(len(weights[0]))]
    values = columns or {"loss/x": 2 + np.asarray(weights)[:, 0]}
    return RunTable.from_rows(
        dict(zip(names, row, strict=True)) | {k: float(v[i]) for k, v in values.items()}
        for i, row in enumerate(weights)
    )


class TestDesign:
    def test_free_domains_are_fine(self, rng):
        assert design_findings(table_of(rng.dirichlet(np.ones(4), 12))) == []
        assert design_findings(table_of(rng.dirichlet(np.ones(12), 8))) == []
        assert design_findings(table_of([[0.2, 0.8], [0.5, 0.5], [0.7, 0.3]])) == []

    def test_absent_and_fixed(self, rng):
        free = 0.7 * rng.dirichlet(np.ones(3), 12)
        found = design_findings(table_of(np.column_stack([free, np.zeros(12), np.full(12, 0.3)])))
        assert only(found, "absent domain").names == ("d",)
        assert only(found, "fixed domain").names == ("e",)
        assert "(0.3)" in only(found, "fixed domain").text
        assert "collinear domains" not in kinds(found)

    @pytest.mark.parametrize("mixtures", [5, 12])
    def test_two_domains_in_one_ratio(self, rng, mixtures):
        w = rng.dirichlet(np.ones(5), mixtures)
        w = np.column_stack([w, 2 * w[:, 1]])
        found = design_findings(table_of(w / w.sum(axis=1, keepdims=True)))
        assert set(only(found, "collinear domains").names) == {"b", "f"}

    def test_a_unit_mix_up(self, rng):
        w = np.repeat(rng.dirichlet(np.ones(3), 6), 2, axis=0)
        x = 2 + w[:, 0] + 0.01 * rng.normal(size=12)
        assert unit_findings(table_of(w, **{"loss/x": x}), ["loss/x"]) == []
        x[3] /= np.log(2)
        (finding,) = unit_findings(table_of(w, **{"loss/x": x, "loss/y": x[::-1]}), ["loss/x"])
        assert finding.figures == {"loss/x": 1.0}


def test_leverage_is_the_slope_of_a_prediction_in_its_own_loss(m4_swarm):
    """By finite differences: the fit is moved by one loss, with its noise kept."""
    runs = m4_swarm.select(np.arange(30))
    fitted = fit(make("m4"), runs, target="loss/code")
    assert isinstance(fitted, FittedLaw)
    batch = batch_of(runs, ["loss/code"])
    noise = np.array([fitted.diagnostics.noise])
    hat = leverage(fitted.law, batch, fitted.theta[None], noise)
    assert hat.shape == (1, 30)
    assert np.all((hat > 0) & (hat < 1))
    assert hat.sum() <= fitted.law.num_identified(3) + 1e-6
    start = replace(fitted.start, keep=True)
    for i in (0, 7):
        moved = []
        for step in (-1e-3, 1e-3):
            y = batch.y.copy()
            y[0, i] *= 1 + step
            (again,) = make("m4").fit_batch(replace(batch, y=y), starts=[start])
            moved.append(again.predict(batch.points)[i] / batch.y[0, i])
        assert_allclose((moved[1] - moved[0]) / 2e-3, hat[0, i], rtol=0.1, atol=0.02)
