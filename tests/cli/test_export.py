"""Handing a decision to every trainer, and runs to one's own trainer, from the command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from mixlaw.interop.exporters import EXPORTERS, exporter
from mixlaw.mixture import Mixture
from mixlaw.study.export_config import ExportConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-env"
NAMES = ("docs", "python", "tests", "cpp", "data")
ALL = ["--path", "/data/{domain}", "--sequence-length", "1024", "--batch-sequences", "8"]
ALL += ["--train-tokens", "81_920_000"]


@pytest.fixture(scope="module")
def decided(tmp_path_factory) -> Path:
    """A copy of the example, with its decision."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("decided") / "tiny"))


@pytest.mark.parametrize("trainer", EXPORTERS)
def test_a_decision_for_every_trainer(mixlaw, decided, tmp_path, trainer):
    out_folder = tmp_path / "out"
    code, out, err = mixlaw("export", decided, "--to", trainer, *ALL, "--out", out_folder, "--json")
    assert code == 0, err
    data = json.loads(out)
    stored = json.loads((out_folder / "export.json").read_text())
    assert "".join(stored.pop("how").split()) == "".join(data.pop("how").split())
    assert data == {"folder": str(out_folder), **stored}
    for name in data["files"]:
        assert (out_folder / name).read_text()
    recommended = json.loads((decided / "decision.json").read_text())["result"]
    wanted = recommended["forecast"]["mixture"]
    assert {d: s["wanted"] for d, s in data["domains"].items()} == pytest.approx(wanted)
    for share in data["domains"].values():
        assert share["realised"] == pytest.approx(share["wanted"], abs=2e-3)
        assert share["tokens"] == pytest.approx(share["wanted"] * 81_920_000, abs=2e5)
    written = exporter(trainer)
    if hasattr(written, "read"):
        read = written.read(out_folder / data["files"][0], NAMES).dose
        assert dict(read) == pytest.approx(wanted, abs=2e-3)


def test_what_people_see(mixlaw, decided, tmp_path):
    code, out, _ = mixlaw("export", decided, "--to", "megatron", *ALL, "--out", tmp_path / "out")
    assert code == 0
    for told in ("decision for megatron, 81.9M tokens", "share wanted realised tokens epochs"):
        assert told in out
    assert "the weights count samples; checked against megatron-core" in out
    assert "note: decided for a run of 860,160 tokens" in out
    assert "--per-split-data-args-path blend_per_split.json" in out
    code, out, _ = mixlaw("status", decided)
    assert f"the mixture for your trainer: mixlaw export {decided} --to TRAINER" in out


def test_help_lists_the_trainers(mixlaw):
    code, out, _ = mixlaw("export", "--help")
    assert code == 0
    for name in EXPORTERS:
        assert name in out.replace("│ ", "").replace("│", "")


