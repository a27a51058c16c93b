"""Run tables: what is read is checked, what is written reads back the same."""

import errno
import json
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixlaw.errors import FitError, MixtureError, RunTableError, StorageError
from mixlaw.laws import diagnose, fit_laws
from mixlaw.mixture import Mixture
from mixlaw.runs import UNITS, RunSpec, RunTable, Start, higher_is_better
from mixlaw.schedule import Schedule

ROW = {"weight/web": 0.75, "weight/code": 0.25, "loss/web": 3.5, "bpb/code": 1.25}
ROW |= {"run": "r0", "num_params": 1000, "train_tokens": 5000, "seed": 3}
PER_ROW = ("weights", "num_params", "train_tokens", "values", "run", "label", "role", "status")


def spec(**changes):
    """Web three quarters, code one; as the dose of `STAGED`."""
    mixture = Mixture({"web": 0.75, "code": 0.25})
    given = {"label": "m00", "role": "swarm", "size": "xs", "num_params": 1000}
    given |= {"horizon_tokens": (100, 200), "seed": 0, "context": "c"}
    return RunSpec(**{"mixture": mixture, **given, **changes})


def table():
    other = {"run": "r1", "label": "x", "weight/web": 1 / 3, "weight/code": 2 / 3}
    failed = {"run": "r2", "status": "failed", "loss/web": None, "bpb/code": None}
    return RunTable.from_rows([ROW, {**ROW, **other, "num_params": ""}, {**ROW, **failed}])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_write_and_read_give_the_same_table(tmp_path, suffix):
    before, path = table(), tmp_path / f"runs.{suffix}"
    before.write(path)
    after = RunTable.read(path)
    assert (after.domains, after.targets) == (before.domains, before.targets)
    for name in (*PER_ROW, "seed"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert list(tmp_path.iterdir()) == [path]


def test_columns_are_understood():
    runs = table()
    assert runs.domains == ("web", "code")
    assert runs.targets == ("loss/web", "bpb/code")
    assert np.isnan(runs.num_params[1])
    assert list(runs.label) == ["r0", "x", "r2"]
    assert len(runs.done()) == 2
    np.testing.assert_array_equal(runs.column("bpb/code"), [1.25, 1.25, np.nan])
    assert runs.mixture(0) == Mixture({"web": 0.75, "code": 0.25})
    assert list(runs.mixture_ids() == runs.mixture_ids()[0]) == [True, False, True]
    with pytest.raises(RunTableError, match="no target 'loss/books'"):
        runs.column("loss/books")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss/web": "nan"}, "row 2: loss/web is nan"),
        ({"loss/web": "NaN-ish"}, "row 2: loss/web is 'NaN-ish'; it must be a number"),
        ({"loss/web": -1.0}, r"row 2: loss/web is -1\.0; it must be finite and > 0"),
        ({"weight/web": 0.5}, r"row 2: the proportions sum to 0\.750000"),
        ({"weight/web": -0.75}, "row 2: the proportion of 'web'"),
        ({"weight/web": "nan"}, "row 2: the proportion of 'web' is nan"),
        ({"num_params": 0}, "row 2: num_params is 0"),
        ({"status": "maybe"}, r"status \['maybe'\] is unknown"),
    ],
)
def test_a_bad_cell_is_named_with_its_row(changes, message):
    with pytest.raises(RunTableError, match=message):
        RunTable.from_rows([ROW, {**ROW, **changes}])


def test_proportions_that_a_source_rounded_need_a_tolerance():
    row = {**ROW, "weight/web": 0.751}
    with pytest.raises(RunTableError, match="raise sum_tolerance"):
        RunTable.from_rows([row])
    runs = RunTable.from_rows([row], sum_tolerance=0.01)
    assert runs.weights.sum() == pytest.approx(1, abs=1e-15)


