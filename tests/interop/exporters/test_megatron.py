"""Megatron's blend. Against the real library: tests/interop/real/check_megatron.py."""

from __future__ import annotations

import itertools
import json
import shlex

import numpy as np
import pytest

from mixlaw.corpus.tokens import write_megatron
from mixlaw.errors import ExportError
from mixlaw.interop.exporters.megatron import EXACT_SAMPLES, Megatron, draws, normalised
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

MIXTURE = Mixture({"web": 0.6, "code": 0.4})


def handover(paths, shares=MIXTURE, **more):
    return Handover(Schedule.static(Mixture(shares)), paths=paths, **more)


def test_weight_then_path_and_all_three_splits():
    files = Megatron().export(handover({"web": ("/d/web",), "code": ("/d/code.bin",)})).files
    blend = ["0.600000", "/d/web", "0.400000", "/d/code"]
    assert json.loads(files["blend_per_split.json"]) == {
        "train": blend,
        "valid": None,
        "test": None,
    }
    assert files["data_args.txt"].split() == blend


def test_paths_with_spaces_go_in_the_json_only():
    paths = {"web": ("/my data/it's web",), "code": ("/d/a\nb",)}
    exported = Megatron().export(handover(paths))
    assert list(exported.files) == ["blend_per_split.json"]
    blend = json.loads(exported.files["blend_per_split.json"])["train"]
    assert blend[1::2] == ["/my data/it's web", "/d/a\nb"]


@pytest.mark.parametrize("path", [" /d/web", "/d/web ", "/d/web\n"])
def test_paths_that_megatron_would_cut_are_refused(path):
    with pytest.raises(ExportError, match="begins or ends with a space"):
        Megatron().export(handover({"web": (path,), "code": ("/d/code",)}))


def test_the_command_can_be_pasted():
    given = {"train_tokens": 10_000, "sequence_length": 100, "batch_sequences": 4, "seed": 9}
    how = Megatron().export(handover({"web": ("/w",), "code": ("/c",)}, **given)).how
    words = shlex.split(how, comments=True)
    options = dict(itertools.pairwise(words))
    assert options["--train-iters"] == "25"
    assert options["--seq-length"] == "100"
    assert options["--global-batch-size"] == "4"
    assert options["--seed"] == "10"


def test_the_first_seed_is_one_that_the_trainer_takes():
    """It refuses 0, which is a study's default."""
    how = Megatron().export(handover({"web": ("/w",), "code": ("/c",)})).how
    assert "--seed 1\n" in how


def test_several_files_of_a_domain_are_weighted_by_their_sizes(tmp_path):
    for name, tokens in {"a": 300, "b": 100, "c": 50}.items():
        with write_megatron(tmp_path / name, vocab_size=1000) as writer:
            writer.add(np.arange(tokens))
    paths = {"web": (f"{tmp_path}/a", f"{tmp_path}/b"), "code": (f"{tmp_path}/c",)}
    given = {"train_tokens": 10_000, "sequence_length": 1}
    exported = Megatron().export(handover(paths, **given))
    blend = json.loads(exported.files["blend_per_split.json"])["train"]
    assert blend[::2] == ["0.450000", "0.150000", "0.400000"]
    assert exported.realised.dose == pytest.approx({"web": 0.6, "code": 0.4}, abs=2e-4)


def test_files_that_are_not_here_cannot_be_weighted():
    paths = {"web": ("s3://b/web_0", "s3://b/web_1"), "code": ("/c",)}
    with pytest.raises(ExportError, match="give one path for the domain"):
        Megatron().export(handover(paths))


def test_each_draw_goes_to_the_one_furthest_behind():
    assert draws(normalised([0.5, 0.25, 0.25]), 4) == [2, 1, 1]
    assert draws(normalised([0.5, 0.25, 0.25]), 1) == [1, 0, 0]
    assert draws(normalised([0.3, 0.7]), 10) == [3, 7]
    assert sum(draws(normalised([0.3, 0.7]), EXACT_SAMPLES + 1)) == EXACT_SAMPLES + 1


