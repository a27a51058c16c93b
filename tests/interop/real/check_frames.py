"""Frames of the real pandas, polars and Arrow, and the files that they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop import from_frame, import_runs

ROWS = [
    {"run": "007", "weight/web": 0.25, "weight/code": 0.75, "loss/web": 3.5, "loss/code": 2.0},
    {"run": "008", "weight/web": 0.5, "weight/code": 0.5, "loss/web": 2.5, "loss/code": None},
    {"run": "1e5", "weight/web": 1.0, "weight/code": 0.0, "loss/web": 2.25, "loss/code": 4.0},
]
ROWS = [{**row, "params": 1000 + i, "tokens": 10**10, "seed": i} for i, row in enumerate(ROWS)]


def check(table: Any, run: tuple[str, ...] = ("007", "008", "1e5")) -> None:
    """The numbers of `ROWS`."""
    assert tuple(table.run) == run
    for key in ("weight/web", "weight/code"):
        found = table.weights[:, table.domains.index(key[7:])]
        np.testing.assert_array_equal(found, [row[key] for row in ROWS])
    for key in ("loss/web", "loss/code"):
        expected = [np.nan if row[key] is None else row[key] for row in ROWS]
        np.testing.assert_array_equal(table.column(key), expected)
    np.testing.assert_array_equal(table.num_params, [1000, 1001, 1002])
    np.testing.assert_array_equal(table.train_tokens, [1e10] * 3)
    np.testing.assert_array_equal(table.seed, [0, 1, 2])


def nested() -> list[dict[str, Any]]:
    """The mixture as one mapping."""
    return [
        {k: v for k, v in row.items() if not k.startswith("weight/")}
        | {"mixture": {"web": row["weight/web"], "code": row["weight/code"]}}
        for row in ROWS
    ]


PANDAS = pandas.DataFrame(ROWS)
ARROW = pyarrow.Table.from_pylist(ROWS)


@pytest.mark.parametrize(
    "frame",
    [
        PANDAS,
        PANDAS.convert_dtypes(),
        PANDAS.convert_dtypes(dtype_backend="pyarrow"),
        PANDAS.astype({"run": "category", "params": "Int32", "loss/web": "float32"}),
        PANDAS.set_index("run"),
        PANDAS.set_index(["run", "seed"]),
        pandas.DataFrame(nested()),
        polars.DataFrame(ROWS),
        polars.DataFrame(ROWS).lazy(),
        polars.DataFrame(ROWS).with_columns(polars.col("run").cast(polars.Categorical)),
        polars.DataFrame(nested()),
        ARROW,
        ARROW.set_column(0, "run", ARROW.column("run").dictionary_encode()),
        pyarrow.concat_tables([ARROW.slice(0, 1), ARROW.slice(1)]),
        pyarrow.Table.from_pylist(nested()),
        pyarrow.Table.from_pandas(PANDAS.set_index("run")),
    ],
    ids=lambda frame: f"{type(frame).__module__.split('.')[0]}",
)
def test_frames_are_read(frame):
    check(from_frame(frame).table)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("index", [True, False])
def test_files_of_pandas(tmp_path: Path, suffix: str, index: bool):
    path = tmp_path / f"runs.{suffix}"
    if suffix == "csv":
        PANDAS.to_csv(path, index=index)
    elif suffix == "jsonl":
        PANDAS.to_json(path, orient="records", lines=True)
    else:
        PANDAS.to_parquet(path, index=index)
    check(import_runs([path]).table)


def test_a_european_file_of_pandas(tmp_path):
    path = tmp_path / "runs.csv"
    PANDAS.to_csv(path, sep=";", decimal=",")
    check(import_runs([path]).table)


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "parquet"])
def test_files_of_polars(tmp_path: Path, suffix: str):
    path = tmp_path / f"runs.{suffix}"
    getattr(polars.DataFrame(ROWS), f"write_{suffix}")(path)
    check(import_runs([path]).table)


def test_nested_parquet_and_maps(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(nested()), tmp_path / "a.parquet")
    check(import_runs([tmp_path / "a.parquet"]).table)
    maps = pyarrow.array(
        [list(row["mixture"].items()) for row in nested()],
        pyarrow.map_(pyarrow.string(), pyarrow.float64()),
    )
    table = ARROW.drop_columns(["weight/web", "weight/code"]).append_column("mixture", maps)
    check(from_frame(table).table)


def test_columns_that_are_given_twice():
    twice = pandas.concat([PANDAS, PANDAS[["seed"]]], axis=1)
    with pytest.raises(RunTableError, match=r"the columns \['seed'\] are given twice"):
        from_frame(twice)
    with pytest.raises(RunTableError, match=r"the columns \['seed'\] are given twice"):
        from_frame(ARROW.append_column("seed", ARROW.column("seed")))


def test_a_long_frame_of_pandas():
    ids = ["run", "weight/web", "weight/code", "params", "tokens", "seed"]
    check(from_frame(PANDAS.melt(id_vars=ids, var_name="metric")).table)
    check(from_frame(polars.from_pandas(PANDAS).unpivot(index=ids, variable_name="metric")).table)
