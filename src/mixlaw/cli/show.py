"""What people see in the terminal; nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.cli.terminal import heading, line, marked, notes, table
from mixlaw.laws.noise import Noise, measured_noise
from mixlaw.runs import FAILED, MISSING, REPLICATE, RunSpec, RunTable

if TYPE_CHECKING:
    from mixlaw.laws import CrossValidation, FittedLaws
    from mixlaw.study import Study


def status(found: dict[str, Any]) -> None:
    rows = [(step, line or "-") for step, line in found["steps"].items()]
    table(["step", "state"], rows, title=found["folder"])
    if found["runs"]["planned"]:
        line("{done} of {planned} runs finished, {failed} failed".format(**found["runs"]))
    if found["export"]:
        line(f"the mixture for your trainer: {found['export']}")
    following = found["next"]
    line(f"next: mixlaw {following} {found['folder']}" if following else "all done")


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


def fit(study: Study) -> None:
    """Every candidate on held-out runs, the chosen law by target, and what to read first."""
    fitted, findings = study.fit(), study.diagnose()
    validation = fitted.cross_validation
    _candidates(validation, fitted.law)
    noise = measured_noise(validation.runs)
    _by_target(fitted, study.half_widths(), noise, study.config.fit.level)
    if fitted.at_largest is not None:
        best = list(fitted.at_largest.ranking().items())[:MOST_COMPARED]
        found = ", ".join(f"{name} {error:.3f}" for name, error in best)
        line(f"for comparison, laws of the mixture alone at the largest scale: {found}")
    for name, reasons in validation.refused.items():
        for reason in dict.fromkeys(reasons.values()):
            line(f"refused {name}: {reason}")
    left_out(study)
    if findings:
        heading("\nRead this")
    for found in findings:
        marked(found.kind, found.text)
    told = {found.text for found in findings}
    notes([text for text in fitted.warnings if text not in told])


def left_out(study: Study) -> None:
    """How many rows of the table say nothing of one mixture throughout."""
    if staged := len(study.runs().staged()):
        line(
            f"{staged} rows changed their mixture during training: they are left out here, and "
            f"speak in: mixlaw schedule {study.folder}"
        )


SPLITS = {"scale": "new scale", "mixture": "new mixtures"}
MOST_COMPARED, MOST_TARGETS = 3, 15


def _candidates(validation: CrossValidation, chosen: str) -> None:
    splits = [split for split in SPLITS if split in validation.splits]
    deciding = validation.deciding_split
    rows = []
    ranked = list(validation.ranking())
    for name in [*ranked, *(name for name in validation.refused if name not in ranked)]:
        row = [("* " if name == chosen else "  ") + name]
        for split in splits:
            scores = validation.scores.get(name, {}).get(split)
            if scores is None:
                row += ["refused", ""]
            else:
                row += [_short(scores.normalised_error.mean()), f"{scores.spearman.mean():.3f}"]
        scores = validation.scores.get(name, {}).get(deciding)
        row.append("" if scores is None else _short(scores.mae.mean(), 4))
        rows.append(row)
    columns = [text for split in splits for text in (SPLITS[split], "rank corr.")]
    of_mean = validation.scores[chosen][deciding].mae_of_mean.mean()
    table(["law (* chosen)", *columns, "abs. error"], rows, title="squared error, held out")
    decides = f"; {SPLITS[deciding]} decide" + ("s" if deciding == "scale" else "")
    line(
        "squared error: as a share of that of predicting the mean, over targets (0 perfect, 1 "
        f"useless){decides if len(splits) > 1 else ''}; the mean's abs. error is {of_mean:.4f}"
    )


def _by_target(
    fitted: FittedLaws,
    half_widths: Mapping[str, tuple[float, float]],
    noise: Noise,
    level: float,
) -> None:
    """The chosen law, worst targets first where they are many."""
    validation = fitted.cross_validation
    scores = validation.scores[fitted.law]["mixture"]
    ratio = scores.mae / scores.mae_of_mean
    overall = dict(zip(noise.targets, noise.overall.tolist(), strict=True))
    order = range(len(ratio))
    if len(ratio) > MOST_TARGETS:
        order = sorted(order, key=lambda t: -ratio[t])[:MOST_TARGETS]
    far = any(near != target for near, target in half_widths.values())
    rows = []
    for t in order:
        target = fitted.targets[t]
        near, at_target = half_widths[target]
        row = [target, f"{scores.mae[t]:.4f}", f"{scores.mae_of_mean[t]:.4f}", f"{ratio[t]:.2f}"]
        row += [f"{scores.spearman[t]:.3f}", f"± {near:.4f}"]
        row += [f"± {at_target:.4f}"] if far else []
        known = overall[target] == overall[target]
        rows.append([*row, f"{overall[target]:.4f}" if known else "-"])
    columns = ["target", "abs. error", "the mean's", "ratio", "rank corr.", f"{level:.0%} here"]
    columns += ["at target", "seed noise"] if far else ["seed noise"]
    table(columns, rows, title=f"\n{fitted.law}: new mixtures at the trained scales")
    if len(ratio) > MOST_TARGETS:
        line(f"the {MOST_TARGETS} worst of {len(ratio)} targets; --json has all")


def _short(number: float, digits: int = 3) -> str:
    return f"{number:.{digits}f}" if number < 1000 else f"{number:.1e}"
