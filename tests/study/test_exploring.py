"""Refits for the page are made once and kept in the study's folder."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mixlaw.errors import StorageError, StudyError
from mixlaw.laws import Points
from mixlaw.laws.bootstrap import bootstrap
from mixlaw.runs import RunTable
from mixlaw.study import Study, exploring
from mixlaw.study.artefacts import REFITS
from mixlaw.study.exploring import refits

POINTS = Points.at(np.random.default_rng(1).dirichlet(np.ones(2), 5))
LAWS = {"one formula": "m4", "with a process": "log-linear+gp"}


@pytest.fixture(params=LAWS.values(), ids=list(LAWS))
def study(request, tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"run": f"r{k}", "weight/a": a, "weight/b": 1 - a, "loss/a": 2 + np.exp(-2 * a) + noise}
        for k, (a, noise) in enumerate(zip(rng.random(20), rng.normal(0, 0.01, 20), strict=True))
    ]
    RunTable.from_rows(rows).write(tmp_path / "runs.csv")
    text = f"table: runs.csv\nobjective: {{loss/a: 1}}\nfit: {{laws: [{request.param}]}}\n"
    (tmp_path / "study.yaml").write_text(text)
    return Study(tmp_path)


@pytest.fixture
def unwritable(monkeypatch):
    def refuse(path, data):
        raise StorageError(f"could not write {path}: Read-only file system")

    return lambda: monkeypatch.setattr("mixlaw.study.artefacts.write_json", refuse)


def forecasts(found):
    """(R, n)"""
    return found.objective(np.ones(1), POINTS)


def test_refits_are_kept(study, monkeypatch):
    first = refits(study, 7)
    assert len(first.draws) == 7
    wanted = forecasts(bootstrap(study.fit(), num_draws=7, seed=study.config.seed))
    monkeypatch.setattr(exploring, "bootstrap", None)  # a second call must not need it
    assert_array_equal(forecasts(first), wanted)
    assert_array_equal(forecasts(refits(Study(study.folder), 7)), wanted)


def test_another_number_of_refits_is_made_anew(study):
    assert len(refits(study, 3).draws) == 3
    assert len(refits(study, 5).draws) == 5


def test_refits_of_other_runs_are_made_anew(study):
    before = forecasts(refits(study, 3))
    runs = study.runs()
    runs.select(np.arange(len(runs)) > 0).write(study.folder / "runs.csv")
    after = Study(study.folder)
    wanted = bootstrap(after.fit(), num_draws=3, seed=after.config.seed)
    found = forecasts(refits(after, 3))
    assert_array_equal(found, forecasts(wanted))
    assert np.all(found != before)


def test_another_seed_resamples_anew(study):
    before = forecasts(refits(study, 3))
    file = study.folder / "study.yaml"
    file.write_text(file.read_text() + "seed: 5\n")
    assert np.all(forecasts(refits(Study(study.folder), 3)) != before)


def test_a_study_that_may_only_be_read_has_refits(study, unwritable):
    study.fit()
    unwritable()
    found = forecasts(refits(study, 3))
    assert not (study.folder / REFITS).exists()
    wanted = bootstrap(study.fit(), num_draws=3, seed=study.config.seed)
    assert_array_equal(found, forecasts(wanted))


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign"])
def test_damaged_refits_are_refused(study, damage):
    refits(study, 3)
    kept = study.folder / REFITS
    text = kept.read_text()
    kept.write_text(
        {"cut": text[:200], "changed": text.replace("loss/a", "loss/b"), "foreign": "[1]"}[damage]
    )
    with pytest.raises(StudyError, match=rf"{REFITS} is damaged.*delete it"):
        refits(study, 3)
    kept.unlink()
    assert len(refits(study, 3).draws) == 3
