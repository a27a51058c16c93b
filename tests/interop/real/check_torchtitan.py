"""Our module of weighted sources, loaded and drawn from by torchtitan."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from itertools import islice

import pytest
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.hf_datasets.text_datasets import InterleavedHuggingFaceTextDataLoader

from mixlaw.interop.exporters.torchtitan import Torchtitan
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

LENGTH, SAMPLES = 32, 4000
MIXTURE = Mixture({"Web": 0.5, "code: 'x'": 0.3, "books": 0.199, "rare": 0.001, "none": 0.0})
WORDS = {"Web": "w", "code: 'x'": "c", "books": "b", "rare": "r"}


class Letters(BaseTokenizer):
    """One token a letter."""

    def __init__(self):
        super().__init__()
        self.eos_id = 0

    def encode(self, text, add_bos=False, add_eos=False):
        return [ord(letter) for letter in text] + [0]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def get_vocab_size(self):
        return 256


@pytest.fixture
def loader(tmp_path):
    """Documents of a domain are of one letter, and their lengths differ much between domains; some
    domains are files, some folders, one has a file and a folder."""
    paths = {}
    for i, (name, letter) in enumerate(WORDS.items()):
        parts = []
        for part in range(1 + i % 2):
            folder = tmp_path / f"{letter} {part}"
            folder.mkdir()
            rows = [json.dumps({"text": letter * (7 * 4**i)}) for _ in range(50)]
            (folder / "part.jsonl").write_text("\n".join(rows))
            parts.append(str(folder / "part.jsonl" if (i + part) % 2 else folder))
        paths[name] = tuple(parts)
    handover = Handover(
        Schedule.static(MIXTURE),
        paths=paths,
        train_tokens=LENGTH * SAMPLES,
        sequence_length=LENGTH,
        batch_sequences=8,
        seed=11,
    )
    exported = Torchtitan().export(handover)
    (tmp_path / "mixlaw_data.py").write_text(exported.files["mixlaw_data.py"])
    spec = importlib.util.spec_from_file_location("mixlaw_data", tmp_path / "mixlaw_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return exported, module.dataloader()


def build(config, rank=0, ranks=1):
    return config.build(
        dp_world_size=ranks,
        dp_rank=rank,
        tokenizer=Letters(),
        seq_len=LENGTH,
        local_batch_size=1,
    )


def drawn_letters(loader, num_samples):
    for inputs, _ in islice(iter(loader), num_samples):
        (letter,) = set(map(chr, inputs["input"].flatten().tolist())) - {"\0"}
        yield letter


def test_the_config_is_theirs(loader):
    exported, config = loader
    assert isinstance(config, InterleavedHuggingFaceTextDataLoader.Config)
    assert config.seed == 11
    assert [source.weight for source in config.sources] == [0.5, 0.3, 0.199, 0.001]
    assert exported.realised.dose == {"Web": 0.5, "code: 'x'": 0.3, "books": 0.199, "rare": 0.001}


def test_samples_are_drawn_by_weight_whatever_the_documents_lengths(loader):
    exported, config = loader
    drawn = Counter(drawn_letters(build(config), SAMPLES))
    for name, share in exported.realised.dose.items():
        sigma = math.sqrt(share * (1 - share) / SAMPLES)
        assert drawn[WORDS[name]] / SAMPLES == pytest.approx(share, abs=4 * sigma)


def test_all_ranks_draw_from_the_same_domains(loader):
    """The trap that the notes tell of."""
    _, config = loader
    first, second = (list(drawn_letters(build(config, rank, 2), 200)) for rank in (0, 1))
    assert first == second