def test_a_domain_that_is_never_drawn_is_told():
    given = {"train_tokens": 100, "sequence_length": 100}
    exported = Megatron().export(handover({"web": ("/w",), "code": ("/c",)}, **given))
    assert exported.realised.dose == {"web": 1.0, "code": 0.0}
    assert "a run of 1 samples draws none of ['code']" in exported.notes


def test_long_runs_draw_none_of_the_smallest():
    shares = normalised([0.999_999_999, 1e-9])
    assert draws(shares, EXACT_SAMPLES + 1) == [EXACT_SAMPLES + 1, 0]
    given = {"train_tokens": 200_000, "sequence_length": 1}
    rare = {"web": 1 - 1e-6, "code": 1e-6}
    exported = Megatron().export(handover({"web": ("/w",), "code": ("/c",)}, rare, **given))
    assert exported.realised.dose["code"] == 0
    assert "a run of 200,000 samples draws next to none of ['code']" in exported.notes


def test_a_run_of_unknown_size_is_told():
    exported = Megatron().export(handover({"web": ("/w",), "code": ("/c",)}))
    assert exported.realised.dose == MIXTURE
    assert any("are not known" in note for note in exported.notes)


def test_a_run_shorter_than_a_sample_is_refused():
    given = {"train_tokens": 99, "sequence_length": 100}
    with pytest.raises(ExportError, match=r"99 are less than one of its samples \(1 x 100 tokens"):
        Megatron().export(handover({"web": ("/w",), "code": ("/c",)}, **given))


@pytest.mark.parametrize(
    "text",
    [
        "30 /d/web_text_document 10 /d/code_text_document 40 /x/web_b\n",
        "--data-path 30 /d/web_text_document \\\n 10 /d/code_text_document 40 /x/web_b \\\n",
        "30 /my-data-path/web_a 10 /it's/code_a 40 /x/web_b\n",
        "torchrun x.py --data-path 30 /d/web_a 10 /d/code_a 40 '/my x/web b' --split 949,50,1",
        '#!/bin/bash\n# don\'t\nDATA_ARGS="--data-path 30 /d/web_a \\\n 10 /d/code_a 40 /d/web_b"\n'
        "torchrun pretrain_gpt.py $DATA_ARGS --split 949,50,1",
        'ARGS="--train-data-path 30 /d/web_a 10 /d/code_a 40 /d/web_b --split 9,1,0"\npython x.py',
        "ARGS=(\n  --data-path 30 /d/web_a 10 /d/code_a\n  40 /d/web_b\n)\npython x.py",
        "ARGS=(--seed 3 --train-data-path 30 /d/web_a 10 /d/code_a 40 /d/web_b --split 9,1,0)",
        json.dumps({"train": "30 /d/web_a 10 /d/code_a 40 /x/web_b", "valid": None}),
        json.dumps([30, "/d/web_a", 10, "/d/code a", "40", "/x/web_b"]),
    ],
)
def test_blends_are_read_however_they_were_written(tmp_path, text):
    (tmp_path / "blend").write_text(text)
    back = Megatron().read(tmp_path / "blend", ["web", "code", "books"])
    assert back.dose == {"web": 0.875, "code": 0.125, "books": 0.0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/d/web", "paths without weights"),
        ("/d/web /d/code", "the weight of '/d/code' is '/d/web'"),
        ("1 /d/web 1 /d/arts", "names none of the domains"),
        (json.dumps({"valid": ["1", "/d/web"]}), "holds no blend"),
        ("{", "is not a blend: Expecting"),
        ("--data-path 'x", "is not a blend: No closing quotation"),
        ("--data-path $BLEND", "paths without weights"),
        (json.dumps(["1e308", "/d/web", "1e308", "/d/code"]), "is not a blend"),
    ],
)
def test_what_is_no_blend_is_refused(tmp_path, text, told):
    (tmp_path / "blend").write_text(text)
    with pytest.raises(ExportError, match=told):
        Megatron().read(tmp_path / "blend", ["web", "code"])
