"""What of a study is done: the steps that come before a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixlaw.runs import FAILED, RunSpec
from mixlaw.store import RunStore

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
