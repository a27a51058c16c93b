"""Swarms of Olmix, in the layouts of its repository."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop import import_runs
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers.olmix import Olmix
from mixlaw.runs import RunTable

RATIOS = [
    ["", "run", "name", "index", "web", "stack-edu:C"],
    ["0", "19g3guks", "swarm-62e7dc06-0000", "0", "0.7000000000000001", "0.3"],
    ["1", "d4nbvsr7", "swarm-62e7dc06-0001", "1", "1.0", "0.0"],
]
METRICS = [
    ["", "run", "name", "index", "arc_easy:rc::olmes", "eval/downstream/piqa (BPB v2)"],
    ["0", "d4nbvsr7", "swarm-62e7dc06-0001", "0", "1.5", "0.9"],
    ["1", "19g3guks", "swarm-62e7dc06-0000", "1", "1.25", ""],
]


def write(path: Path, rows: list[list[str]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return str(path)


def swarm(folder: Path, *, ratios=RATIOS, metrics=METRICS, stem="") -> str:
    write(folder / f"{stem}ratios.csv", ratios)
    write(folder / f"{stem}metrics.csv", metrics)
    return str(folder)


def changed(rows, row: int, column: str, cell: str):
    out = [list(cells) for cells in rows]
    out[row][out[0].index(column)] = cell
    return out


def read(*sources: str):
    return list(Olmix().read(sources))


def test_both_tables_become_one_joined_by_run(tmp_path):
    runs = read(swarm(tmp_path))
    assert [run.run for run in runs] == ["19g3guks", "d4nbvsr7"]
    assert runs[0].name == "swarm-62e7dc06-0000"
    assert runs[0].fields == {
        "weight/web": 0.7000000000000001,
        "weight/stack-edu:C": 0.3,
        "bpb/arc_easy:rc::olmes": 1.25,  # the empty cell was not measured
    }
    assert runs[1].fields["bpb/piqa_v2"] == 0.9
    assert "ratios.csv, row 1" in runs[0].origin
    assert "metrics.csv, row 2" in runs[0].origin


def test_the_layout_that_olmix_loads_itself(tmp_path):
    """`load_from_csv` wants run_id, and takes a name if there is one."""
    ratios = [["run_id", "web", "code"], ["a", "0.5", "0.5"]]
    metrics = [["run_id", "name", "hellaswag:rc::olmes"], ["a", "first", "1.1"]]
    (run,) = read(swarm(tmp_path, ratios=ratios, metrics=metrics))
    assert run.fields == {"weight/web": 0.5, "weight/code": 0.5, "bpb/hellaswag:rc::olmes": 1.1}


def test_training_losses_and_losses_by_characters_are_no_targets(tmp_path):
    names = ["train/CE loss", "eval/downstream/piqa (CE loss)", "eval/lm/c4/CE loss"]
    metrics = [["run_id", *names], ["19g3guks", "3.0", "0.5", "2.5"], ["d4nbvsr7", "3", "1", "2"]]
    assert import_runs([swarm(tmp_path, metrics=metrics)]).table.targets == ("loss/c4",)


def test_recognised_as_a_folder_and_as_two_files_in_any_order(tmp_path):
    folder = swarm(tmp_path, stem="dclm_")
    files = [str(tmp_path / f"dclm_{name}.csv") for name in ("metrics", "ratios")]
    assert recognise([folder]).name == recognise(files).name == "olmix"
    assert [run.fields for run in read(*files)] == [run.fields for run in read(folder)]
    assert not Olmix().recognises([files[0]])
    assert not Olmix().recognises([str(tmp_path / "absent")])


def test_files_of_other_names_are_told_apart_by_what_they_hold(tmp_path):
    files = [write(tmp_path / "b.csv", METRICS), write(tmp_path / "a.csv", RATIOS)]
    assert not Olmix().recognises(files)  # they may be anyone's
    assert [run.run for run in read(*files)] == ["19g3guks", "d4nbvsr7"]


def test_several_swarms_in_a_folder_are_named(tmp_path):
    swarm(tmp_path, stem="dclm_")
    folder = swarm(tmp_path, stem="reuse_")
    assert Olmix().recognises([folder])
    with pytest.raises(RunTableError, match=r"several swarms.*dclm_ratios.csv, reuse_ratios.csv"):
        read(folder)


def test_runs_of_one_table_only_are_given_as_they_are(tmp_path):
    """What is made of them, and said, is decided where all sources are treated alike."""
    more = [*RATIOS, ["2", "zzz", "swarm-2", "2", "0.5", "0.5"]]
    runs = read(swarm(tmp_path, ratios=more))
    assert set(runs[2].fields) == {"weight/web", "weight/stack-edu:C"}
    runs = read(swarm(tmp_path, metrics=[*METRICS, ["2", "yyy", "swarm-3", "2", "1.0", "1.0"]]))
    assert set(runs[2].fields) == {"bpb/arc_easy:rc::olmes", "bpb/piqa_v2"}
    assert runs[2].name == "swarm-3"


def test_equal_rows_of_a_run_are_one_and_said(tmp_path):
    runs = read(swarm(tmp_path, ratios=[*RATIOS, RATIOS[1]]))
    assert len(runs) == 2
    assert runs[0].notes == ["ratios.csv has its row more than once, alike"]
    assert runs[1].notes == []


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "different rows of a run": (
        {"ratios": changed(RATIOS, 2, "run", "19g3guks")},
        r"ratios.csv: rows 1 and 2 are both of the run '19g3guks' and differ; keep one",
    ),
    "no common run": (
        {"metrics": [METRICS[0], ["0", "x", "n", "0", "1", "1"]]},
        r"no run in common.*2 with ids such as \['19g3guks', 'd4nbvsr7'\].*1 such as \['x'\]",
    ),
    "text in a domain": (
        {"ratios": changed(RATIOS, 2, "web", "lots")},
        r"ratios.csv, row 2: web is 'lots'; every column but the ids must hold numbers",
    ),
    "a domain without numbers": (
        {"ratios": changed(changed(RATIOS, 1, "stack-edu:C", ""), 2, "stack-edu:C", "")},
        r"the columns \['stack-edu:C'\] hold no number, so they are no domains; write 0",
    ),
    "no ids": (
        {"metrics": [["task"], ["1.0"]]},
        r"metrics.csv: no column 'run_id' or 'run'.*it has \['task'\]",
    ),
    "an empty id": ({"ratios": changed(RATIOS, 1, "run", "")}, r"ratios.csv, row 1: run is empty"),
    "a column twice": (
        {"ratios": changed(RATIOS, 0, "stack-edu:C", "web")},
        r"the columns \['web'\] are given twice",
    ),
    "a file cut short": ({"metrics": [*METRICS[:2], ["1", "d4n"]]}, r"row 2: 2 cells under a head"),
    "no rows": ({"ratios": RATIOS[:1]}, r"ratios.csv has no rows"),
    "names that become one": (
        {"metrics": changed(METRICS, 0, "arc_easy:rc::olmes", "bpb/piqa_v2")},
        r"would all be called 'bpb/piqa_v2'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, case):
    given, message = BAD[case]
    with pytest.raises(RunTableError, match=message):
        read(swarm(tmp_path, **given))


def test_a_source_that_is_none(tmp_path):
    with pytest.raises(RunTableError, match=r"not a swarm of Olmix; name a folder with ratios.csv"):
        read(str(tmp_path))


def published() -> Path:
    """Tables that others measured; they are not part of the project."""
    return Path(os.environ.get("MIXLAW_DATA", "absent")) / "olmix_swarms"


@pytest.mark.parametrize("name", ["dclm_swarm", "full_reuse_update5_seed0"])
def test_a_published_swarm_is_what_its_table_holds(tmp_path, name):
    """Its files made again, with the source's columns and all its digits."""
    if not (path := published() / f"{name}.parquet").exists():
        pytest.skip(f"no published tables at {path.parent}; set MIXLAW_DATA")
    rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    halves = {}
    for stem, metric in (("ratios", "weight/"), ("metrics", "bpb/")):
        columns = [column for column in rows[0] if column.startswith(metric)]
        head = ["", "run", "name", "index", *(c.removeprefix(metric) for c in columns)]
        halves[stem] = [
            head,
            *(
                [i, row["run"], row["name"], i, *(row[c] for c in columns)]
                for i, row in enumerate(rows)
            ),
        ]
    folder = swarm(tmp_path, ratios=halves["ratios"], metrics=halves["metrics"])
    found = import_runs([folder]).table
    expected = RunTable.from_rows(
        [row | {"label": row["name"]} for row in rows], sum_tolerance=0.004
    )
    assert found.domains == expected.domains
    assert found.targets == expected.targets
    assert found.run.tolist() == expected.run.tolist()
    assert found.label.tolist() == expected.label.tolist()
    np.testing.assert_array_equal(found.weights, expected.weights)
    np.testing.assert_array_equal(found.values, expected.values)
