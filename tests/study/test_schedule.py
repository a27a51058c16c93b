"""Schedules in a study: the section of the file, from a table, and trained from text."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixlaw.claims import Worker
from mixlaw.errors import DesignError, StudyError
from mixlaw.files import read_json
from mixlaw.mixture import Domain, Mixture
from mixlaw.optimize import Interval
from mixlaw.runs import RunTable
from mixlaw.schedule import Schedule
from mixlaw.stages import Gain, ScheduleDecision, ScheduleForecast
from mixlaw.study import Study, load_config
from mixlaw.study.launching import Launching
from mixlaw.study.schedule_verification import ScheduleVerification, online_start
from mixlaw.study.staged_design import LEAST_MOVE, StagedSpace, staged_schedules
from mixlaw.study.staging import StagedRuns
from tests.conftest import TINY_STUDY
from tests.study.staged import (
    SCARCE,
    STUDY,
    staged_rows,
    static_rows,
    true_losses,
    write_study,
)

# The section of the study file


def load(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{stages: [.8, .3]}", r"stages are \[0.8, 0.3\].*sum to 1.1 and must sum to 1"),
        ("{stages: [[.5, .5], [.9, .2]]}", r"stages are \[0.9, 0.2\].*sum to 1.1"),
        ("{stages: [.25, .25, .25, .25]}", "give 2 to 3 shares"),
        ("{stages: [1]}", "give 2 to 3 shares"),
        ("{stages: [.99, .01]}", r"'6k' has 40 steps, of which the stages .* get \[40, 0\]"),
        ("{size: 12k}", "schedule.size is '12k', not among training.sizes"),
        ("{size: 1B}", "schedule.size is '1B', not among training.sizes"),
        ("{stage: [.8, .2]}", "did you mean 'stages'"),
    ],
)
def test_wrong_sections_are_refused_in_one_line(tmp_path, section, told):
    with pytest.raises(StudyError, match=told) as refused:
        load(tmp_path, TINY_STUDY + f"schedule: {section}\n")
    assert "\n" not in str(refused.value)


def test_one_list_of_shares_or_several(tmp_path):
    one = load(tmp_path, TINY_STUDY + "schedule: {stages: [.8, .2]}\n").schedule
    both = load(tmp_path, TINY_STUDY + "schedule: {stages: [[.8, .2], [.5, .3, .2]]}\n").schedule
    assert one is not None
    assert both is not None
    assert one.stages == [(0.8, 0.2)]
    assert both.stages == [(0.8, 0.2), (0.5, 0.3, 0.2)]


def test_a_table_trains_no_staged_runs(tmp_path):
    with pytest.raises(StudyError, match=r"\['schedule.runs'\] would do nothing"):
        load(tmp_path, STUDY + "schedule: {runs: 4}\n")


# Which staged runs

TRAINED = np.random.default_rng(0).dirichlet(np.ones(4), 16) * 0.96 + 0.01
SPACE = StagedSpace(("a", "b", "c", "d"), np.full(4, 0.01), np.full(4, 0.85), [(0.8, 0.2)])
OPTIMUM = np.array([0.5, 0.3, 0.19, 0.01])


def test_staged_runs_come_in_pairs_of_one_dose():
    found = staged_schedules(SPACE, trained=TRAINED, optimum=OPTIMUM, count=12)
    doses = np.stack([schedule.dose.array(SPACE.domains) for schedule in found])
    np.testing.assert_allclose(doses[::2], doses[1::2], atol=1e-12)
    known = np.vstack([OPTIMUM, TRAINED])
    assert all(np.isclose(known, dose).all(axis=1).any() for dose in doses)
    at_optimum = np.isclose(doses, OPTIMUM).all(axis=1)
    assert 4 <= at_optimum.sum() <= 8
    for more, less in zip(found[::2], found[1::2], strict=True):
        late = [s.array(SPACE.domains)[1] - s.array(SPACE.domains)[0] for s in (more, less)]
        moved = np.argmax(late[0])
        assert late[0][moved] > LEAST_MOVE
        assert late[1][moved] < -LEAST_MOVE
        stages = np.concatenate([more.array(SPACE.domains), less.array(SPACE.domains)])
        assert np.all(stages >= SPACE.lower - 1e-9)
        assert np.all(stages <= SPACE.upper + 1e-9)


def test_more_staged_runs_begin_with_fewer():
    few = staged_schedules(SPACE, trained=TRAINED, optimum=OPTIMUM, count=5)
    many = staged_schedules(SPACE, trained=TRAINED, optimum=OPTIMUM, count=14)
    assert many[:5] == few
    assert len(set(many)) == 14


def test_every_stage_is_contrasted_where_there_are_three():
    space = replace(SPACE, stage_shares=[(0.5, 0.3, 0.2)])
    found = staged_schedules(space, trained=TRAINED, optimum=None, count=8)
    # Against the last stage the first two are one.
    shares = [tuple(schedule.shares.round(9).tolist()) for schedule in found]
    assert sorted(shares) == [(0.5, 0.3, 0.2)] * 4 + [(0.8, 0.2)] * 4


def test_alternatives_that_end_alike_give_no_run_twice():
    space = replace(SPACE, stage_shares=[(0.8, 0.2), (0.5, 0.3, 0.2)])
    found = staged_schedules(space, trained=TRAINED, optimum=OPTIMUM, count=24)
    assert len(set(found)) == 24


def test_too_little_room_is_told():
    narrow = replace(SPACE, lower=OPTIMUM - 0.005, upper=OPTIMUM + 0.005)
    with pytest.raises(DesignError, match=r"leave room for 0 staged runs.*4 are asked for"):
        staged_schedules(narrow, trained=OPTIMUM[None], optimum=OPTIMUM, count=4)


# From a table


@pytest.fixture(scope="module")
def table_folder(tmp_path_factory) -> Path:
    """A study of static and staged runs, with web scarce; fitted and decided."""
    folder = tmp_path_factory.mktemp("schedule") / "study"
    write_study(folder, static_rows() + staged_rows(), STUDY + SCARCE)
    Study(folder).schedule()
    return folder


@pytest.fixture
def table_study(table_folder, tmp_path) -> Path:
    return Path(shutil.copytree(table_folder, tmp_path / "study"))


def test_the_static_fit_never_sees_a_staged_row(table_folder, tmp_path):
    alone = Study(write_study(tmp_path / "static", static_rows(), STUDY + SCARCE))
    both = Study(table_folder).fit()
    weights = np.random.default_rng(2).dirichlet(np.ones(3), 5)
    np.testing.assert_array_equal(both.predict(weights), alone.fit().predict(weights))


def test_a_scarce_domain_is_worth_most_late(table_folder):
    """The truth is known: later tokens count for more, so what is scarce belongs to the end."""
    study = Study(table_folder)
    found = study.schedule()
    assert found.form == "recency"
    assert found.worthwhile
    first, last = (stage.mixture for stage in found.staged.schedule.stages)
    assert last["web"] > 2 * first["web"]
    assert found.staged.schedule.dose["web"] <= 0.15 + 1e-6
    assert found.static.schedule.dose["web"] <= 0.15 + 1e-6

    def truth(forecast: ScheduleForecast) -> float:
        return float(true_losses(forecast.schedule)[:2].mean())

    gain = truth(found.static) - truth(found.staged)
    assert gain > 0.02
    low, high = found.over_static.interval.low, found.over_static.interval.high
    assert low <= gain <= high
    assert found.recommended == found.staged.schedule


def test_without_scarcity_the_order_buys_nothing(tmp_path):
    """Later tokens count for more, but a static mixture can be what a schedule ends as."""
    study = Study(write_study(tmp_path, static_rows() + staged_rows()))
    found = study.schedule()
    assert not found.worthwhile
    assert found.recommended == found.static.schedule
    assert found.recommended.is_static


def test_twice_is_once(table_study):
    study = Study(table_study)
    before = {p.name: p.stat().st_mtime_ns for p in table_study.glob("*.json")}
    assert study.schedule().to_dict() == Study(table_study).schedule().to_dict()
    assert {p.name: p.stat().st_mtime_ns for p in table_study.glob("*.json")} == before


def test_what_is_not_current_is_not_told(table_study):
    stored = Study(table_study).schedule_decision()
    assert stored is not None
    file = table_study / "study.yaml"
    text = file.read_text()
    file.write_text(text + "schedule: {stages: [.5, .5]}\n")
    assert Study(table_study).schedule_decision() is None
    assert Study(table_study).status()["steps"]["schedule"] is None
    file.write_text(text + "schedule: {stages: [.8, .2]}\n")
    assert Study(table_study).schedule_decision() == stored
    assert Study(table_study).status()["steps"]["schedule"] == "schedule.json"
    RunTable.from_rows(static_rows()).write(table_study / "runs.csv")
    assert Study(table_study).schedule_decision() is None


def test_alternatives_are_tried(table_study):
    file = table_study / "study.yaml"
    file.write_text(file.read_text() + "schedule: {stages: [[.8, .2], [.5, .3, .2]]}\n")
    found = Study(table_study).schedule()
    assert {one.shares for one in found.alternatives} == {(0.8, 0.2), (0.5, 0.3, 0.2)}
    best = min(one.objective for one in found.alternatives)
    assert found.staged.objective.value == pytest.approx(best)


def test_what_cannot_be_answered_is_told(table_study):
    file, text = table_study / "study.yaml", STUDY + SCARCE
    with pytest.raises(StudyError, match="works from the table"):
        Study(table_study).verify_schedule()
    file.write_text(text.replace("{loss/web: 1, loss/code: 1}", "{score/quiz: 1}"))
    with pytest.raises(StudyError, match=r"names \['score/quiz'\].*losses only"):
        Study(table_study).schedule()
    file.write_text(text)
    RunTable.from_rows(static_rows()).write(table_study / "runs.csv")
    with pytest.raises(StudyError, match=r'no finished run changed its mixture.*column "schedule"'):
        Study(table_study).schedule()


def test_the_next_runs_keep_epoch_caps_where_no_run_has_a_size(table_study):
    """The caps are of the decision's tokens, which the study gives, whatever the table has."""
    asked = Study(table_study).ask(3)
    assert all(proposal.mixture["web"] <= 0.15 + 1e-6 for proposal in asked.proposals)
    assert asked.proposals or asked.stop


