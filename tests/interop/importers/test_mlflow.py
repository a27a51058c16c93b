"""Files and folders of the real client."""

from __future__ import annotations

import math
import shutil
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers.mlflow import MlFlow
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.sqlite import reading
from mixlaw.runs import DONE, FAILED

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, of sqlalchemy and of its folder


def client(address: str):
    tracking = pytest.importorskip("mlflow.tracking", reason="MLflow is not installed")
    pytest.importorskip("sqlalchemy", reason="MLflow's database is not installed")
    return tracking.MlflowClient(address)


def log(address: str) -> None:
    """Three runs that are to be seen, and one that was deleted."""
    made = client(address)
    experiment = made.create_experiment("swarm")
    for number, status in enumerate(["FINISHED", "FAILED", "RUNNING"]):
        run = made.create_run(experiment, run_name=f"run {number}", tags={"team": "a"}).info.run_id
        made.log_param(run, "mixture", {"web": 0.75, "code": 0.25})
        made.log_param(run, "model.layers", 4)
        made.log_param(run, "note", '{"json": {"deep": 1}}')
        for step in (0, 10, 20):
            made.log_metric(run, "eval/loss/web", 3 - step / 16 + number, step=step)
        made.log_metric(run, "odd", math.nan, step=1)
        made.log_metric(run, "up", math.inf, step=1)
        made.log_metric(run, "down", -math.inf, step=1)
        made.set_terminated(run, status)
    made.delete_run(made.create_run(experiment).info.run_id)
    gone = made.create_experiment("gone")
    made.create_run(gone, run_name="gone")
    made.delete_experiment(gone)


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    log(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        path = tmp_path_factory.mktemp("mlflow") / "mlruns"
        log(path.as_uri())
        return path


def read(source: Path | str, names=None) -> dict[str, LoggedRun]:
    return {run.name: run for run in MlFlow().read([str(source)], names=names)}


@pytest.mark.parametrize("kind", ["database", "folder"])
def test_runs_of_the_client(kind, request):
    source = request.getfixturevalue(kind)
    assert recognise([str(source)]).name == "mlflow"
    runs = read(source, names=["eval/loss/web", "odd", "up", "down", "none"])
    assert sorted(runs) == ["run 0", "run 1", "run 2"]
    assert {name: run.status for name, run in runs.items()} == {
        "run 0": DONE,
        "run 1": FAILED,
        "run 2": DONE,
    }
    assert [run.notes for _, run in sorted(runs.items())] == [[], [], ["its status is RUNNING"]]
    run = runs["run 1"]
    assert run.series["eval/loss/web"].steps.tolist() == [0, 10, 20]
    assert run.series["eval/loss/web"].values.tolist() == [4, 3.375, 2.75]
    fields = {key: value for key, value in run.fields.items() if key != "summary.odd"}
    assert fields == {
        "experiment": "swarm",
        "config.mixture.web": 0.75,
        "config.mixture.code": 0.25,
        "config.model.layers": "4",
        "config.note.json.deep": 1,
        "tags.team": "a",
        "summary.eval/loss/web": 2.75,
        "summary.up": math.inf,
        "summary.down": -math.inf,
    }
    assert math.isnan(run.fields["summary.odd"])
    assert math.isnan(run.series["odd"].values[0])
    assert run.series["up"].values.tolist() == [math.inf]
    assert run.series["down"].values.tolist() == [-math.inf]


@pytest.mark.parametrize("kind", ["database", "folder"])
def test_of_each_metric_the_last_point(kind, request):
    run = read(request.getfixturevalue(kind))["run 0"]
    assert set(run.series) == {"eval/loss/web", "odd", "up", "down"}
    assert run.series["eval/loss/web"].steps.tolist() == [20]


def test_the_file_is_found_by_its_folder_and_its_address(database, tmp_path):
    for source in (database.parent, f"sqlite:///{database}"):
        assert MlFlow().recognises([str(source)])
        assert len(read(source)) == 3
    other = shutil.copy(database, tmp_path / "of the team?.sqlite")
    assert recognise([str(other)]).name == "mlflow"
    assert len(read(other)) == 3


def test_metrics_that_were_logged_again(tmp_path, database):
    path = tmp_path / "mlflow.db"
    shutil.copy(database, path)
    made = client(f"sqlite:///{path}")
    experiment = made.get_experiment_by_name("swarm")
    run = made.create_run(experiment.experiment_id, run_name="again").info.run_id
    for time, (step, value) in enumerate([(10, 1.0), (20, 2.0), (30, 3.0), (20, -2.0)]):
        made.log_metric(run, "loss", value, timestamp=1000 + time, step=step)
    found = read(path, names=["loss"])["again"]
    assert found.series["loss"].values.tolist() == [1.0, -2.0]
    assert found.notes[1:] == ["1 points were left out that a restart trained again"]


def test_nothing_is_written_beside_the_file(tmp_path, database):
    path = tmp_path / "mlflow.db"
    shutil.copy(database, path)
    before = path.read_bytes()
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    assert len(read(path)) == 3
    tmp_path.chmod(0o755)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_file_with_a_log_is_read_with_it(tmp_path, database):
    path = tmp_path / "mlflow.db"
    shutil.copy(database, path)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = wal")
    writer.execute("UPDATE runs SET name = 'renamed' WHERE name = 'run 0'")
    writer.commit()
    assert "renamed" in read(path)
    writer.close()
    assert "renamed" in read(path)


def test_a_locked_file_says_so(tmp_path, database, monkeypatch):
    path = tmp_path / "mlflow.db"
    shutil.copy(database, path)
    writer = sqlite3.connect(path)
    writer.execute("BEGIN EXCLUSIVE")
    assert MlFlow().recognises([str(path)])
    monkeypatch.setattr("mixlaw.interop.importers.mlflow.reading", partial(reading, wait_s=0))
    with pytest.raises(RunTableError, match=r"cannot read .*locked; .* `sqlite3 FILE .backup`"):
        read(path)
    writer.close()


def test_a_client_can_log_while_its_file_is_read(tmp_path, database):
    path = tmp_path / "mlflow.db"
    shutil.copy(database, path)
    runs = MlFlow().read([str(path)], names=["eval/loss/web"])
    next(runs)
    with sqlite3.connect(path, timeout=0) as writer:
        writer.execute("UPDATE runs SET name = 'renamed' WHERE name = 'run 2'")
    writer.close()
    assert len(list(runs)) == 2


def test_files_of_others(tmp_path):
    foreign, noise = tmp_path / "foreign.db", tmp_path / "noise.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE runs (a)")
    connection.close()
    noise.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    for source in ([], [str(foreign)], [str(noise)], [str(tmp_path)], ["none"]):
        assert not MlFlow().recognises(source)
    with pytest.raises(RunTableError, match=r"no table experiments, params, tags, .*--kind"):
        read(foreign)
    with pytest.raises(RunTableError, match=r"cannot read .*noise.db: .*integrity_check"):
        read(noise)
    with pytest.raises(RunTableError, match=r"no runs of MLflow at .*; name its SQLite file"):
        read(tmp_path)


