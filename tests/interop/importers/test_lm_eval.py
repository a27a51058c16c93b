"""Result files of the LM Evaluation Harness, in the layouts that it wrote over time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop import import_runs
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers.lm_eval import LmEval

RESULTS = {
    "piqa": {
        "name": "piqa",
        "alias": "piqa",
        "sample_len": 1838,
        "acc,none": 0.75,
        "acc_stderr,none": 0.01,
        "acc_norm,none": 0.625,
        "acc_norm_stderr,none": "N/A",
    },
    "gsm8k": {
        "alias": " - gsm8k",
        "exact_match,strict-match": 0.25,
        "exact_match_stderr,strict-match": 0.01,
        "exact_match,flexible-extract": 0.5,
    },
    "wikitext": {
        "word_perplexity,none": 10.0,
        "byte_perplexity,none": 2.0,
        "bits_per_byte,none": 1.0,
        "bits_per_byte_stderr,none": "N/A",
    },
    "cola": {"mcc,none": -0.1},
    "mmlu": {"acc,none": 0.25, "alias": "mmlu", "sample_count": {"acc,none": 14042}},
    "ifeval": {"prompt_level_strict_acc,none": 0.125},
}


def report(name: str | None = "runs/m07", *, results: Any = None, **changes) -> dict:
    """What 0.4.13 writes, by the keys that are read."""
    found = RESULTS if results is None else results
    return {
        "results": found,
        "groups": {"mmlu": {"acc,none": 0.25}},
        "configs": {task: {"output_type": "multiple_choice"} for task in found},
        "n-shot": dict.fromkeys(found, 0),
        "higher_is_better": {},
        "config": {"model": "hf", "model_args": f"pretrained={name},dtype=float", "random_seed": 0},
        "date": 100.0,
        "model_source": "hf",
        **({} if name is None else {"model_name": name}),
    } | changes


def write(path: Path, data: dict) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2))
    return str(path)


def read(*sources: str):
    return list(LmEval().read(sources))


def test_measures_are_targets_where_their_unit_is_known(tmp_path):
    (run,) = read(write(tmp_path / "results_2026-01-01T00-00-00.json", report()))
    assert run.run == run.name == "runs/m07"
    assert run.fields == {
        "model_name": "runs/m07",
        "model_args.pretrained": "runs/m07",
        "model_args.dtype": "float",
        "score/piqa/acc": 0.75,
        "score/piqa/acc_norm": 0.625,
        "score/gsm8k/exact_match/strict-match": 0.25,
        "score/gsm8k/exact_match/flexible-extract": 0.5,
        "wikitext/word_perplexity": 10.0,  # per word: no unit of ours
        "wikitext/byte_perplexity": 2.0,
        "bpb/wikitext": 1.0,
        "cola/mcc": -0.1,
        "score/mmlu/acc": 0.25,
        "score/ifeval/prompt_level_strict_acc": 0.125,
    }
    assert not run.series
    assert not run.notes


def test_a_folder_has_a_run_for_each_model(tmp_path):
    for name in ("m07", "m08"):
        write(tmp_path / f"runs__{name}" / "results_2026.json", report(f"runs/{name}"))
    (tmp_path / "runs__m07" / "samples_piqa_2026.jsonl").write_text("{}\n")
    (tmp_path / "runs__m07" / "config.json").write_text('{"model_type": "llama"}')
    assert recognise([str(tmp_path)]).name == "lm-eval"
    assert [run.run for run in read(str(tmp_path))] == ["runs/m07", "runs/m08"]


def test_of_several_files_of_a_model_the_newest_wins(tmp_path):
    old = report(results={"piqa": {"acc,none": 0.5}, "arc": {"acc,none": 0.3}}, date=100.0)
    new = report(results={"piqa": {"acc,none": 0.6}, "sciq": {"acc,none": 0.9}}, date=200.0)
    write(tmp_path / "a" / "results_new.json", new)
    write(tmp_path / "b" / "results_old.json", old)
    (run,) = read(str(tmp_path))
    scores = {name: value for name, value in run.fields.items() if name.startswith("score/")}
    assert scores == {"score/piqa/acc": 0.6, "score/arc/acc": 0.3, "score/sciq/acc": 0.9}
    assert run.notes == [
        "1 measures are in several of its 2 files; the newest were taken, up to results_new.json"
    ]
    assert "results_old.json" in run.origin


def test_without_a_date_the_time_in_the_name_decides(tmp_path):
    for time, value in (("2024-02-01", 0.6), ("2024-01-01", 0.5)):
        data = report(results={"piqa": {"acc,none": value}})
        del data["date"]
        write(tmp_path / f"results_{time}.json", data)
    (run,) = read(str(tmp_path))
    assert run.fields["score/piqa/acc"] == 0.6


def test_a_revision_is_a_model_of_its_own(tmp_path):
    for revision in ("step1000", "step2000", "main"):
        config = {"model_args": {"pretrained": "pythia", "revision": revision}}
        write(tmp_path / f"results_{revision}.json", report("pythia", config=config))
    runs = read(str(tmp_path))
    assert {run.run for run in runs} == {"pythia", "pythia@step1000", "pythia@step2000"}
    assert {run.name for run in runs} == {"pythia"}


def test_older_files_have_no_filters_and_no_model_name(tmp_path):
    """Release 0.3, and 0.4.0: the model is in its arguments, or in the folder's name."""
    data = {
        "results": {"piqa": {"acc": 0.7, "acc_stderr": 0.01}},
        "versions": {"piqa": 0},
        "config": {"model": "gpt2", "model_args": "pretrained=out/m07", "num_fewshot": 0},
    }
    (run,) = read(write(tmp_path / "results.json", data))
    assert (run.run, run.fields["score/piqa/acc"]) == ("out/m07", 0.7)
    del data["config"]
    (run,) = read(write(tmp_path / "m09" / "results.json", data))
    assert run.run == "m09"


