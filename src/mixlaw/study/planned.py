"""Runs whose configs were written for a trainer of the user's: `runs.jsonl` beside the configs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw import __version__
from mixlaw.errors import MixlawError, StudyError
from mixlaw.files import parse_json, write_text
from mixlaw.schedule import Schedule

PLANNED = "runs.jsonl"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class PlannedRun:
    """One run that a trainer has a config for.

    Attributes:
        name: of its folder, and of the run for the trainer: by it the results are found.
        run_id: digest of what was asked for.
        schedule: what it trains on, as far as known: after the trainer's own rounding.
        num_params, train_tokens: None where the study does not say.
        config: the file to give to the trainer, relative to the folder of all runs.
        trainer: whose format it has.
    """

    name: str
    run_id: str
    schedule: Schedule
    num_params: float | None
    train_tokens: float | None
    seed: int
    config: str
    trainer: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: a line of runs.jsonl; "mixture" is the dose of a schedule."""
        return {
            "version": FORMAT_VERSION,
            "mixlaw": __version__,
            "run": self.name,
            "run_id": self.run_id,
            "mixture": dict(self.schedule.dose),
            "schedule": None if self.schedule.is_static else self.schedule.to_list(),
            "num_params": self.num_params,
            "train_tokens": self.train_tokens,
            "seed": self.seed,
            "config": self.config,
            "trainer": self.trainer,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlannedRun:
        """The inverse of `to_dict`. Raises: MixlawError, KeyError, TypeError: something else."""
        if data["version"] != FORMAT_VERSION:
            raise StudyError(
                f"it is of version {data['version']!r}, and mixlaw {__version__} reads "
                f"{FORMAT_VERSION}; write the configs again"
            )
        schedule = data["schedule"] or [[1.0, data["mixture"]]]
        counts = (data["num_params"], data["train_tokens"])
        return cls(
            data["run"],
            data["run_id"],
            Schedule.from_list(schedule),
            *counts,
            data["seed"],
            data["config"],
            data["trainer"],
        )

    def cells(self) -> dict[str, Any]:
        """What a row of a run table takes from it."""
        cells: dict[str, Any] = {f"weight/{n}": s for n, s in self.schedule.dose.items()}
        known = {"num_params": self.num_params, "train_tokens": self.train_tokens}
        cells |= {name: count for name, count in known.items() if count is not None}
        if not self.schedule.is_static:
            cells["schedule"] = json.dumps(self.schedule.to_list())
        return {**cells, "seed": self.seed}


def run_name(label: str, run_id: str) -> str:
    """A name of a run that can be that of a folder everywhere: no separator, no leading dot."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-")
    return f"{plain[:40] or 'run'}-{run_id[:8]}"


def planned_runs(folder: Path) -> dict[str, PlannedRun]:
    """Name -> run, as last written to the folder; none where nothing was.

    Raises: StudyError: the file is damaged.
    """
    path = folder / PLANNED
    if not path.exists():
        return {}
    found: dict[str, PlannedRun] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            if line.strip():
                run = PlannedRun.from_dict(parse_json(line))
                found[run.name] = run
        except (MixlawError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StudyError(
                f"{path}, line {number}: no planned run ({error}); remove that line, or write the "
                "configs again"
            ) from error
    return found


def read_planned(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> cells of the runs of a folder, for `mixlaw.interop.import_runs`.

    Raises: StudyError: there are none, or the file is damaged.
    """
    runs = planned_runs(folder)
    if not runs:
        raise StudyError(
            f"no planned runs in {folder}: it has no {PLANNED}; name the folder that "
            "mixlaw design --export-to wrote with --out"
        )
    return {name: run.cells() for name, run in runs.items()}


def add_planned(folder: Path, runs: Sequence[PlannedRun]) -> None:
    """Write runs beside those that the folder has; of the same name, the new one counts."""
    kept = planned_runs(folder) | {run.name: run for run in runs}
    lines = (json.dumps(run.to_dict(), allow_nan=False) + "\n" for run in kept.values())
    write_text(folder / PLANNED, "".join(lines))
