"""Our blends and token files, read by megatron-core."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.helpers_cpp import build_blending_indices
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import get_blend_from_list, normalize

from mixlaw.corpus.tokens import write_megatron
from mixlaw.interop.exporters.megatron import EXACT_SAMPLES, Megatron, draws, normalised
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

LENGTH = 16
MIXTURE = Mixture({"web": 0.55, "code": 0.3, "books": 0.149, "rare": 0.001, "none": 0.0})


def counted(weights, num_samples):
    """What megatron-core's own index gives each dataset, normalised as its two classes do."""
    index = np.zeros(num_samples, dtype=np.int16)
    within = np.zeros(num_samples, dtype=np.int64)
    shares = normalize(normalize(weights))
    build_blending_indices(index, within, shares, len(shares), num_samples, False)
    return np.bincount(index, minlength=len(shares)).tolist()


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory):
    """A token file a domain whose ids tell it apart: those of domain i are 100 i to 100 i + 99."""
    root = tmp_path_factory.mktemp("tokens with spaces")
    rng = np.random.default_rng(0)
    made = {}
    for i, name in enumerate(["web", "code", "books", "rare"]):
        made[name] = (str(root / f"{name}_text_document"),)
        with write_megatron(root / f"{name}_text_document", vocab_size=1000) as writer:
            for _ in range(40):
                writer.add(rng.integers(100 * i, 100 * i + 100, rng.integers(20, 90)))
    return made


def handover(prefixes, num_samples):
    return Handover(
        Schedule.static(MIXTURE),
        paths=prefixes,
        train_tokens=num_samples * LENGTH,
        sequence_length=LENGTH,
        batch_sequences=8,
        seed=7,
    )


@pytest.mark.parametrize("seed", range(20))
def test_our_index_is_theirs_to_the_sample(seed):
    rng = np.random.default_rng(seed)
    weights = np.round(rng.dirichlet(np.full(rng.integers(2, 30), 0.3)), 6) + 1e-6
    num_samples = int(rng.integers(1, 4000))
    ours = draws(normalised(normalised(weights)), num_samples)
    assert ours == counted(weights.tolist(), num_samples)


def test_our_index_is_theirs_up_to_the_longest_run_followed():
    weights = [0.6, 0.3, 0.099999, 0.000001]
    assert draws(normalised(normalised(weights)), EXACT_SAMPLES) == counted(weights, EXACT_SAMPLES)


@pytest.mark.parametrize("seed", range(5))
def test_longer_runs_are_off_by_a_sample(seed):
    rng = np.random.default_rng(seed)
    weights = np.round(rng.dirichlet(np.full(100, 0.1)), 6) + 1e-6
    num_samples = 100_001 if seed % 2 else 2_000_000
    theirs = counted(weights.tolist(), num_samples)
    ours = draws(normalised(normalised(weights)), num_samples)
    assert np.abs(np.subtract(ours, theirs)).max() <= 1