def test_what_has_no_value_is_left_out(tmp_path):
    results = {"piqa": {"acc,none": float("nan"), "acc_norm,none": 0.5}, "none": {"acc,none": True}}
    (run,) = read(write(tmp_path / "results.json", report(results=results)))
    assert [name for name in run.fields if name.startswith("score/")] == ["score/piqa/acc_norm"]


def test_a_task_with_several_prompts_is_refused(tmp_path):
    for shots in (0, 5):
        data = report(results={"piqa": {"acc,none": 0.5}}, date=float(shots))
        write(tmp_path / f"results_{shots}.json", data | {"n-shot": {"piqa": shots}})
    message = r"results_0.json has piqa with 0 examples in the prompt, .*results_5.json with 5"
    with pytest.raises(RunTableError, match=message):
        read(str(tmp_path))


def test_a_file_cut_short_is_named(tmp_path):
    path = Path(write(tmp_path / "results.json", report()))
    path.write_text(path.read_text()[:900])
    assert LmEval().recognises([str(path)])
    with pytest.raises(RunTableError, match=r"could not read .*results.json.*is it cut short"):
        read(str(path))


@pytest.mark.parametrize(
    "text", ['{"model_type": "llama"}', "[1, 2]", "", '{"results": [1]}', "\0"]
)
def test_other_files_are_not_recognised(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    assert not LmEval().recognises([str(path)])
    assert not LmEval().recognises([str(tmp_path)])
    assert not LmEval().recognises([str(tmp_path / "absent")])
    with pytest.raises(RunTableError, match=r"no results of lm-eval; name results_\*.json"):
        read(str(path))


def test_planned_runs_give_the_mixtures_that_results_lack(tmp_path):
    for name in ("m07", "m08"):
        write(tmp_path / f"{name}.json", report(f"/ckpt/{name}/hf", results={"piqa": {"acc": 0.5}}))
    with pytest.raises(RunTableError, match="mixture"):
        import_runs([tmp_path])
    planned = {name: {"weight/a": 0.25, "weight/b": 0.75, "seed": 3} for name in ("m07", "m08")}
    table = import_runs([tmp_path], planned=planned).table
    assert table.run.tolist() == ["m07", "m08"]
    assert table.targets == ("score/piqa/acc",)
    assert table.weights.tolist() == [[0.25, 0.75]] * 2
