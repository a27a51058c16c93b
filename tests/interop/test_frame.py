"""Columns of a source: what is a number is one, and ids stay as they are written."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import Frame, joined, joint_codes, packed
from mixlaw.interop.logged import LoggedRun, Series


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "20"], [1, 20]),
        (["1.0", "", "3"], [1.0, np.nan, 3.0]),
        (["0.50", "NA", "null", None], [0.5, np.nan, np.nan, np.nan]),
        ([1, None, 2.5], [1.0, np.nan, 2.5]),
        ([np.float32(0.5), np.int64(3)], [0.5, 3.0]),
    ],
)
def test_numbers_are_read(cells, expected):
    found = packed(cells)
    assert found.dtype != object
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "cells",
    [
        ["007", "12"],
        ["12345678901234567890"],
        ["1e999"],
        ["1234e567", "2"],
        ["a", "1"],
        [True, "b"],
    ],
)
def test_ids_that_look_like_numbers_stay_as_they_are(cells):
    assert packed(cells).tolist() == cells


def test_parts_of_a_column_agree():
    assert joined([packed(["1", "2"]), packed(["x"])]).tolist() == ["1", "2", "x"]
    assert joined([packed(["1"]), packed(["2.5"])]).tolist() == [1.0, 2.5]


def test_a_decimal_comma_is_named():
    frame = Frame.of_table({"loss/web": packed(["3,5", "2,5"])}, "runs.csv")
    with pytest.raises(RunTableError, match=r"runs\.csv, row 1: loss/web is '3,5'.*not a comma"):
        frame.numbers("loss/web")


def test_counts_may_have_a_suffix():
    frame = Frame.of_table({"params": packed(["30M", "1.5B", ""])}, "runs.csv")
    np.testing.assert_array_equal(frame.numbers("params", counts=True), [3e7, 1.5e9, np.nan])
    with pytest.raises(RunTableError, match="'30M'"):
        frame.numbers("params")


def test_cells_that_hold_mappings_are_opened():
    cells = ['{"web": 0.5, "code": {"py": 0.5}}', None, "{'web': 0.25, 'code': {'py': 0.75}}"]
    frame = Frame.of_table({"mixture": packed(cells), "run": packed(["a", "b", "c"])}, "runs.csv")
    assert list(frame.columns) == ["mixture.web", "mixture.code.py", "run"]
    np.testing.assert_array_equal(frame.columns["mixture.code.py"], [0.5, np.nan, 0.75])


def test_runs_show_their_last_values():
    series = {"eval/loss": Series(np.array([1, 2]), np.array([3.0, 2.5]))}
    runs = [LoggedRun("a", "first", {"config.lr": 0.1}, series), LoggedRun("b", "other", {})]
    frame = Frame.of_runs(runs)
    np.testing.assert_array_equal(frame.columns["eval/loss"], [2.5, np.nan])
    assert frame.place(1) == "run b"
    with pytest.raises(RunTableError, match="holds no run"):
        Frame.of_runs([])


def test_a_selection_knows_its_own_columns():
    frame = Frame.of_table({"a": packed(["x", "1"])}, "runs.csv")
    assert frame.is_mixed("a")
    assert frame.select(np.array([1])).is_numeric("a")
    assert frame.select(np.array([1])).place(0) == "runs.csv, row 2"


def test_codes_tell_rows_apart():
    frame = Frame.of_table({"a": packed(["x", None, "x", None]), "b": packed([1, 1, 2, 1])}, "t")
    codes = joint_codes([frame.codes("a"), frame.codes("b")])
    assert codes[1] == codes[3]
    assert len(set(codes.tolist())) == 3
