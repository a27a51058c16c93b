"""mixlaw's export against TRL's own parser, config class and loader."""

from __future__ import annotations

from collections import Counter

import datasets
import numpy as np
import pytest
import trl
import yaml
from datasets import Dataset
from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    ScriptArguments,
    SFTConfig,
    TrlParser,
    get_dataset,
)

from mixlaw import Mixture, Schedule
from mixlaw.interop.exporters.trl import Trl
from mixlaw.interop.handover import Handover

SIZES = {"web": 4000, "code": 300, "a b'[1]": 1000}
WANTED = Mixture({"web": 0.7, "code": 0.1, "a b'[1]": 0.2, "none": 0.0})


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def paths(tmp_path):
    places = {}
    for name, size in SIZES.items():
        path = tmp_path / f"{name}.jsonl"
        Dataset.from_dict({"domain": [name] * size, "i": range(size)}).to_json(path)
        places[name] = (str(path),)
    return places


def parsed(exported, folder):
    """As `trl sft` does it: what is for the trainer, and the mixture."""
    config = folder / "config.yaml"
    text = f"output_dir: {folder}\nuse_cpu: true\nbf16: false\n"
    config.write_text(exported.files["trl_datasets.yaml"] + text, encoding="utf-8")
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig))
    _, training, _, mixture = parser.parse_args_and_config(["--config", str(config)])
    return training, mixture


def test_the_library_is_the_one_we_name():
    assert Trl.checked == f"trl {trl.__version__}"


def test_the_mixture_has_the_realised_shares_and_the_size_of_the_notes(tmp_path, paths):
    available = {name: 10 * size for name, size in SIZES.items()}
    handover = Handover(
        Schedule.static(WANTED),
        paths=paths,
        mean_document_tokens=dict.fromkeys(SIZES, 10.0),
        available_tokens=available,
        train_tokens=60_000,
    )
    exported = Trl().export(handover)
    train = get_dataset(parsed(exported, tmp_path)[1])["train"]
    counts = Counter(train["domain"])
    assert len(train) == pytest.approx(3000, abs=2)  # all of code, no row twice
    assert counts["code"] == 300
    for name, share in exported.realised.dose.items():
        assert abs(counts[name] - share * len(train)) <= 1
    assert "about 30,000 tokens, all of 'code'; 60,000 training tokens are 2 epochs" in (
        " ".join(exported.notes)
    )


def test_the_trainer_gets_the_seed_and_the_length(tmp_path, paths):
    handover = Handover(
        Schedule.static(WANTED),
        paths=paths,
        train_tokens=64 * 8 * 100,
        sequence_length=64,
        batch_sequences=8,
        seed=3,
    )
    training, _ = parsed(Trl().export(handover), tmp_path)
    assert (training.seed, training.max_steps, training.max_length) == (3, 100, 64)


def test_documents_of_other_lengths_give_the_wanted_tokens(tmp_path, paths):
    tokens = {"web": 400.0, "code": 1600.0, "a b'[1]": 100.0}
    exported = Trl().export(
        Handover(Schedule.static(WANTED), paths=paths, mean_document_tokens=tokens)
    )
    assert exported.unit == "document"
    counts = Counter(get_dataset(parsed(exported, tmp_path)[1])["train"]["domain"])
    seen = {name: counts[name] * tokens[name] for name in tokens}
    for name, count in seen.items():
        assert count / sum(seen.values()) == pytest.approx(WANTED[name], rel=0.02)


def test_the_config_class_takes_any_mixture():
    rng = np.random.default_rng(0)
    for size in (1, 2, 300):
        shares = rng.dirichlet(np.full(size, 0.3)) + 1e-12
        mixture = Mixture.from_weights({f"d{j}": float(s) for j, s in enumerate(shares)})
        exported = Trl().export(
            Handover(
                Schedule.static(mixture),
                paths={name: (f"owner/{name}:sub",) for name in mixture},
                sequence_length=8,
            )
        )
        entries = yaml.safe_load(exported.files["trl_datasets.yaml"])["datasets"]
        known = DatasetMixtureConfig(datasets=entries)
        fractions = {entry.path.removeprefix("owner/"): entry.fraction for entry in known.datasets}
        assert fractions == pytest.approx(dict(exported.realised.dose), abs=1e-15)
        assert {entry.name for entry in known.datasets} == {"sub"}
