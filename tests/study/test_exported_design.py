"""Configs of runs for another trainer, and the list by which their results are found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mixlaw.corpus import load_corpus
from mixlaw.errors import ExportError, StudyError
from mixlaw.files import read_json
from mixlaw.interop.exporters.megatron import Megatron
from mixlaw.interop.exporters.plain import Json
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule
from mixlaw.study import Study, exporting
from mixlaw.study.export_config import ExportConfig, PathsConfig
from mixlaw.study.planned import PlannedRun, add_planned, planned_runs, read_planned, run_name
from tests.study.sheets import EXPORT, NAMES, OBJECTIVE, write_csv


class TestRunsOfAStudyThatAsks:
    @pytest.fixture
    def asking(self, tmp_path):
        """From nothing, with a trainer of one's own."""
        (tmp_path / "study.yaml").write_text(
            "table: runs.csv\ndomains: {web: {}, code: {}, books: {}}\n"
            + OBJECTIVE
            + "plan: {scales: [{num_params: 1e6, train_tokens: 2_048_000}]}\n"
            + EXPORT
        )
        return Study(tmp_path)

    def test_a_config_for_each_and_a_list_of_all(self, asking, tmp_path):
        found = asking.export_design(tmp_path / "configs", count=3)
        assert len(found.runs) == 3
        for run, proposal in zip(found.runs, found.plan.proposals, strict=True):
            drawn = Megatron().read(tmp_path / "configs" / run.config, NAMES).dose
            assert dict(drawn) == pytest.approx(dict(proposal.mixture), abs=1e-6)
            # 2000 samples: what is drawn is near, and is what the run counts as.
            assert dict(run.schedule.dose) == pytest.approx(dict(proposal.mixture), abs=2e-3)
            assert (run.num_params, run.train_tokens) == (1e6, 2_048_000)
        assert planned_runs(tmp_path / "configs") == {run.name: run for run in found.runs}
        asked = read_json(tmp_path / "asked.json")
        assert [Mixture(item["mixture"]) for item in asked] == [
            proposal.mixture for proposal in found.plan.proposals
        ]

    def test_notes_that_differ_in_numbers_alone_are_shown_once(self, asking, tmp_path, monkeypatch):
        written = Json.export

        def noted(self, handover):
            shares = handover.schedule.dose
            note = f"'web' is {shares['web']:.3f} of 1e+06 tokens of {handover.name!r}"
            return replace(written(self, handover), notes=(note, "always"))

        monkeypatch.setattr(Json, "export", noted)
        found = asking.export_design(tmp_path / "configs", "json", count=3)
        once, always = found.notes
        assert once.endswith(f"(so of {found.runs[0].name}; 2 others alike)")
        assert always == "always"

    def test_more_runs_later_join_the_list(self, asking, tmp_path):
        first = asking.export_design(tmp_path / "configs", count=2)
        second = asking.export_design(tmp_path / "configs", count=1)
        names = [run.name for run in (*first.runs, *second.runs)]
        assert len(set(names)) == 3
        assert list(planned_runs(tmp_path / "configs")) == names

    def test_what_cannot_be_exported_is_not_asked_for(self, asking, tmp_path):
        settings = ExportConfig(paths=PathsConfig(by_domain={"web": [""]}))
        told = r"run ask-\w+: the path of 'web' is ''.*in the export section of"
        with pytest.raises(ExportError, match=told):
            asking.export_design(tmp_path / "configs", count=2, settings=settings)
        assert not (tmp_path / "configs").exists()
        assert not (tmp_path / "asked.json").exists()

    def test_advice_to_stop_writes_nothing(self, study_of, tmp_path):
        study = study_of(OBJECTIVE + EXPORT + "plan: {threshold: 100}\n")
        found = study.export_design(tmp_path / "configs", count=2)
        assert found.plan.stop
        assert found.runs == ()
        assert not (tmp_path / "configs").exists()

    def test_a_table_has_no_design_of_its_own(self, ready, tmp_path):
        with pytest.raises(StudyError, match=r"no design of its own; ask .*--next 8"):
            ready.export_design(tmp_path / "configs")


