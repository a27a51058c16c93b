"""Finished runs in the table of a study: new, replaced, completed, refused; several at a time."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from mixlaw.errors import RunTableError, StorageError, StudyError
from mixlaw.files import read_json
from mixlaw.mixture import Mixture
from mixlaw.runs import FAILED, RunTable
from mixlaw.study import Study
from mixlaw.study.locking import locked
from tests.study.sheets import NAMES, OBJECTIVE, table, write_csv


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.yaml").write_text("table: runs.csv\n" + OBJECTIVE)
    table().write(folder / "runs.csv")
    return Study(folder)


class TestTake:
    def test_rows_of_the_same_runs_are_replaced_and_others_kept(self, study):
        before = study.runs()
        given = [*table(2, first=8).rows(), *table(2, first=10).rows()]
        given[0]["loss/web"] = 1.0
        found = study.take(RunTable.from_rows(given))
        assert found.added == ("r10", "r11")
        assert found.changed == ("r8",)
        assert found.same == ("r9",)
        assert found.kept == tuple(f"r{i}" for i in range(8))
        runs = Study(study.folder).runs()
        assert runs.run.tolist() == [f"r{i}" for i in range(12)]
        assert runs.column("loss/web")[8] == 1.0
        np.testing.assert_allclose(runs.values[:8], before.values[:8])
        assert found.notes == ()

    def test_twice_is_once(self, study):
        study.take(table(3, first=9))
        first = (study.folder / "runs.csv").read_bytes()
        again = study.take(table(3, first=9))
        assert again.same == ("r9", "r10", "r11")
        assert (study.folder / "runs.csv").read_bytes() == first

    def test_all_checkpoints_of_a_run_are_replaced_together(self, study):
        rows = [row | {"train_tokens": n} for n in (100, 200) for row in table(1).rows()]
        study.take(RunTable.from_rows(rows))
        assert study.runs().run.tolist()[:3] == ["r0", "r0", "r1"]
        study.take(RunTable.from_rows(rows[1:]))
        assert study.runs().train_tokens[0] == 200
        assert len(study.runs()) == 10

    def test_columns_that_only_some_have(self, study):
        rows = [row | {"score/quiz": 0.5} for row in table(1, first=10).rows()]
        study.take(RunTable.from_rows(rows))
        assert np.isnan(study.runs().column("score/quiz")).sum() == 10

    def test_the_order_of_domains_stays(self, study):
        study.take(table(10, names=("code", "books", "web")))
        assert study.runs().domains == NAMES

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (("Web", "code", "books"), r"the runs name \['Web'\].*--rename Web=web"),
            (("web", "code", "a b"), r"--rename 'a b=books'"),
            (("web", "code", "books", "sea"), r"\['sea'\]"),
        ],
    )
    def test_other_domains_are_refused_and_nothing_is_written(self, study, names, message):
        before = (study.folder / "runs.csv").read_bytes()
        with pytest.raises(StudyError, match=message):
            study.take(table(2, names=names))
        assert (study.folder / "runs.csv").read_bytes() == before

    def test_a_domain_that_no_given_run_names(self, study):
        found = study.take(
            RunTable.from_rows([{"run": "new", "weight/web": 1, "loss/web": 2, "loss/code": 2}])
        )
        assert any("['code', 'books']" in note for note in found.notes)
        assert study.runs().weights[-1].tolist() == [1, 0, 0]

    def test_a_run_without_a_loss_that_the_study_names(self, study):
        rows = table(3, first=10).rows()
        rows[1]["loss/code"] = None
        found = study.take(RunTable.from_rows(rows))
        assert found.added == ("r10", "r12")
        assert any("['r11'] without ['loss/code']" in note for note in found.notes)
        failed = rows[1] | {"status": FAILED, "loss/web": None}
        assert study.take(RunTable.from_rows([failed])).added == ("r11",)
        with pytest.raises(StudyError, match=r"every run lacks a value of \['loss/code'\]"):
            study.take(RunTable.from_rows([rows[1], rows[1] | {"train_tokens": 3}]))

    def test_no_run_measured_what_the_study_names(self, study):
        rows = [{"run": "x", "weight/web": 1, "loss/wbe": 2, "loss/code": 2}]
        with pytest.raises(StudyError, match=r"did you mean loss/wbe.*--rename loss/wbe=loss/web"):
            study.take(RunTable.from_rows(rows))

    def test_other_mixtures_under_the_same_ids_are_noted(self, study):
        rows = table(2, first=20).rows()
        rows = [row | {"run": f"r{i}"} for i, row in enumerate(rows)]
        (note,) = study.take(RunTable.from_rows(rows)).notes
        assert "2 runs had other mixtures before (r0, r1)" in note

    def test_what_was_asked_for_has_arrived_though_the_trainer_rounded(self, tmp_path):
        (tmp_path / "study.yaml").write_text(
            "table: runs.csv\ndomains: {web: {}, code: {}, books: {}}\n" + OBJECTIVE
        )
        study = Study(tmp_path)
        one, other = (proposal.mixture for proposal in study.ask(2).proposals)
        rounded = one.rounded(2048)
        row = {f"weight/{n}": share for n, share in rounded.items()}
        found = study.take(RunTable.from_rows([{"run": "a", **row, "loss/web": 2, "loss/code": 2}]))
        assert found.answered == 1
        (left,) = read_json(tmp_path / "asked.json")
        assert Mixture(left["mixture"]) == other


def scored(count: int = 10, **cells) -> RunTable:
    """Scores of the same runs, by another tool, which tells less of them."""
    rows = []
    for row in table(count).rows():
        shares = {key: cell for key, cell in row.items() if key.startswith("weight/")}
        rows.append({"run": row["run"], **shares, "score/quiz": 0.5, **cells})
    return RunTable.from_rows(rows)


class TestCompleted:
    """What another tool measured of the same runs comes beside what there is."""

    def test_scores_beside_losses_and_losses_beside_scores(self, study):
        given = table(seed=3, num_params=1e6, train_tokens=1e7)
        study.take(given)
        found = study.take(scored())
        assert found.completed == tuple(f"r{i}" for i in range(10))
        assert found.changed == found.added == ()
        (note,) = found.notes
        assert (
            "10 runs (r0, r1, r2 and 7 more) keep what is not given now: loss/code, loss/web"
            in note
        )
        runs = study.runs()
        assert runs.column("score/quiz").tolist() == [0.5] * 10
        np.testing.assert_allclose(runs.column("loss/web"), given.column("loss/web"))
        assert (set(runs.num_params), set(runs.train_tokens), set(runs.seed)) == ({1e6}, {1e7}, {3})
        # And the losses again, of which one is another now.
        rows = given.rows()
        rows[4]["loss/web"] = 1.5
        again = study.take(RunTable.from_rows(rows))
        assert (again.completed, len(again.same)) == (("r4",), 9)
        assert study.runs().column("loss/web")[4] == 1.5
        assert study.runs().column("score/quiz").tolist() == [0.5] * 10

    def test_an_end_that_is_not_counted_is_that_of_the_last_checkpoint(self, study):
        rows = [row | {"train_tokens": n} for row in table(1).rows() for n in (100, 200)]
        study.take(RunTable.from_rows(rows))
        study.take(scored(1))
        runs = study.runs().select(np.arange(2))
        assert runs.train_tokens.tolist() == [100, 200]
        np.testing.assert_equal(runs.column("score/quiz"), [np.nan, 0.5])
        assert np.isfinite(runs.column("loss/web")).all()

    def test_counts_of_whole_steps_are_the_same_end(self, study):
        study.take(table(1, train_tokens=20_000_000))
        study.take(scored(1, train_tokens=19_988_480))
        runs = study.runs()
        assert (len(runs), runs.train_tokens[0]) == (10, 19_988_480)

    def test_scores_of_another_checkpoint_need_the_losses_there(self, study):
        study.take(table(1, train_tokens=100))
        found = study.take(scored(10, train_tokens=200))
        assert any("left out" in note and "'r0'" in note for note in found.notes)
        assert "score/quiz" in study.runs().targets  # of the others, whose ends are not known
        assert study.runs().train_tokens[0] == 100

    def test_another_mixture_is_another_run(self, study):
        rows = scored().rows()
        rows[0] |= {"weight/web": 1.0, "weight/code": 0.0, "weight/books": 0.0}
        found = study.take(RunTable.from_rows(rows))
        assert any("left out" in note and "['r0']" in note for note in found.notes)
        assert np.isnan(study.runs().column("score/quiz")[0])

    def test_checkpoints_that_are_not_given_again_are_said_to_go(self, study):
        rows = [row | {"train_tokens": n} for row in table(2).rows() for n in (100, 200, 300)]
        study.take(RunTable.from_rows(rows))
        notes = study.take(RunTable.from_rows(rows[2::3])).notes
        assert notes == ("4 rows of checkpoints are replaced by none: these are not given now",)


class TestTheFile:
    OWN = ("url", "lr", "my comment")

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_columns_of_the_users_own_are_kept_in_a_copy(self, tmp_path, kind):
        rows = [row | dict.fromkeys(self.OWN, "x") for row in table().rows()]
        path = tmp_path / f"runs.{kind}"
        if kind == "csv":
            write_csv(path, rows)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pyarrow = pytest.importorskip("pyarrow")
            parquet = pytest.importorskip("pyarrow.parquet")
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        (tmp_path / "study.yaml").write_text(f"table: runs.{kind}\n" + OBJECTIVE)
        before = path.read_bytes()
        study = Study(tmp_path)
        (note,) = study.take(table(1, first=10)).notes
        assert f"(url, lr, my comment): the file as it was is runs.original.{kind}" in note
        copy = tmp_path / f"runs.original.{kind}"
        assert copy.read_bytes() == before
        assert len(study.runs()) == 11
        # Once; and a second sheet of one's own does not write over the first.
        assert study.take(table(1, first=11)).notes == ()
        assert not (tmp_path / f"runs.original-2.{kind}").exists()
        if kind == "csv":
            write_csv(path, [row | {"url": "y"} for row in table().rows()])
            study.tell(Mixture({"web": 1.0}), {"loss/web": 2, "loss/code": 3})
            assert copy.read_bytes() == before
            assert "y" in (tmp_path / "runs.original-2.csv").read_text()

    def test_all_columns_of_a_run_table_are_its_own(self, study):
        cells = {
            "role": "x",
            "rewarm": 1.0,
            "start/loss/web": 3.0,
            "available_tokens/web": 10,
            "train_tokens": 5,
        }
        study.take(table(2, first=10, **cells))
        assert study.take(table(2, first=20)).notes == ()
        assert not list(study.folder.glob("*.original*"))

    def test_a_link_stays_one(self, study, tmp_path):
        shared = tmp_path / "shared.csv"
        (study.folder / "runs.csv").rename(shared)
        (study.folder / "runs.csv").symlink_to(shared)
        study.take(table(1, first=10))
        assert (study.folder / "runs.csv").is_symlink()
        assert len(RunTable.read(shared)) == 11

    def test_a_sheet_of_another_form(self, study):
        write_csv(study.folder / "runs.csv", [{"web": 1, "code": 0, "loss/web": 2}])
        with pytest.raises(RunTableError, match=r"let .*study.yaml say table: runs.csv"):
            study.take(table(1))


def take_some(folder: Path, worker: int) -> None:
    for turn in range(4):
        rows = [row | {"run": f"w{worker}-{turn}-{row['run']}"} for row in table(2).rows()]
        Study(folder).take(RunTable.from_rows(rows))


def ask_one(folder: Path, worker: int) -> None:
    Study(folder).ask(2)


class TestAtTheSameTime:
    def at_once(self, work, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=work, args=(folder, i)) for i in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0, 0]

    def test_no_run_is_lost(self, study):
        self.at_once(take_some, study.folder)
        assert len(study.runs()) == 10 + 3 * 4 * 2

    def test_no_run_is_asked_for_twice(self, study):
        with (study.folder / "study.yaml").open("a") as file:
            file.write("plan: {threshold: 0}\n")
        self.at_once(ask_one, study.folder)
        asked = [tuple(item["mixture"].values()) for item in read_json(study.folder / "asked.json")]
        assert len(set(asked)) == len(asked) == 6

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="could not write"), locked(tmp_path / "file"):
            pass
