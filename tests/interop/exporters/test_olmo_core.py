"""OLMo-core's sources and stages. Against the real library:
tests/interop/real/check_olmo_core.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.olmo_core import OlmoCore, sequences
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

MIXTURE = Mixture({"web": 0.6, "code": 0.4})
HANDOVER = Handover(
    Schedule.static(MIXTURE),
    paths={"web": ("/d/web.npy",), "code": ("/d/code/*.npy", "/e/code.npy")},
    train_tokens=100 * 8 * 16,
    sequence_length=16,
    batch_sequences=8,
    available_tokens={"web": 10**6},
)


def sources(exported):
    return {s["source_name"]: s for s in yaml.safe_load(exported.files["sources.yaml"])["sources"]}


def test_ratios_sum_to_one_and_paths_are_kept():
    made = sources(OlmoCore().export(HANDOVER))
    assert sum(source["target_ratio"] for source in made.values()) == 1
    assert made["code"]["paths"] == ["/d/code/*.npy", "/e/code.npy"]


def test_a_short_source_may_be_repeated_as_often_as_it_must():
    short = replace(HANDOVER, available_tokens={"web": 10**6, "code": 1000})
    exported = OlmoCore().export(short)
    needed = int(100 * 8 * 16 * 0.4)  # tokens
    ratio = sources(exported)["code"]["max_repetition_ratio"]
    assert needed <= int(1000 * ratio) <= needed + 1
    assert "max_repetition_ratio" not in sources(exported)["web"]
    assert any("'code' is read 5.12 times over" in note for note in exported.notes)


def test_unknown_sizes_are_told():
    notes = OlmoCore().export(HANDOVER).notes
    assert any("tokens of ['code'] are not known" in note for note in notes)


def test_whole_batches_are_asked_for():
    how = OlmoCore().export(replace(HANDOVER, train_tokens=100 * 8 * 16 + 100)).how
    assert "requested_tokens=12800,\n    global_batch_size=128," in how


@pytest.mark.parametrize("missing", ["train_tokens", "sequence_length", "batch_sequences"])
def test_the_size_of_the_run_must_be_known(missing):
    with pytest.raises(ExportError, match=f"--{missing.replace('_', '-')}"):
        OlmoCore().export(replace(HANDOVER, **{missing: None}))


def test_a_run_shorter_than_a_step_is_refused():
    with pytest.raises(ExportError, match=r"127 are less than one of its steps \(8 x 16 tokens"):
        OlmoCore().export(replace(HANDOVER, train_tokens=127))


def test_passes_over_a_small_file_lose_what_is_no_whole_sequence():
    """A file of 31 tokens gives one sequence of 16 a pass, and so half of what was asked of it;
    the other file gets its even part of what is missing, and the run is short."""
    drawn = sequences({"web": 0.5, "code": 0.5}, {"web": [100_000], "code": [31]}, HANDOVER)
    passes = 6400 // 31 + 1
    assert drawn["code"] == passes
    assert sum(drawn.values()) < 800
    exported = OlmoCore().export(
        replace(
            HANDOVER,
            paths={"web": ("/w",), "code": ("/c",)},
            available_tokens={"web": 100_000, "code": 31},
            schedule=Schedule.static(Mixture({"web": 0.5, "code": 0.5})),
        )
    )
    assert exported.realised.dose["code"] == drawn["code"] / sum(drawn.values())
    assert f"the sources give {sum(drawn.values())} of the run's 800 sequences" in exported.notes


def test_stages_are_a_module_that_parses_and_says_its_sequences():
    staged = Schedule.of([(0.75, MIXTURE), (0.25, Mixture({"web": 1.0}))])
    exported = OlmoCore().export(replace(HANDOVER, schedule=staged))
    text = exported.files["mixlaw_stages.py"]
    compile(text, "mixlaw_stages.py", "exec")
    assert "'web': {'paths': ['/d/web.npy'], 'sequences': [360, 200]}" in text
    assert "'sequences': [240, 0]" in text
    assert 'shuffle_strategy="intra_source"' in exported.how


def test_full_configs_are_read_too(tmp_path):
    listed = [
        {"source_name": "web-2024", "target_ratio": 0.25, "paths": ["x"]},
        {"source_name": "code", "target_ratio": 0.75, "paths": ["y"]},
    ]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"source_list": {"sources": listed}}))
    assert OlmoCore().read(path, ["web", "code"]).dose == {"web": 0.25, "code": 0.75}