def test_damage_in_a_folder_is_named(tmp_path, folder):
    copy = tmp_path / "mlruns"
    shutil.copytree(folder, copy)
    path = next(copy.glob("*/*/metrics/eval/loss/web"))
    path.write_text("1 2.0 3\n1 x 4\n")
    with pytest.raises(RunTableError, match=r"web, line 2: '1 x 4' is not <time> <value> <step>"):
        read(copy)
    path.write_text("")
    (path.parents[3] / "meta.yaml").write_text("a: [")
    with pytest.raises(RunTableError, match=r"cannot read .*meta.yaml"):
        read(copy)


def test_ten_thousand_runs(tmp_path, database):
    path = tmp_path / "mlflow.db"
    shutil.copy(database, path)
    writer = sqlite3.connect(path)
    many = [(f"{n:032d}", f"r{n}") for n in range(10_000)]
    writer.executemany(
        "INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, experiment_id) "
        "VALUES (?, ?, 'FINISHED', 1, 'active', 1)",
        many,
    )
    for table in ("metrics", "latest_metrics"):
        writer.executemany(
            f"INSERT INTO {table} (run_uuid, key, value, timestamp, step, is_nan) "
            "VALUES (?, 'loss', ?, 1, 10, 0)",
            [(run, float(n)) for n, (run, _) in enumerate(many)],
        )
    writer.commit()
    writer.close()
    runs = read(path, names=["loss"])
    assert len(runs) == 10_003
    assert all(runs[f"r{n}"].series["loss"].values[0] == n for n in range(0, 10_000, 999))


def test_runs_end_where_all_that_is_not_of_the_machine_ends(tmp_path):
    log(f"sqlite:///{tmp_path}/mlflow.db")
    for run in MlFlow().read([str(tmp_path)], names=["odd"]):
        assert run.ends == {"_step": 20}
        assert run.ended == (run.name == "run 0")
    made = client(f"sqlite:///{tmp_path}/mlflow.db")
    (first, *_) = MlFlow().read([str(tmp_path)])
    made.log_metric(first.run, "system/cpu", 50.0, step=999)
    (first, *_) = MlFlow().read([str(tmp_path)], names=["odd"])
    assert first.ends == {"_step": 20}


def test_text_that_is_none_in_a_damaged_file_is_an_error_of_one_line(database, tmp_path):
    content = bytearray(database.read_bytes())
    at = content.index(b"CREATE TABLE")
    while at >= 0:
        content[at + 13 : at + 15] = b"\xff\xfe"
        at = content.find(b"CREATE TABLE", at + 13)
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(RunTableError, match=r"cannot read .*mlflow\.db") as caught:
        list(MlFlow().read([str(tmp_path)]))
    assert "\n" not in str(caught.value)
