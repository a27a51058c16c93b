from __future__ import annotations

import json

import pytest

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.maxtext import MaxText, grain_mixture
from mixlaw.interop.handover import DOCUMENT, Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

WANTED = Mixture({"web": 0.7, "code": 0.3})
PATHS = {"web": ("/a/web-*",), "code": ("gs://b/code-*",)}


def test_grain_cuts_weights_to_hundredths_of_the_smallest():
    drawn = grain_mixture({"web": 0.6, "code": 0.4})  # 150 and 100
    assert drawn == {"web": 0.6, "code": 0.4}
    drawn = grain_mixture({"web": 0.669, "code": 0.331})  # 202.1 is cut to 202
    assert drawn["web"] == 202 / 302


def test_the_file_names_each_domain_with_path_and_weight():
    exported = MaxText().export(Handover(Schedule.static(WANTED), PATHS, sequence_length=64))
    assert json.loads(exported.files["mixture.json"]) == {
        "web": {"path": "/a/web-*", "weight": 0.7},
        "code": {"path": "gs://b/code-*", "weight": 0.3},
    }
    assert exported.realised.dose == grain_mixture(WANTED)


def test_records_of_other_lengths_are_weighed_by_number():
    lengths = {"web": 100.0, "code": 300.0}
    exported = MaxText().export(
        Handover(Schedule.static(WANTED), PATHS, mean_document_tokens=lengths)
    )
    assert exported.unit == DOCUMENT
    assert exported.realised.dose["web"] == pytest.approx(0.875, abs=1e-3)


def test_num_epoch_lets_the_most_repeated_domain_last():
    handover = Handover(
        Schedule.static(WANTED),
        PATHS,
        sequence_length=64,
        train_tokens=10_000,
        available_tokens={"web": 10_000, "code": 900},
        name="a run",
    )
    how = MaxText().export(handover).how
    assert "num_epoch=4" in how  # 3000 of 900 tokens
    assert "'run_name=a run'" in how
    assert "steps=" not in how


def test_the_command_has_the_seeds_and_the_length():
    handover = Handover(
        Schedule.static(WANTED),
        PATHS,
        sequence_length=64,
        train_tokens=64 * 8 * 100,
        batch_sequences=8,
        seed=7,
    )
    exported = MaxText().export(handover)
    options = exported.how.replace("\\", " ").split()
    assert {"steps=100", "max_target_length=64", "per_device_batch_size=..."} < {*options}
    assert {"data_shuffle_seed=7", "init_weights_seed=7"} < {*options}
    assert any("of 8 samples: per_device_batch_size" in note for note in exported.notes)


def test_a_pattern_that_maxtext_would_not_expand_is_refused():
    paths = {**PATHS, "web": ("/a/*/web-0",)}
    with pytest.raises(ExportError, match=r"'/a/\*/web-0'; MaxText expands"):
        MaxText().export(Handover(Schedule.static(WANTED), paths, sequence_length=64))


def test_two_patterns_of_a_domain_are_refused():
    paths = {**PATHS, "web": ("/a/*", "/b/*")}
    with pytest.raises(ExportError, match="one pattern of files"):
        MaxText().export(Handover(Schedule.static(WANTED), paths, sequence_length=64))