def test_baselines_mixtures_and_settings_of_the_study(mixlaw, decided, tmp_path):
    study = tmp_path / "tiny"
    shutil.copytree(decided, study)
    file = study / "study.yaml"
    file.write_text(file.read_text() + "export: {to: yaml, paths: '/d/{domain}'}\n")
    assert mixlaw("export", study, "--baseline", "uniform")[0] == 0
    written = yaml.safe_load((study / "export" / "yaml" / "mixture.yaml").read_text())
    shares = written["stages"][0]["domains"]
    assert {name: part["weight"] for name, part in shares.items()} == dict.fromkeys(NAMES, 0.2)
    assert shares["cpp"]["paths"] == ["/d/cpp"]
    given = ["-m", "docs=0.5,cpp=0.5", "--path", "cpp=/x", "--path", "cpp=/y"]
    assert mixlaw("export", study, *given)[0] == 0
    written = yaml.safe_load((study / "export" / "yaml" / "mixture.yaml").read_text())
    shares = written["stages"][0]["domains"]
    assert {name: part["paths"] for name, part in shares.items()} == {
        "docs": ["/d/docs"],
        "cpp": ["/x", "/y"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "does not say which trainer gets the mixture"),
        (["--to", "megatorn"], "did you mean 'megatron'"),
        (["--to", "megatron"], "--path docs=..., or one pattern for all"),
        (["--to", "json", "-m", "docs=1", "--baseline", "uniform"], "name different mixtures"),
        (["--to", "json", "--baseline", "unifrom"], "did you mean 'uniform'"),
        (["--to", "json", "--path", "doc=/x"], "neither DOMAIN=PATH"),
        (["--to", "json", "--document-tokens", "docs=many"], "--document-tokens docs=many"),
        (["--to", "json", "--document-tokens", "many"], "is not DOMAIN=TOKENS"),
        (["--to", "json", "--schedule"], "no finished run changed its mixture"),
        (["--to", "json", "-m", ""], "in --mixture '' is not of the form"),
        (["--to", "json", "--baseline", ""], "no baseline ''"),
        (["--to", "json", "-m", "", "--baseline", "uniform"], "name different mixtures"),
        (["--to", "json", "--stage", "1"], "give --schedule or --staged beside it"),
        (["--to", "json", "--path", "docs="], "--path 'docs=' gives no path"),
        (
            ["--to", "json", "--path", "/a/{domain}", "--path", "/b/{domain}"],
            "a second pattern for all domains",
        ),
        (
            ["--to", "json", "--document-tokens", "docs=5", "--document-tokens", "docs=6"],
            "names 'docs' twice",
        ),
    ],
)
def test_errors_are_one_line(mixlaw, decided, tmp_path, arguments, message):
    code, out, err = mixlaw("export", decided, *arguments, "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert message in err
    assert not (tmp_path / "out").exists()


LOSSES = {"web": (3.0, 0.8), "code": (2.5, 1.0)}


def trained(mixture: dict[str, float]) -> dict[str, float]:
    """What a trainer would log of a mixture that it read from its config."""
    mean = Mixture.from_weights({name: mixture.get(name, 0.0) for name in ("web", "code", "books")})
    return {f"eval/{n}/loss": top - drop * mean[n] ** 0.5 for n, (top, drop) in LOSSES.items()}


class TestAskAndTell:
    @pytest.fixture
    def study(self, tmp_path):
        folder = tmp_path / "study"
        folder.mkdir()
        (folder / "study.yaml").write_text(
            "table: runs.csv\ndomains: {web: {}, code: {}, books: {}}\n"
            "objective: {loss/web: 1, loss/code: 1}\n"
            "plan: {scales: [{num_params: 1e6, train_tokens: 10_240_000}]}\n"
            "fit: {laws: [effective]}\n"
            "export: {paths: '/d/{domain}', sequence_length: 1024, batch_sequences: 8}\n"
        )
        return folder

    def ask(self, mixlaw, study, count: int) -> list[dict]:
        configs = study.parent / "configs"
        arguments = ("--next", count, "--export-to", "megatron", "--out", configs, "--json")
        code, out, err = mixlaw("design", study, *arguments)
        assert code == 0, err
        return json.loads(out)["runs"]

    def train(self, study, runs: list[dict]) -> Path:
        """Rows of a log, from nothing but the configs."""
        configs, log = study.parent / "configs", study.parent / "results.csv"
        rows = []
        for run in runs:
            blend = json.loads((configs / run["config"]).read_text())["train"]
            mixture = {
                prefix.removeprefix("/d/"): float(weight)
                for weight, prefix in zip(blend[::2], blend[1::2], strict=True)
            }
            rows.append({"run": run["run"], "step": 1250, **trained(mixture)})
        with open(log, "w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return log

    def test_asked_exported_trained_imported_and_asked_again(self, mixlaw, study):
        first = self.ask(mixlaw, study, 4)
        assert len({run["run"] for run in first}) == 4
        log = self.train(study, first)
        design = ("--design", study.parent / "configs")
        code, out, err = mixlaw("import", log, *design, "--into", study)
        assert code == 0, err
        assert "4 runs are new" in out
        assert "4 of the runs that were asked for have arrived" in out
        assert json.loads((study / "asked.json").read_text()) == []
        second = self.ask(mixlaw, study, 3)
        for new in second:
            for old in first:
                apart = max(abs(new["mixture"][d] - old["mixture"][d]) for d in new["mixture"])
                assert apart > 0.01
        self.train(study, [*first, *second])
        code, out, err = mixlaw("import", "--into", study)
        assert code == 0, err
        assert "3 runs are new, 4 as before" in out
        assert mixlaw("optimize", study, "--json")[0] == 0

    def test_configs_need_a_folder_and_a_trainer(self, mixlaw, study, tmp_path):
        for arguments in (["--export-to", "json"], ["--out", tmp_path / "x"]):
            code, _, err = mixlaw("design", study, "--next", "1", *arguments)
            assert (code, "give both" in err) == (1, True)

    def test_what_people_see(self, mixlaw, study, tmp_path):
        arguments = ("--next", 2, "--export-to", "megatron", "--out", tmp_path / "configs")
        code, out, _ = mixlaw("design", study, *arguments)
        assert code == 0
        assert "2 runs for megatron" in out
        assert f"mixlaw import RESULTS --design {tmp_path}/configs --into {study}" in out

    def test_a_table_needs_the_number_of_runs(self, mixlaw, study, tmp_path):
        arguments = ("--export-to", "json", "--out", tmp_path / "configs")
        code, _, err = mixlaw("design", study, *arguments)
        assert (code, "--next 8" in err) == (1, True)


def test_files_of_others_are_not_written_over(mixlaw, decided, tmp_path):
    (tmp_path / "mixture.json").write_text("precious")
    code, out, err = mixlaw("export", decided, "--to", "json", "--out", tmp_path)
    assert (code, out) == (1, "")
    assert "give another folder with --out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mixture.json"]
    assert (tmp_path / "mixture.json").read_text() == "precious"


def test_one_stage_of_a_schedule(mixlaw, tmp_path):
    study = Path(shutil.copytree(EXAMPLE.parent / "staged", tmp_path / "study"))
    assert mixlaw("schedule", study)[0] == 0
    arguments = ["--staged", "--stage", 2, "--to", "megatron", "--path", "/d/{domain}"]
    arguments += ["--train-tokens", "1e6", "--sequence-length", 64]
    code, out, err = mixlaw("export", study, *arguments, "--json")
    assert code == 0, err
    data = json.loads(out)
    assert data["source"].startswith("schedule, staged, stage 2 of")
    assert len(data["wanted"]) == 1
    assert data["train_tokens"] < 1e6


def test_an_empty_section_changes_nothing():
    both = ExportConfig.model_validate({"to": "json", "paths": {"web": "/w"}})
    assert both.with_(ExportConfig()) == both
