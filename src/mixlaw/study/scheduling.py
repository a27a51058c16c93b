"""From a study's settings, its static laws and its staged runs to a decision on schedules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.files import digest
from mixlaw.laws import FittedLaws
from mixlaw.runs import VERIFY, RunTable, higher_is_better
from mixlaw.stages import FittedStages, ScheduleDecision, fit_stages, optimize_schedule
from mixlaw.stages.decision import FORMAT_VERSION as DECISION_FORMAT
from mixlaw.stages.fitting import FORMAT_VERSION as STAGES_FORMAT
from mixlaw.study.artefacts import SCHEDULE, STAGES, Artefacts
from mixlaw.study.config import StudyConfig
from mixlaw.study.deciding import Deciding
from mixlaw.study.schedule_config import ScheduleConfig


def refuse_scores(config: StudyConfig, file: Path) -> None:
    """Raises: StudyError: the objective, or one of its floors, is on a score."""
    objective = config.objective.build()
    scores = [t for t in (*objective.targets, *objective.floors) if higher_is_better(t)]
    if scores:
        raise StudyError(
            f"{file}: the objective names {scores}, and what the order of the data does is learnt "
            "for losses only; name losses (loss/, bpb/ or error/)"
        )


@dataclass(frozen=True, eq=False)
class Scheduling:
    """What a study decides about the order of its data.

    Attributes:
        deciding: the same question for static mixtures.
        staged: the table with the rows of schedules, whatever else it has.
        file: of the study.
    """

    deciding: Deciding
    staged: RunTable
    file: Path

    @property
    def artefacts(self) -> Artefacts:
        return Artefacts(self.file.parent, self.deciding.config.seed)

    @cached_property
    def runs(self) -> RunTable:
        """Static rows and those of schedules. Raises: StudyError: no finished one of a schedule."""
        runs = self._learnt_from
        if not len(runs.done().staged()):
            raise StudyError(
                f"{self.file}: no finished run changed its mixture during training, so nothing "
                "tells what the order of the data does; a table gives the mixtures of such runs in "
                'a column "schedule", as [[0.8, {"web": 1}], [0.2, {"web": 0.5, "code": 0.5}]]'
            )
        static = self.deciding.runs
        others = static.select(~np.isin(static.run, runs.run))
        return RunTable.from_rows([*others.rows(), *runs.rows()]) if len(others) else runs

    @property
    def _learnt_from(self) -> RunTable:
        runs = self.staged.trained()
        return runs.select(runs.role != VERIFY)

    @property
    def settings(self) -> ScheduleConfig:
        return self.deciding.config.schedule or ScheduleConfig()

    def fit(self) -> FittedStages:
        """The stage law. Raises: FitError: as `fit_stages`."""
        static, seed = self.deciding.fitted, self.deciding.config.seed

        def make() -> dict[str, Any]:
            found = fit_stages(self.runs, static, seed=seed).to_dict()
            return {name: part for name, part in found.items() if name != "static"}  # fit.json's

        found = self.artefacts.cached(STAGES, self._fit_basis(static), make)
        return FittedStages.from_dict({**found, "static": static.to_dict()})

    def _fit_basis(self, static: FittedLaws) -> dict[str, Any]:
        runs, fit = digest(self.runs.rows()), digest(static.to_dict())
        return {"runs": runs, "fit": fit, "format": STAGES_FORMAT}

    def basis(self) -> dict[str, Any]:
        """All that the decision is made from, JSON-able."""
        stages = {"stages": [list(shares) for shares in self.settings.stages]}
        stages |= {"schedule_format": DECISION_FORMAT}
        return self.deciding.basis() | self._fit_basis(self.deciding.fitted) | stages

    def decide(self) -> ScheduleDecision:
        """The stored decision, or a new one. Raises: as `optimize_schedule`."""
        found = self.artefacts.cached(SCHEDULE, self.basis(), lambda: self._decide().to_dict())
        return ScheduleDecision.from_dict(found)

    def stored(self) -> ScheduleDecision | None:
        """The decision, if it was made from the present runs and settings."""
        if not len(self._learnt_from.done().staged()):
            return None
        found = self.artefacts.current(SCHEDULE, self.basis())
        return None if found is None else ScheduleDecision.from_dict(found)

    def _decide(self) -> ScheduleDecision:
        deciding, config = self.deciding, self.deciding.config
        num_params, train_tokens = deciding.target.counts
        decision = optimize_schedule(
            self.fit(),
            deciding.objective,
            domains=deciding.domains,
            constraints=config.constraints.build(),
            num_params=num_params,
            train_tokens=train_tokens,
            stage_shares=self.settings.stages,
            baselines=deciding.baselines(),
            guard=config.optimize.guard,
            level=config.fit.level,
            seed=config.seed,
        )
        if config.optimize.robust is None:
            return decision
        text = "optimize.robust is not kept: the schedule and the static mixture are of the one fit"
        return replace(decision, warnings=(*decision.warnings, text))
