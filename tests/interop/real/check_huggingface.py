"""mixlaw's export against the real `datasets`: what is drawn is what we said."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from mixlaw import Mixture, Schedule
from mixlaw.interop.exporters.huggingface import HuggingFace
from mixlaw.interop.handover import Handover

SIZES = {"web": 4000, "code": 300, "a b'[1]": 1000}
WANTED = Mixture({"web": 0.7, "code": 0.1, "a b'[1]": 0.2, "none": 0.0})


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def write_domains(folder, form="jsonl"):
    """Domain -> the path of its examples, each {"domain", "i"}."""
    paths = {}
    for name, size in SIZES.items():
        path = folder / f"{name}.{form}"
        data = Dataset.from_dict({"domain": [name] * size, "i": range(size)})
        if form == "jsonl":
            data.to_json(path)
        elif form == "parquet":
            data.to_parquet(path)
        else:
            data.save_to_disk(str(path))
        paths[name] = (str(path),)
    return paths


def load_as_a_user(exported, folder):
    for name, text in exported.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("load_mixture", folder / "load_mixture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load


def handed(paths, schedule=None, **more):
    known = dict.fromkeys(SIZES, 100.0) if "sequence_length" not in more else {}
    schedule = schedule or Schedule.static(WANTED)
    return Handover(schedule, paths=paths, **{"mean_document_tokens": known, "seed": 3} | more)


def test_the_library_is_the_one_we_name():
    assert HuggingFace.checked == f"datasets {datasets.__version__}"


@pytest.mark.parametrize("form", ["jsonl", "parquet", "saved"])
@pytest.mark.parametrize("streaming", [False, True])
def test_static_shares_within_the_noise_of_draws_and_the_same_twice(tmp_path, form, streaming):
    exported = HuggingFace().export(handed(write_domains(tmp_path, form)))
    load = load_as_a_user(exported, tmp_path)
    drawn = [row["domain"] for row in load(streaming=streaming).take(5000)]
    assert drawn == [row["domain"] for row in load(streaming=streaming).take(5000)]
    counts, realised = Counter(drawn), exported.realised.dose
    assert set(counts) == set(realised)
    for name, share in realised.items():
        noise = np.sqrt(share * (1 - share) / 5000)
        assert abs(counts[name] / 5000 - share) < 4 * noise


@pytest.mark.parametrize(("files", "alike"), [(1, False), (2, True)])
def test_ranks_draw_alike_where_they_share_the_files_evenly(tmp_path, files, alike):
    """What the notes warn of."""
    paths = {}
    for name in ("web", "code"):
        for part in range(files):
            data = Dataset.from_dict({"domain": [name] * 500})
            data.to_json(tmp_path / f"{name}-{part}.jsonl")
        paths[name] = tuple(str(tmp_path / f"{name}-{part}.jsonl") for part in range(files))
    wanted = Schedule.static(Mixture({"web": 0.5, "code": 0.5}))
    exported = HuggingFace().export(Handover(wanted, paths, sequence_length=8))
    data = load_as_a_user(exported, tmp_path)(streaming=True)
    ranks = [split_dataset_by_node(data, rank=rank, world_size=2).take(40) for rank in range(2)]
    drawn = [[row["domain"] for row in rank] for rank in ranks]
    assert (drawn[0] == drawn[1]) is alike
    assert any("draws the domains of all ranks alike" in note for note in exported.notes)


def test_documents_of_other_lengths_give_the_wanted_tokens(tmp_path):
    tokens = {"web": 400.0, "code": 1600.0, "a b'[1]": 100.0}
    exported = HuggingFace().export(handed(write_domains(tmp_path), mean_document_tokens=tokens))
    drawn = Counter(row["domain"] for row in load_as_a_user(exported, tmp_path)().take(20_000))
    seen = {name: drawn[name] * tokens[name] for name in tokens}
    for name, count in seen.items():
        assert count / sum(seen.values()) == pytest.approx(WANTED[name], rel=0.15)


def test_all_exhausted_ends_when_the_last_is_used_up_as_the_notes_say(tmp_path):
    available = {name: size * 100 for name, size in SIZES.items()}
    exported = HuggingFace().export(handed(write_domains(tmp_path), available_tokens=available))
    length = len(load_as_a_user(exported, tmp_path)())
    assert length == pytest.approx(4000 / 0.7, rel=0.1)
    assert f"about {4000 / 0.7 * 100:,.0f} tokens (until 'web'" in exported.notes[-1]


def test_probabilities_are_what_numpy_demands_for_any_mixture():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 100, 997):
        shares = rng.dirichlet(np.full(size, 0.05)) + 1e-15
        mixture = Mixture.from_weights({f"d{j}": float(s) for j, s in enumerate(shares)})
        paths = {name: (f"{name}.jsonl",) for name in mixture}
        exported = HuggingFace().export(
            Handover(Schedule.static(mixture), paths=paths, sequence_length=8)
        )
        chances = list(json.loads(exported.files["mixture.json"])["probabilities"].values())
        assert min(chances) > 0
        assert sum(chances) == pytest.approx(1, abs=1e-12)
        np.random.default_rng(0).choice(len(chances), size=10, p=chances)


@pytest.mark.parametrize("form", ["jsonl", "saved"])
@pytest.mark.parametrize("streaming", [False, True])
def test_stages_are_exact_and_a_domain_goes_on_where_it_was_left(tmp_path, form, streaming):
    late = Mixture({"web": 0.25, "code": 0.75})
    schedule = Schedule.of([(0.6, WANTED), (0.4, late)])
    exported = HuggingFace().export(
        handed(write_domains(tmp_path, form), schedule, train_tokens=200_000)
    )
    data = load_as_a_user(exported, tmp_path)(streaming=streaming)
    assert isinstance(data, datasets.IterableDataset)
    rows = list(data)
    assert rows == list(load_as_a_user(exported, tmp_path)(streaming=streaming))
    assert len(rows) == 2000
    begin = 0
    for stage in exported.realised.stages:
        end = begin + round(stage.share * 2000)
        counts = Counter(row["domain"] for row in rows[begin:end])
        assert {n: c / (end - begin) for n, c in counts.items()} == pytest.approx(stage.mixture)
        begin = end
    for name, size in SIZES.items():
        seen = [row["i"] for row in rows if row["domain"] == name]
        assert seen == [k % size for k in range(len(seen))]  # code is seen 2.4 times
    # mixed within a stage, not one domain after the other
    half = Counter(row["domain"] for row in rows[:600])
    assert half["code"] == pytest.approx(60, abs=30)
    late = Counter(row["domain"] for row in rows[1100:1200])  # to the very end of the stage
    assert late["web"] == pytest.approx(70, abs=20)


@pytest.mark.parametrize("streaming", [False, True])
def test_stages_hold_with_loader_workers_and_several_ranks(tmp_path, streaming):
    schedule = Schedule.of([(0.5, Mixture({"web": 0.9, "code": 0.1})), (0.5, WANTED)])
    paths = write_domains(tmp_path)
    exported = HuggingFace().export(handed(paths, schedule, train_tokens=100_000))
    data = load_as_a_user(exported, tmp_path)(streaming=streaming)
    names = [
        row for batch in DataLoader(data, batch_size=10, num_workers=2) for row in batch["domain"]
    ]
    assert len(names) == 1000
    assert Counter(names[:500]) == {"web": 450, "code": 50}
    ranks = [list(split_dataset_by_node(data, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(rows) for rows in ranks] == [500, 500]
    assert Counter(row["domain"] for rows in ranks for row in rows[:250]) == Counter(names[:500])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_of_transformers_sees_the_stages_in_their_order(tmp_path, workers):
    schedule = Schedule.of([(0.5, Mixture({"web": 0.9, "code": 0.1})), (0.5, WANTED)])
    exported = HuggingFace().export(handed(write_domains(tmp_path), schedule, train_tokens=100_000))
    numbers = {name: number for number, name in enumerate(SIZES)}
    data = load_as_a_user(exported, tmp_path)(
        streaming=True,
        prepare=lambda part: part.map(
            lambda row: {"input_ids": [numbers[row["domain"]]]}, remove_columns=["domain", "i"]
        ),
    )
    options = TrainingArguments(
        str(tmp_path / "out"),
        max_steps=100,
        per_device_train_batch_size=10,
        dataloader_num_workers=workers,
        use_cpu=True,
        report_to=[],
    )
    config = LlamaConfig(
        vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    trainer = Trainer(LlamaForCausalLM(config), options, train_dataset=data)
    seen = torch.cat([batch["input_ids"][:, 0] for batch in trainer.get_train_dataloader()])
    assert Counter(seen[:500].tolist()) == {0: 450, 1: 50}
    assert Counter(seen[500:].tolist()) == {0: 350, 1: 50, 2: 100}


def test_a_domain_without_examples_is_said(tmp_path):
    schedule = Schedule.of([(0.5, Mixture({"web": 1.0})), (0.5, WANTED)])
    exported = HuggingFace().export(handed(write_domains(tmp_path), schedule, train_tokens=1000))
    data = load_as_a_user(exported, tmp_path)(prepare=lambda part: part.take(0))
    with pytest.raises(ValueError, match="'web' has no examples"):
        next(iter(data))


def test_prepare_is_done_before_the_mixing(tmp_path):
    exported = HuggingFace().export(handed(write_domains(tmp_path), sequence_length=64))
    assert exported.unit == "sample"
    load = load_as_a_user(exported, tmp_path)
    columns = load(prepare=lambda data: data.select_columns(["i"])).column_names
    assert columns == ["i"]
