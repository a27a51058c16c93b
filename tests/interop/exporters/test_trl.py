from __future__ import annotations

import pytest
import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.trl import Trl
from mixlaw.interop.handover import SAMPLE, Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

WANTED = Mixture({"web": 0.8, "code": 0.2})
PATHS = {"web": ("web.jsonl",), "code": ("owner/code:python",)}


def test_datasets_are_named_as_load_dataset_takes_them():
    exported = Trl().export(Handover(Schedule.static(WANTED), PATHS, sequence_length=64))
    assert yaml.safe_load(exported.files["trl_datasets.yaml"])["datasets"] == [
        {"path": "json", "data_files": ["web.jsonl"], "fraction": 0.8},
        {"path": "owner/code", "name": "python", "fraction": 0.2},
    ]
    assert exported.unit == SAMPLE


def test_the_config_has_the_seed_and_the_length():
    handover = Handover(
        Schedule.static(WANTED),
        PATHS,
        train_tokens=64 * 8 * 100,
        sequence_length=64,
        batch_sequences=8,
        seed=3,
    )
    made = yaml.safe_load(Trl().export(handover).files["trl_datasets.yaml"])
    del made["datasets"]
    assert made == {"seed": 3, "max_steps": 100, "max_length": 64}


def test_notes_say_how_large_the_mixture_is():
    handover = Handover(
        Schedule.static(WANTED),
        PATHS,
        sequence_length=64,
        train_tokens=20_000,
        available_tokens={"web": 80_000, "code": 1_000},
    )
    notes = " ".join(Trl().export(handover).notes)
    assert "about 5,000 tokens, all of 'code'; 20,000 training tokens are 4 epochs" in notes


def test_a_domain_of_two_datasets_is_refused():
    paths = {**PATHS, "web": ("web.jsonl", "web.parquet")}
    with pytest.raises(ExportError, match="files of one kind or one dataset"):
        Trl().export(Handover(Schedule.static(WANTED), paths, sequence_length=64))


def test_fractions_are_read_by_what_names_the_domain(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: x\ndatasets:\n- {path: json, data_files: /d/web.jsonl, fraction: 3}\n"
        "- {path: owner/x, name: code, fraction: .5}\n"
        "- {path: json, data_dir: /d/code, fraction: .5}\n"
    )
    assert Trl().read(path, ["web", "code"]).dose == {"web": 0.75, "code": 0.25}
    path.write_text("datasets:\n- {path: json, data_files: {train: /d/web.jsonl}, fraction: 1}\n")
    assert Trl().read(path, ["web"]).dose == {"web": 1.0}
    path.write_text("datasets: [owner/web]\n")
    with pytest.raises(ExportError, match="each with a fraction"):
        Trl().read(path, ["web"])
    path.write_text("datasets:\n- {path: owner/web}\n")
    with pytest.raises(ExportError, match="how many rows"):
        Trl().read(path, ["web"])
