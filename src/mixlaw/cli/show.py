"""What people see in the terminal; nothing here computes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.cli.terminal import line, table
from mixlaw.runs import FAILED, MISSING, REPLICATE, RunSpec, RunTable

if TYPE_CHECKING:
    from mixlaw.study import Study


def status(found: dict[str, Any]) -> None:
    rows = [(step, line or "-") for step, line in found["steps"].items()]
    table(["step", "state"], rows, title=found["folder"])
    if found["runs"]["planned"]:
        line("{done} of {planned} runs finished, {failed} failed".format(**found["runs"]))
    if found["export"]:
        line(f"the mixture for your trainer: {found['export']}")
    following = found["next"]
    name = shlex.quote(found["folder"])
    line(f"next: mixlaw {following} {name}" if following else "all done")


def design(specs: Sequence[RunSpec]) -> None:
    first = {spec.label: spec.mixture for spec in specs}
    names = list(next(iter(first.values())))
    rows = [[label, *(f"{m[name]:.3f}" for name in names)] for label, m in first.items()]
    table(["mixture", *names], rows)
    sizes = list(dict.fromkeys(spec.size for spec in specs))
    extra = sum(spec.role == REPLICATE for spec in specs)
    line(f"{len(first)} mixtures at {', '.join(sizes)}: {len(specs)} runs, {extra} of them")
    line("replicates with another seed, so that the noise is known")


def runs(found: RunTable) -> None:
    """Loss range per size at the longest horizon."""
    rows = []
    done = found.done()
    for num_params in np.unique(done.num_params):
        at_size = done.select(done.num_params == num_params)
        last = at_size.select(at_size.train_tokens == at_size.train_tokens.max())
        for t, target in enumerate(last.targets):
            if target.startswith("bpb/") or not any(t.startswith("bpb/") for t in last.targets):
                low, high = last.values[:, t].min(), last.values[:, t].max()
                rows.append([f"{num_params:,.0f}", target, f"{low:.3f}", f"{high:.3f}"])
    table(["parameters", "target", "best mixture", "worst mixture"], rows)
    failed = sorted(set(found.label[found.status == FAILED]))
    if failed:
        line(f"failed, kept and left out of every fit: {', '.join(failed)}")
    missing = sorted(set(found.label[found.status == MISSING]))
    if missing:
        line(f"planned, without a result: {', '.join(missing)}")


def corpus(summary: dict[str, Any]) -> None:
    rows = [
        [
            d["name"] + ("" if d["trained"] else " (only measured)"),
            f"{d['train_documents']:,}",
            f"{d['train_tokens']:,}",
            f"{d['natural_share']:.1%}" if d["trained"] else "-",
            f"{d['valid_tokens']:,}",
            f"{d['removed_exact']} + {d['removed_near']}",
        ]
        for d in summary["domains"]
    ]
    columns = ["domain", "documents", "training tokens", "natural share", "validation tokens"]
    table([*columns, "duplicates (exact + near)"], rows)
    line(f"tokenizer {summary['tokenizer']}, {summary['vocab_size']:,} ids")


def left_out(study: Study) -> None:
    """How many rows of the table say nothing of one mixture throughout."""
    if staged := len(study.runs().staged()):
        line(
            f"{staged} rows changed their mixture during training: they are left out here, and "
            f"speak in: mixlaw schedule {shlex.quote(str(study.folder))}"
        )
