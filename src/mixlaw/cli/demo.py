"""`mixlaw demo`: every step of a study on real text, told as it goes."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from mixlaw.cli import show, show_continual, show_decision, show_fit
from mixlaw.cli.swarm_view import swarm_view
from mixlaw.cli.terminal import line, step, working
from mixlaw.errors import StudyError
from mixlaw.files import write_text
from mixlaw.report import write_report
from mixlaw.study import Study


def run_demo(folder: Path, *, short: bool, continual: bool = False) -> dict[str, Any]:
    """Run (or resume) the demo in `folder`: of a mixture, or of continuing a model.

    Returns: what was found, JSON-able.
    Raises: StudyError: the folder holds another study.
    """
    started = time.perf_counter()
    name = "demo-continual" if continual else "demo"
    text = template(f"{name}-short.yaml" if short else f"{name}.yaml")
    file = folder / "study.yaml"
    if not file.exists():
        write_text(file, text)
    elif not file.is_file() or file.read_text(encoding="utf-8") != text:
        raise StudyError(
            f"{file} is not this demo's study; name another folder (mixlaw demo FOLDER), "
            "or delete this one"
        )
    study = Study(folder)
    step(1, "Corpus: real text of this Python environment, deduplicated, split, tokenised")
    with working("reading and tokenising the text"):
        built = study.corpus()
    show.corpus(built.summary())
    last, found = _continue_a_model(study) if continual else _choose_a_mixture(study)
    step(last + 1, "Report")
    with working("drawing the report"):
        path = write_report(study)
    taken = time.perf_counter() - started
    minutes, seconds = divmod(round(taken), 60)
    line(f"wrote {path}: open it in a browser. All of it took {minutes} min {seconds} s.")
    return {"study": str(folder), **found, "report": str(path), "seconds": round(taken, 1)}


def _choose_a_mixture(study: Study) -> tuple[int, dict[str, Any]]:
    """Design, train, fit, optimize, verify. Returns: the number of the last step, and findings."""
    step(2, "Design: which mixtures are worth a proxy run")
    show.design(study.design())
    step(3, "Train the swarm: several proxies at once, a finished-schedule loss per horizon")
    with swarm_view() as on_progress:
        show.runs(study.train(on_progress))
    step(4, "Fit: every law on the same held-out mixtures and scales")
    with working("fitting every law, judging it on held-out runs"):
        study.fit()
    show_fit.fit(study)
    step(5, "Optimize: the best mixture for a larger model, with an interval")
    with working("looking for the best mixture"):
        decision = study.optimize()
    show_decision.optimized(study, decision)
    step(6, "Verify: train that larger model on it, and on the baselines")
    with swarm_view() as on_progress:
        verification = study.verify(on_progress)
    show_decision.verification(verification)
    return 6, {"decision": decision.to_dict(), "verification": verification.to_dict()}


def _continue_a_model(study: Study) -> tuple[int, dict[str, Any]]:
    """Train a base and what continues it, answer. Returns: the number of the last step, and
    findings."""
    step(2, "Continue: a base of the old text, then runs that continue it at shares of the new")
    with swarm_view() as on_progress:
        found = study.continual(on_progress)
    show_continual.runs(found)
    step(3, "Laws of the share, each share held out in turn")
    show_continual.laws(found)
    step(4, "Answer: how much new text the model takes, and how much must be replayed")
    show_continual.shares(found)
    return 4, {"continual": found.to_dict()}


def template(name: str) -> str:
    """A study file shipped with the package."""
    return (files("mixlaw.study") / "templates" / name).read_text(encoding="utf-8")
