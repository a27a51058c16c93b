"""Runs of others in a study: merged, refused, repeated; and the study that an import writes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from mixlaw.errors import RunTableError, StudyError
from mixlaw.files import read_json
from mixlaw.interop.columns import Columns
from mixlaw.interop.guess import Hints
from mixlaw.mixture import Mixture
from mixlaw.runs import RunTable
from mixlaw.study import Study
from mixlaw.study.export_config import ExportConfig
from mixlaw.study.import_config import read_columns, read_imports
from mixlaw.study.importing import Request, import_again, import_into
from mixlaw.study.new_study import study_text
from tests.study.sheets import NAMES, OBJECTIVE, table, write_csv


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.yaml").write_text("table: runs.csv\n" + OBJECTIVE)
    table().write(folder / "runs.csv")
    return Study(folder)


def foreign(count: int = 10, *, first: int = 0) -> list[dict]:
    """The same runs under names of somebody else's."""
    rows = []
    for row in table(count, first=first).rows():
        rows.append(
            {
                "name": row["run"],
                **{f"mix_{name}": row[f"weight/{name}"] for name in NAMES},
                "val_loss_web": row["loss/web"],
                "val_loss_code": row["loss/code"],
            }
        )
    return rows


COLUMNS = Columns(
    mixture={name: f"mix_{name}" for name in NAMES},
    targets={"loss/web": "val_loss_web", "loss/code": "val_loss_code"},
    run="name",
)


