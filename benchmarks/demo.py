"""The demo judged: time, held-out error at the trained sizes, and the verification.

`python -m benchmarks.demo [FOLDER]` runs `mixlaw demo FOLDER` from nothing and reads its artefacts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.table import markdown, publish
from mixlaw.study import Study
from mixlaw.study.verification import seed_noise

MAIN = "from mixlaw.cli import main; main()"


def run(folder: Path, *options: str) -> float:
    """Seconds of the whole demo as a process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", MAIN, "demo", str(folder), *options], check=True)
    return time.perf_counter() - started


def held_out(study: Study) -> str:
    """Chosen law on held-out mixtures at the trained scales, per target."""
    fitted = study.fit()
    scores = fitted.cross_validation.scores[fitted.law]["mixture"]
    rows = [
        [target, f"{mae:.4f}", f"{mean:.4f}", f"{mae / mean:.2f}", f"{rho:.3f}"]
        for target, mae, mean, rho in zip(
            fitted.targets, scores.mae, scores.mae_of_mean, scores.spearman, strict=True
        )
    ]
    columns = [
        "target",
        "mean abs. error",
        "of predicting the mean",
        "ratio (<= .5)",
        "Spearman (>= .9)",
    ]
    return f"Law chosen: {fitted.law}.\n\n" + markdown(columns, rows)


def laws(study: Study) -> str:
    """Every candidate on both splits."""
    validation = study.fit().cross_validation
    rows, reasons = [], []
    ranking = validation.ranking()
    for name in [*ranking, *(name for name in validation.scores if name not in ranking)]:
        row = [name]
        for split in validation.splits:
            found = validation.scores[name].get(split)
            if found is None:
                row += ["refused", ""]
                reasons.append(f"{name}: {validation.refused[name][split]}")
            else:
                row += [f"{found.normalised_error.mean():.3f}", f"{found.spearman.mean():.3f}"]
        rows.append(row)
    columns = ["law"]
    for split in validation.splits:
        columns += [f"{split} split: squared error / that of the mean", "Spearman"]
    text = markdown(columns, rows) + "".join(f"\n\nRefused {reason}." for reason in reasons)
    alone = study.fit().at_largest
    if alone is not None:
        scores = [alone.scores[name][alone.deciding_split] for name in alone.ranking()]
        rows = [
            [name, f"{s.normalised_error.mean():.3f}", f"{s.spearman.mean():.3f}"]
            for name, s in zip(alone.ranking(), scores, strict=True)
        ]
        columns = ["law of the mixture alone, largest scale", "squared error", "Spearman"]
        text += "\n\n" + markdown(columns, rows)
    return text


def verification(study: Study) -> str:
    """Predicted against observed."""
    found = study.verification()
    assert found is not None, "the demo verifies"
    rows = [
        [
            name,
            f"{v.predicted.value:.4f} ± {v.predicted.half_width:.4f}",
            f"{v.mean:.4f}",
            ", ".join(f"{x:.4f}" for x in v.observed),
            "yes" if v.inside else "no",
        ]
        for name, v in found.mixtures.items()
    ]
    out = markdown(["mixture", "predicted", "observed", "by seed", "in the interval"], rows)
    noise = seed_noise(study.runs(), study.objective)
    largest = max(noise)
    out += f"\n\nSeed noise of the objective at {largest[0]:,.0f} parameters and "
    out += f"{largest[1]:,.0f} tokens: {noise[largest]:.4f} (standard deviation)."
    for name, gain in found.gains.items():
        share = gain.tokens_share
        reached = "never as good" if share is None else f"as good with {share:.0%} of its tokens"
        out += f"\n\nAgainst {name}: gain {gain.mean:.4f} observed ({gain.predicted:.4f} predicted)"
        out += f", {np.ptp(gain.observed):.4f} between seeds; {reached}."
    return out


def main(folder: Path | None = None) -> None:
    folder = folder or Path(tempfile.mkdtemp()) / "demo"
    seconds = run(folder)
    short = Path(tempfile.mkdtemp()) / "short"
    short_seconds = run(short, "--short")
    study = Study(folder)
    body = f"`mixlaw demo`: {seconds:.0f} s; `mixlaw demo --short`: {short_seconds:.0f} s.\n\n"
    body += "\n\n".join(
        [
            "## Held-out mixtures at the trained sizes",
            held_out(study),
            "## Every law",
            laws(study),
            "## Verification",
            verification(study),
        ]
    )
    publish("demo", "The demo", "python -m benchmarks.demo", body)
    shutil.rmtree(short, ignore_errors=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