def test_a_table_needs_no_torch(table_study):
    (table_study / "schedule.json").unlink()
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mixlaw.study import Study\n"
        f"print(Study({str(table_study)!r}).schedule().form)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "recency", found.stderr


def test_a_run_that_is_told_keeps_the_others(table_study):
    study = Study(table_study)
    before = len(study.runs())
    late = Schedule.of([(0.8, Mixture({"code": 1.0})), (0.2, Mixture({"web": 1.0}))])
    losses = {"loss/web": 2.6, "loss/code": 2.5}
    study.tell(Mixture({"web": 0.5, "code": 0.5}), losses, train_tokens=1_000_000)
    runs = study.tell(late, losses, train_tokens=1_000_000)
    assert len(runs) == before + 2
    assert len(runs.staged()) == 10 + 1
    assert runs.schedule[-1] == late
    assert runs.mixture(len(runs) - 1)["web"] == pytest.approx(0.2)


# Trained from text


class Here:
    """Trains in this process: what starts workers is tested elsewhere."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.trained: list[str] = []
        patch.setattr(Launching, "train", lambda _, swarm, specs: self.train(swarm, specs))

    def train(self, swarm, specs):
        stacks = swarm.unfinished(specs)
        self.trained += [spec.run_id for stack in stacks for spec in stack]
        with Worker(swarm.store) as worker:
            for stack in stacks:
                swarm.train(stack, worker)
        return {}


@pytest.fixture(scope="module")
def scheduled_folder(trained_folder, tmp_path_factory) -> Path:
    """The tiny study with its staged runs trained, and a target run with the steps that an online
    run needs. Copy before use."""
    folder = tmp_path_factory.mktemp("scheduled") / "study"
    shutil.copytree(trained_folder, folder)
    file = folder / "study.yaml"
    text = file.read_text().replace("train_tokens: 1920", "train_tokens: 10240")
    text = text.replace("horizon_steps: [30, 60], seeds: 2", "horizon_steps: [320], seeds: 2")
    text = text.replace("target: {size: 12k", "target: {size: 3k")
    laws = "fit: {laws: [effective-chinchilla]}\n"
    file.write_text(text + laws + "schedule: {runs: 6, size: 3k}\n")
    with pytest.MonkeyPatch.context() as patch:
        Here(patch)
        Study(folder).fit()
        table = (folder / "runs.csv").read_bytes(), (folder / "fit.json").read_bytes()
        Study(folder).schedule()
    assert ((folder / "runs.csv").read_bytes(), (folder / "fit.json").read_bytes()) == table
    return folder


@pytest.fixture
def scheduled_study(scheduled_folder, tmp_path) -> Study:
    return Study(shutil.copytree(scheduled_folder, tmp_path / "study"))


@pytest.fixture
def here(monkeypatch) -> Here:
    return Here(monkeypatch)


def made_up(found: ScheduleDecision, late: Mixture) -> ScheduleDecision:
    """As if the stage law had found that `late` belongs to the end."""
    static = found.static
    dose = static.schedule.dose
    schedule = Schedule.of([(0.8, dose), (0.2, late)])
    forecast = replace(static, schedule=schedule)
    same = replace(static, schedule=Schedule.static(schedule.dose))
    gain = Gain(Interval(0.1, 0.05), 0.99)
    return replace(found, staged=forecast, same_dose=same, over_static=gain, over_same_dose=gain)


def test_staged_runs_are_trained_once_beside_the_swarm(scheduled_study, here):
    study, folder = scheduled_study, scheduled_study.folder
    table = RunTable.read(folder / "staged.csv")
    assert len(table) == 6 * 3
    assert set(table.num_params) == {3072}
    last = table.select(table.train_tokens == 1280)
    assert len(last.staged()) == 6
    assert len(table.select(table.train_tokens == 640).staged()) == 0  # before the last stage
    assert np.isfinite(table.values).all()
    found = study.schedule_decision()
    assert found is not None
    assert study.schedule().to_dict() == found.to_dict()
    assert here.trained == []


def test_a_decision_that_moves_asks_for_no_new_runs(scheduled_study, here):
    file = scheduled_study.file
    file.write_text(file.read_text().replace("{bpb/mixed: 1, bpb/abc: 1}", "{bpb/words: 1}"))
    Study(file).schedule()
    assert here.trained == []


def test_a_longer_design_keeps_the_runs_of_the_shorter(scheduled_study):
    file = scheduled_study.file
    optimum = scheduled_study.optimize().recommended
    before = StagedRuns(scheduled_study._own_runs).design(optimum)
    file.write_text(file.read_text().replace("runs: 6", "runs: 8"))
    after = StagedRuns(Study(file)._own_runs).design(optimum)
    assert (len(before), len(after)) == (6, 8)
    assert after[:6] == before


def test_a_decision_is_not_current_while_staged_runs_are_missing(scheduled_study, here):
    """More runs are asked for, and the study is stopped before they are trained."""
    file = scheduled_study.file
    file.write_text(file.read_text().replace("runs: 6", "runs: 8"))
    assert Study(file).schedule_decision() is None
    StagedRuns(Study(file)._own_runs).design(scheduled_study.optimize().recommended)
    assert Study(file).schedule_decision() is None
    assert Study(file).status()["steps"]["schedule"] is None
    found = Study(file).schedule()
    assert len(here.trained) == 2
    assert Study(file).schedule_decision() == found


def test_a_schedule_is_verified_and_online_runs_beside_it(scheduled_study, here):
    study = scheduled_study
    own = study._own_runs
    decision = made_up(study.schedule(), Mixture.uniform(("abc", "digits", "words")))
    staged = StagedRuns(own)
    launching = Launching(study.config.launch, study.folder)
    found = staged.verify(decision, launching, online=True)
    assert list(found.compared.mixtures) == ["staged", "static", "same dose"]
    assert all(len(one.observed) == 2 for one in found.compared.mixtures.values())
    one = found.compared
    expected = np.subtract(one.mixtures["static"].observed, one.mixtures["staged"].observed)
    np.testing.assert_allclose(one.gains["static"].observed, expected)
    assert found.online is not None
    assert len(found.online.observed) == len(found.online.schedules) == 2
    assert not found.online.schedules[0].is_static
    assert ScheduleVerification.from_dict(found.to_dict()) == found
    assert staged.verification(decision) == found
    moved = made_up(decision, Mixture({"words": 1.0}))
    assert staged.verification(moved) is None
    # What verifies is in the table, and no stage law learns from it.
    table = RunTable.read(study.folder / "staged.csv")
    assert set(table.label[table.role == "verify"]) == {"staged", "static", "same dose", "online"}
    assert study.schedule().to_dict() == read_json(study.folder / "schedule.json")["result"]
    assert len(here.trained) == 4 * 2


def test_a_static_schedule_is_not_verified(scheduled_study):
    study = scheduled_study
    found = study.schedule()
    found = replace(found, staged=replace(found.static))
    with pytest.raises(StudyError, match="no order to verify"):
        StagedRuns(study._own_runs).verify(found, Launching(study.config.launch, study.folder))


def test_a_swarm_comes_first(tiny_study):
    with pytest.raises(StudyError, match="first: mixlaw train"):
        Study(tiny_study).schedule()


def test_an_online_run_begins_with_room_below_the_cap():
    static, domains = Mixture({"a": 0.4, "b": 0.6}), [Domain("a", 100), Domain("b", 10_000)]
    found = online_start(static, domains, 1000, 4.0)
    assert found.epochs(1000, domains)["a"] == pytest.approx(3.6)
    assert online_start(static, domains, 1000, None) == static
    assert online_start(static, domains, 500, 4.0) == static