def test_missing_rows_and_columns():
    with pytest.raises(RunTableError, match="no rows"):
        RunTable.from_rows([])
    with pytest.raises(RunTableError, match="needs columns weight/<domain>"):
        RunTable.from_rows([{"loss/web": 3.0}])
    with pytest.raises(RunTableError, match="loss/<target>"):
        RunTable.from_rows([{"weight/web": 1.0, "accuracy": 3.0}])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "weight/web,loss/web\n1.0,2.0,3.0\n", "more cells than the header"),
        ("a.csv", "weight/web,loss/web\n0.5,2.0\n", r"a\.csv: row 1: the proportions sum to 0\.5"),
        ("a.jsonl", '{"weight/web": 1.0, "loss', "could not read the run table"),
        ("a.parquet", "not parquet", "could not read the run table"),
        ("a.xlsx", "", "unknown kind '.xlsx'"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(RunTableError, match=message):
        RunTable.read(path)


def test_an_absent_file_and_an_unknown_kind_to_write(tmp_path):
    with pytest.raises(RunTableError, match="could not read"):
        RunTable.read(tmp_path / "absent.csv")
    with pytest.raises(RunTableError, match=r"unknown kind '\.xlsx'"):
        table().write(tmp_path / "a.xlsx")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_full_disk_leaves_the_old_table(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"runs.{suffix}"
    table().write(path)
    old = path.read_bytes()

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="No space left"):
            table().select(np.array([0])).write(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_run_id_is_what_decides_the_result():
    assert spec().run_id == spec(label="other", role="verify").run_id
    assert spec().run_id == spec(mixture=Mixture({"code": 0.25, "web": 0.75})).run_id
    changed = [{"seed": 1}, {"size": "s"}, {"horizon_tokens": (100,)}, {"context": "d"}]
    changed.append({"mixture": Mixture({"web": 0.5, "code": 0.5})})
    assert len({spec(**change).run_id for change in [{}, *changed]}) == 6
    assert RunSpec.from_dict(spec().to_dict()) == spec()


def test_missing_runs_are_rows_without_values(tmp_path):
    absent = {"run": "r3", "status": "missing", "loss/web": "", "bpb/code": ""}
    failed = {"run": "r2", "status": "failed", "loss/web": None, "bpb/code": None}
    RunTable.from_rows([ROW, {**ROW, **absent}, {**ROW, **failed}]).write(tmp_path / "runs.csv")
    runs = RunTable.read(tmp_path / "runs.csv")
    assert list(runs.status) == ["done", "missing", "failed"]
    assert list(runs.done().run) == ["r0"]
    assert list(runs.trained().run) == ["r0", "r2"]
    assert np.isnan(runs.values[1]).all()
    np.testing.assert_array_equal(runs.weights[1], runs.weights[0])
    with pytest.raises(RunTableError, match="none of the 2 rows is of a run with a result; train"):
        RunTable.from_rows([{**ROW, **absent}, {**ROW, **absent}])


def test_missing_runs_change_no_fit():
    rng = np.random.default_rng(0)
    share = rng.uniform(0.1, 0.9, 24)
    rows = [
        ROW
        | {"run": f"r{i}", "label": f"m{i}", "weight/web": s, "weight/code": 1 - s}
        | {"loss/web": 2 + np.exp(-2 * s), "bpb/code": 1 + np.exp(-1 + s)}
        for i, s in enumerate(share.tolist())
    ]
    absent = [row | {"status": "missing", "loss/web": None, "bpb/code": None} for row in rows[:4]]
    given = {"targets": ["loss/web"], "candidates": ["m4"], "seed": 0}
    without = fit_laws(RunTable.from_rows(rows[4:]), **given)
    fitted = fit_laws(RunTable.from_rows(absent + rows[4:]), **given)
    assert fitted.warnings == without.warnings
    assert diagnose(fitted) == diagnose(without)
    assert fitted.to_dict() == without.to_dict()
    with pytest.raises(FitError, match="all 5 rows are for verification or of runs without a res"):
        fit_laws(RunTable.from_rows([*absent, rows[4] | {"role": "verify"}]), **given)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_bytes("\ufeffnum_params,weight/a,loss/a\n100,1,2\n".encode())
    assert RunTable.read(path).num_params.tolist() == [100]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "weight/a,loss/a,loss/a\n1,2,3\n", r"\['loss/a'\] are given twice"),
        ("t.csv", "seed,weight/a,loss/a\nnan,1,2\n", "seed is nan"),
        ("t.csv", "seed,weight/a,loss/a\n1.5,1,2\n", "seed is 1.5"),
        (
            "t.csv",
            "weight/a,loss/a,loss/b\n1,2,3\n1,2\n",
            "row 2 has fewer cells.*3; is the file cut",
        ),
        ("t.csv", "weight/a,loss/a\n1,2,3\n", "row 1 has more cells"),
        ("t.csv", "", "no rows"),
        ("t.csv", "weight/a,loss/a\n", "no rows"),
        ("t.jsonl", "[1, 2]\n", r"row 1 is \[1, 2\]"),
    ],
)
def test_tables_that_cannot_be_trusted(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(RunTableError, match=message):
        RunTable.read(tmp_path / name)


def test_an_empty_table_is_not_written(tmp_path):
    table = RunTable.from_rows([{"weight/a": 1, "loss/a": 2}])
    with pytest.raises(RunTableError, match="no row to write"):
        table.select(np.zeros(1, bool)).write(tmp_path / "t.csv")


SCORES = {"score/arc": 0.0, "error/arc": 0.5}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_scores_may_be_zero_and_come_back(tmp_path, suffix):
    path = tmp_path / f"runs.{suffix}"
    rows = [{**ROW, **SCORES}, {**ROW, "score/arc": 41.25}, {**ROW, "score/arc": None}]
    RunTable.from_rows(rows).write(path)
    runs = RunTable.read(path)
    assert runs.targets == ("loss/web", "bpb/code", "score/arc", "error/arc")
    np.testing.assert_array_equal(runs.column("score/arc"), [0.0, 41.25, np.nan])
    np.testing.assert_array_equal(runs.column("error/arc"), [0.5, np.nan, np.nan])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score/arc": "nan"}, "row 2: score/arc is nan; it must be finite and >= 0"),
        ({"score/arc": "inf"}, "row 2: score/arc is inf; it must be finite and >= 0"),
        ({"score/arc": -0.1}, r"row 2: score/arc is -0\.1; it must be finite and >= 0"),
        ({"error/arc": 0}, r"row 2: error/arc is 0\.0; it must be finite and > 0"),
    ],
)
def test_scores_that_are_none(changes, message):
    with pytest.raises(RunTableError, match=message):
        RunTable.from_rows([{**ROW, **SCORES}, {**ROW, **SCORES, **changes}])


