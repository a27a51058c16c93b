"""The names that trainers and evaluators give to their metrics, and what of them is a target.

A target is measured on data that are not trained on. Losses of the training batches
("train/loss", Megatron's "lm loss") are none: they are means over whatever the mixture was. The
names were read in the sources:

- OLMo-core 3.0.0, eval/lm_evaluator.py and train/callbacks/evaluator_callback.py: "eval/lm/c4/CE
  loss", "eval/lm/c4/PPL", "eval/downstream/piqa (BPB v2)"; its predecessor OLMo, olmo/eval:
  "eval/c4/CrossEntropyLoss", "eval/downstream/piqa_len_norm". The "CE loss" of a downstream task is
  divided by characters, which is no unit of ours. Tokens: train/callbacks/speed_monitor.py.
- Megatron-LM training/training.py and Megatron Bridge 0.3.1 training/eval.py: "lm loss validation",
  "... validation ppl"; "... vs samples" is the same again over another axis. ms-swift on Megatron
  numbers its validation sets: "lm loss validation-0". They count samples, not tokens. NeMo 2:
  "val_loss".
- Levanter and Marin (marin-levanter 0.2.20), levanter/eval.py and callbacks/_metrics.py:
  "eval/paloma/c4/loss", ".../bpb", means over several "eval/paloma/macro_loss".
- torchtitan 0.3.0, components/metrics.py: "validation_metrics/loss"; trainer.py: "n_tokens_seen".
- Composer 0.32.1 trainer/trainer.py, llm-foundry 0.22.0 utils/builders.py:
  "metrics/eval/c4/LanguageCrossEntropy", "metrics/piqa/0-shot/InContextLearning...Accuracy".
- transformers 5.23.0 trainer.py: "eval_c4_loss", which integrations write as "eval/c4_loss".
- litgpt 0.5.13 pretrain.py: "val_loss"; TinyLlama and RegMix pretrain/tinyllama.py:
  "metric/the_pile_arxiv_val_loss". nanotron 0.4 trainer.py: "consumed_tokens", no evaluation.
- lm-eval 0.4.13, api/metrics.py and loggers/: "piqa/acc_norm", "gsm8k/exact_match,strict-match".
- mixlaw.launch.tracking: "eval/loss/web", over "eval/tokens" (W&B) or with tokens as steps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_VALIDATION = r"(?:val|valid|validation|dev)"
_SCORES = (
    r"(?:(?:\w+_)?(?:acc|accuracy|exact_match|em|f1)(?:_(?:norm|bytes|all|mutual_info|macro|micro))?"
    r"|bleu|chrf|rouge\w|pass@\d+|mc1|mc2)"
)
"""Measures for which more is better and none is below zero. Not so: mcc, likelihood, ter, brier."""

_OURS = r"(?:eval/)?(loss|bpb|error|score)/(.+)"

_TARGETS: tuple[tuple[str, str], ...] = (
    (r"eval/(?:lm/)?(.+)/(?:CE loss|CrossEntropyLoss)", r"loss/\1"),
    (r"eval/downstream/(.+) \(BPB\)", r"bpb/\1"),
    (r"eval/downstream/(.+) \(BPB (v\d+)\)", r"bpb/\1_\2"),
    (r"eval/downstream/(.+) \((.*(?:accuracy|F1 score).*)\)", r"score/\1/\2"),
    (r"eval/downstream/(.+)_(acc|len_norm|pmi_dc|f1)", r"score/\1/\2"),
    (r"eval/downstream/(.+)_bpb", r"bpb/\1"),
    (r"eval/downstream/.+", ""),
    (r"metrics/eval/LanguageCrossEntropy", "loss/validation"),
    (r"metrics/eval/(.+)/LanguageCrossEntropy", r"loss/\1"),
    (r"metrics/(?!train/)(.+)/InContextLearning\w*Accuracy", r"score/\1"),
    (r"(?:lm )?loss validation", "loss/validation"),
    (r"(?:lm )?loss validation-([^ ]+)", r"loss/\1"),
    (r"metric/(.+)_val_loss", r"loss/\1"),
    (rf"(?:eval|{_VALIDATION}|metric)[/_](?:val_|lm |avg_)?loss", "loss/validation"),
    (r"validation_metrics/loss", "loss/validation"),
    (r"test[/_]loss", "loss/test"),
    (r"eval/bpb", "bpb/validation"),
    (r"eval/(?:(.+)/)?(macro|micro)_(loss|bpb)", r"\3/\1/\2"),
    (rf"(?:eval|test|{_VALIDATION})/(.+)/(loss|bpb)", r"\2/\1"),
    (rf"(?:eval|test|{_VALIDATION})[/_](.+)_(loss|bpb)", r"\2/\1"),
    (rf"{_VALIDATION}[/_]loss[/_](.+)", r"loss/\1"),
    (rf"(?:lm_eval/)?(?!eval/|(?:.+/)?train/)(.+)/({_SCORES})(?:,none)?", r"score/\1/\2"),
    (rf"(?:lm_eval/)?(?!eval/|(?:.+/)?train/)(.+)/({_SCORES}),(.+)", r"score/\1/\2/\3"),
    (r"(?:lm_eval/)?(.+)/bits_per_byte(?:,none)?", r"bpb/\1"),
    (r"eval[/_](accuracy|f1)", r"score/validation/\1"),
    (r"eval[/_](.+)_(accuracy|f1)", r"score/\1/\2"),
)
"""What a whole name looks like -> its target; the first that fits decides, "": it is none."""

_PERPLEXITIES: tuple[tuple[str, str], ...] = (
    (r"eval/(?:lm/)?(.+)/(?:PPL|Perplexity|perplexity)", r"loss/\1"),
    (r"metrics/eval/LanguagePerplexity", "loss/validation"),
    (r"metrics/eval/(.+)/LanguagePerplexity", r"loss/\1"),
    (r"(?:lm )?loss validation ppl", "loss/validation"),
    (r"(?:lm )?loss validation-(.+) ppl", r"loss/\1"),
    (r"metric/(.+)_val_ppl", r"loss/\1"),
    (rf"(?:(?:eval|{_VALIDATION}|metric)[/_])(?:val_|avg_)?(?:ppl|perplexity)", "loss/validation"),
    (rf"(?:eval|{_VALIDATION})[/_](.+)_(?:ppl|perplexity)", r"loss/\1"),
    (r"(?:lm_eval/)?(.+)/byte_perplexity(?:,none)?", r"bpb/\1"),
)

_NO_DATA = frozenset(
    {
        *("aux", "auxiliary", "z", "load_balancing", "load_balance", "balance", "router", "moe"),
        *("mtp", "lm", "ce", "kl", "grad", "reg", "regularization", "l1", "l2", "distill"),
        *("total", "sum", "max", "min", "std", "stderr", "var", "median", "norm", "scale", "rate"),
        *("final", "best", "last", "current", "running", "ema", "smoothed"),
        *("epoch", "step", "iter", "iteration", "reward", "rewards"),
    }
)
"""Other terms of a loss, what was computed of it, and words of loggers, where data are named."""

_TERMS = frozenset({"aux", "z", "load_balancing", "mtp", "total", "max", "reward", "rewards"})
"""Of them, those that stand beside data."""

_TRAINED_ON = re.compile(
    r"(?:train|training|batch|minibatch|rollout)|(?:train|batch|rollout)[ _.-].*"
    r"|.*[ _.-](?:train|training|batch|rollout)"
)
"""Names of training batches, where data are named."""

_TOKENS: tuple[str, ...] = (
    "throughput/total tokens",
    "throughput/total_tokens",
    "n_tokens_seen",
    "time/token",
    "num_input_tokens_seen",
    "train/num_input_tokens_seen",
    "eval/tokens",
    "train/tokens",
    "train_tokens",
    "consumed_tokens",
    "consumed_train_tokens",
    "total_tokens",
    "tokens_seen",
    "tokens",
)
"""Names of the tokens seen so far, over all devices, the surest first."""


def target_of(name: str) -> str | None:
    """The target that a trainer's metric is, by its name: "eval/lm/c4/CE loss" -> "loss/c4"; the
    metric before the slash as in `mixlaw.runs.UNITS`. Data without a name are "validation".

    None for anything else, also for losses on the training batches and for perplexities.
    """
    if ours := re.fullmatch(_OURS, _bare(name)):
        exact = ours[2].split("/")[0] in ("train", "training", "batch", "rollout")
        return None if exact or ours[2] in _NO_DATA else f"{ours[1]}/{ours[2]}"
    return _first(_TARGETS, name)


def is_data(name: str) -> bool:
    """Whether what stands between the words of a metric may name data that are not trained on."""
    parts = name.strip("/").lower().split("/")
    terms = _NO_DATA if len(parts) == 1 else _TERMS
    return bool(name) and not any(part in terms or _TRAINED_ON.fullmatch(part) for part in parts)


def perplexity_of(name: str) -> str | None:
    """The target of which a trainer's metric is the perplexity; see `from_perplexity`.

    None also for perplexities per word or of a single word, whose logarithm is of no unit here.
    """
    return _first(_PERPLEXITIES, name)


def from_perplexity(target: str, perplexity: float) -> float:
    """The value of a target: nats for a loss; bits for bits per byte. NaN unless above zero."""
    if not perplexity > 0:
        return math.nan
    return math.log2(perplexity) if target.startswith("bpb/") else math.log(perplexity)


def tokens_of(names: Iterable[str]) -> str | None:
    """The metric, of these, that counts the tokens seen so far; None if there is none."""
    found = {_bare(name): name for name in names}
    return next((found[known] for known in _TOKENS if known in found), None)


def _clean(name: str) -> str:
    """A data set's name without the words that say that it is held out, and without blanks."""
    return re.sub(r"[-_](?:val|valid|validation)$", "", name.strip("/")).replace(" ", "_")


def _bare(name: str) -> str:
    """W&B's last values are under "summary."."""
    return name.removeprefix("summary.")


def _first(rules: Iterable[tuple[str, str]], name: str) -> str | None:
    for pattern, target in rules:
        if not (match := re.fullmatch(pattern, _bare(name))):
            continue
        metric, _, data = match.expand(target).partition("/")
        if not is_data(data):
            return None
        return f"{metric}/{_clean(data)}"
    return None
