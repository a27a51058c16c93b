"""`mixlaw demo`: every step of a study on real text, told as it goes."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

from mixlaw.cli import show, show_decision
from mixlaw.cli.swarm_view import swarm_view
from mixlaw.cli.terminal import line, step
from mixlaw.errors import StudyError
from mixlaw.files import write_text
from mixlaw.report import write_report
from mixlaw.study import Study


def run_demo(folder: Path, *, short: bool) -> None:
    """Run (or resume) the demo in `folder`.

    Raises: StudyError: the folder holds another study.
    """
    started = time.perf_counter()
    text = template("demo-short.yaml" if short else "demo.yaml")
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
    step(7, "Report")
    path = write_report(study)
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    line(f"wrote {path}: open it in a browser. All of it took {minutes} min {seconds} s.")


def template(name: str) -> str:
    """A study file shipped with the package."""
    return (files("mixlaw.study") / "templates" / name).read_text(encoding="utf-8")
