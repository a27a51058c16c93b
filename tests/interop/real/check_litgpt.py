"""mixlaw's data module against real litgpt and litdata: found by litgpt's own command line, and
what it loads is what we said."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from litdata.streaming import TokensLoader
from litdata.streaming.writer import BinaryWriter
from litgpt import pretrain
from litgpt.data import DataModule

from mixlaw import Mixture, Schedule
from mixlaw.interop.exporters.litgpt import LitGpt
from mixlaw.interop.handover import Handover

IDS = {"web": 1, "code": 2, "a b'[1]": 3}
WANTED = Mixture({"web": 0.7, "code": 0.1, "a b'[1]": 0.2, "none": 0.0})


def write_tokens(folder, token, blocks):
    """A folder of litdata whose every token is the domain's."""
    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_size=9 * 20, item_loader=TokensLoader(block_size=9))
    for i in range(blocks):
        writer.add_item(i, torch.full((9,), token, dtype=torch.int32))
    writer.done()
    writer.merge()


@pytest.fixture
def exported(tmp_path):
    paths = {}
    for name, token in IDS.items():
        write_tokens(tmp_path / name, token, 400)
        paths[name] = (str(tmp_path / name),)
    write_tokens(tmp_path / "web two", 1, 200)
    paths["web"] += (str(tmp_path / "web two"),)
    exported = LitGpt().export(Handover(Schedule.static(WANTED), paths=paths, seed=5))
    for name, text in exported.files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return exported


@pytest.fixture
def module(exported, tmp_path):
    spec = importlib.util.spec_from_file_location("litgpt_mixture", tmp_path / "litgpt_mixture.py")
    module = sys.modules["litgpt_mixture"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["litgpt_mixture"]


def test_the_libraries_are_those_we_name():
    version = importlib.metadata.version
    assert LitGpt.checked == f"litgpt {version('litgpt')} with litdata {version('litdata')}"


def test_the_domains_drawn_are_within_the_noise_of_draws(exported, module, tmp_path):
    data = module.Mixture(val_path=tmp_path / "code", num_workers=0)
    data.connect(batch_size=4, max_seq_length=8)
    loader = data.train_dataloader()
    assert sum(loader.dataset._weights) == pytest.approx(1)
    drawn = np.concatenate([batch[:, 0].numpy() for batch in loader])
    again = np.concatenate([batch[:, 0].numpy() for batch in data.train_dataloader()])
    assert drawn.tolist() == again.tolist()
    assert 400 < len(drawn) < 1000  # until the first is used up
    counts = Counter(drawn.tolist())
    for name, share in exported.realised.dose.items():
        noise = np.sqrt(share * (1 - share) / len(drawn))
        assert abs(counts[IDS[name]] / len(drawn) - share) < 4 * noise
    assert next(iter(data.val_dataloader())).shape == (4, 9)


def test_workers_and_ranks_draw_apart(exported, module, tmp_path):
    data = module.Mixture(val_path=tmp_path / "code", num_workers=2)
    data.connect(batch_size=4, max_seq_length=8)
    loader = data.train_dataloader()
    batches = [tuple(batch[:, 0].tolist()) for batch in loader]
    assert batches == [tuple(batch[:, 0].tolist()) for batch in data.train_dataloader()]
    assert batches[0::2][:8] != batches[1::2][:8]  # the two workers take turns
    counts = Counter(token for batch in batches for token in batch)
    for name, share in exported.realised.dose.items():
        noise = np.sqrt(share * (1 - share) / counts.total())
        assert abs(counts[IDS[name]] / counts.total() - share) < 4 * noise

    def drawn(rank):
        mixed = data.train_dataloader().dataset
        for part in mixed._datasets:
            part.distributed_env.world_size, part.distributed_env.global_rank = 2, rank
        return [int(row[0]) for row, _ in zip(mixed, range(40), strict=False)]

    assert drawn(0) == drawn(0) != drawn(1)


def test_litgpt_takes_our_options(exported, tmp_path):
    handover = Handover(
        Schedule.static(WANTED),
        paths={name: (f"/d/{name}",) for name in IDS},
        train_tokens=51_200,
        sequence_length=64,
        batch_sequences=8,
        seed=5,
    )
    parser = ArgumentParser()
    parser.add_function_arguments(pretrain.setup)
    _, _, options = LitGpt().export(handover).how.partition(" FOLDER ")
    known = parser.parse_args(["--model_name", "pythia-14m", *options.split()])
    assert (known.seed, known.train.max_tokens, known.train.max_seq_length) == (5, 51_200, 64)
    assert known.train.global_batch_size == 8


def test_a_domain_of_two_folders_is_read_by_their_sizes(module, tmp_path):
    data = module.Mixture(val_path=tmp_path / "code", num_workers=0)
    data.connect(batch_size=4, max_seq_length=8)
    weights = data.train_dataloader().dataset._weights
    assert weights == pytest.approx([0.7 * 2 / 3, 0.7 / 3, 0.1, 0.2])


def test_litgpt_finds_the_module_by_its_name(module, tmp_path):
    parser = ArgumentParser()
    parser.add_argument("--data", type=DataModule)
    options = ["--data", "litgpt_mixture.Mixture", "--data.val_path", str(tmp_path)]
    options += ["--data.plan", str(tmp_path / "mixture.json")]
    data = parser.instantiate(parser.parse_args(options)).data
    assert isinstance(data, module.Mixture)
    assert data.known["seed"] == 5