class TestImport:
    def test_a_new_study_works_at_once(self, tmp_path):
        source = write_csv(tmp_path / "mine.csv", foreign(24))
        done = import_into(tmp_path / "study", Request((source,), columns=COLUMNS))
        assert done.new
        study = Study(tmp_path / "study")
        assert study.config.objective.weights == {"loss/web": 1, "loss/code": 1}
        np.testing.assert_allclose(study.runs().values, table(24).values)
        assert set(study.optimize().recommended) == set(NAMES)

    def test_again_says_what_changed(self, tmp_path):
        source = write_csv(tmp_path / "mine.csv", foreign(5))
        folder = tmp_path / "study"
        import_into(folder, Request((source,), columns=COLUMNS))
        first = (folder / "import.yaml").read_bytes()
        (again,) = import_again(folder)
        assert (again.inputs, again.new, len(again.taken.same)) == ((), False, 5)
        assert (folder / "import.yaml").read_bytes() == first
        rows = foreign(7)
        rows[0]["val_loss_web"] = 2.9
        write_csv(tmp_path / "mine.csv", rows)
        (grown,) = Study(folder).import_again()
        assert grown.taken.added == ("r5", "r6")
        assert grown.taken.changed == ("r0",)
        (change,) = grown.inputs
        assert change.startswith("changed: ")
        assert "mine.csv" in change

    def test_columns_edited_by_hand_are_believed(self, tmp_path):
        source = write_csv(tmp_path / "mine.csv", foreign(5))
        folder = tmp_path / "study"
        import_into(folder, Request((source,), columns=COLUMNS))
        data = yaml.safe_load((folder / "import.yaml").read_text())
        (one,) = data["imports"]
        one["columns"]["targets"] = {"loss/web": "val_loss_code", "loss/code": "val_loss_web"}
        (folder / "import.yaml").write_text(yaml.safe_dump(data))
        assert len(import_again(folder)[0].taken.changed) == 5
        swapped = Study(folder).runs().column("loss/web")
        np.testing.assert_allclose(swapped, table(5).column("loss/code"))
        assert read_columns(folder / "import.yaml").targets == one["columns"]["targets"]

    def test_relative_sources_move_with_the_study(self, tmp_path, monkeypatch):
        (tmp_path / "home").mkdir()
        monkeypatch.chdir(tmp_path / "home")
        write_csv(tmp_path / "home" / "mine.csv", foreign(5))
        import_into("study", Request(("mine.csv",), columns=COLUMNS))
        (kept,) = read_imports(tmp_path / "home" / "study").imports
        assert kept.sources == ["../mine.csv"]
        monkeypatch.chdir("/")
        (tmp_path / "home").rename(tmp_path / "moved")
        (again,) = import_again(tmp_path / "moved" / "study")
        assert (len(again.taken.same), again.inputs) == (5, ())

    def test_so_do_the_files_of_a_folder(self, tmp_path, monkeypatch):
        tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="writes the files")
        monkeypatch.chdir(tmp_path)
        for i, row in enumerate(foreign(3)):
            writer = tensorboard.SummaryWriter(f"home/logs/r{i}")
            writer.add_text("sheet", json.dumps(row))
            for name in COLUMNS.targets.values():
                writer.add_scalar(name, row[name], 10)
            writer.close()
        mixture = {name: f"config.sheet.mix_{name}" for name in NAMES}
        columns = replace(COLUMNS, run=None, mixture=mixture)
        import_into("home/study", Request(("home/logs",), columns=columns))
        (tmp_path / "home").rename(tmp_path / "moved")
        (again,) = import_again(tmp_path / "moved" / "study")
        assert (len(again.taken.same), again.inputs, again.gone) == (3, (), ())

    def test_killed_before_the_table_it_begins_again(self, tmp_path, monkeypatch):
        source = write_csv(tmp_path / "mine.csv", foreign(5))
        folder = tmp_path / "study"
        request = Request((source,), columns=COLUMNS)

        def killed(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as now:
            now.setattr(RunTable, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                import_into(folder, request)
        assert not (folder / "runs.csv").exists()
        assert len(import_into(folder, request).taken.added) == 5

    def test_a_table_whose_study_file_is_gone_is_not_written_over(self, tmp_path):
        source = write_csv(tmp_path / "mine.csv", foreign(5))
        folder = tmp_path / "study"
        import_into(folder, Request((source,), columns=COLUMNS))
        (folder / "study.yaml").unlink()
        before = (folder / "runs.csv").read_bytes()
        more = write_csv(tmp_path / "more.csv", foreign(3, first=5))
        for attempt in (
            lambda: import_into(folder, Request((more,), columns=COLUMNS)),
            lambda: import_again(folder),
        ):
            with pytest.raises(StudyError, match=r"runs.csv is there already, and no study.yaml"):
                attempt()
        assert (folder / "runs.csv").read_bytes() == before

    def test_what_is_refused(self, tmp_path, tiny_study):
        source = write_csv(tmp_path / "mine.csv", foreign(5))
        request = Request((source,), columns=COLUMNS)
        with pytest.raises(StudyError, match=r"has no import.yaml to repeat"):
            import_again(tmp_path / "new")
        with pytest.raises(StudyError, match=r"trains its runs itself: mixlaw train") as refused:
            import_into(tiny_study, request)
        assert "\n" not in str(refused.value)
        (tmp_path / "old").mkdir()
        write_csv(tmp_path / "old" / "runs.csv", foreign(5))
        with pytest.raises(StudyError, match=r"runs.csv is there already, and no study.yaml"):
            import_into(tmp_path / "old", request)
        with pytest.raises(StudyError, match="is a file; name the folder"):
            import_into(tmp_path / "mine.csv", request)
        import_into(tmp_path / "new", request)
        own = Request((str(tmp_path / "new" / "runs.csv"),))
        with pytest.raises(StudyError, match="is the table of the study itself"):
            import_into(tmp_path / "new", own)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("version: 2\nimports: []\n", "version"),
            ("imports: [{kind: table, source: [a], columns: {}}]\n", "did you mean 'sources'"),
            (
                "imports: [{kind: table, sources: [a], columns: {targets: {}, unit: kilo}}]\n",
                "unit is 'kilo'",
            ),
            ("version: 1\nversion: 1\n", "named twice"),
            ("[1, 2]", "not a mapping"),
            ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ],
    )
    def test_a_damaged_import_file(self, tmp_path, text, message):
        (tmp_path / "import.yaml").write_text(text)
        with pytest.raises(StudyError, match=rf"(?s)import.yaml.*{message}.*or delete it"):
            import_again(tmp_path)

    def test_columns_of_no_file(self, tmp_path):
        with pytest.raises(StudyError, match="no columns at"):
            read_columns(tmp_path / "none.yaml")
        (tmp_path / "c.yaml").write_text("targets: {}\ncolour: red\n")
        with pytest.raises(RunTableError, match=r"c.yaml: .*names no columns"):
            read_columns(tmp_path / "c.yaml")

    def test_renamed_on_the_way_in(self, study, tmp_path):
        rows = [{k.replace("mix_web", "mix_Web"): v for k, v in row.items()} for row in foreign(12)]
        source = write_csv(tmp_path / "mine.csv", rows)
        with pytest.raises(StudyError, match="--rename Web=web"):
            study.import_runs(source, hints=Hints(run="name", mixture="mix_*"))
        done = study.import_runs(
            source, hints=Hints(run="name", mixture="mix_*", rename={"Web": "web"})
        )
        assert done.taken.added == ("r10", "r11")
        kept = {name: (study.folder / name).read_bytes() for name in ("runs.csv", "import.yaml")}
        write_csv(tmp_path / "mine.csv", [row | {"mix_sea": 0} for row in rows])
        with pytest.raises(StudyError, match=r"\['sea'\]"):
            study.import_runs(source, hints=Hints(mixture="mix_*", rename={"Web": "web"}))
        assert kept == {name: (study.folder / name).read_bytes() for name in kept}
        assert study.import_again()[0].taken.added == ()


