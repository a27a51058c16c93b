"""Handing a mixture to a trainer, and baselines read from trainers' configs."""

from __future__ import annotations

import json

import pytest

from mixlaw.errors import ExportError, MixtureError, StudyError
from mixlaw.files import digest, read_json
from mixlaw.interop import EXPORTERS
from mixlaw.interop.exporters.megatron import Megatron
from mixlaw.interop.exporters.plain import Json
from mixlaw.interop.handover import DOCUMENT, Exported, Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule
from mixlaw.study import Study, exporting
from mixlaw.study.export_config import ExportConfig, PathsConfig
from tests.study.sheets import NAMES, OBJECTIVE
from tests.study.staged import STUDY as STAGED_STUDY
from tests.study.staged import staged_rows, static_rows, write_study


class TestTheMixture:
    def test_the_decisions_by_default_with_all_that_the_study_says(self, ready):
        found = ready.export()
        decision = ready.optimize()
        assert found.folder == ready.folder / "export" / "megatron"
        read = Megatron().read(found.folder / "blend_per_split.json", NAMES)
        assert dict(read.dose) == pytest.approx(dict(decision.recommended), abs=1e-6)
        stored = read_json(found.folder / "export.json")
        assert stored == json.loads(json.dumps(found.to_dict()))
        assert stored["inputs"] == digest(decision.to_dict())
        assert stored["wanted"] == [[1.0, dict(decision.recommended)]]
        assert (stored["source"], stored["seed"]) == ("decision", ready.config.seed)
        assert stored["train_tokens"] == 1_024_000

    def test_what_a_domain_gets_of_the_run(self, ready):
        web = next(
            share for share in ready.export(mixture="uniform").shares if share.domain == "web"
        )
        # 1000 samples in three: 334 of the first.
        assert web.realised == pytest.approx(0.334)
        assert web.tokens == pytest.approx(0.334 * 1_024_000)
        assert web.epochs == pytest.approx(web.tokens / 4e9)

    def test_shares_of_documents_are_turned_into_tokens(self, ready):
        lengths = {"web": 100.0, "code": 300.0}
        mixture = Mixture({"web": 0.5, "code": 0.5})
        handover = Handover(Schedule.static(mixture), mean_document_tokens=lengths)
        documents = Exported({}, Schedule.static(mixture), DOCUMENT, "")
        drawn = exporting.drawn_tokens(documents, handover)
        assert dict(drawn.dose) == pytest.approx({"web": 0.25, "code": 0.75})
        assert exporting.drawn_tokens(documents, Handover(Schedule.static(mixture))) is None

    def test_one_of_the_users_over_all_domains(self, ready):
        found = ready.export("json", mixture=Mixture({"code": 1.0}))
        assert {s.domain: s.realised for s in found.shares} == {"web": 0, "code": 1, "books": 0}
        assert found.choice.source == "given"
        with pytest.raises(MixtureError, match=r"'cod', which is no domain.*did you mean 'code'"):
            ready.export("json", mixture=Mixture({"cod": 1.0}))

    def test_runs_that_came_later_are_decided_anew(self, ready):
        before = ready.export().to_dict()
        table = ready.runs()
        ready.take(table.select(table.run != table.run[0]))
        ready.tell(
            Mixture({"web": 0.1, "code": 0.8, "books": 0.1}), {"loss/web": 2.2, "loss/code": 2}
        )
        after = Study(ready.folder).export()
        assert after.choice.inputs == digest(Study(ready.folder).optimize().to_dict())
        assert after.choice.inputs != before["inputs"]

    def test_another_length_of_run_than_decided_for_is_said(self, ready):
        assert not any("decided for" in note for note in ready.export().notes)
        told = ready.export(train_tokens=2_048_000).notes
        assert any("decided for a run of 1,024,000 tokens" in note for note in told)
        assert not any(
            "decided for" in n for n in ready.export(mixture="uniform", train_tokens=9**7).notes
        )

    def test_settings_of_the_call_stand_above_those_of_the_study(self, ready, tmp_path):
        settings = ExportConfig(paths=PathsConfig(by_domain={"web": ["/w1"]}), sequence_length=256)
        found = ready.export(out=tmp_path / "here", settings=settings)
        assert found.folder == tmp_path / "here"
        assert found.handover.paths["web"] == ("/w1",)
        assert found.handover.paths["code"] == ("/data/code",)
        assert found.handover.sequence_length == 256

    @pytest.mark.parametrize(
        ("arguments", "kind", "message"),
        [
            ({"mixture": "natura"}, StudyError, "no baseline 'natura'; there are"),
            ({"mixture": "unifrm"}, StudyError, "did you mean 'uniform'"),
            ({"to": "megatorn"}, ExportError, "did you mean 'megatron'"),
            (
                {"settings": ExportConfig(mean_document_tokens={"wbe": 3.0})},
                MixtureError,
                "mean_document_tokens names 'wbe'.*did you mean 'web'",
            ),
        ],
    )
    def test_names_that_are_not_known(self, ready, arguments, kind, message):
        with pytest.raises(kind, match=message):
            ready.export(**arguments)

    def test_no_trainer_named(self, study_of):
        with pytest.raises(StudyError, match="does not say which trainer"):
            study_of(OBJECTIVE).export()


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A table with rows of schedules."""
    folder = tmp_path_factory.mktemp("staged")
    return Study(write_study(folder, [*static_rows(), *staged_rows()], STAGED_STUDY))


class TestSchedules:
    def test_the_stages_for_a_trainer_that_has_them(self, staged):
        decision = staged.schedule()
        found = exporting.export(staged, exporting.scheduled(staged, staged=True), "json")
        wanted = decision.staged.schedule
        assert not wanted.is_static
        read = Json().read(found.folder / "mixture.json", NAMES)
        assert read.shares.tolist() == pytest.approx(wanted.shares.tolist())
        assert found.choice.inputs == digest(decision.to_dict())

    def test_one_stage_for_a_trainer_without(self, staged):
        choice = exporting.scheduled(staged, staged=True)
        second = choice.schedule.stages[1]
        settings = ExportConfig(paths=PathsConfig(pattern="/d/{domain}"), sequence_length=64)
        found = exporting.export(
            staged, choice.only(2), "megatron", train_tokens=6_400_000, settings=settings
        )
        assert found.handover.train_tokens == round(second.share * 6_400_000)
        assert found.handover.schedule.dose.array(NAMES) == pytest.approx(
            second.mixture.array(NAMES)
        )
        assert found.choice.source == f"schedule, staged, stage 2 of {len(choice.schedule.stages)}"
        assert found.folder.name == "megatron-stage-2"
        for number in (0, 9):
            with pytest.raises(StudyError, match=f"no stage {number}"):
                choice.only(number)

    def test_what_is_recommended_may_be_static_and_says_so(self, staged):
        choice = exporting.scheduled(staged)
        decision = staged.schedule()
        assert choice.schedule == decision.recommended
        assert bool(choice.notes) is not decision.worthwhile

    def test_a_trainer_without(self, staged):
        settings = ExportConfig(paths=PathsConfig(pattern="/d/{domain}"))
        choice = exporting.scheduled(staged, staged=True)
        with pytest.raises(ExportError, match="keeps one mixture throughout"):
            exporting.export(staged, choice, "megatron", settings=settings)


class TestNames:
    def test_names_of_domains_that_are_paths_stay_in_the_config(self, tmp_path):
        names = ("../../up", "/root", "a=b", "new, line")
        shares = [[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]
        rows = [
            {f"weight/{n}": s for n, s in zip(names, row, strict=True)} | {"loss/web": 2.0 + i}
            for i, row in enumerate(shares)
        ]
        folder = write_study(
            tmp_path / "study", rows, "table: runs.csv\nobjective: {loss/web: 1}\n"
        )
        settings = ExportConfig(
            paths=PathsConfig(pattern="/d/{domain}"), sequence_length=16, batch_sequences=2
        )
        study, arguments = Study(folder), {"mixture": "uniform", "train_tokens": 64_000}
        for trainer in EXPORTERS:
            try:
                found = study.export(trainer, settings=settings, **arguments)
            except ExportError:  # such names cannot be said to this one
                assert not (folder / "export" / trainer).exists()
                continue
            assert {p.parent for p in found.folder.rglob("*")} == {found.folder}
        assert {p.name for p in tmp_path.iterdir()} == {"study"}


class TestBaselines:
    def test_from_a_trainers_config_beside_the_study(self, study_of):
        study = study_of(OBJECTIVE + "baselines: {ours: {file: blend.txt, format: megatron}}\n")
        blend = study.folder / "blend.txt"
        blend.write_text("0.5 /d/web_text 0.3 /d/code_text 0.2 /d/books_text\n")
        assert dict(study.baselines()["ours"]) == pytest.approx(
            {"web": 0.5, "code": 0.3, "books": 0.2}
        )
        decision = study.optimize()
        assert dict(decision.baselines["ours"].forecast.mixture)["web"] == pytest.approx(0.5)
        assert study.status()["steps"]["optimize"] == "decision.json"
        blend.write_text("1 /d/web_text 1 /d/code_text 2 /d/books_text\n")
        assert study.status()["steps"]["optimize"] is None
        assert study.optimize().baselines["ours"].forecast.mixture["books"] == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            ("{file: blend.txt, format: megatorn}", "did you mean 'megatron'"),
            ("{file: blend.txt}", "a baseline is shares .* or a trainer's config"),
            ("{file: blend.txt, fromat: json}", "did you mean 'format'"),
            ("{web: .5, code: .6}", "the proportions sum to 1.1"),
            ("{web: .5, code: high}", "baselines.ours.shares.code"),
        ],
    )
    def test_what_may_not_be_said(self, study_of, section, message):
        with pytest.raises(StudyError, match=message) as refused:
            study_of(OBJECTIVE + f"baselines: {{ours: {section}}}\n")
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "blend.txt"),
            ("0.5 /d/sea 0.5 /d/sky\n", "names none of the domains"),
            ('{"train": null}', "holds no blend"),
        ],
    )
    def test_what_cannot_be_read(self, study_of, text, message):
        study = study_of(OBJECTIVE + "baselines: {ours: {file: blend.txt, format: megatron}}\n")
        if text is not None:
            (study.folder / "blend.txt").write_text(text)
        with pytest.raises(StudyError, match=f"baseline 'ours': .*{message}") as refused:
            study.baselines()
        assert "\n" not in str(refused.value)

    def test_a_schedule_is_no_baseline(self, study_of):
        study = study_of(OBJECTIVE + "baselines: {ours: {file: mix.json, format: json}}\n")
        late = Schedule.of([(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"code": 1.0}))])
        files = Json().export(Handover(late)).files
        (study.folder / "mix.json").write_text(next(iter(files.values())))
        with pytest.raises(StudyError, match=r"changes its mixture during training.*'web': 0.5"):
            study.baselines()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{to: megatorn}", "export.to: .*did you mean 'megatron'"),
        ("{paths: /data}", "one path for all domains; write {domain}"),
        ("{path: '/data/{domain}'}", "did you mean 'paths'"),
        ("{sequence_length: 0}", "export.sequence_length"),
        ("{mean_document_tokens: {web: -1}}", "export.mean_document_tokens.web"),
        ("{paths: {web: [1]}}", "export.paths"),
    ],
)
def test_wrong_sections_are_refused_in_one_line(study_of, section, message):
    with pytest.raises(StudyError, match=message) as refused:
        study_of(OBJECTIVE + f"export: {section}\n")
    assert "\n" not in str(refused.value)


def test_paths_of_every_form():
    section = {"paths": {"web": "/w", "code": ["/c1", "/c2"]}}
    paths = ExportConfig.model_validate(section).paths
    assert (paths.of("web"), paths.of("code"), paths.of("sea")) == (("/w",), ("/c1", "/c2"), ())
    pattern = ExportConfig.model_validate({"paths": "/d/{domain}/x"}).paths
    assert pattern.of("we b") == ("/d/we b/x",)
    both = pattern.with_(paths)
    assert (both.of("web"), both.of("sea")) == (("/w",), ("/d/sea/x",))
