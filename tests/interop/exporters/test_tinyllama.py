from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.tinyllama import TinyLlama
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

WANTED = Mixture({"web": 0.7, "code": 0.3})


def handed(**paths):
    return Handover(
        Schedule.static(WANTED), {name: (path,) for name, path in paths.items()}, seed=7
    )


def regmix_reads(text, files):
    """Domain files and weights as RegMix's setup and create_train_dataloader find them."""
    config = yaml.safe_load(text)
    found = [
        (k, float(v), sorted(f for f in files if f.startswith(k)))
        for k, v in config["train"].items()
    ]
    [(k, float(v)) for k, v in config["valid"].items()]  # it must be there
    total = sum(weight for _, weight, _ in found)
    return {prefix: (weight / total, matched) for prefix, weight, matched in found}


def test_regmix_finds_each_domain_with_its_weight():
    exported = TinyLlama().export(handed(web="train_web_", code="train_code_"))
    files = [f"train_{name}_{i:010d}.bin" for name in ("web", "code") for i in range(3)]
    found = regmix_reads(exported.files["mixture.yaml"], files)
    assert {prefix: weight for prefix, (weight, _) in found.items()} == pytest.approx(
        {"train_web_": 0.7, "train_code_": 0.3}, abs=1e-12
    )
    assert all(len(matched) == 3 for _, matched in found.values())
    made = yaml.safe_load(exported.files["mixture.yaml"])
    assert made["valid"] == {"valid_web_": 1.0, "valid_code_": 1.0}
    assert made["data_seed"] == 7


def test_the_file_has_the_length_of_the_run():
    handover = replace(
        handed(web="train_web", code="train_code"),
        train_tokens=2048 * 512 * 300,
        sequence_length=2048,
        batch_sequences=512,
    )
    made = yaml.safe_load(TinyLlama().export(handover).files["mixture.yaml"])
    # RegMix counts its iterations anew only if global_batch_size is there, too
    assert (made["max_step"], made["global_batch_size"]) == (300, 512)
    unknown = TinyLlama().export(handed(web="train_web", code="train_code"))
    assert "max_step" not in unknown.files["mixture.yaml"]
    assert "25,000 steps" in unknown.notes[-1]


def test_other_prefixes_are_not_validated():
    exported = TinyLlama().export(handed(web="/d/web_0", code="/d/code_0"))
    assert yaml.safe_load(exported.files["mixture.yaml"])["valid"] == {}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"web": "train_web", "code": "train_web_code"}, r"begin with 'train_web' as 'web'"),
        ({"web": "train_[1]", "code": "train_code"}, "for a pattern"),
    ],
)
def test_prefixes_that_would_read_other_files_are_refused(paths, message):
    with pytest.raises(ExportError, match=message):
        TinyLlama().export(handed(**paths))


def test_two_prefixes_of_a_domain_are_refused():
    handover = Handover(Schedule.static(WANTED), {"web": ("a", "b"), "code": ("c",)})
    with pytest.raises(ExportError, match="one prefix"):
        TinyLlama().export(handover)


def test_a_config_of_regmix_is_read(tmp_path):
    path = tmp_path / "regmix.yaml"
    path.write_text(
        "train:\n  train_the_pile_unzip_arxiv: 0.2\n  train_the_pile_unzip_pile_cc: 0.6\n"
        "valid:\n  valid_the_pile_unzip_pile_cc: 1.0\nmodel_name: tinyllama_1_1b\n"
    )
    back = TinyLlama().read(path, ["arxiv", "pile_cc", "github"])
    assert back.dose == pytest.approx({"arxiv": 0.25, "pile_cc": 0.75, "github": 0.0})