class TestRunsOfAStudyThatTrains:
    def test_its_design_and_its_own_token_files(self, tiny_study, tmp_path):
        study = Study(tiny_study)
        found = study.export_design(tmp_path / "configs", "megatron")
        specs = study.design()
        assert [run.run_id for run in found.runs] == [spec.run_id for spec in specs]
        corpus = load_corpus(tiny_study / "corpus")
        blend = json.loads((tmp_path / "configs" / found.runs[0].config).read_text())["train"]
        for prefix in blend[1::2]:
            assert Path(prefix + ".bin").exists()
            assert Path(prefix).is_relative_to(corpus.root.resolve())
        assert exporting.own_paths(study, "olmo-core") == exporting.own_paths(study, "json") == {}
        assert {run.seed for run in found.runs} == {spec.seed for spec in specs}
        assert len({run.name for run in found.runs}) == len(specs)

    def test_their_results_make_a_study_of_their_own(self, trained_study, tmp_path):
        study = Study(trained_study)
        before = study.status()
        found = study.export_design(tmp_path / "configs", "megatron")
        assert found.into == tmp_path / "configs"
        theirs = Study(found.into)
        assert theirs.from_table
        assert theirs.config.objective == study.config.objective
        assert theirs.config.constraints == study.config.constraints
        assert theirs.config.target_params == study.config.target_params
        assert theirs.config.target.train_tokens == study.config.target.train_tokens
        assert {d.name: d.available_tokens for d in theirs.domains()} == {
            d.name: d.available_tokens for d in study.domains()
        }
        targets = study.objective.targets
        rows = [{"run": run.name, **dict.fromkeys(targets, 2.0)} for run in found.runs]
        source = write_csv(tmp_path / "results.csv", rows)
        done = theirs.import_runs(source, design=tmp_path / "configs")
        assert set(done.taken.added) == {run.name for run in found.runs}
        assert Study(trained_study).status() == before
        # What was edited there stays when the configs are written again.
        (found.into / "study.yaml").write_text("table: runs.csv\n" + OBJECTIVE)
        study.export_design(tmp_path / "configs", "megatron")
        assert (found.into / "study.yaml").read_text() == "table: runs.csv\n" + OBJECTIVE

    def test_further_runs_are_not_both_its_own_and_anothers(self, trained_study, tmp_path):
        study = Study(trained_study)
        before = study.design()
        with pytest.raises(StudyError, match="trains the runs that it asks for"):
            study.export_design(tmp_path / "configs", "megatron", count=2)
        assert Study(trained_study).design() == before
        assert not (tmp_path / "configs").exists()

    def test_its_own_folder_is_not_that_of_its_configs(self, trained_study):
        with pytest.raises(StudyError, match="is the study itself"):
            Study(trained_study).export_design(trained_study / "runs" / "..", "megatron")

    def test_its_target_says_how_long_its_samples_are(self, trained_study, tmp_path):
        study = Study(trained_study)
        size = study.config.target.size
        assert size is not None
        recipe = study.config.recipe(size)
        handover = study.export("json", mixture="uniform", out=tmp_path / "out").handover
        assert handover.sequence_length == recipe.sequence_length
        assert handover.batch_sequences == recipe.batch_size
        settings = ExportConfig(sequence_length=7)
        out = tmp_path / "out"
        found = study.export("json", mixture="uniform", out=out, settings=settings)
        assert found.handover.sequence_length == 7

    def test_it_takes_no_runs_of_others(self, tiny_study, made_up):
        with pytest.raises(StudyError, match="trains its runs itself"):
            Study(tiny_study).take(made_up)


@pytest.fixture
def made_up(fitted_folder):
    return Study(fitted_folder).runs()


class TestPlannedRuns:
    def test_a_name_is_that_of_a_folder(self):
        for label in ("../up", "a/b", "..", "", "with space", "m00-1e6", "ü" * 99):
            name = run_name(label, "0123456789abcdef")
            assert Path(name).name == name
            assert not name.startswith((".", "-"))
            assert name.endswith("-01234567")

    def test_cells_of_a_staged_run(self, tmp_path):
        late = Schedule.of([(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"code": 1.0}))])
        run = PlannedRun("a-1", "1", late, None, 100, 3, "a-1/mix.json", "json")
        add_planned(tmp_path, [run])
        assert planned_runs(tmp_path) == {"a-1": run}
        cells = read_planned(tmp_path)["a-1"]
        assert json.loads(cells.pop("schedule")) == late.to_list()
        assert cells == {"weight/web": 0.5, "weight/code": 0.5, "train_tokens": 100, "seed": 3}

    @pytest.mark.parametrize("line", ["{", "[]", '{"version": 1}', '{"version": 9}'])
    def test_a_damaged_line_is_named(self, tmp_path, line):
        (tmp_path / "runs.jsonl").write_text(line + "\n")
        with pytest.raises(StudyError, match=r"runs.jsonl, line 1: no planned run"):
            read_planned(tmp_path)

    def test_no_list(self, tmp_path):
        with pytest.raises(StudyError, match="no planned runs in"):
            read_planned(tmp_path)
