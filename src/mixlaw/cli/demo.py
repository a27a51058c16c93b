"""`mixlaw demo`: every step of a study on real text, told as it goes."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

from mixlaw.cli import show, show_continual, show_decision
from mixlaw.cli.swarm_view import swarm_view
from mixlaw.cli.terminal import line, step
from mixlaw.errors import StudyError
from mixlaw.files import write_text
from mixlaw.report import write_report
from mixlaw.study import Study


def run_demo(folder: Path, *, short: bool, continual: bool = False) -> None:
    """Run (or resume) the demo in `folder`: of a mixture, or of continuing a model.

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
    show.corpus(study.corpus().summary())
    last = _continue_a_model(study) if continual else _choose_a_mixture(study)
    step(last + 1, "Report")
    path = write_report(study)
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    line(f"wrote {path}: open it in a browser. All of it took {minutes} min {seconds} s.")


def _choose_a_mixture(study: Study) -> int:
    """Design, train, fit, optimize, verify. Returns: the number of the last step."""
    step(2, "Design: which mixtures are worth a proxy run")
    show.design(study.design())
    step(3, "Train the swarm: several proxies at once, a finished-schedule loss per horizon")
    with swarm_view() as on_progress:
        show.runs(study.train(on_progress))
    step(4, "Fit: every law on the same held-out mixtures and scales")
    show.fit(study)
    step(5, "Optimize: the best mixture for a larger model, with an interval")
    show_decision.decision(study.optimize())
    step(6, "Verify: train that larger model on it, and on the baselines")
    with swarm_view() as on_progress:
        show_decision.verification(study.verify(on_progress))
    return 6


def _continue_a_model(study: Study) -> int:
    """Train a base and what continues it, answer. Returns: the number of the last step."""
    step(2, "Continue: a base of the old text, then runs that continue it at shares of the new")
    with swarm_view() as on_progress:
        found = study.continual(on_progress)
    show_continual.runs(found)
    step(3, "Laws of the share, each share held out in turn")
    show_continual.laws(found)
    step(4, "Answer: how much new text the model takes, and how much must be replayed")
    show_continual.shares(found)
    return 4


def template(name: str) -> str:
    """A study file shipped with the package."""
    return (files("mixlaw.study") / "templates" / name).read_text(encoding="utf-8")