def test_only_scores_are_better_when_higher():
    assert [metric for metric in UNITS if higher_is_better(f"{metric}/arc")] == ["score"]


# Schedules, and runs that continue a model

STAGED = Schedule.of([(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"web": 0.5, "code": 0.5}))])


def test_a_schedule_decides_the_run_and_equal_stages_do_not():
    static = spec()
    assert spec(schedule=Schedule.static(static.mixture)).run_id == static.run_id
    equal = Schedule.of([(0.3, static.mixture), (0.7, static.mixture)])
    assert spec(schedule=equal) == static
    staged = spec(schedule=STAGED)
    assert staged.run_id != static.run_id
    assert RunSpec.from_dict(json.loads(json.dumps(staged.to_dict()))) == staged
    assert "schedule" not in static.to_dict()
    with pytest.raises(MixtureError, match="must be the dose of its schedule"):
        spec(schedule=STAGED, mixture=Mixture({"web": 1.0}))


CHANGES = [{"digest": "other"}, {"optimizer": False}, {"rewarm": 1.0}]


def test_the_place_of_a_start_and_what_is_kept_decide_nothing():
    start = Start("here/model.safetensors", "abc", optimizer=True, rewarm=0.5)
    run = spec(start=start)
    assert run.run_id == spec(start=replace(start, checkpoint="there")).run_id
    assert run.run_id == spec(start=start, keep=True).run_id
    ids = {spec(start=replace(start, **change)).run_id for change in CHANGES}
    assert len(ids | {run.run_id, spec().run_id}) == len(CHANGES) + 2
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewarm": 0.0}, r"rewarm is 0\.0; it must be a number, finite and > 0"),
        ({"rewarm": np.inf}, "rewarm is inf"),
        ({"rewarm": "1"}, "rewarm is '1'; it must be a number"),
        ({"rewarm": True}, "rewarm is True; it must be a number"),
        ({"optimizer": "no"}, "optimizer of a start is 'no'; it must be True or False"),
        ({"digest": ""}, "the digest of a start is ''; it must be text"),
        ({"checkpoint": None}, "the checkpoint of a start is None; it must be text"),
    ],
)
def test_a_wrong_start_is_refused(change, message):
    with pytest.raises(MixtureError, match=message):
        replace(Start("here", "abc"), **change)


