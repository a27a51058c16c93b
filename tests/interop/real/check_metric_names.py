"""The names of metrics as the real trainers log them here."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from unittest import mock

import pytest
import torch

from mixlaw.interop.metric_names import perplexity_of, target_of, tokens_of


def test_olmo_core_evaluates_language_modelling():
    from olmo_core.eval.lm_evaluator import LMEvaluator
    from olmo_core.train.common import TRAIN_CE_LOSS_METRIC, TRAIN_PPL_METRIC

    evaluator = LMEvaluator(name="lm", batches=[], labels=["c4_en-validation", "web"])
    batch = {"metadata": [{"label": "c4_en-validation"}, {"label": "web"}]}
    evaluator.update_metrics(batch, torch.full((2, 4), 2.5), None)
    names = [f"eval/{evaluator.name}/{name}" for name in evaluator.compute_metrics()]
    assert [target_of(name) for name in names] == ["loss/c4_en", None, "loss/web", None]
    assert [perplexity_of(name) for name in names] == [None, "loss/c4_en", None, "loss/web"]
    assert target_of(TRAIN_CE_LOSS_METRIC) is perplexity_of(TRAIN_PPL_METRIC) is None


def test_olmo_core_evaluates_tasks():
    from olmo_core.train.callbacks.evaluator_callback import DownstreamEvaluator

    found = {
        kind: target_of(f"eval/downstream/piqa ({label})")
        for kind, label in DownstreamEvaluator.metric_type_to_label.items()
    }
    for kind, target in found.items():
        if kind.startswith("bpb"):
            assert target is not None
            assert target.startswith("bpb/piqa")
        elif kind.startswith(("acc", "len_norm", "pmi_dc", "f1")):
            assert target is not None
            assert target.startswith("score/piqa/")
        else:
            assert target is None, kind
    targets = [target for target in found.values() if target]
    assert len(set(targets)) == len(targets)


WRITTEN = [
    (
        *("megatron-bridge", "megatron/bridge/training/eval.py", '"{} validation".format(key)'),
        *("lm loss validation", "loss/validation"),
    ),
    ("megatron-bridge", "megatron/bridge/training/losses.py", '"lm loss"', "lm loss", None),
    (
        *("marin-levanter", "levanter/eval.py", '_join_prefix(prefix, tag) + "/loss"'),
        *("eval/paloma/c4_en/loss", "loss/paloma/c4_en"),
    ),
    (
        *("marin-levanter", "levanter/eval.py", '_join_prefix(prefix, tag) + "/macro_loss"'),
        *("eval/paloma/macro_loss", "loss/paloma/macro"),
    ),
    (
        *("marin-levanter", "levanter/eval.py", '_join_prefix(prefix, tag) + "/bpb"'),
        *("eval/paloma/c4_en/bpb", "bpb/paloma/c4_en"),
    ),
    ("marin-levanter", "levanter/callbacks/_metrics.py", '"train/loss"', "train/loss", None),
    ("litgpt", "litgpt/pretrain.py", '"val_loss"', "val_loss", "loss/validation"),
    ("nanotron", "nanotron/trainer.py", '"lm_loss"', "lm_loss", None),
]
"""Of trainers that cannot run here: package, file, what stands in it, a name that it makes, and its
target."""


@pytest.mark.parametrize(("package", "file", "text", "name", "target"), WRITTEN)
def test_names_stand_in_the_sources_of_trainers_that_do_not_run_here(
    package, file, text, name, target
):
    assert text in Path(str(distribution(package).locate_file(file))).read_text("utf-8")
    assert target_of(name) == target


def test_torchtitan_validates():
    from torchtitan.components.metrics import DeviceMemStats, MetricsProcessor

    logged = {}
    processor = mock.MagicMock(ntokens_since_last_log=0, time_last_log=0.0)
    processor.parallel_dims.non_data_parallel_size = 1
    stats = DeviceMemStats(0.0, 0.0, 0.0, 0.0, 0, 0)
    processor.device_memory_monitor.get_peak_stats.return_value = stats
    processor.logger.log = lambda metrics, step: logged.update(metrics)
    MetricsProcessor.log_validation(processor, loss=2.5, step=1)
    assert {name: target_of(name) for name in logged if target_of(name)} == {
        "validation_metrics/loss": "loss/validation"
    }


def test_transformers_evaluates_several_data_sets(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    from transformers.integrations.integration_utils import rewrite_logs

    config = GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    texts = [{"input_ids": list(range(8)), "labels": list(range(8))}] * 4
    trainer = Trainer(
        GPT2LMHeadModel(config),
        TrainingArguments(
            str(tmp_path),
            max_steps=2,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            include_num_input_tokens_seen="all",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=texts,
        eval_dataset={"web": texts, "code_fresh": texts},
    )
    trainer.train()
    names = {name for entry in trainer.state.log_history for name in entry}
    expected = {"loss/web", "loss/code_fresh"}
    assert {target_of(name) for name in names} - {None} == expected
    assert {target_of(name) for name in rewrite_logs(dict.fromkeys(names, 1.0))} - {
        None
    } == expected
    assert tokens_of(names) == "num_input_tokens_seen"
    assert tokens_of(rewrite_logs(dict.fromkeys(names, 1.0))) == "train/num_input_tokens_seen"
