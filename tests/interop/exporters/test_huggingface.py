from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace

import pytest

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.huggingface import HuggingFace, sources
from mixlaw.interop.handover import DOCUMENT, SAMPLE, Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

WANTED = Mixture({"web": 0.8, "code": 0.2})
STAGED = Schedule.of([(0.75, WANTED), (0.25, Mixture({"code": 1.0}))])
PATHS = {"web": ("web.jsonl",), "code": ("owner/code",)}
LENGTHS = {"web": 400.0, "code": 1600.0}


def plan(handover):
    exported = HuggingFace().export(handover)
    return exported, json.loads(exported.files["mixture.json"])


def test_shares_of_tokens_become_shares_of_documents():
    exported, made = plan(Handover(Schedule.static(WANTED), PATHS, mean_document_tokens=LENGTHS))
    # .8 / 400 to .2 / 1600 is 16 to 1
    assert made["probabilities"] == pytest.approx({"web": 16 / 17, "code": 1 / 17}, abs=1e-9)
    assert exported.unit == made["unit"] == DOCUMENT
    assert exported.realised.dose == made["probabilities"]


def test_packed_blocks_have_the_shares_of_tokens():
    exported, made = plan(Handover(Schedule.static(WANTED), PATHS, sequence_length=512))
    assert exported.unit == SAMPLE
    assert made["probabilities"] == WANTED
    assert "packed block of 512 tokens" in exported.notes[0]


@pytest.mark.parametrize("lengths", [{}, {"web": 400.0}])
def test_examples_of_unknown_length_are_refused(lengths):
    handover = Handover(Schedule.static(WANTED), PATHS, mean_document_tokens=lengths)
    with pytest.raises(ExportError, match=r"--document-tokens \w+=.*--sequence-length"):
        HuggingFace().export(handover)


def test_a_document_of_no_length_is_refused():
    lengths = {"web": 0.0, "code": 1.0}
    with pytest.raises(ExportError, match="finite and > 0"):
        plan(Handover(Schedule.static(WANTED), PATHS, mean_document_tokens=lengths))


def test_stages_count_examples_of_each_domain():
    handover = Handover(STAGED, PATHS, train_tokens=1_600_000, mean_document_tokens=LENGTHS)
    exported, made = plan(handover)
    assert made["stages"] == [{"web": 2400, "code": 150}, {"code": 250}]
    assert [stage.share for stage in exported.realised.stages] == [2550 / 2800, 250 / 2800]


def test_stages_need_the_length_of_the_run():
    with pytest.raises(ExportError, match="--train-tokens"):
        HuggingFace().export(Handover(STAGED, PATHS, mean_document_tokens=LENGTHS))


def test_a_stage_of_fewer_examples_than_domains_is_refused():
    handover = Handover(STAGED, PATHS, train_tokens=1200, mean_document_tokens=LENGTHS)
    with pytest.raises(ExportError, match="stage 2 of 2 is 0 documents long, and 1 domains"):
        HuggingFace().export(handover)


def test_what_is_read_back_is_of_tokens(tmp_path):
    for schedule in (STAGED, Schedule.static(WANTED)):
        handover = Handover(schedule, PATHS, train_tokens=1_600_000, mean_document_tokens=LENGTHS)
        path = tmp_path / "mixture.json"
        path.write_text(HuggingFace().export(handover).files["mixture.json"])
        back = HuggingFace().read(path, ["web", "code"])
        for stage, wanted in zip(back.stages, schedule.stages, strict=True):
            assert stage.share == pytest.approx(wanted.share)
            assert {n: s for n, s in stage.mixture.items() if s} == pytest.approx(wanted.mixture)


def test_a_plan_of_other_domains_is_refused(tmp_path):
    handover = Handover(Schedule.static(WANTED), PATHS, sequence_length=8)
    path = tmp_path / "mixture.json"
    path.write_text(HuggingFace().export(handover).files["mixture.json"])
    with pytest.raises(ExportError, match="'code' names none of the domains"):
        HuggingFace().read(path, ["web", "books"])
    assert HuggingFace().read(path, ["web", "code", "books"]).dose == {**WANTED, "books": 0.0}


@pytest.mark.parametrize(
    "plan",
    [
        {"probabilities": {"web": 0.3, "code": 0.7}, "tokens_per_example": {"web": 0, "code": 0}},
        {"stages": [{"web": 0}], "tokens_per_example": {"web": 1}},
        {"stages": [], "tokens_per_example": {}},
        {"probabilities": {"web": 1.0}, "tokens_per_example": {}},
        [],
    ],
)
def test_a_plan_of_nothing_is_refused(tmp_path, plan):
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps(plan))
    with pytest.raises(ExportError, match=r"mixture\.json"):
        HuggingFace().read(path, ["web", "code"])


def test_the_trainer_is_told_the_seed_and_the_length():
    handover = Handover(
        Schedule.static(WANTED), PATHS, train_tokens=8000, sequence_length=8, seed=5
    )
    assert "TrainingArguments(seed=5)" in HuggingFace().export(handover).how
    how = HuggingFace().export(replace(handover, batch_sequences=10)).how
    assert "TrainingArguments(seed=5, max_steps=100), steps of 10 samples of 8 tokens" in how
    with pytest.raises(ExportError, match="train longer"):
        HuggingFace().export(replace(handover, batch_sequences=10_000))


def test_notes_say_how_often_each_domain_is_seen():
    handover = Handover(
        Schedule.static(WANTED),
        PATHS,
        sequence_length=8,
        available_tokens={"web": 8_000_000, "code": 1_000_000},
    )
    note = HuggingFace().export(handover).notes[-1]
    # web is used up after 8e6 / .8 tokens, of which .2 are code's, twice over
    assert "about 10,000,000 tokens (until 'web' is used up): 'web' 1 epochs, 'code' 2" in note
    assert "first_exhausted would stop at about 5,000,000 (with 'code')" in note


def test_paths_are_told_from_names_of_datasets():
    assert sources(["a.jsonl.zst", "b.json"]) == [
        {"path": "json", "data_files": ["a.jsonl.zst", "b.json"]}
    ]
    assert sources(["x.parquet", "y.txt"]) == [
        {"path": "parquet", "data_files": ["x.parquet"]},
        {"path": "text", "data_files": ["y.txt"]},
    ]
    assert sources(["hf://datasets/a/b/*.parquet"]) == [
        {"path": "parquet", "data_files": ["hf://datasets/a/b/*.parquet"]}
    ]
    assert sources(["x[1].jsonl"]) == [{"path": "json", "data_files": ["x[[]1].jsonl"]}]
    assert sources(["allenai/c4:en", "/data/saved"]) == [
        {"path": "allenai/c4", "name": "en"},
        {"path": "/data/saved"},
    ]


def test_the_loader_stands_by_itself():
    exported = HuggingFace().export(Handover(Schedule.static(WANTED), PATHS, sequence_length=8))
    tree = ast.parse(exported.files["load_mixture.py"])
    names = {
        (str(node.module) if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert names - sys.stdlib_module_names == {"datasets", "numpy"}