def test_a_start_is_one_run_whatever_number_says_it():
    numbers: list[Any] = [1, 1.0, np.float32(1)]
    ids = {spec(start=Start("here", "abc", rewarm=r)).run_id for r in numbers}
    assert len(ids) == 1


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_schedules_and_starts_read_back(tmp_path, suffix):
    staged = {k: v for k, v in ROW.items() if not k.startswith("weight/")}
    staged |= {"schedule": json.dumps(STAGED.to_list()), "run": "r9"}
    continued = {**ROW, "run": "r10", "rewarm": 0.5, "start/loss/web": 3.5}
    runs = RunTable.from_rows([ROW, staged, continued])
    runs.write(tmp_path / f"runs.{suffix}")
    again = RunTable.read(tmp_path / f"runs.{suffix}")
    for found in (runs, again):
        assert list(found.schedule) == [None, STAGED, None]
        np.testing.assert_allclose(found.weights[1], [0.75, 0.25])
        np.testing.assert_array_equal(found.start[:, 0], [np.nan, np.nan, 3.5])
        np.testing.assert_array_equal(found.rewarm, [np.nan, np.nan, 0.5])
        assert list(found.static().run) == ["r0", "r10"]
        assert list(found.staged().run) == ["r9"]
        assert list(found.continued().run) == ["r10"]
    assert not {"schedule", "rewarm", "start/loss/web"} & set(table().rows()[0])


def test_a_schedule_of_one_stage_gives_the_weights_of_a_static_row():
    bare = {k: v for k, v in ROW.items() if not k.startswith("weight/")}
    one = {**bare, "schedule": [[1.0, {"web": 0.75, "code": 0.25}]]}
    runs = RunTable.from_rows([one, {**ROW, "schedule": STAGED.to_list()}])
    assert list(runs.schedule) == [None, STAGED]
    np.testing.assert_array_equal(runs.weights, [[0.75, 0.25]] * 2)
    assert RunTable.from_rows([one]).domains == ("web", "code")


def test_a_rounded_table_may_round_its_schedules_too():
    stages = [[0.333, {"web": 0.333, "code": 0.666}], [0.666, {"web": 0.777, "code": 0.223}]]
    row = {**ROW, "schedule": stages, "weight/web": 0.63, "weight/code": 0.372}
    with pytest.raises(RunTableError, match=r"row 1: schedule: the proportions sum to 0\.999"):
        RunTable.from_rows([row])
    runs = RunTable.from_rows([row], sum_tolerance=0.01)
    (found,) = runs.schedule
    np.testing.assert_allclose(found.shares, [1 / 3, 2 / 3], rtol=1e-12)
    np.testing.assert_allclose(found.array(["web", "code"]).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(runs.weights, [found.dose.array(["web", "code"])], rtol=1e-12)
    with pytest.raises(RunTableError, match=r"weight/web is 0\.65, its schedule gives 0\.629"):
        RunTable.from_rows([{**row, "weight/web": 0.65}], sum_tolerance=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "[[0.5"}, r"row 1: schedule is '\[\[0.5', which is no JSON .*; it must be"),
        ({"schedule": "5"}, "row 1: schedule: 5 is no schedule; it must be"),
        ({"schedule": '[[0.5, {"web": 1}]]'}, r"row 1: schedule: the shares .* are \[0.5\]"),
        ({"schedule": [[1, {"web": 1}]]}, "weight/web is 0.75, its schedule gives 1 over"),
        ({"schedule": STAGED.to_list(), "weight/web": "nan"}, "weight/web is nan, its schedule"),
        ({"schedule": STAGED.to_list(), "weight/sea": 0.01}, "weight/sea is 0.01, .* gives 0 "),
        ({"schedule": STAGED.to_list(), "weight/web": 0.6}, "weight/web is 0.6, its schedule"),
        ({"start/loss/sea": 2.0}, r"start/ columns of \['loss/sea'\]"),
        ({"start/loss/web": -2.0}, "row 1: start/loss/web is -2.0"),
        ({"rewarm": 0}, "row 1: rewarm is 0.0"),
    ],
)
def test_wrong_schedules_and_starts_name_their_row(changes, message):
    with pytest.raises(RunTableError, match=message):
        RunTable.from_rows([{**ROW, **changes}])
