"""Names of metrics, as the trainers' sources write them."""

import math

import pytest

from mixlaw.interop.metric_names import (
    from_perplexity,
    perplexity_of,
    target_of,
    tokens_of,
)
from mixlaw.launch.tracking.base import points
from mixlaw.mixture import Mixture
from mixlaw.runs import UNITS, RunResult, RunSpec

TARGETS = {
    "OLMo-core": {
        "eval/lm/c4_en/CE loss": "loss/c4_en",
        "eval/lm/c4_en-validation/CE loss": "loss/c4_en",
        "eval/merged/lm/c4_en/CE loss": "loss/merged/lm/c4_en",
        "eval/downstream/piqa (BPB)": "bpb/piqa",
        "eval/downstream/piqa_test_rc_5shot (BPB v2)": "bpb/piqa_test_rc_5shot_v2",
        "eval/downstream/piqa (accuracy v2)": "score/piqa/accuracy_v2",
        "eval/downstream/piqa (length-normalized accuracy)": (
            "score/piqa/length-normalized_accuracy"
        ),
    },
    "OLMo": {
        "eval/c4_en-validation/CrossEntropyLoss": "loss/c4_en",
        "eval/downstream/hellaswag_len_norm": "score/hellaswag/len_norm",
        "eval/downstream/arc_easy_bpb": "bpb/arc_easy",
    },
    "Megatron": {
        "lm loss validation": "loss/validation",
        "lm loss validation-0": "loss/0",
        "val/lm loss": "loss/validation",
        "val_loss": "loss/validation",
    },
    "Levanter": {
        "eval/loss": "loss/validation",
        "eval/bpb": "bpb/validation",
        "eval/macro_loss": "loss/macro",
        "eval/paloma/c4_en/loss": "loss/paloma/c4_en",
        "eval/paloma/c4_en/bpb": "bpb/paloma/c4_en",
        "eval/paloma/macro_loss": "loss/paloma/macro",
        "eval/paloma/micro_loss": "loss/paloma/micro",
        "lm_eval/hellaswag_0shot/acc_norm": "score/hellaswag_0shot/acc_norm",
    },
    "torchtitan": {"validation_metrics/loss": "loss/validation"},
    "Composer": {
        "metrics/eval/LanguageCrossEntropy": "loss/validation",
        "metrics/eval/c4/LanguageCrossEntropy": "loss/c4",
        "metrics/piqa/10-shot/InContextLearningMultipleChoiceAccuracy": "score/piqa/10-shot",
    },
    "transformers": {
        "eval_loss": "loss/validation",
        "eval_c4_en_loss": "loss/c4_en",
        "eval/c4_en_loss": "loss/c4_en",
        "test_loss": "loss/test",
        "eval_accuracy": "score/validation/accuracy",
        "eval_web_accuracy": "score/web/accuracy",
    },
    "litgpt and its kin": {
        "val_loss": "loss/validation",
        "metric/val_loss": "loss/validation",
        "metric/the_pile_arxiv_val_loss": "loss/the_pile_arxiv",
    },
    "lm-eval": {
        "hellaswag/acc_norm": "score/hellaswag/acc_norm",
        "hellaswag/acc,none": "score/hellaswag/acc",
        "gsm8k/exact_match,strict-match": "score/gsm8k/exact_match/strict-match",
        "wikitext/bits_per_byte,none": "bpb/wikitext",
    },
    "mixlaw": {
        "eval/loss/web": "loss/web",
        "eval/bpb/a_val": "bpb/a_val",
        "loss/web": "loss/web",
        "summary.eval/loss/web": "loss/web",
    },
}

