"""Tables in any layout come back as the table of runs that they were written from."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mixlaw.interop
from mixlaw.errors import ExportError, RunTableError
from mixlaw.interop import Columns, Handover, Hints, export, from_frame, import_runs, read_mixture
from mixlaw.mixture import Mixture
from mixlaw.runs import RunTable
from mixlaw.schedule import Schedule

DATA = Path(os.environ.get("MIXLAW_DATA", Path(__file__).parents[3] / "shared" / "data"))
PER_ROW = ("weights", "num_params", "train_tokens", "available_tokens", "values", "run", "label")
PER_ROW += ("role", "status", "seed", "start", "rewarm")


def assert_same(found: RunTable, expected: RunTable, *, exact: bool = True) -> None:
    """All of two tables, row for row."""
    assert (found.domains, found.targets) == (expected.domains, expected.targets)
    for name in PER_ROW:
        one, other = getattr(found, name), getattr(expected, name)
        if exact or one.dtype.kind != "f":
            np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12, err_msg=name)
    assert list(found.schedule) == list(expected.schedule)


@st.composite
def tables(draw) -> RunTable:
    """Up to six runs of up to three checkpoints, of two to four domains."""
    domains = draw(
        st.lists(
            st.sampled_from(["web", "code", "books", "wiki_en"]),
            min_size=2,
            max_size=4,
            unique=True,
        )
    )
    targets = draw(
        st.lists(
            st.sampled_from(["loss/web", "loss/qa_set", "bpb/code"]),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_runs, points = draw(st.integers(3, 6)), draw(st.integers(1, 3))
    rows = []
    for r in range(num_runs):
        shares = rng.dirichlet(np.ones(len(domains))).round(6)
        shares[-1] = 1 - shares[:-1].sum()
        for p in range(points):
            row = {"run": f"run-{r}", "num_params": 1000 * (1 + r % 2), "seed": r % 3}
            row |= {"train_tokens": 4096 * (p + 1)}
            row |= {f"weight/{d}": max(float(s), 0.0) for d, s in zip(domains, shares, strict=True)}
            rows.append(row | {t: float(2 + rng.random().__round__(6)) for t in targets})
    return RunTable.from_rows(rows)


def wide(table: RunTable, *, percent: bool, prefix: str, names: dict[str, str], rng) -> list[dict]:
    """Rows with other names, in another order, without what says nothing."""
    rows = []
    for row in table.rows():
        out = {names.get(k, k): v for k, v in row.items() if k in names}
        for key, value in row.items():
            if key.startswith("weight/"):
                out[f"{prefix}{key[7:]}"] = value * 100 if percent else value
            elif key in table.targets:
                out[key] = value
        rows.append(out)
    keys = list(rows[0])
    rng.shuffle(keys)
    return [{key: row[key] for key in keys} for row in rows]


def ordered(found: RunTable, expected: RunTable) -> RunTable:
    """The rows and columns of one table in the order of another."""
    where = {key: i for i, key in enumerate(zip(found.run, found.train_tokens, strict=True))}
    keys = zip(expected.run, expected.train_tokens, strict=True)
    rows = found.select(np.array([where[key] for key in keys])).rows()
    order = list(expected.rows()[0])
    return RunTable.from_rows([{key: row[key] for key in order} for row in rows])


NAMES = [
    {"run": "run", "num_params": "num_params", "train_tokens": "train_tokens", "seed": "seed"},
    {"run": "run_id", "num_params": "params", "train_tokens": "tokens", "seed": "random_seed"},
    {"run": "Run Name", "num_params": "nParams", "train_tokens": "tokensSeen", "seed": "seed"},
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tables(),
    st.sampled_from(NAMES),
    st.booleans(),
    st.sampled_from(["weight/", "mixture_", "r_"]),
    st.integers(0, 99),
)
def test_wide_tables_come_back(table, names, percent, prefix, seed):
    rng = np.random.default_rng(seed)
    rows = wide(table, percent=percent, prefix=prefix, names=names, rng=rng)
    rng.shuffle(rows)
    imported = from_frame(rows)
    assert imported.columns.unit == ("percent" if percent else "shares")
    assert imported.columns.run == names["run"]
    assert_same(ordered(imported.table, table), table, exact=False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), st.integers(0, 99))
def test_long_tables_come_back(table, seed):
    rows = [
        {k: v for k, v in row.items() if k not in table.targets} | {"metric": t, "value": row[t]}
        for row in table.rows()
        for t in table.targets
    ]
    np.random.default_rng(seed).shuffle(rows)
    imported = from_frame(rows, hints=Hints(checkpoints="all"))
    assert_same(ordered(imported.table, table), table)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_run_table_is_read_as_mixlaw_reads_it(tmp_path, suffix):
    schedule = Schedule.of(
        [(0.5, Mixture({"web": 1.0, "code": 0.0})), (0.5, Mixture({"web": 0.5, "code": 0.5}))]
    )
    row = {
        "run": "r0",
        "label": "first",
        "role": "replicate",
        "weight/web": 0.75,
        "weight/code": 0.25,
    }
    row |= {
        "loss/web": 3.5,
        "bpb/code": 1.25,
        "score/qa": 0.0,
        "num_params": 1000,
        "train_tokens": 5000,
    }
    row |= {"seed": 3, "available_tokens/web": 100, "start/loss/web": 4.0, "rewarm": 0.3}
    empty = {"loss/web": None, "bpb/code": None, "score/qa": None}
    other = {"run": "007", "weight/web": 1 / 3, "weight/code": 2 / 3, "start/loss/web": None}
    expected = RunTable.from_rows(
        [
            row | {"schedule": json.dumps(schedule.to_list())},
            {**row, "run": "r0", "train_tokens": 9000, "loss/web": None},
            {**row, **other, "available_tokens/web": None, "rewarm": None},
            {**row, "run": "r2", "status": "failed", **empty},
            {**row, "run": "r3", "status": "missing", **empty},
        ]
    )
    path = tmp_path / f"runs.{suffix}"
    expected.write(path)
    imported = import_runs([path])
    assert_same(imported.table, RunTable.read(path))
    assert_same(imported.table, expected)
    assert imported.kind == "table"
    assert list(imported.inputs) == [str(path)]
    again = import_runs([path], columns=Columns.from_dict(imported.columns.to_dict()))
    assert_same(again.table, expected)


def published(name: str) -> Path:
    if not (path := DATA / name).exists():
        pytest.skip(f"no published run table at {path}; set MIXLAW_DATA to their folder")
    pytest.importorskip("pyarrow")
    return path


@pytest.mark.parametrize(
    ("name", "run", "rows", "runs", "domains", "targets", "counts"),
    [
        ("regmix_pile/runs.parquet", "split+run", 1256, 1256, 17, 13, ("params", "tokens")),
        ("grape_regmix_1m/slimpajama_tasks.parquet", "run", 768, 768, 7, 11, (None, None)),
        ("olmix_swarms/dclm_swarm.parquet", "run", 127, 127, 24, 110, ("params", "tokens")),
        (
            "olmix_swarms/full_reuse_update5_seed0.parquet",
            "run",
            64,
            64,
            22,
            110,
            ("params", "tokens"),
        ),
        ("dmsl_slimpajama/runs.parquet", "mixture+params", 2188, 200, 7, 8, ("params", "tokens")),
        (
            "tiny_env_swarm/runs.parquet",
            "size+mixture+seed",
            424,
            112,
            5,
            7,
            ("num_params_non_embedding", "train_tokens"),
        ),
        ("mixinglaws/2Mix.parquet", "run_id", 10, 10, 2, 2, ("n_params_nonembedding", "tokens")),
        ("mixinglaws/3Mix.parquet", "run_id", 41, 41, 3, 3, ("n_params_nonembedding", None)),
        ("mixinglaws/5Mix.parquet", "run_id", 110, 110, 5, 22, ("n_params_nonembedding", "tokens")),
    ],
)
def test_published_tables_need_no_hint(name, run, rows, runs, domains, targets, counts):
    imported = import_runs([published(name)])
    table, columns = imported.table, imported.columns
    assert (columns.run, columns.num_params, columns.train_tokens) == (run, *counts)
    assert (len(table), len(set(table.run))) == (rows, runs)
    assert (len(table.domains), len(table.targets)) == (domains, targets)
    assert not set(columns.mixture.values()) & set(imported.ignored)


def test_a_published_table_whose_mixture_does_not_sum_to_one():
    path = published("mixinglaws/RedPajama.parquet")
    with pytest.raises(
        RunTableError, match=r"row \d+: the shares sum to 1\.01994.*--unit relative"
    ):
        import_runs([path])
    table = import_runs([path], hints=Hints(unit="relative")).table
    assert (len(table.domains), len(table.targets)) == (7, 22)


def test_published_numbers_are_those_of_the_file():
    parquet = pytest.importorskip("pyarrow.parquet")
    path = published("tiny_env_swarm/runs.parquet")
    rows, table = parquet.read_table(path).to_pylist(), import_runs([path]).table
    np.testing.assert_array_equal(table.column("loss/cython"), [row["loss/cython"] for row in rows])
    np.testing.assert_array_equal(table.train_tokens, [row["train_tokens"] for row in rows])
    assert table.run[0] == "B/m1/0"


def test_a_long_table_at_all_checkpoints():
    path = published("mixinglaws/5Mix.parquet")
    last, every = (import_runs([path], hints=Hints(checkpoints=c)) for c in ("last", "all"))
    assert len(every.table) > 1000
    assert set(every.table.run) == set(last.table.run)
    assert not np.isnan(every.table.values).any()
    assert any("5 checkpoints left out" in note for note in every.notes)


def write(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


ROWS = [
    {"run": "a", "w_web": 0.2, "w_code": 0.8, "loss/web": 3.0, "lr": 0.1},
    {"run": "b", "w_web": 0.6, "w_code": 0.4, "loss/web": 2.5, "lr": 0.2},
    {"run": "c", "w_web": 0.9, "w_code": 0.1, "loss/web": 2.2, "lr": 0.3},
]


def test_a_guess_is_shown_with_what_was_ignored(tmp_path):
    imported = import_runs([write(tmp_path / "runs.csv", ROWS)])
    assert imported.meanings() == [
        ("w_web", "share of web"),
        ("w_code", "share of code"),
        ("loss/web", "target loss/web"),
        ("run", "run"),
        ("lr", ""),
    ]
    assert imported.ignored == ("lr",)


def test_several_files_are_one_table(tmp_path):
    first = write(tmp_path / "a.csv", ROWS[:2])
    second = write(tmp_path / "b.csv", [{**ROWS[2], "w_code": -1}])
    third = write(tmp_path / "c.csv", [{**ROWS[2], "loss/code": 2.0}])
    imported = import_runs([first, third])
    assert list(imported.table.run) == ["a", "b", "c"]
    assert imported.notes == ("loss/code was not measured in 2 of 3 rows: a, b",)
    with pytest.raises(RunTableError, match=r"b\.csv, row 1: the share of 'code' is -1"):
        import_runs([first, second], hints=Hints(mixture="w_*"))
    again = import_runs([first, first])
    assert len(again.table) == 2
    assert again.notes == ("merged 2 rows that repeated another of the run",)


def test_the_same_run_with_other_values_names_both_places(tmp_path):
    path = write(tmp_path / "runs.csv", [*ROWS, {**ROWS[0], "loss/web": 9.0}])
    with pytest.raises(
        RunTableError, match=r"runs\.csv, row 1 and .*row 4 are both of the run 'a'.*3 and 9"
    ):
        import_runs([path])


@pytest.mark.parametrize("weights", [{"web": 30, "code": 70}, {"web": 0.3, "code": 0.7}])
def test_a_mixture_in_one_column(tmp_path, weights):
    path = tmp_path / "runs.jsonl"
    listed = [part for name, w in weights.items() for part in (w, f"/d/{name}_text_document")]
    lines = [{"run": r, "data_path": listed, "eval": {"web": {"loss": 3.0}}} for r in ("a", "b")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    imported = import_runs([path], hints=Hints(rename={"code": "github"}))
    assert imported.table.domains == ("web", "github")
    np.testing.assert_allclose(imported.table.weights, [[0.3, 0.7]] * 2)
    assert imported.table.targets == ("loss/web",)
    again = import_runs([path], columns=imported.columns)
    assert again.table.domains == ("web", "github")


def test_what_is_no_table():
    with pytest.raises(RunTableError, match="int is no table"):
        from_frame(3)
    with pytest.raises(RunTableError, match="different numbers of rows"):
        from_frame({"a": [1], "b": [1, 2]})
    with pytest.raises(RunTableError, match="no row of a run"):
        from_frame([])
    with pytest.raises(RunTableError, match="no source is named"):
        import_runs([])
    with pytest.raises(RunTableError, match=r"no source at absent\.csv"):
        import_runs(["absent.csv"])
    with pytest.raises(RunTableError, match="no kind of source 'tabel'; did you mean 'table'"):
        import_runs(["x.csv"], kind="tabel")


def test_a_mapping_of_columns_and_an_arrow_table():
    columns = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    expected = from_frame(ROWS).table
    assert_same(from_frame(columns).table, expected)
    pyarrow = pytest.importorskip("pyarrow")
    assert_same(from_frame(pyarrow.table(columns)).table, expected)
    nested = [
        {
            **{k: v for k, v in row.items() if k[0] != "w"},
            "mixture": {"web": row["w_web"], "code": row["w_code"]},
        }
        for row in ROWS
    ]
    assert_same(from_frame(pyarrow.Table.from_pylist(nested)).table, expected)


def test_the_public_face():
    for name in mixlaw.interop.__all__:
        assert getattr(mixlaw.interop, name) is not None
    assert set(mixlaw.interop.__all__) <= set(dir(mixlaw.interop))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mixlaw.interop.nonsense


def test_a_mixture_goes_out_and_comes_back(tmp_path):
    schedule = Schedule.static(Mixture({"web": 0.75, "code": 0.25}))
    exported = export(Handover(schedule), "json")
    name, text = next(iter(exported.files.items()))
    (tmp_path / name).write_text(text)
    assert read_mixture(tmp_path / name, "json", ["web", "code"]) == schedule
    with pytest.raises(ExportError, match="no trainer 'jsn'"):
        read_mixture(tmp_path / name, "jsn", ["web", "code"])


def imported_from(tmp_path, text: str, **how):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    return import_runs([path], **how)


def test_merged_rows_keep_what_any_of_them_says(tmp_path):
    head = "run,num_params,train_tokens,weight/web,weight/code,loss/web,loss/code,start/loss/web\n"
    rows = "a,,,.5,.5,3,,\na,10,1000,.5,.5,,2,9\nb,10,1000,.4,.6,3,2,9\n"
    table = imported_from(tmp_path, head + rows).table
    assert (table.num_params[0], table.train_tokens[0], table.start[0, 0]) == (10, 1000, 9)
    np.testing.assert_array_equal(table.values[0], [3, 2])
    with pytest.raises(RunTableError, match=r"row 1 and .*row 2 .*start/loss/web 8 and 9"):
        imported_from(tmp_path, head + "a,10,1,.5,.5,3,,8\na,10,1,.5,.5,,2,9\n")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_failed_training_and_its_repetition(tmp_path, order):
    rows = ["a,.5,.5,,failed\n", "a,.5,.5,3.1,done\n"]
    text = "run,weight/web,weight/code,loss/web,status\n" + rows[order[0]] + rows[order[1]]
    imported = imported_from(tmp_path, text)
    assert list(imported.table.status) == ["done"]
    assert imported.table.values[0, 0] == 3.1
    assert any("failed, and is there as done, left out: a" in note for note in imported.notes)


def test_words_of_status_are_read_or_refused(tmp_path):
    head = "run,weight/web,weight/code,loss/web,Status\n"
    table = imported_from(tmp_path, head + "a,.5,.5,3,Finished\nb,.4,.6,inf,crashed\n").table
    assert list(table.status) == ["done", "failed"]
    assert np.isnan(table.values[1, 0])
    with pytest.raises(RunTableError, match=r"row 2: Status is 'running'"):
        imported_from(tmp_path, head + "a,.5,.5,3,done\nb,.4,.6,3,running\n")


def test_ids_and_seeds_stay_as_they_are_written(tmp_path):
    head = "run,seed,weight/web,weight/code,loss/web\n"
    table = imported_from(tmp_path, head + "1.10,9007199254740993,.5,.5,3\n1.1,2,.4,.6,3\n").table
    assert list(table.run) == ["1.10", "1.1"]
    assert list(table.seed) == [9007199254740993, 2]
    with pytest.raises(RunTableError, match="row 1: seed is 18446744073709551615"):
        imported_from(tmp_path, head + "a,18446744073709551615,.5,.5,3\nb,1,.4,.6,3\n")
    with pytest.raises(RunTableError, match=r"row 2: loss/web is '3_1'"):
        imported_from(tmp_path, head + "a,1,.5,.5,3\nb,1,.4,.6,3_1\n")


@pytest.mark.parametrize(
    "text", ["", '{"run": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "[1]\n", "{"]
)
def test_what_json_lines_cannot_be_is_one_line(tmp_path, text):
    (tmp_path / "runs.jsonl").write_text(text)
    with pytest.raises(RunTableError, match=r"runs\.jsonl") as caught:
        import_runs([tmp_path / "runs.jsonl"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frame", [{"a": 1}, {"a": "xyz"}, "abc"])
def test_what_holds_no_columns_is_no_table(frame):
    with pytest.raises(RunTableError, match="is no table"):
        from_frame(frame)


def test_cells_that_are_strange_mappings_are_read_over():
    rows = [{**row, "x": {("a", "b"): 9**400}} for row in ROWS]
    assert len(from_frame(rows).table) == 3


def test_rows_without_names_may_be_checkpoints(tmp_path):
    text = "tokens,weight/web,weight/code,loss/web\n1,.5,.5,3\n2,.5,.5,2.9\n1,.4,.6,3\n2,.4,.6,3\n"
    assert any("--run" in note for note in imported_from(tmp_path, text).notes)


@pytest.mark.parametrize(
    "said",
    [
        {"targets": ["loss/web"]},
        {"targets": {"loss/web": 3}},
        {"mixture": {"web": 1}},
        {"mixture": None},
        {"run": 5},
        {"others": {"foo": "run"}},
        {"num_params": [1]},
    ],
)
def test_columns_of_the_wrong_type_are_named(said):
    with pytest.raises(RunTableError, match=f"^{next(iter(said))} ") as caught:
        Columns.from_dict({"targets": {"loss/web": "loss/web"}, **said})
    assert "\n" not in str(caught.value)


def test_only_files_that_were_read_are_inputs(tmp_path):
    (tmp_path / "ratios.csv").write_text("run_id,web,code\n1,.5,.5\n2,.4,.6\n")
    (tmp_path / "metrics.csv").write_text("run_id,mmlu,arc_acc,num_tokens\n1,.3,.5,9\n2,.4,.6,9\n")
    (tmp_path / "checkpoint.bin").write_bytes(b"x")
    imported = import_runs([tmp_path])
    assert set(imported.inputs) == {str(tmp_path / n) for n in ("ratios.csv", "metrics.csv")}
    assert imported.table.targets == ("bpb/mmlu", "score/arc/acc")