def test_indexed_dataset_reads_our_token_files_token_for_token(tmp_path):
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 70_000, n) for n in (1, 5, 300)]
    with write_megatron(tmp_path / "a.b", vocab_size=70_000) as writer:
        for document in documents:
            writer.add(document)
    read = IndexedDataset(str(tmp_path / "a.b"))
    assert len(read) == 3
    assert read.document_indices.tolist() == [0, 1, 2, 3]
    for ours, theirs in zip(documents, read, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def tokenizer():
    return types.SimpleNamespace(
        vocab_size=1000, eod=999, pad=998, unique_identifiers={"class": "none"}
    )


@pytest.mark.parametrize("num_samples", [8, 1000, 2024])
def test_a_blended_gpt_dataset_draws_what_we_say(prefixes, tmp_path, tokenizer, num_samples):
    exported = Megatron().export(handover(prefixes, num_samples))
    splits = json.loads(exported.files["blend_per_split.json"])
    config = GPTDatasetConfig(
        random_seed=7,
        sequence_length=LENGTH,
        blend_per_split=[get_blend_from_list(splits[name]) for name in ("train", "valid", "test")],
        path_to_cache=None,
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    train, valid, test = BlendedMegatronDatasetBuilder(
        GPTDataset, [num_samples, 8, 8], lambda: True, config
    ).build()
    assert valid is None
    assert test is None
    drawn = Counter(int(train[i]["tokens"][0]) // 100 for i in range(num_samples))
    names = ["web", "code", "books", "rare"]
    for i, name in enumerate(names):
        assert exported.realised.dose[name] == pytest.approx(drawn[i] / num_samples, abs=1e-12)


def test_the_file_of_arguments_is_the_same_blend(tmp_path):
    paths = {name: (f"/d/{name}_text_document",) for name in MIXTURE}
    files = Megatron().export(handover(paths, 100)).files
    from_args = get_blend_from_list(files["data_args.txt"].split())
    assert from_args == get_blend_from_list(json.loads(files["blend_per_split.json"])["train"])
    assert from_args[1] == [0.55, 0.3, 0.149, 0.001]


BRIDGE = Path(importlib.util.find_spec("megatron.bridge").submodule_search_locations[0])


def bridge_function(path, name, **scope):
    """A function of Bridge, out of its module, whose imports need Transformer Engine and with it a
    GPU."""
    tree = ast.parse((BRIDGE / path).read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", "") == name]
    exec(compile(tree, path, "exec"), scope)
    return scope[name]


def bridge_parser():
    """Its reader of blends. Megatron-LM's megatron/training/utils.py, in no wheel, has the same
    lines."""
    return bridge_function(
        "data/loaders.py",
        "get_blend_and_blend_per_split",
        Optional=Optional,
        json=json,
        get_blend_from_list=get_blend_from_list,
    )


def test_the_lines_for_bridge_set_the_blend(tmp_path, monkeypatch):
    """As printed, on the part of a recipe's config that they touch."""
    paths = {name: (f"/d/{name}_text_document",) for name in MIXTURE}
    exported = Megatron().export(handover(paths, 100))
    (tmp_path / "blend_per_split.json").write_text(exported.files["blend_per_split.json"])
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("megatron.bridge.recipes.utils.dataset_utils")
    name = "get_blend_fields_from_data_paths"
    found = bridge_function(
        "recipes/utils/dataset_utils.py",
        name,
        **dict.fromkeys(["_BLEND_TYPE", "_BLEND_PER_SPLIT_TYPE", "_SPLIT_TYPE"], object),
        Optional=Optional,
        List=list,
        Tuple=tuple,
        get_blend_and_blend_per_split=bridge_parser(),
    )
    monkeypatch.setattr(module, name, found, raising=False)
    for parent in ("megatron.bridge", "megatron.bridge.recipes", "megatron.bridge.recipes.utils"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cfg = types.SimpleNamespace(dataset=types.SimpleNamespace())
    exec(exported.how.partition("# Megatron Bridge")[2].partition("\n")[2], {"cfg": cfg})
    assert cfg.dataset.blend is None
    assert cfg.dataset.blend_per_split[0][1] == [0.55, 0.3, 0.149, 0.001]
    assert cfg.dataset.split is None


def test_seeds_begin_at_one_there():
    assert "seed_ > 0" in (BRIDGE / "training/initialize.py").read_text()


def test_bridge_reads_both_files(tmp_path):
    parse = bridge_parser()
    paths = {name: (f"/d/{name}_text_document",) for name in MIXTURE}
    for name, text in Megatron().export(handover(paths, 100)).files.items():
        (tmp_path / name).write_text(text)
    blend, none = parse(data_args_path=str(tmp_path / "data_args.txt"))
    assert none is None
    none, splits = parse(per_split_data_args_path=str(tmp_path / "blend_per_split.json"))
    assert none is None
    assert splits == [blend, None, None]