def losses(mixture: Mixture) -> dict[str, float]:
    found = {name: mixture.get(name, 0.0) for name in NAMES}
    return {"loss/web": 3 - 0.8 * found["web"] ** 0.5, "loss/code": 2.5 - found["code"] ** 0.5}


class TestResultsOfPlannedRuns:
    def test_joined_by_name_with_the_mixture_that_was_drawn(self, tmp_path):
        folder = tmp_path / "study"
        folder.mkdir()
        (folder / "study.yaml").write_text(
            "table: runs.csv\ndomains: {web: {}, code: {}, books: {}}\n"
            + OBJECTIVE
            + "plan: {scales: [{num_params: 1e6, train_tokens: 2_048_000}]}\n"
        )
        study = Study(folder)
        settings = ExportConfig(sequence_length=1024)
        planned = study.export_design(tmp_path / "cfg", "json", count=4, settings=settings).runs
        rows = [{"name": f"exp/{run.name}", **losses(run.schedule.dose)} for run in planned[:3]]
        source = write_csv(tmp_path / "results.csv", rows)
        done = study.import_runs(source, design=tmp_path / "cfg")
        assert done.taken.answered == 3
        runs = study.runs()
        assert sorted(runs.run.tolist()) == sorted(run.name for run in planned[:3])
        drawn = {run.name: run.schedule.dose.array(runs.domains) for run in planned}
        for name, weights in zip(runs.run, runs.weights, strict=True):
            np.testing.assert_allclose(weights, drawn[name])
        assert runs.num_params.tolist() == [1e6] * 3
        assert len(read_json(folder / "asked.json")) == 1
        # And again, from import.yaml, when the last has come.
        rows.append({"name": f"exp/{planned[3].name}", **losses(planned[3].schedule.dose)})
        write_csv(tmp_path / "results.csv", rows)
        assert study.import_again()[0].taken.answered == 1


class TestTheFirstStudyFile:
    def load(self, tmp_path, runs):
        runs.write(tmp_path / "runs.csv")
        (tmp_path / "study.yaml").write_text(study_text(runs), encoding="utf-8")
        return Study(tmp_path)

    def test_one_metric_bits_before_nats(self, tmp_path):
        rows = [r | {"bpb/web": 1.0, "bpb/code": 1.0, "score/quiz": 0.3} for r in table().rows()]
        study = self.load(tmp_path, RunTable.from_rows(rows))
        assert list(study.config.objective.weights) == ["bpb/web", "bpb/code"]
        assert "score/quiz" in (tmp_path / "study.yaml").read_text()

    def test_only_what_every_run_measured(self, tmp_path):
        rows = table().rows()
        rows[3]["loss/code"] = None
        study = self.load(tmp_path, RunTable.from_rows(rows))
        assert list(study.config.objective.weights) == ["loss/web"]

    def test_the_largest_scale_where_scales_vary(self, tmp_path):
        rows = [
            r | {"num_params": n, "train_tokens": 1e6}
            for n, r in zip((1e5, 1e6) * 5, table().rows(), strict=True)
        ]
        study = self.load(tmp_path, RunTable.from_rows(rows))
        assert (study.scale.num_params, study.scale.train_tokens) == (1_000_000, None)

    def test_names_may_hold_anything_that_is_seen(self, tmp_path):
        names = ("a: b", "x}, objective: {", "- #c", "'q\"", "yes", "1.5", "ünï")
        rows = [{f"weight/{n}": 1 / 7 for n in names} | {f"loss/{n}": 2.0 for n in names}]
        rows.append(rows[0] | {"score/bad: 1": 0.5})
        study = self.load(tmp_path, RunTable.from_rows(rows))
        assert tuple(study.config.domains) == names
        assert list(study.config.objective.weights) == [f"loss/{n}" for n in names]

    def test_scores_alone(self, tmp_path):
        rows = [
            {k: v for k, v in r.items() if not k.startswith("loss/")} | {"score/quiz": 0.5}
            for r in table().rows()
        ]
        study = self.load(tmp_path, RunTable.from_rows(rows))
        assert list(study.config.objective.weights) == ["score/quiz"]
        assert "fitting" in (tmp_path / "study.yaml").read_text()
