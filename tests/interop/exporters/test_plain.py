"""Plain JSON and YAML."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.plain import Json, Yaml
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

STAGED = Schedule.of(
    [(0.75, Mixture({"web": 0.7, "code": 0.3})), (0.25, Mixture({"web": 0.5, "books": 0.5}))]
)
THREE = Schedule.static(Mixture({"web": 0.5, "code": 0.3, "books": 0.2}))
HANDOVER = Handover(
    STAGED,
    train_tokens=10_050,
    sequence_length=10,
    batch_sequences=5,
    available_tokens={"web": 1000, "books": 5000},
    seed=4,
)


def test_counts_and_epochs_of_each_stage():
    exported = Json().export(HANDOVER)
    data = json.loads(exported.files["mixture.json"])
    assert (data["unit"], data["seed"], data["train_tokens"]) == ("token", 4, 10_050)
    first, second = data["stages"]
    assert (first["samples"], second["samples"]) == (755, 250)  # of 201 steps, 151 and 50
    assert first["domains"]["web"] == {
        "weight": 0.7,
        "samples": 529,
        "tokens": 5290,
        "epochs": 5.29,
    }
    assert first["domains"]["code"]["samples"] == 226
    assert "epochs" not in first["domains"]["code"]
    assert second["domains"]["books"]["epochs"] == 0.25
    assert exported.realised.stages[0].share == 755 / 1005
    assert exported.realised.stages[0].mixture["web"] == 529 / 755


@pytest.mark.parametrize("made", [Json(), Yaml()])
def test_a_schedule_is_read_back_to_the_bit(made, tmp_path):
    exported = made.export(HANDOVER)
    path = tmp_path / made.file
    path.write_text(exported.files[made.file])
    back = made.read(path, ["web", "code", "books"])
    for stage, wanted in zip(back.stages, STAGED.stages, strict=True):
        assert stage.share == wanted.share
        assert {n: s for n, s in stage.mixture.items() if s} == dict(wanted.mixture)


def test_json_and_yaml_say_the_same():
    as_json = json.loads(Json().export(HANDOVER).files["mixture.json"])
    assert as_json == yaml.safe_load(Yaml().export(HANDOVER).files["mixture.yaml"])


def test_without_the_size_of_the_run_the_weights_stand_alone():
    exported = Json().export(Handover(STAGED, train_tokens=1000))
    stage = json.loads(exported.files["mixture.json"])["stages"][0]
    assert stage["domains"]["web"] == {"weight": 0.7, "tokens": 525}
    assert exported.realised == STAGED
    assert len(exported.notes) == 2


def test_weights_of_any_sum_are_read(tmp_path):
    (tmp_path / "mine.yaml").write_text("web: 3\ncode: 1\n")
    back = Yaml().read(tmp_path / "mine.yaml", ["web", "code", "books"])
    assert back.dose == {"web": 0.75, "code": 0.25, "books": 0.0}


def test_a_domain_may_be_called_stages(tmp_path):
    (tmp_path / "mine.yaml").write_text("stages: 3\nweb: 1\n")
    assert Yaml().read(tmp_path / "mine.yaml", ["web", "stages"]).dose["stages"] == 0.75


def test_what_is_no_yaml_is_refused_in_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("web: [1\nb: {")
    with pytest.raises(ExportError, match=r"mine.yaml is not a mixture.*: line 2, col") as raised:
        Yaml().read(tmp_path / "mine.yaml", ["web"])
    assert "\n" not in str(raised.value)


def test_a_run_of_fewer_samples_than_domains_is_refused():
    with pytest.raises(ExportError, match=r"2 samples long, and 3 domains .* --train-tokens"):
        Json().export(replace(HANDOVER, schedule=THREE, train_tokens=20, batch_sequences=1))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"format": 2, "stages": []}, "has format 2; this version reads format 1"),
        ({"format": 1, "stages": [{"share": 1}]}, "is not a mixture"),
        ({"format": 1, "stages": 3}, "'format' names none of the domains"),
        ({"format": 1, "stages": []}, "is not a mixture"),
        (
            {"format": 1, "stages": [{"share": 0.5, "domains": {"a": {"weight": 1}}}]},
            "is not a mixture",
        ),
        ({"b": 1.0}, "names none of the domains"),
        ({"a": "much"}, "the weight of 'a' is 'much'"),
    ],
)
def test_other_files_are_refused(tmp_path, data, told):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ExportError, match=told):
        Json().read(path, ["a"])
