"""Tables in files, with the oddities of the programs that write them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mixlaw.errors import MissingExtraError, RunTableError
from mixlaw.interop import import_runs
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers import table as module
from mixlaw.interop.importers.table import Table

HEAD = "run,weight/web,weight/code,loss/web\n"
BODY = "a,0.25,0.75,3.5\nb,0.5,0.5,2.5\n"


def write(tmp_path: Path, text: str | bytes, name: str = "runs.csv") -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + BODY,
        "\ufeff" + HEAD + BODY,
        (HEAD + BODY).replace("\n", "\r\n"),
        HEAD + BODY + "\n\n",
        HEAD + BODY + ",,,\n",
        (HEAD + BODY).replace(",", ";"),
        (HEAD + BODY).replace(",", "\t"),
        (HEAD + BODY).replace(",", ";").replace(".", ","),
        '"run","weight/web","weight/code","loss/web"\n"a",".25",".75","3.5"\n"b",.5,.5,2.5\n',
        (HEAD + BODY).encode("utf-16"),
        ",run,weight/web,weight/code,loss/web\n0,a,0.25,0.75,3.5\n1,b,0.5,0.5,2.5\n",
        "Unnamed: 0,run,weight/web,weight/code,loss/web\n0,a,0.25,0.75,3.5\n1,b,0.5,0.5,2.5\n",
        HEAD.replace("\n", ",\n") + "a,0.25,0.75,3.5,\nb,0.5,0.5,2.5,\n",
    ],
)
def test_csv_as_programs_write_it(tmp_path, text):
    table = import_runs([write(tmp_path, text)]).table
    assert list(table.run) == ["a", "b"]
    np.testing.assert_array_equal(table.weights, [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_array_equal(table.column("loss/web"), [3.5, 2.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "a,0.25,0.75\n", r"runs\.csv, row 1: it has 3 cells, fewer than the header's 4"),
        (HEAD + BODY + "a,1,0,3,4\n", r"row 3: it has 5 cells, more than the header's 4"),
        (HEAD, "no row below the header"),
        ("", "no row below the header"),
        ("run,run,loss/web\na,b,3\n", "the column 'run' is given twice"),
        ("run,,loss/web\na,b,3\n", "column 2 has no name"),
        (HEAD + "a,0.25,0.75,low\n", r"runs\.csv, row 1.*|no column is a validation loss"),
        (HEAD + 'a,"0,25","0,75","3,5"\n', "no column is a validation loss|decimal point"),
        (b"run,loss\n\xff\xfa,3\n", "UTF"),
        (HEAD + 'a,0.25,0.75,"3.5\n', "could not read the table"),
    ],
)
def test_broken_csv_is_named(tmp_path, text, message):
    with pytest.raises(RunTableError, match=message):
        import_runs([write(tmp_path, text)])


def test_decimal_commas_are_read_where_they_are_no_separator_and_named_where_they_are(tmp_path):
    mixed = HEAD + 'a,0.25,0.75,3.5\nb,0.5,0.5,"2,5"\n'
    with pytest.raises(RunTableError, match=r"row 2.*'2,5'.*decimal point, not a comma"):
        import_runs([write(tmp_path, mixed)])


def test_json_lines_are_flat_and_checked(tmp_path):
    rows = [
        {
            "run": "a",
            "config": {"mixture": {"web": 0.25, "code": 0.75}},
            "eval": {"web": {"loss": 3.5}},
        },
        {"run": "b", "config": {"mixture": {"web": 1.0}}, "eval": {"web": {"loss": 2.5}}},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    table = import_runs([write(tmp_path, "\ufeff" + text + "\n", "runs.jsonl")]).table
    np.testing.assert_array_equal(table.weights, [[0.25, 0.75], [1.0, 0.0]])
    np.testing.assert_array_equal(table.values, [[3.5], [2.5]])
    for broken, message in [("{", "line 3: no JSON"), ("[1]", "line 3: it must be a JSON object")]:
        with pytest.raises(RunTableError, match=message):
            import_runs([write(tmp_path, text + broken, "broken.jsonl")])


def test_parts_of_a_large_file_are_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 2)
    lines = [f"{name},{i / 10},{1 - i / 10:.1f},{3 + i}" for i, name in enumerate("abcdefg")]
    table = import_runs([write(tmp_path, HEAD + "\n".join(lines))]).table
    assert list(table.run) == list("abcdefg")
    np.testing.assert_array_equal(table.column("loss/web"), np.arange(3, 10))
    rows = [{"run": n, "weight/web": 1.0, "loss/web": 3.0 + i} for i, n in enumerate("abcde")]
    rows[4]["loss/code"] = 2.0
    text = "".join(json.dumps(row) + "\n" for row in rows)
    table = import_runs([write(tmp_path, text, "runs.jsonl")]).table
    np.testing.assert_array_equal(table.column("loss/code"), [np.nan] * 4 + [2.0])


def test_ids_stay_as_they_are_written(tmp_path):
    ids = ["007", "1e5", "12345678901234567890"]
    body = "".join(f"{name},0.{i + 1},0.{9 - i},3\n" for i, name in enumerate(ids))
    assert list(import_runs([write(tmp_path, HEAD + body)]).table.run) == ids


def test_what_is_no_table(tmp_path):
    assert recognise([write(tmp_path, HEAD + BODY)]).name == "table"
    assert not Table().recognises([])
    assert not Table().recognises(["runs.xlsx"])
    with pytest.raises(RunTableError, match=r"unknown kind '\.xlsx' of a table; use \.csv"):
        import_runs([write(tmp_path, "", "runs.xlsx")], kind="table")
    with pytest.raises(RunTableError, match="could not read the table"):
        import_runs([write(tmp_path, "no parquet", "runs.parquet")])


def test_parquet_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"mixlaw\[parquet\]"):
        import_runs([write(tmp_path, "", "runs.parquet")])


def test_rows_are_runs_to_those_who_read_one_at_a_time(tmp_path):
    runs = list(Table().read([write(tmp_path, HEAD + BODY)]))
    assert [run.fields["loss/web"] for run in runs] == [3.5, 2.5]
    assert runs[1].origin.endswith("runs.csv, row 2")
