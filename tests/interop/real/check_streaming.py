"""mixlaw's export against the real `StreamingDataset` on small MDS shards."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from streaming.base import MDSWriter, Stream, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from mixlaw import Mixture, Schedule
from mixlaw.interop.exporters.streaming import Streaming
from mixlaw.interop.handover import Handover

SIZES = {"web": 400, "code": 30, "a b'[1]": 100}
WANTED = Mixture({"web": 0.7, "code": 0.1, "a b'[1]": 0.2, "none": 0.0})


@pytest.fixture(autouse=True)
def memory():
    clean_stale_shared_memory()
    yield
    clean_stale_shared_memory()


@pytest.fixture
def paths(tmp_path):
    folders = {}
    for name, size in SIZES.items():
        folders[name] = (str(tmp_path / name),)
        columns = {"domain": "str", "i": "int"}
        with MDSWriter(out=folders[name][0], columns=columns, size_limit=1000) as writer:
            for i in range(size):
                writer.write({"domain": name, "i": i})
    return folders


def loaded(dataset, **more):
    """As `how` and llm-foundry's build_streams do it."""
    known = {key: value for key, value in dataset.items() if key not in ("streams", "max_seq_len")}
    streams = [Stream(**stream) for stream in dataset["streams"].values()]
    return StreamingDataset(streams=streams, batch_size=10, **known, **more), streams


def test_the_library_is_the_one_we_name():
    assert f"mosaicml-streaming {importlib.metadata.version('mosaicml-streaming')}" in (
        Streaming.checked
    )


def test_a_run_of_known_length_is_one_epoch_of_exactly_these_samples(paths):
    handover = Handover(
        Schedule.static(WANTED), paths=paths, train_tokens=999 * 64, sequence_length=64
    )
    exported = Streaming().export(handover)
    config = yaml.safe_load(exported.files["streaming.yaml"])["train_loader"]["dataset"]
    data, streams = loaded(config)
    assert [stream.choose for stream in streams] == [699, 100, 200]
    rows = list(data)
    counts = Counter(row["domain"] for row in rows)
    shares = {name: count / 999 for name, count in counts.items()}
    assert shares == pytest.approx(dict(exported.realised.dose), abs=1e-12)
    # what is seen more than once is seen as evenly as can be
    seen = Counter(row["i"] for row in rows if row["domain"] == "code")
    assert set(seen.values()) <= {3, 4}
    first = Counter(row["domain"] for row in rows[:200])  # shuffled, not one after the other
    assert first["web"] == pytest.approx(140, abs=40)


def test_proportions_give_an_epoch_within_one_sample_of_the_shares(paths):
    exported = Streaming().export(Handover(Schedule.static(WANTED), paths=paths, sequence_length=8))
    config = yaml.safe_load(exported.files["streaming.yaml"])["train_loader"]["dataset"]
    for size in (997, 5000):
        data, streams = loaded(config, epoch_size=size)
        for name, stream in zip(config["streams"], streams, strict=True):
            assert abs(stream.choose - exported.realised.dose[name] * size) <= 1
        assert sum(stream.choose for stream in streams) == size
        del data
        clean_stale_shared_memory()


def test_apply_weights_leaves_our_counts_for_any_mixture():
    rng = np.random.default_rng(0)
    for size in (2, 17, 300):
        shares = rng.dirichlet(np.full(size, 0.3)) + 1e-12
        mixture = Mixture.from_weights({f"d{j}": float(s) for j, s in enumerate(shares)})
        handover = Handover(
            Schedule.static(mixture),
            paths={name: (f"s3://b/{name}",) for name in mixture},
            train_tokens=7919,
            sequence_length=1,
        )
        exported = Streaming().export(handover)
        config = yaml.safe_load(exported.files["streaming.yaml"])["train_loader"]["dataset"]
        streams = [Stream(local="x", choose=s["choose"]) for s in config["streams"].values()]
        assert Stream.apply_weights(streams, np.full(size, 100), None, 0) == 7919
        real = dict(zip(config["streams"], (float(s.proportion) for s in streams), strict=True))
        assert real == pytest.approx(dict(exported.realised.dose), abs=1e-12)


def test_the_settings_of_a_run_are_fields_of_the_config_of_llm_foundry():
    """Of its source, for it cannot be imported here."""
    handover = Handover(
        Schedule.static(WANTED),
        paths={name: (f"/mds/{name}",) for name in SIZES},
        train_tokens=64 * 800,
        sequence_length=64,
        batch_sequences=8,
    )
    made = yaml.safe_load(Streaming().export(handover).files["streaming.yaml"])
    (home,) = importlib.util.find_spec("llmfoundry").submodule_search_locations
    tree = ast.parse((Path(home) / "utils/config_utils.py").read_text(encoding="utf-8"))
    (config,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainConfig"
    )
    fields = {part.target.id for part in config.body if isinstance(part, ast.AnnAssign)}
    assert {"seed", "max_duration", "global_train_batch_size"} < set(made) <= fields


def test_each_stage_of_a_curriculum_holds_its_samples_and_chooses_others(paths):
    schedule = Schedule.of([(0.5, Mixture({"web": 0.9, "code": 0.1})), (0.5, WANTED)])
    handover = Handover(
        schedule, paths=paths, train_tokens=400 * 64, sequence_length=64, batch_sequences=8
    )
    exported = Streaming().export(handover)
    config = yaml.safe_load(exported.files["streaming.yaml"])
    curriculum = config["callbacks"]["curriculum_learning"]
    durations = [curriculum["duration"], *(stage["duration"] for stage in curriculum["schedule"])]
    assert durations == ["12800tok", "12800tok"]
    assert config["max_duration"] == "25600tok"  # the callback refuses any other sum
    dataset, seen = config["train_loader"]["dataset"], []
    for later, stage in zip(
        (None, curriculum["schedule"][0]), exported.realised.stages, strict=True
    ):
        if later:
            dataset.update(later["dataset"])  # what the callback does
        data, _ = loaded(dataset)
        rows = list(data)
        counts = Counter(row["domain"] for row in rows)
        assert {n: c / len(rows) for n, c in counts.items()} == pytest.approx(dict(stage.mixture))
        seen.append({row["i"] for row in rows if row["domain"] == "web"})
        del data
        clean_stale_shared_memory()
    assert len(seen[0] & seen[1]) < 0.8 * len(seen[1])  # the same seed would choose them all again
