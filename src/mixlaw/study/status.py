"""What of a study is done, and what is next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.runs import FAILED, RunSpec
from mixlaw.store import RunStore
from mixlaw.study.artefacts import CONTINUAL, DECISION, FIT, REPORT, SCHEDULE, VERIFICATION

if TYPE_CHECKING:
    from mixlaw.study.study import Study

STEPS = ("corpus", "design", "train", "fit", "optimize", "verify", "report")


@dataclass(frozen=True)
class RunsStatus:
    """The steps up to the table of runs.

    Attributes:
        steps: step -> a line for people; None where it is not done.
        counts: of the swarm's runs "done", "failed", "planned".
    """

    steps: dict[str, str | None]
    counts: dict[str, int]

    @classmethod
    def of_table(cls, folder: Path, table: str) -> RunsStatus:
        """Of runs that come as a table, which is not there before the first is told."""
        steps: dict[str, str | None] = dict.fromkeys(STEPS[:3], f"from {table}")
        if not (folder / table).exists():
            steps["train"] = None
        return cls(steps, {"done": 0, "failed": 0, "planned": 0})

    @classmethod
    def of_swarm(cls, folder: Path, specs: Sequence[RunSpec] | None, store: RunStore) -> RunsStatus:
        """Of runs that the study trains; `specs` are None before the design."""
        steps: dict[str, str | None] = dict.fromkeys(STEPS[:3])
        if (folder / "corpus" / "corpus.json").exists():
            steps["corpus"] = "built"
        found = store.results(specs or ())
        results = [found[spec.run_id] for spec in specs or () if spec.run_id in found]
        failed = sum(result.status == FAILED for result in results)
        if specs is not None:
            steps["design"] = f"{len(specs)} runs"
            if len(results) == len(specs) and (folder / "runs.csv").exists():
                steps["train"] = f"{len(results)} runs, {failed} failed"
        counts = {"done": len(results), "failed": failed, "planned": len(specs or ())}
        return cls(steps, counts)


def with_continual(
    steps: dict[str, str | None], answered: str | None, *, alone: bool
) -> dict[str, str | None]:
    """The steps with that of continuing a model before the report; alone: without the swarm's."""
    kept = {step: line for step, line in steps.items() if not alone or step == "corpus"}
    kept.pop("report", None)
    return {**kept, "continual": answered, "report": steps["report"]}


def status_of(study: Study) -> dict[str, Any]:
    """As `Study.status`."""
    if study.config.table is not None:
        runs = RunsStatus.of_table(study.folder, study.config.table)
    else:
        specs = study._own("status").stored_design()
        runs = RunsStatus.of_swarm(study.folder, specs, study.store)
    steps = dict.fromkeys(STEPS) | runs.steps
    if study.from_table:
        del steps["verify"]
    # What was made from other settings or runs than the present ones is not done.
    if steps["train"] and study._artefacts.current(FIT, study._fit_basis()) is not None:
        steps["fit"] = FIT
        basis = study._deciding(study._scale_if_known()).basis()
        if study._artefacts.current(DECISION, basis) is not None:
            steps["optimize"] = DECISION
            if "verify" in steps and study.verification() is not None:
                steps["verify"] = VERIFICATION
            if study._artefacts.is_newest(REPORT):
                steps["report"] = REPORT
    if study.config.schedule is not None:
        report, decided = steps.pop("report"), steps["fit"] and study.schedule_decision()
        steps |= {"schedule": SCHEDULE if decided else None, "report": report}
    if study.config.continual is not None:
        answered = CONTINUAL if study.continual_answer() is not None else None
        steps = with_continual(steps, answered, alone=study.only_continual)
        if study.only_continual and answered and study._artefacts.is_newest(REPORT):
            steps["report"] = REPORT
    following = next((step for step, line in steps.items() if line is None), None)
    if study.from_table and following == "train":
        following = "design --next 1"
    return {
        "folder": str(study.folder),
        "steps": steps,
        "runs": runs.counts,
        "next": following,
        "export": _way_out(study) if steps.get("optimize") else None,
    }


def _way_out(study: Study) -> str:
    """The command that hands the decision to a trainer."""
    to = "" if study.config.export.to else " --to TRAINER"
    return f"mixlaw export {shlex.quote(str(study.folder))}{to}"
