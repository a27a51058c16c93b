"""Single figures, as they stand in the sources."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.datasets.mixinglaws import Suite
from mixlaw.datasets.pairs import Olmix, RegMix
from mixlaw.datasets.scales import Dmsl
from mixlaw.errors import RunTableError

LINE = "/home/ckpts/Pile100B//70M_3-0.25-0.75/13000\t/home/data/pile.valid.Pile-CC.bin\t{}\n"


def row_of(runs, run: str, tokens: float | None = None) -> int:
    at = runs.run == run
    return int(np.flatnonzero(at if tokens is None else at & (runs.train_tokens == tokens))[0])


def test_5mix(published):
    runs = published("mixinglaws/5mix")
    i = row_of(runs, "70M_3", 13000 * 2**20)
    assert runs.column("loss/github")[i] == 1.870334640688259
    assert runs.column("loss/books3")[i] == 3.9707626714939024
    np.testing.assert_array_equal(runs.weights[i], [0.125, 0, 0, 0.125, 0.75])
    assert runs.domains == ("academic", "prose", "dialogue", "symbolic", "internet")
    assert (runs.label[i], runs.num_params[i]) == ("3", 18_915_328)
    assert (~np.isfinite(runs.values).all(axis=1)).sum() == 5


def test_labels_are_of_mixtures(published):
    """The same at every size: what has one label has one mixture."""
    for name in ("2mix", "5mix", "redpajama"):
        runs = published(f"mixinglaws/{name}")
        ids = runs.mixture_ids()
        assert all(len(set(ids[runs.label == label])) == 1 for label in set(runs.label))


def test_3mix_has_steps_in_its_labels(published):
    runs = published("mixinglaws/3mix")
    assert np.isnan(runs.train_tokens).all()
    at = (runs.run == "410M_8") & (runs.label == "8 at step 60000")
    assert runs.column("loss/github")[at] == [1.2467609359185223]
    assert runs.num_params[at] == [302_311_424]
    assert "13 at step last" in runs.label


def test_the_default_mixture_of_redpajama(published):
    runs = published("mixinglaws/redpajama")
    at = runs.label == "999"
    assert set(runs.weights[at, runs.domains.index("c4")]) == {19 / 128}
    assert "1B" not in {run.partition("_")[0] for run in runs.run}


def test_ct_starts_from_the_base_model(published):
    runs = published("mixinglaws/ct")
    assert len(runs.continued()) == len(runs) == 50
    assert set(runs.start[:, runs.targets.index("loss/github")]) == {1.5652903197747976}
    i = row_of(runs, "70M_ct_1", 2000 * 2**20)
    assert runs.column("loss/starcoder_python")[i] == 1.4695587158203125
    np.testing.assert_array_equal(runs.weights[i], [0.25, 0.75])


def test_regmix(published):
    runs = published("regmix")
    i = row_of(runs, "train-1m-1")
    assert runs.column("loss/arxiv")[i] == 7.0255866050720215
    assert runs.weights[i, runs.domains.index("pile_cc")] == 0.787
    assert (runs.num_params[i], runs.train_tokens[i]) == (1e6, 1e9)
    counts = {label: int((runs.label == label).sum()) for label in dict.fromkeys(runs.label)}
    assert counts == {"train-1m": 512, "test-1m": 256, "extra-1m": 488}
    assert np.isnan(runs.train_tokens[runs.label == "extra-1m"]).all()
    single = published("regmix/test-1m")
    np.testing.assert_array_equal(single.values, runs.values[runs.label == "test-1m"])


def test_slimpajama_tasks(published):
    runs = published("slimpajama-tasks")
    i = row_of(runs, "test-768")
    assert runs.column("loss/task_medqa")[i] == 5.512476921081543
    assert runs.weights[i, 0] == pytest.approx(0.1034 / 0.9998)  # as rounded, it sums to .9998
    assert len(published("slimpajama-tasks/train")) == 512


def test_dmsl(published):
    runs = published("dmsl-slimpajama")
    i = row_of(runs, "0-122M", 1.998e9)
    assert runs.column("loss/openhermes")[i] == 3.37936190366745
    assert runs.weights[i, runs.domains.index("c4")] == pytest.approx(0.416923076923077)
    assert np.isnan(runs.values).sum() == 16
    assert set(runs.num_params) == {1.22e8, 3.1e8, 6.8e8, 9.37e8}


def test_olmix(published):
    runs = published("olmix/dclm")
    i = row_of(runs, "19g3guks")
    assert runs.label[i] == "dclm-datadelve-5xC-30m-62e7dc06-0000"
    assert runs.weights[i, runs.domains.index("social_life")] == pytest.approx(0.7)
    assert runs.column("bpb/winogrande:rc::olmes")[i] == 1.499402651776192
    assert published("olmix/full-reuse").domains[-1] == "existing"


def test_a_line_may_come_twice_but_with_one_loss(tmp_path):
    suite = Suite(("70M",), ("github", "pile_cc"))
    path = tmp_path / "70M.txt"
    path.write_text(LINE.format(3.5) * 2)
    (row,) = suite.rows(suite.parse([path]))
    assert row == {
        "run": "70M_3",
        "label": "3",
        "num_params": 18_915_328,
        "train_tokens": 13000 * 2**20,
        "weight/github": 0.25,
        "weight/pile_cc": 0.75,
        "loss/pile_cc": 3.5,
    }
    path.write_text(LINE.format(3.5) + LINE.format(3.6))
    with pytest.raises(RunTableError, match=r"70M\.txt has two losses for \('70M', '70M_3', '13"):
        suite.parse([path])


def test_the_pile_s_own_names(tmp_path):
    """In the files of extra-1m, whose first 512 rows are those of train-1m."""
    mixtures, losses = tmp_path / "tiny_config.csv", tmp_path / "tiny_wandb.csv"
    mixtures.write_text("index,Stack Exchange,Wikipedia (en)\n512,1.0,0.0\n513,0.25,0.75\n")
    losses.write_text("index,Wikipedia (en)\n512,5.0\n513,6.0\n")
    table = RegMix(("extra_1m",))
    (row,) = table.rows(table.parse([mixtures, losses]))
    assert row == {
        "run": "extra-1m-513",
        "label": "extra-1m",
        "num_params": 1e6,
        "train_tokens": None,
        "weight/stackexchange": 0.25,
        "weight/wikipedia_en": 0.75,
        "loss/wikipedia_en": 6.0,
    }


def test_sizes_and_empty_cells(tmp_path):
    path = tmp_path / "dmsl.csv"
    path.write_text(
        "weight_book,weight_c4,model_size,n_tokens,book_loss\n"
        "0.5,0.5,122000000.0,1998000000.0,4.5\n0.5,0.5,9e9,1998000000.0,2.5\n"
        "0.5,0.5,310000000.0,1998000000.0,\n0.2,0.8,310000000.0,1998000000.0,4.25\n"
    )
    rows = Dmsl().rows(Dmsl().parse([path]))
    assert [row["run"] for row in rows] == ["0-122M", "0-310M", "1-310M"]
    assert [row["loss/book"] for row in rows] == [4.5, None, 4.25]
    assert [row["weight/c4"] for row in rows] == [0.5, 0.5, 0.8]


def test_a_swarm_of_olmix(tmp_path):
    ratios, metrics = tmp_path / "a_ratios.csv", tmp_path / "a_metrics.csv"
    ratios.write_text(",run,name,index,pdf:art,existing\n0,x1,swarm-0,0,0.25,0.75\n")
    metrics.write_text(",run,name,index,mbpp:3shot::none\n0,x1,swarm-0,0,1.5\n")
    (row,) = Olmix().rows(Olmix().parse([ratios, metrics]))
    assert (row["run"], row["label"]) == ("x1", "swarm-0")
    assert (row["weight/pdf:art"], row["bpb/mbpp:3shot::none"]) == (0.25, 1.5)
