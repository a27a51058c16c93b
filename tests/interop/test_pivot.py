"""Long tables become wide ones with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import Frame, packed
from mixlaw.interop.pivot import widened


def table(rows: list[dict]) -> Frame:
    names = dict.fromkeys(name for row in rows for name in row)
    return Frame.of_table({n: packed([row.get(n) for row in rows]) for n in names}, "long.csv")


LONG = [
    {"run": "a", "step": 10, "metric": "loss/web", "value": 3.0, "w_web": 0.5, "host": 1.5},
    {"run": "a", "step": 10, "metric": "loss/code", "value": 2.0, "w_web": 0.5, "host": 2.5},
    {"run": "a", "step": 20, "metric": "loss/web", "value": 2.5, "w_web": 0.5, "host": 1.5},
    {"run": "b", "step": 10, "metric": "loss/web", "value": 4.0, "w_web": 1.0, "host": 1.5},
]


def test_measurements_become_columns():
    wide = widened(table(LONG))
    assert len(wide) == 3
    assert wide.logged
    np.testing.assert_array_equal(wide.columns["loss/web"], [3.0, 2.5, 4.0])
    np.testing.assert_array_equal(wide.columns["loss/code"], [2.0, np.nan, np.nan])
    np.testing.assert_array_equal(wide.columns["w_web"], [0.5, 0.5, 1.0])
    assert wide.columns["run"].tolist() == ["a", "a", "b"]
    assert wide.place(2) == "long.csv, row 4"
    assert "host" not in wide.columns
    assert any("left out" in note and "host" in note for note in wide.notes)


def test_measures_of_their_own_name_and_long_mixtures():
    rows = [
        {"run": run, "domain": domain, "weight": weight, "loss": loss}
        for run, domain, weight, loss in [
            ("a", "web", 0.4, 3.0),
            ("a", "code", 0.6, 2.0),
            ("b", "web", 0.7, 2.9),
            ("b", "code", 0.3, 2.2),
        ]
    ]
    wide = widened(table(rows))
    np.testing.assert_array_equal(wide.columns["weight/code"], [0.6, 0.3])
    np.testing.assert_array_equal(wide.columns["loss/web"], [3.0, 2.9])
    assert not wide.logged


def test_several_keys_are_joined():
    rows = [
        {"run": run, "metric": metric, "dataset": data, "value": value}
        for run in ("a", "b")
        for metric, data, value in [("loss", "web", 3.0), ("loss", "code", 2.0), ("bpb", "web", 1)]
    ]
    wide = widened(table(rows))
    assert {"loss/web", "loss/code", "bpb/web"} <= set(wide.columns)


def test_wide_tables_stay_as_they_are():
    wide = table([{"run": "a", "domain": "x", "loss": 3.0}, {"run": "b", "domain": "y", "loss": 2}])
    assert widened(wide) is wide
    wide = table([{"run": "a", "loss/web": 3.0}, {"run": "b", "loss/web": 2.0}])
    assert widened(wide) is wide


def test_repeats_merge_and_contradictions_are_named():
    frame = widened(table([*LONG, LONG[1]]))
    assert any("merged 1 row that repeated" in note for note in frame.notes)
    with pytest.raises(
        RunTableError, match=r"long\.csv, row 2 and long\.csv, row 5 measure.*2 and"
    ):
        widened(table([*LONG, {**LONG[1], "value": 9.0}]))


def test_a_mixture_names_the_runs_of_a_long_table():
    rows = [
        {"web": web, "code": 1 - web, "valid_domain": domain, "loss": loss}
        for web, domain, loss in [(0.5, "web", 3.1), (0.5, "code", 2.1), (0.25, "web", 3.2)]
    ]
    wide = widened(table(rows))
    np.testing.assert_array_equal(wide.columns["loss/web"], [3.1, 3.2])
    np.testing.assert_array_equal(wide.columns["loss/code"], [2.1, np.nan])
    with pytest.raises(RunTableError, match="by id each row is a run of its own"):
        widened(table([{"id": f"m{i}", **row} for i, row in enumerate(rows)]))


def test_keys_may_be_numbers_and_may_not_be_empty():
    rows = [{"run": r, "valid_domain": d, "loss": 3.0 + d} for r in "ab" for d in (1, 2)]
    np.testing.assert_array_equal(widened(table(rows)).columns["loss/2"], [5.0, 5.0])
    with pytest.raises(RunTableError, match="row 5: metric is empty"):
        widened(table([*LONG, {"run": "b", "step": 20, "metric": None, "value": 1.0}]))
    with pytest.raises(RunTableError, match="row 5: value is 'oops'"):
        widened(table([*LONG, {**LONG[3], "value": "oops"}]))
