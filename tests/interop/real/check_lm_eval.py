"""Results that the real LM Evaluation Harness writes, of a model that answers at random."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from lm_eval.api.registry import HIGHER_IS_BETTER_REGISTRY
from lm_eval.evaluator import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from mixlaw.interop.importers import recognise
from mixlaw.interop.metric_names import perplexity_of, target_of
from mixlaw.runs import UNITS, higher_is_better

TASKS = {
    "parity": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "pages": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [
            {"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ],
    },
    "answers": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
        "filter_list": [
            {"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "loose")
        ],
    },
}


@pytest.fixture(scope="module")
def manager(tmp_path_factory) -> TaskManager:
    """Tasks over a file beside them: none is fetched."""
    folder = tmp_path_factory.mktemp("tasks")
    docs = [
        {"question": f"Is {i} even?", "choices": ["yes", "no"], "gold": i % 2} for i in range(8)
    ]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, docs)))
    for name, task in TASKS.items():
        data = {"task": name, "dataset_path": "json", "test_split": "test", **task}
        data["dataset_kwargs"] = {"data_files": {"test": str(folder / "docs.jsonl")}}
        (folder / f"{name}.yaml").write_text(json.dumps(data))  # JSON is YAML
    return TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(out: Path, manager: TaskManager, model: str, *tasks: str) -> dict:
    """As the command line does it. Returns: the results, as they were written."""
    tracker = EvaluationTracker(output_path=str(out))
    found = simple_evaluate(
        model="dummy",
        model_args=f"pretrained={model}",
        tasks=list(tasks),
        task_manager=manager,
        evaluation_tracker=tracker,
        bootstrap_iters=0,
        batch_size=1,
    )
    assert found is not None
    tracker.save_results_aggregated(found, found.pop("samples"))
    return found["results"]


def test_a_folder_of_results_is_read_as_it_was_written(tmp_path, manager):
    wrote = {model: evaluate(tmp_path, manager, model, *TASKS) for model in ("o/m07", "o/m08")}
    source = recognise([str(tmp_path)])
    assert source.name == "lm-eval"
    runs = {run.run: run.fields for run in source.read([str(tmp_path)])}
    assert runs.keys() == wrote.keys()
    for model, results in wrote.items():
        fields = runs[model]
        assert fields["score/parity/acc"] == results["parity"]["acc,none"]
        assert fields["score/parity/acc_norm"] == results["parity"]["acc_norm,none"]
        assert fields["bpb/pages"] == results["pages"]["bits_per_byte,none"]
        assert fields["score/answers/exact_match/loose"] == results["answers"]["exact_match,loose"]
        assert not any("stderr" in name or "sample_len" in name for name in fields)
        perplexity = fields["pages/byte_perplexity"]
        assert perplexity_of("pages/byte_perplexity") == "bpb/pages"
        assert math.log2(perplexity) == pytest.approx(fields["bpb/pages"], rel=1e-12)


def test_a_later_evaluation_adds_tasks_and_renews_others(tmp_path, manager):
    evaluate(tmp_path, manager, "o/m07", "parity", "pages")
    again = evaluate(tmp_path, manager, "o/m07", "parity", "answers")
    (run,) = recognise([str(tmp_path)]).read([str(tmp_path)])
    assert run.fields["score/parity/acc"] == again["parity"]["acc,none"]
    assert {"bpb/pages", "score/answers/exact_match/strict"} <= run.fields.keys()
    (note,) = run.notes
    assert note.startswith("2 measures are in several of its 2 files")


def test_no_measure_of_the_harness_is_taken_the_wrong_way_round():
    for metric, is_better in HIGHER_IS_BETTER_REGISTRY.items():
        if (target := target_of(f"task/{metric}")) is not None:
            assert target.partition("/")[0] in UNITS
            assert higher_is_better(target) == is_better, metric
