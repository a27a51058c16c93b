"""Bad input is used where it can be, refused by name where it cannot, and never passed over."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixlaw.errors import FitError, RunTableError, StudyError
from mixlaw.laws import fit, fit_laws, make
from mixlaw.laws.diagnostics import diagnose
from mixlaw.laws.noise import measured_noise
from mixlaw.optimize import Objective
from mixlaw.runs import RunTable

LAWS = ["m4"]
UNIFORM = np.ones((1, 3)) / 3


@pytest.fixture
def swarm(lab, rng) -> RunTable:
    """Thirty mixtures of three domains at one scale, two targets made by M4."""
    points = lab.grid(rng, mixtures=30, sizes=1, horizons=1)
    x, y = (2 + np.exp(points.weights @ t) for t in ([-2.0, 0.3, 0.1], [0.2, -1.0, 0.4]))
    noise = 0.003 * rng.normal(size=(2, 30))
    return lab.table(points, {"loss/x": x + noise[0], "loss/y": y + noise[1]})


def kinds(fitted) -> set[str]:
    return {finding.kind for finding in diagnose(fitted)}


def with_values(swarm, target: str, keep: np.ndarray) -> RunTable:
    """The table with a target measured in the rows `keep` only."""
    values, t = swarm.values.copy(), swarm.targets.index(target)
    values[~np.isin(np.arange(len(swarm)), keep), t] = np.nan
    return replace(swarm, values=values)


class TestMissing:
    def test_what_is_there_is_used_and_counted(self, swarm):
        fitted = fit_laws(with_values(swarm, "loss/y", np.arange(20)), candidates=LAWS)
        assert fitted.targets == ("loss/x", "loss/y")
        assert "loss/y: left out 10 rows without a value" in fitted.warnings
        full = fit_laws(swarm, candidates=LAWS)
        assert_allclose(fitted.predict(UNIFORM), full.predict(UNIFORM), atol=0.02)

    def test_a_target_of_too_few_runs_is_left_out_with_a_warning(self, swarm):
        fitted = fit_laws(with_values(swarm, "loss/y", np.arange(3)), candidates=LAWS)
        assert fitted.targets == ("loss/x",)
        assert any("loss/y: left out" in w and "3 of 30 rows" in w for w in fitted.warnings)

    def test_unless_it_was_asked_for(self, swarm):
        thin = with_values(swarm, "loss/y", np.arange(3))
        with pytest.raises(FitError, match=r"'loss/y' cannot be cross-validated.*3 of 30 rows"):
            fit_laws(thin, ["loss/x", "loss/y"], candidates=LAWS)
        fitted = fit_laws(thin, ["loss/x"], also=["loss/y"], candidates=LAWS)
        assert fitted.targets == ("loss/x",)

    def test_a_target_that_the_largest_scale_lacks(self, lab, rng):
        points = lab.grid(rng, mixtures=8)
        clean = 2 + np.exp(-points.weights[:, 0]) + (points.num_params / 1e5) ** -0.5
        runs = lab.table(points, {"loss/x": clean, "loss/y": 2 * clean})
        small = np.flatnonzero(runs.num_params < runs.num_params.max())
        fitted = fit_laws(with_values(runs, "loss/y", small), candidates=["exponential-chinchilla"])
        assert fitted.targets == ("loss/x",)
        assert any("scale split can be compared" in text for text in fitted.warnings)

    def test_none_is_left(self, swarm):
        empty = replace(swarm, values=np.full_like(swarm.values, np.nan))
        with pytest.raises(FitError, match=r"no target of the 30 .*loss/x: never measured"):
            fit_laws(empty)

    def test_a_target_that_is_not_there(self, swarm):
        with pytest.raises(RunTableError, match="no target 'loss/q'"):
            fit_laws(swarm, ["loss/q"])


class TestDesigns:
    def test_two_domains_always_in_one_ratio(self, swarm):
        w = np.column_stack([swarm.weights, 0.5 * swarm.weights[:, 2]])
        w /= w.sum(axis=1, keepdims=True)
        runs = replace(swarm, weights=w, domains=(*swarm.domains, "twin"))
        runs = replace(runs, available_tokens=np.full(w.shape, np.inf))
        for law in ("m4", "effective", "log-linear"):
            fitted = fit_laws(runs, candidates=[law])
            assert np.all(np.isfinite(fitted.predict(w)))
            assert "collinear domains" in kinds(fitted)
            assert any("always move together" in text for text in fitted.warnings)

    @pytest.mark.parametrize("law", ["m1", "m4", "effective", "log-ridge"])
    def test_a_domain_absent_from_all_runs(self, swarm, law):
        w = np.column_stack([swarm.weights, np.zeros(len(swarm))])
        runs = replace(swarm, weights=w, domains=(*swarm.domains, "new"))
        runs = replace(runs, available_tokens=np.full(w.shape, np.inf))
        fitted = fit_laws(runs, candidates=[law])
        assert np.all(np.isfinite(fitted.predict(np.eye(4))))
        assert any("'new'" in text or "new is absent" in text for text in fitted.warnings)
        assert "absent domain" in kinds(fitted)
        without = fit_laws(swarm, candidates=[law])
        assert_allclose(fitted.predict(w), without.predict(swarm.weights), atol=0.02)

    def test_every_run_the_same_mixture(self, swarm):
        runs = replace(swarm, weights=np.tile(swarm.weights[:1], (30, 1)))
        with pytest.raises(FitError, match="at least 4 distinct mixtures, the table has 1"):
            fit_laws(runs)


class TestRepeats:
    def test_the_same_run_with_other_losses_is_noise(self, swarm, rng):
        again = swarm.select(np.concatenate([np.arange(30), np.arange(30)]))
        noise = 0.05 * rng.normal(size=again.values.shape)
        runs = replace(again, values=again.values + noise)
        assert_allclose(measured_noise(runs).overall, 0.05, rtol=0.4)
        fitted = fit_laws(runs, candidates=LAWS)
        for law in fitted.laws.values():
            assert law.diagnostics.rmse == pytest.approx(0.05, rel=0.3)
        assert_allclose(
            fitted.predict(UNIFORM), fit_laws(swarm, candidates=LAWS).predict(UNIFORM), atol=0.05
        )


class TestUnits:
    def test_runs_of_one_mixture_in_nats_and_in_bits(self, swarm):
        again = swarm.select(np.concatenate([np.arange(30), np.arange(5)]))
        values = again.values.copy()
        values[-5:, 0] /= np.log(2)
        fitted = fit_laws(replace(again, values=values), candidates=LAWS)
        assert any("of about 1.44, that of nats to bits" in text for text in fitted.warnings)
        assert "mixed units" in kinds(fitted)
        assert "mixed units" not in kinds(fit_laws(again, candidates=LAWS))

    def test_one_target_in_both_metrics(self, swarm):
        both = replace(swarm, targets=("loss/x", "bpb/x"))
        fitted = fit_laws(both, candidates=LAWS)
        assert fitted.targets == ("loss/x", "bpb/x")
        diagnose(fitted)
        with pytest.raises(StudyError, match=r"unit|metric"):
            Objective({"loss/x": 1.0, "bpb/x": 1.0})


@pytest.mark.parametrize("loss", [0.0, -1.2, float("nan"), float("inf"), float("-inf")])
def test_losses_that_are_no_losses(loss):
    rows = [{"weight/a": 0.5, "weight/b": 0.5, "loss/x": 2.0} for _ in range(3)]
    rows[1]["loss/x"] = loss
    with pytest.raises(RunTableError, match=rf"row 2: loss/x is {loss}; it must be finite and > 0"):
        RunTable.from_rows(rows)


@pytest.mark.parametrize("loss", [0.0, -1.2, np.inf, -np.inf])
def test_a_table_from_arrays_is_checked_too(swarm, loss):
    """`RunTable(...)` takes arrays as they are; a fit does not."""
    values = swarm.values.copy()
    values[4, 1] = loss
    with pytest.raises(FitError, match=r"'loss/y' is .* in row 5 .*in 1 of 30 rows; .*finite"):
        fit(make("m4"), replace(swarm, values=values), target="loss/y")
    with pytest.raises(FitError, match="finite and > 0"):
        fit_laws(replace(swarm, values=values), candidates=LAWS)


@pytest.mark.parametrize("column", ["start", "rewarm"])
def test_rows_that_continue_a_model_are_refused(swarm, column):
    """Their losses are not those of the mixture: half of them came with the model."""
    column_of = getattr(swarm, column).copy()
    column_of[:8] = 3.0
    runs = replace(swarm, **{column: column_of})
    message = r"8 of 30 rows continue a trained model .*`mixlaw continual`"
    with pytest.raises(FitError, match=message):
        fit_laws(runs, candidates=LAWS)
    with pytest.raises(FitError, match=message):
        fit(make("m4"), runs, target="loss/x")
    assert len(runs.continued()) == 8
    assert not len(swarm.continued())


MILLION = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import numpy as np
from mixlaw.laws import Points, fit, make
from mixlaw.runs import RunTable

n, rng = 1_000_000, np.random.default_rng(0)
mixtures = rng.dirichlet(np.ones(5), 200)
slopes = np.array([[-2, 0.3, 0.1, 0, 0.5], [0, 0.4, -1, 0.2, 0.3]])
weights = mixtures[rng.integers(200, size=n)]
values = (2 + np.exp(weights @ slopes.T)) * np.exp(0.01 * rng.normal(size=(n, 2)))
name, zeros = np.arange(n).astype(str), np.zeros(n, int)
runs = RunTable(
    tuple("abcde"), ("loss/a", "loss/z"), weights, np.full(n, 1e6), np.full(n, 1e8),
    np.full((n, 5), np.inf), values, name, name, np.full(n, "swarm"), np.full(n, "done"), zeros,
    np.full(n, None), np.full((n, 2), np.nan), np.full(n, np.nan),
)
fitted = fit(make("m4"), runs, target="loss/z")
error = fitted.predict(Points.at(mixtures)) - 2 - np.exp(mixtures @ slopes[1])
print(np.abs(error).max())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_million_rows_in_three_gigabytes():
    done = subprocess.run(
        [sys.executable, "-c", MILLION], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2e-3


def test_merged_rows_give_the_same_law(swarm, lab, rng, monkeypatch):
    """Many rows of few mixtures are fitted as one row each."""
    from mixlaw.laws import base

    again = swarm.select(rng.integers(30, size=400))
    runs = replace(again, values=again.values * np.exp(0.01 * rng.normal(size=(400, 2))))
    runs = with_values(runs, "loss/y", np.arange(300))
    new = lab.grid(rng, mixtures=20, sizes=1, horizons=1)
    for target in runs.targets:
        whole = fit(make("m4"), runs, target=target).predict(new)
        with monkeypatch.context() as patch:
            patch.setattr(base, "MANY_ROWS", 100)
            merged = fit(make("m4"), runs, target=target).predict(new)
        assert_allclose(merged, whole, rtol=2e-3)
