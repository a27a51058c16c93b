from __future__ import annotations

import pytest
import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.streaming import Streaming
from mixlaw.interop.handover import DOCUMENT, Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

WANTED = Mixture({"web": 0.7, "code": 0.3})
STAGED = Schedule.of([(0.75, WANTED), (0.25, Mixture({"code": 1.0}))])
PATHS = {"web": ("/mds/web",), "code": ("s3://b/code",)}


def config(handover):
    exported = Streaming().export(handover)
    return exported, yaml.safe_load(exported.files["streaming.yaml"])


def test_a_run_of_known_length_chooses_its_samples():
    handover = Handover(
        Schedule.static(WANTED), PATHS, train_tokens=64 * 999, sequence_length=64, seed=4
    )
    exported, made = config(handover)
    assert made["train_loader"]["dataset"] == {
        "max_seq_len": 64,
        "streams": {
            "web": {"local": "/mds/web", "choose": 699},
            "code": {"remote": "s3://b/code", "choose": 300},
        },
        "shuffle": True,
        "shuffle_seed": 4,
    }
    assert exported.realised.dose["web"] == 699 / 999
    assert made["seed"] == 4
    assert made["max_duration"] == "1ep"


def test_a_run_of_unknown_length_has_proportions():
    exported, made = config(Handover(Schedule.static(WANTED), PATHS, sequence_length=64))
    streams = made["train_loader"]["dataset"]["streams"]
    assert {name: stream["proportion"] for name, stream in streams.items()} == WANTED
    assert "epoch_size" in exported.notes[0]
    assert "max_duration" not in made


def test_documents_are_counted_by_their_length():
    lengths = {"web": 100.0, "code": 300.0}
    handover = Handover(
        Schedule.static(WANTED), PATHS, train_tokens=10_000, mean_document_tokens=lengths
    )
    exported, made = config(handover)
    streams = made["train_loader"]["dataset"]["streams"]
    assert [stream["choose"] for stream in streams.values()] == [70, 10]
    assert exported.unit == DOCUMENT


def test_stages_are_timed_in_tokens_that_sum_to_the_run():
    handover = Handover(
        STAGED, PATHS, train_tokens=64 * 1000, sequence_length=64, batch_sequences=10
    )
    exported, made = config(handover)
    curriculum = made["callbacks"]["curriculum_learning"]
    (later,) = curriculum["schedule"]
    assert (curriculum["duration"], later["duration"]) == ("48000tok", "16000tok")
    assert made["max_duration"] == "64000tok"
    first = made["train_loader"]["dataset"]
    assert [stream["choose"] for stream in first["streams"].values()] == [525, 225]
    assert later["dataset"]["streams"]["code"]["choose"] == 250
    assert later["dataset"]["shuffle_seed"] != first["shuffle_seed"]
    assert exported.realised == STAGED
    assert made["global_train_batch_size"] == 10


def test_stages_need_whole_batches():
    with pytest.raises(ExportError, match="--batch-sequences"):
        Streaming().export(Handover(STAGED, PATHS, train_tokens=64 * 1000, sequence_length=64))


def test_a_curriculum_of_documents_is_refused():
    handover = Handover(
        STAGED,
        PATHS,
        train_tokens=10_000,
        sequence_length=64,
        mean_document_tokens={"web": 9.0, "code": 9.0},
    )
    with pytest.raises(ExportError, match="--concat_tokens"):
        Streaming().export(handover)


def test_a_domain_of_several_folders_is_told_to_merge_them():
    paths = {**PATHS, "web": ("/mds/1", "/mds/2")}
    with pytest.raises(ExportError, match="merge_index"):
        Streaming().export(Handover(Schedule.static(WANTED), paths, sequence_length=64))


def test_a_curriculum_is_read_back(tmp_path):
    handover = Handover(
        STAGED, PATHS, train_tokens=64 * 1000, sequence_length=64, batch_sequences=10
    )
    path = tmp_path / "config.yaml"
    path.write_text(Streaming().export(handover).files["streaming.yaml"])
    back = Streaming().read(path, ["web", "code"])
    assert [stage.share for stage in back.stages] == [0.75, 0.25]
    assert back.stages[0].mixture == pytest.approx(WANTED)


def test_repeats_depend_on_the_data_and_are_not_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("train_loader: {dataset: {streams: {web: {local: /w, repeat: 2}}}}\n")
    with pytest.raises(ExportError, match="neither choose nor proportion"):
        Streaming().read(path, ["web"])


def test_counts_and_proportions_are_not_mixed(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "train_loader: {dataset: {streams: {web: {proportion: .4}, code: {choose: 600}}}}\n"
    )
    with pytest.raises(ExportError, match=r"all of the streams \['web', 'code'\]"):
        Streaming().read(path, ["web", "code"])
