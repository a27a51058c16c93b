"""The study file that an import writes where there is none: sound at once, made to be edited."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from mixlaw.runs import RunTable
from mixlaw.study.config import read_yaml
from mixlaw.study.own_runs import RUNS

if TYPE_CHECKING:
    from mixlaw.study.study import Study

PREFERRED = ("bpb", "loss", "error", "score")
"""Metrics that an objective is made of, the first that the runs have. Bits per byte and nats per
token of one text are the same loss twice, and bits do not depend on a tokenizer."""

DECIDING = ("objective", "constraints", "tradeoffs", "fit", "optimize", "plan", "export")
"""Sections that a study of the same question has, however its runs were made."""

WIDTH = 96


def study_text(runs: RunTable) -> str:
    """A commented study.yaml for a table of runs: its domains, the mean of its losses, and the
    largest of its scales where they vary."""
    chosen, why, others = _objective(runs)
    parts = [
        "# A study of imported runs; import.yaml says how they were read. Edit, then: mixlaw fit,\n"
        "# mixlaw optimize, mixlaw report. `mixlaw init` writes a file with every setting.\n"
        f"table: {RUNS}\n\n",
        _comment(
            "Unique tokens that the big run may draw from, for instance {available_tokens: 2.0e9}: "
            "they set epochs, and the natural mixture to compare with."
        ),
        _yaml({"domains": {name: {} for name in runs.domains}}),
        "\n" + _comment(why),
        _yaml({"objective": dict.fromkeys(chosen, 1)}),
    ]
    if others:
        parts.append(_comment(f"Measured, too: {', '.join(map(_scalar, others))}"))
    parts.append(_target(runs))
    parts.append(
        "\n"
        + _comment(
            "Limits of the mixture; baselines to compare with, also from a trainer's config; and "
            "the trainer that gets the mixture (mixlaw export)."
        )
        + "# constraints: {max_epochs: 4}\n"
        "# baselines: {ours: {file: blend.json, format: megatron}}\n"
        "# export: {to: megatron, paths: '/data/{domain}', sequence_length: 4096}\n"
    )
    return "".join(parts)


def draft(study: Study) -> str:
    """The study.yaml that takes the results of a design which another trainer does: what the study
    says of the decision, and nothing of its own training."""
    config, said = study.config, read_yaml(study.file)
    domains = {d.name: {"available_tokens": d.available_tokens} for d in study.domains()}
    target = {"num_params": config.target_params, "train_tokens": config.target.train_tokens}
    data: dict[str, Any] = {
        "table": RUNS,
        "seed": config.seed,
        "domains": {n: {k: v for k, v in d.items() if v} for n, d in domains.items()},
        "target": {key: count for key, count in target.items() if count},
    }
    data |= {key: said[key] for key in DECIDING if key in said}
    if config.baselines:
        data["baselines"] = {
            name: dict(given.shares)
            if given.shares is not None
            else {"file": str(Path(given.file or "").resolve()), "format": given.format}
            for name, given in config.baselines.items()
        }
    head = (
        "# For results of runs that another trainer does, with the questions of the study that\n"
        "# designed them: mixlaw import RESULTS --design FOLDER --into FOLDER, this one.\n"
    )
    return head + _yaml({key: value for key, value in data.items() if value != {}})


def _objective(runs: RunTable) -> tuple[list[str], str, list[str]]:
    """The targets of the objective, why these, and all others."""
    done = runs.done()
    counts = dict(zip(runs.targets, np.isfinite(done.values).sum(axis=0).tolist(), strict=True))
    most = max(counts.values())
    whole = [target for target in runs.targets if counts[target] == most]
    metric = next(m for m in PREFERRED if any(t.startswith(f"{m}/") for t in whole))
    chosen = [target for target in whole if target.startswith(f"{metric}/")]
    what = {"score": "scores", "error": "shares of wrong answers"}.get(metric, "losses")
    why = (
        f"What the mixture is for. mixlaw import took the plain mean of all {len(chosen)} {what} "
        f"({metric}/) that {'every run' if most == len(done) else f'{most} of {len(done)} rows'} "
        "measured; give each the weight it has for you."
    )
    if metric == "score":
        why += (
            " The runs have scores alone: laws are of losses, which scores follow, so fitting "
            "needs a loss (loss/, bpb/ or error/) of each run beside them."
        )
    return chosen, why, [target for target in runs.targets if target not in chosen]


def _target(runs: RunTable) -> str:
    """The section on the big run: needed where the runs vary in scale."""
    trained = runs.trained()
    largest: dict[str, int] = {}
    for name in ("num_params", "train_tokens"):
        counts = getattr(trained, name)
        if len(np.unique(counts)) > 1 and np.isfinite(counts).any():
            largest[name] = int(np.nanmax(counts))
    text = "The big run that the mixture is for: its non-embedding parameters and training tokens."
    if not largest:
        example = "# target: {num_params: 7.0e9, train_tokens: 2.0e11}\n"
        return "\n" + _comment(text) + example
    text += " Here the largest of the runs; put yours."
    return "\n" + _comment(text) + _yaml({"target": largest})


def _comment(text: str) -> str:
    # A name may hold anything; no line of it may come to stand outside the comment.
    plain = " ".join(text.split())
    lines = textwrap.wrap(plain, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def _yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=WIDTH)


def _scalar(name: str) -> str:
    return (
        yaml.safe_dump(name, default_flow_style=True, allow_unicode=True)
        .removesuffix("\n...\n")
        .strip()
    )