NOT_TARGETS = """
train/CE loss
train/PPL
train/CrossEntropyLoss
train/loss
train/accuracy
lm loss
lm loss vs samples
lm loss validation vs samples
lm loss validation-0 vs samples
mtp_1 loss validation
reduced_train_loss
loss_metrics/global_avg_loss
loss/train/total
metrics/train/LanguageCrossEntropy
metrics/piqa/10-shot/InContextLearningMCExpectedCalibrationError
metric/train_loss
horizon/4096/loss
loss
val/aux_loss
eval/total_loss
eval_runtime
eval/runtime
eval_samples_per_second
eval/loading_time
eval/downstream/piqa (CE loss)
eval/downstream/piqa (soft loss v2)
hellaswag/acc_norm_stderr,none
gsm8k/exact_match_stderr,strict-match
glue/mcc,none
truthfulqa/bleu_diff,none
wikitext/word_perplexity,none
lambada_openai/perplexity,none
step
""".strip().splitlines()

PERPLEXITIES = {
    "eval/lm/c4_en-validation/PPL": "loss/c4_en",
    "eval/c4_en-validation/Perplexity": "loss/c4_en",
    "lm loss validation ppl": "loss/validation",
    "lm loss validation-2 ppl": "loss/2",
    "metrics/eval/c4/LanguagePerplexity": "loss/c4",
    "val_ppl": "loss/validation",
    "metric/the_pile_arxiv_val_ppl": "loss/the_pile_arxiv",
    "eval/perplexity": "loss/validation",
    "eval_web_perplexity": "loss/web",
    "wikitext/byte_perplexity,none": "bpb/wikitext",
}


@pytest.mark.parametrize("dialect", TARGETS)
def test_a_metric_is_the_target_that_its_name_says(dialect):
    assert {name: target_of(name) for name in TARGETS[dialect]} == TARGETS[dialect]
    assert all(target.partition("/")[0] in UNITS for target in TARGETS[dialect].values())


@pytest.mark.parametrize("name", NOT_TARGETS)
def test_training_losses_and_other_measures_are_no_targets(name):
    assert target_of(name) is None
    assert perplexity_of(name) is None


def test_a_perplexity_is_no_target_but_tells_the_target_that_it_is_of():
    assert {name: perplexity_of(name) for name in PERPLEXITIES} == PERPLEXITIES
    assert not any(target_of(name) for name in PERPLEXITIES)


def test_the_logarithm_of_a_perplexity_is_in_the_unit_of_its_target():
    assert from_perplexity("loss/c4", math.exp(2.5)) == pytest.approx(2.5, rel=1e-12)
    assert from_perplexity("bpb/wikitext", 2**0.8) == pytest.approx(0.8, rel=1e-12)
    assert math.isnan(from_perplexity("loss/c4", 0.0))
    assert math.isnan(from_perplexity("loss/c4", math.nan))


def test_token_counters_are_found_the_surest_first():
    assert (
        tokens_of(["dataset/total_tokens", "throughput/device/TPS", "time/token_in_epoch"]) is None
    )
    assert tokens_of(["tokens", "total_tokens", "step"]) == "total_tokens"  # litgpt logs both
    assert tokens_of(["train/tokens", "eval/tokens"]) == "eval/tokens"
    assert tokens_of(["summary.throughput/total tokens"]) == "summary.throughput/total tokens"
    assert tokens_of(["train/loss", "samples vs steps"]) is None


def test_what_our_trackers_write_is_read_back():
    mixture = Mixture({"web": 0.5, "code": 0.5})
    spec = RunSpec(mixture, "m00", "swarm", "1M", 10**6, (512, 1024), 0, "context")
    lines = [{"tokens": 256, "horizon": 512, "loss": 3.0}, {"tokens": 1024, "horizon": None}]
    result = RunResult("done", ({"loss/web": 2.0, "bpb/code": 1.0}, {"loss/web": 1.5}))
    tags = {tag for point in points(spec, lines, result) for tag in point.values}
    assert {target_of(tag) for tag in tags} - {None} == {"loss/web", "bpb/code"}
    assert {tag for tag in tags if target_of(tag) is None} == {"horizon/512/loss"}
