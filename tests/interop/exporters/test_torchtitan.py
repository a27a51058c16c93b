"""torchtitan's module. Against the real library: tests/interop/real/check_torchtitan.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.torchtitan import Torchtitan
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

HANDOVER = Handover(
    Schedule.static(Mixture({"Web": 0.6, "code": 0.4, "none": 0.0})),
    paths={"Web": ("/d/web", "/e/web"), "code": ("allenai/c4:en",)},
    seed=12,
)


def test_datasets_are_registered_as_torchtitan_looks_them_up():
    text = Torchtitan().export(HANDOVER).files["mixlaw_data.py"]
    assert "    'mix:web': [{'path': '/d/web'}, {'path': '/e/web'}],\n" in text
    assert "    'mix:code': [{'path': 'allenai/c4', 'name': 'en'}],\n" in text
    assert "HFDataSource(dataset='mix:web', weight=0.600000)," in text
    assert "seed=12," in text


def test_files_are_given_as_load_dataset_takes_them():
    paths = {"Web": ("/d/a.jsonl", "/d/b.jsonl"), "code": ("/d/[1].parquet",)}
    text = Torchtitan().export(replace(HANDOVER, paths=paths)).files["mixlaw_data.py"]
    assert "[{'path': 'json', 'data_files': ['/d/a.jsonl', '/d/b.jsonl']}]" in text
    assert "[{'path': 'parquet', 'data_files': ['/d/[[]1].parquet']}]" in text


def test_a_run_shorter_than_a_step_is_refused():
    short = replace(HANDOVER, train_tokens=10, sequence_length=64, batch_sequences=8)
    with pytest.raises(ExportError, match=r"torchtitan would do nothing: .* \(8 x 64 tokens"):
        Torchtitan().export(short)


def test_names_that_differ_in_case_only_are_refused():
    twins = Schedule.static(Mixture({"web": 0.5, "Web": 0.5}))
    paths = {"web": ("/a",), "Web": ("/b",)}
    with pytest.raises(ExportError, match=r"lowers the names of datasets, and \['web', 'Web'\]"):
        Torchtitan().export(replace(HANDOVER, schedule=twins, paths=paths))


def test_what_is_known_of_the_run_is_handed_over():
    assert "training" not in Torchtitan().export(HANDOVER).how
    known = replace(HANDOVER, train_tokens=64_000, sequence_length=64, batch_sequences=8)
    exported = Torchtitan().export(known)
    assert "config.training.seq_len = 64\n" in exported.how
    assert "config.training.steps = 125" in exported.how
    assert "by up to 1.5e-02" in exported.notes[0]  # sqrt(.6 * .4 / 1000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "holds no mixture"),
        ("HFDataSource(dataset=name)", "is not a module with HFDataSource"),
        ("HFDataSource(dataset='arts')", "names none of the domains"),
        ("def (", "is not a module with HFDataSource"),
    ],
)
def test_other_files_are_refused(tmp_path, text, told):
    (tmp_path / "data.py").write_text(text)
    with pytest.raises(ExportError, match=told):
        Torchtitan().read(tmp_path / "data.py", ["web", "code"])


def test_a_config_written_by_hand_is_read_and_not_run(tmp_path):
    (tmp_path / "registry.py").write_text(
        "import nothing_of_that_name\n"
        "config = Loader.Config(sources=[\n"
        "    text_datasets.HFDataSource(dataset='web_v2', weight=3),\n"
        "    HFDataSource(dataset='code'),\n"
        "])\n"
    )
    back = Torchtitan().read(tmp_path / "registry.py", ["web", "code"])
    assert back.dose == {"web": 0.75, "code": 0.25}
