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
    assert ratio == pytest.approx(1.1 * needed / 1000, abs=0.01)
    assert "max_repetition_ratio" not in sources(exported)["web"]
    assert any("'code' is read 5.12 times, by the" in note for note in exported.notes)


@pytest.mark.parametrize("off", [0.99, 1.0, 1.01])
def test_available_tokens_may_be_one_in_a_hundred_off(off):
    """The ratio is a cap, and a source that is short by a token fails when it is built."""
    needed = int(100 * 8 * 16 * 0.4)
    said = replace(HANDOVER, available_tokens={"web": 10**6, "code": round(needed * off)})
    assert sources(OlmoCore().export(said))["code"]["max_repetition_ratio"] > 1.05


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


def test_a_source_that_is_asked_for_no_token_fills_up_the_batches():
    sizes = {"web": [100], "code": [5000], "rare": [5000]}
    ratios = {"web": 0.499999, "code": 0.5, "rare": 1e-6}
    run = replace(HANDOVER, train_tokens=20 * 256, sequence_length=64, batch_sequences=4)
    # As OLMo-core 3.0.0 builds it; see check_olmo_core.py.
    assert sequences(ratios, sizes, run) == {"web": 26, "code": 46, "rare": 6}


def test_a_stage_too_short_for_its_domains_is_named():
    staged = Schedule.of([(0.999, Mixture({"web": 1.0})), (0.001, MIXTURE)])
    run = replace(HANDOVER, schedule=staged, batch_sequences=1, train_tokens=1000 * 16)
    with pytest.raises(ExportError, match=r"stage 2 of 2 is 1 samples long, and 2 domains"):
        OlmoCore().export(run)


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
    mixture = {"source_list": {"sources": listed}}
    for config in (mixture, {"dataset": {"source_mixture_config": mixture}}):
        path.write_text(yaml.safe_dump(config))
        assert OlmoCore().read(path, ["web", "code"]).dose == {"web": 0.25, "code": 0.75}


def test_what_is_no_yaml_is_refused_in_one_line(tmp_path):
    (tmp_path / "c.yaml").write_text("sources: [1\nb: {")
    with pytest.raises(ExportError, match=r"c.yaml is not a list `sources`.*line 2, col") as raised:
        OlmoCore().read(tmp_path / "c.yaml", ["web"])
    assert "\n" not in str(raised.value)
