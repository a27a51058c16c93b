"""Runs of RegMix, in the layouts of its repository."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop import import_runs
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers.regmix import RegMix
from mixlaw.runs import RunTable

MIXTURES = [
    ["index", "train_the_pile_arxiv", "train_the_pile_pile_cc", "train_the_pile_europarl"],
    ["1", "0.209", "0.787", "0.004"],
    ["2", "0.025", "0.975", "0.0"],
    ["3", "0.5", "0.497", "0.0"],  # rounded to three digits
]
LOSSES = [
    ["index", "metric/the_pile_arxiv_val_loss", "metric/the_pile_pile_cc_val_loss"],
    ["1", "7.0255866050720215", "5.169477939605713"],
    ["2", "4.738541603088379", "5.343518733978272"],
    ["3", "3.730258703231812", "5.506680965423584"],
]


def write(path: Path, rows: list[list]) -> str:
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return str(path)


def pair(folder: Path, *, mixtures=MIXTURES, losses=LOSSES, of="train_{}_1m") -> list[str]:
    return [
        write(folder / f"{of.format('mixture')}.csv", mixtures),
        write(folder / f"{of.format('pile_loss')}.csv", losses),
    ]


def read(*sources: str):
    return list(RegMix().read(sources))


def test_domains_and_targets_get_the_names_that_they_share(tmp_path):
    runs = read(*pair(tmp_path))
    assert [run.run for run in runs] == ["train_1m-1", "train_1m-2", "train_1m-3"]
    assert runs[0].fields == {
        "weight/arxiv": 0.209,
        "weight/pile_cc": 0.787,
        "weight/europarl": 0.004,
        "loss/arxiv": 7.0255866050720215,
        "loss/pile_cc": 5.169477939605713,
    }
    assert "train_mixture_1m.csv, row 3" in runs[2].origin


def test_rows_are_joined_by_index_not_by_place(tmp_path):
    runs = read(*pair(tmp_path, losses=[LOSSES[0], LOSSES[3], LOSSES[1]]))
    by_run = {run.run: run.fields for run in runs}
    assert by_run["train_1m-1"]["loss/arxiv"] == 7.0255866050720215
    assert by_run["train_1m-3"]["loss/arxiv"] == 3.730258703231812
    assert not any(name.startswith("loss/") for name in by_run["train_1m-2"])


def test_an_index_that_became_a_float_is_the_same(tmp_path):
    losses = [LOSSES[0], *([f"{row[0]}.0", *row[1:]] for row in LOSSES[1:])]
    runs = read(*pair(tmp_path, losses=losses))
    assert [run.run for run in runs] == ["train_1m-1", "train_1m-2", "train_1m-3"]


def test_the_older_tables_have_bare_names(tmp_path):
    """data/pile/tiny_config_1M_pile.csv and tiny_wandb_1M_1000_pile_4B.csv."""
    files = [
        write(tmp_path / "tiny_wandb_4B.csv", [["index", "ArXiv", "Wikipedia (en)"], ["1", 7, 5]]),
        write(
            tmp_path / "tiny_config.csv",
            [["index", "ArXiv", "Wikipedia (en)", "EuroParl"], ["1", 0.25, 0.5, 0.25]],
        ),
    ]
    assert recognise(files).name == "regmix"
    (run,) = read(*files)
    assert run.run == "tiny_config-1"
    assert run.fields["weight/Wikipedia (en)"] == 0.5
    assert run.fields["loss/Wikipedia (en)"] == 5


def test_names_outside_the_pile_are_kept(tmp_path):
    mixtures = [["index", "train_web_en", "train_web_de"], ["1", 0.5, 0.5]]
    losses = [["index", "metric/web_en_val_loss", "metric/sciq_val_loss"], ["1", 3, 4]]
    (run,) = read(*pair(tmp_path, mixtures=mixtures, losses=losses))
    assert list(run.fields) == ["weight/web_en", "weight/web_de", "loss/web_en", "loss/sciq"]


def test_a_training_loss_is_no_target(tmp_path):
    """`collect_loss_data` exports it with the others."""
    losses = [[*row, 9.0] for row in LOSSES]
    losses[0][-1] = "metric/train_loss"
    files = pair(tmp_path, losses=losses)
    assert recognise(files).name == "regmix"
    assert import_runs(files).table.targets == ("loss/arxiv", "loss/pile_cc")


def test_recognised_as_a_folder_and_as_two_files_in_any_order(tmp_path):
    files = pair(tmp_path)
    assert recognise(files[::-1]).name == recognise([str(tmp_path)]).name == "regmix"
    assert [r.fields for r in read(*files[::-1])] == [r.fields for r in read(str(tmp_path))]
    assert not RegMix().recognises(files[:1])
    assert not RegMix().recognises([str(tmp_path / "absent.csv"), files[0]])


def test_tables_of_other_measures_are_not_recognised(tmp_path):
    files = pair(tmp_path, losses=[["index", "speed"], ["1", "3.0"]])
    assert not RegMix().recognises(files)


def test_two_tables_of_mixtures_are_no_pair(tmp_path):
    files = pair(tmp_path, losses=MIXTURES)
    assert not RegMix().recognises(files)
    with pytest.raises(RunTableError, match="not runs of RegMix; name its two files"):
        read(*files)


def test_pairs_of_several_sizes_are_named(tmp_path):
    pair(tmp_path)
    pair(tmp_path, of="test_{}_60m")
    assert RegMix().recognises([str(tmp_path)])
    with pytest.raises(RunTableError, match=r"test_mixture_60m.csv test_pile_loss_60m.csv; train_"):
        read(str(tmp_path))


def published() -> Path:
    """Tables that others measured; they are not part of the project."""
    return Path(os.environ.get("MIXLAW_DATA", "absent")) / "regmix_pile" / "runs.parquet"


@pytest.mark.parametrize("split", ["train_1m", "test_1m"])
def test_published_runs_are_what_their_table_holds(tmp_path, split):
    """Their files made again, with the source's columns, rounding and digits."""
    if not (path := published()).exists():
        pytest.skip(f"no published tables at {path.parent}; set MIXLAW_DATA")
    rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    rows = [row for row in rows if row["split"] == split]
    domains = [name.removeprefix("weight/") for name in rows[0] if name.startswith("weight/")]
    targets = [name.removeprefix("loss/") for name in rows[0] if name.startswith("loss/")]
    mixtures = [["index", *(f"train_the_pile_{name}" for name in domains)]]
    losses = [["index", *(f"metric/the_pile_{name}_val_loss" for name in targets)]]
    for row in rows:
        mixtures.append([row["run"], *(row[f"weight/{name}"] for name in domains)])
        losses.append([row["run"], *(row[f"loss/{name}"] for name in targets)])
    of = f"{split.partition('_')[0]}_{{}}_1m"
    imported = import_runs(pair(tmp_path, mixtures=mixtures, losses=losses, of=of))
    found = imported.table
    expected = RunTable.from_rows(
        [row | {"run": f"{split}-{row['run']}"} for row in rows], sum_tolerance=0.0041
    )
    assert (found.domains, found.targets) == (expected.domains, expected.targets)
    assert found.run.tolist() == expected.run.tolist()
    np.testing.assert_array_equal(found.weights, expected.weights)
    np.testing.assert_array_equal(found.values, expected.values)
    (note,) = imported.notes
    assert "summed to between 0.99" in note
