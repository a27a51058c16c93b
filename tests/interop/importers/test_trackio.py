"""Projects of Trackio, made by its tables' definitions; tests/interop/real has its own client."""

from __future__ import annotations

import json
import math
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers.trackio import Trackio
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.sqlite import reading

METRICS = "id INTEGER PRIMARY KEY, {id} timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT"
CONFIGS = "id INTEGER PRIMARY KEY, {id} run_name TEXT, config TEXT, created_at TEXT"
ROWS = [
    ("a", 0, {"loss": 3, "eval/loss/web": 2.5, "deep": {"er": 1}, "done": False}),
    ("b", 0, {"loss": "NaN"}),
    ("a", 10, {"loss": "Infinity", "text": "x", "table": {"_type": "trackio.table", "_value": 4}}),
    ("a", 20, {"loss": 1}),
    ("a", 10, {"loss": 0.5}),
]
CONFIG = {"mixture": {"web": 0.75, "code": 0.25}, "layers": 4, "_Username": "me"}


def project(path: Path, *, ids: bool = True, configs: bool = True, blobs: bool = True) -> Path:
    """A file of version 0.43; without ids: of before 0.24; without configs: of the first ones."""
    told = "run_id TEXT, " if ids else ""
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE metrics ({METRICS.format(id=told)})")
    for run, step, values in ROWS:
        text = json.dumps(values)
        row = {"run_name": run, "step": step, "metrics": text.encode() if blobs else text}
        _insert(connection, "metrics", row | ({"run_id": f"id-{run}"} if ids else {}))
    if configs:
        connection.execute(f"CREATE TABLE configs ({CONFIGS.format(id=told)})")
        for run, config in (("a", CONFIG), ("c", {"layers": 5})):
            row = {"run_name": run, "config": json.dumps(config)}
            _insert(connection, "configs", row | ({"run_id": f"id-{run}"} if ids else {}))
    connection.commit()
    connection.close()
    return path


def _insert(connection: sqlite3.Connection, table: str, row: dict) -> None:
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])


def read(source: Path, names=None) -> dict[str, LoggedRun]:
    return {run.run: run for run in Trackio().read([str(source)], names=names)}


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("blobs", [True, False])
def test_runs_of_a_project(tmp_path, ids, blobs):
    path = project(tmp_path / "p.db", ids=ids, blobs=blobs)
    assert recognise([str(path)]).name == "trackio"
    assert recognise([str(tmp_path)]).name == "trackio"
    runs = read(tmp_path, names=["loss", "deep.er", "done", "text", "table._value"])
    assert set(runs) == ({"id-a", "id-b", "id-c"} if ids else {"a", "b", "c"})
    run = runs["id-a" if ids else "a"]
    assert run.name == "a"
    assert set(run.series) == {"loss", "deep.er"}
    assert run.series["loss"].steps.tolist() == [0, 10]
    assert run.series["loss"].values.tolist() == [3, 0.5]
    assert run.notes == ["1 points were left out that a restart trained again"]
    assert run.fields == {
        "config.mixture.web": 0.75,
        "config.mixture.code": 0.25,
        "config.layers": 4,
        "summary.loss": 0.5,
        "summary.eval/loss/web": 2.5,
        "summary.deep.er": 1.0,
    }
    assert math.isnan(runs["id-b" if ids else "b"].series["loss"].values[0])
    without = runs["id-c" if ids else "c"]
    assert (without.series, without.fields) == ({}, {"config.layers": 5})
    assert {k: s.steps.tolist() for k, s in read(path)[run.run].series.items()} == {
        "loss": [10],
        "eval/loss/web": [0],
        "deep.er": [0],
    }


def test_a_project_from_before_there_were_settings(tmp_path):
    runs = read(project(tmp_path / "p.db", ids=False, configs=False))
    assert list(runs) == ["a", "b"]
    assert not [name for name in runs["a"].fields if name.startswith("config.")]


@pytest.mark.parametrize("static", [True, False])
def test_a_project_in_parquet(tmp_path, static):
    """As Trackio keeps it for the hub, and in a static space; its own copy is read in real/."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    metrics, configs = ("metrics", "aux/configs") if static else ("p", "p_configs")
    common = {"id": 1, "run_id": "id-a", "run_name": "a", "timestamp": "now"}
    rows = [
        common | {"step": 0, "loss": 3.0, "deep": {"er": 1}, "odd": "NaN"},
        common | {"step": 10, "loss": None, "deep": None, "odd": None},
        common | {"step": 20, "loss": 2.0, "deep": {"er": 2}, "odd": None},
    ]
    settings = [
        {"id": 1, "run_id": run, "run_name": run[-1], "created_at": "now"}
        | {"mixture": {"web": 0.75, "code": 0.25}, "_Group": None}
        for run in ("id-a", "id-b")
    ]
    for name, cells in ((metrics, rows), (configs, settings)):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(cells), path)
    assert recognise([str(tmp_path)]).name == "trackio"
    runs = read(tmp_path, names=["loss", "deep.er", "odd", "run_name"])
    assert set(runs) == {"id-a", "id-b"}
    run = runs["id-a"]
    assert run.series["loss"].steps.tolist() == [0, 20]
    assert run.series["deep.er"].values.tolist() == [1, 2]
    assert math.isnan(run.series["odd"].values[0])
    assert run.fields["config.mixture.web"] == 0.75
    assert (run.name, set(run.series)) == ("a", {"loss", "deep.er", "odd"})
    assert not runs["id-b"].series
    (tmp_path / f"{metrics}.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunTableError, match=r"cannot read .*parquet"):
        read(tmp_path)


def test_files_of_others(tmp_path):
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE metrics (key, value, step)")
    connection.close()
    (tmp_path / "empty").mkdir()
    for source in ([], [str(foreign)], [str(tmp_path)], [str(tmp_path / "empty")], ["none"]):
        assert not Trackio().recognises(source)
    with pytest.raises(RunTableError, match=r"has no metrics, run_name; .* --kind"):
        read(foreign)
    with pytest.raises(RunTableError, match=r"no project of Trackio at .*; name its <project>.db"):
        read(tmp_path / "empty")


def test_damage_is_named_by_its_row(tmp_path):
    path = project(tmp_path / "p.db")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE metrics SET metrics = '{' WHERE id = 4")
    connection.commit()
    with pytest.raises(RunTableError, match=r"p.db, metrics, row 4: no JSON"):
        read(path)
    connection.close()


def test_a_locked_file_says_so(tmp_path, monkeypatch):
    path = project(tmp_path / "p.db")
    writer = sqlite3.connect(path)
    writer.execute("BEGIN EXCLUSIVE")
    assert not Trackio().recognises([str(path)])
    monkeypatch.setattr("mixlaw.interop.importers.trackio.reading", partial(reading, wait_s=0))
    with pytest.raises(RunTableError, match=r"locked; it is being written to"):
        read(path)
    writer.close()


def test_the_end_is_that_of_all_metrics(tmp_path):
    path = project(tmp_path / "p.db")
    assert read(path, names=["eval/loss/web"])["id-a"].ends == {"_step": 20}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("metrics = NULL", "metrics, row 1: no JSON"),
        ("step = 'x'", "metrics, row 1: 'x' is no step"),
        ("run_id = NULL, run_name = NULL", "is damaged: a run is called None"),
    ],
)
def test_cells_of_a_damaged_file(tmp_path, change, message):
    path = project(tmp_path / "p.db")
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE metrics SET {change} WHERE id = 1")
    connection.close()
    with pytest.raises(RunTableError, match=message):
        read(path)
