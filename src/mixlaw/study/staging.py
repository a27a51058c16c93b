"""The staged runs of a study that trains: to learn from, and to verify a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.files import digest
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.runs import SWARM, VERIFY, RunSpec, RunTable
from mixlaw.stages import ScheduleDecision
from mixlaw.study.artefacts import SCHEDULE_VERIFICATION, STAGED_DESIGN
from mixlaw.study.config import StudyConfig
from mixlaw.study.launching import Launching, refuse_missing
from mixlaw.study.own_runs import OwnRuns
from mixlaw.study.schedule_config import ScheduleConfig, refuse_empty_stages
from mixlaw.study.schedule_verification import FORMAT_VERSION as VERIFICATION_FORMAT
from mixlaw.study.schedule_verification import (
    ONLINE,
    ScheduleVerification,
    compared,
    online_settings,
    online_start,
    verify_schedule,
)
from mixlaw.study.staged_design import StagedSpace, staged_schedules

STAGED_TABLE = "staged.csv"

WITHIN = 1e-6
"""How far a share may lie beyond a bound by rounding."""


@dataclass(frozen=True)
class StagedRuns:
    """Runs on schedules beside a swarm. They are kept from its table: the static laws never see
    them."""

    own: OwnRuns

    @property
    def config(self) -> StudyConfig:
        return self.own.config

    @property
    def settings(self) -> ScheduleConfig:
        return self.config.schedule or ScheduleConfig()

    def design(self, optimum: Mixture) -> list[RunSpec]:
        """The staged runs: as stored while the swarm and the schedule section are the same, so that
        a decision that moves later does not ask for new ones.

        Args: optimum: the best static mixture.
        Raises: StudyError, DesignError: no such runs.
        """
        self.own.design()  # refuses an edited study before anything is trained
        specs = self._stored_design()
        if specs is None:
            specs = self._make(optimum)
            found = [spec.to_dict() for spec in specs]
            self.own.artefacts.write(STAGED_DESIGN, self._design_basis(), found)
        return specs

    def _stored_design(self) -> list[RunSpec] | None:
        stored = self.own.artefacts.read(STAGED_DESIGN)
        if stored is None or stored["inputs"] != digest(self._design_basis()):
            return None
        return [RunSpec.from_dict(spec) for spec in stored["result"]]

    def _design_basis(self) -> dict[str, Any]:
        return {"swarm": self.own.training.basis(), "schedule": self.settings.model_dump()}

    @property
    def complete(self) -> bool:
        """Whether the table has a result of every run that the study asks for."""
        specs = self._stored_design()
        if specs is None or not (self.own.folder / STAGED_TABLE).exists():
            return False
        return {spec.run_id for spec in specs} <= set(self.table().trained().run.tolist())

    def _make(self, optimum: Mixture) -> list[RunSpec]:
        training, config, settings = self.own.training, self.config, self.settings
        try:
            settings.check_training(config)
        except ValueError as error:
            raise StudyError(f"{self.own.file}: {error}") from error
        size = settings.trained_size(config)
        domains, given = training.proxy_domains(), config.design
        names = [domain.name for domain in domains]
        lower, upper = Constraints(given.lower, given.upper).bounds(domains)
        capped = Constraints(given.lower, given.upper, given.max_epochs)
        _, most = capped.bounds(domains, config.longest_tokens(size))
        best = optimum.array(names)
        inside = np.all((best >= lower - WITHIN) & (best <= most + WITHIN))
        swarm = (spec for spec in self.own.design() if spec.size == size and spec.role == SWARM)
        schedules = staged_schedules(
            StagedSpace(names, lower, upper, settings.stages),
            trained=np.stack([spec.mixture.array(names) for spec in swarm]),
            optimum=best if inside else None,
            count=settings.runs,
        )
        seed, horizons = config.seed, config.horizon_steps(size)
        return [
            training.spec(schedule, f"s{i:02d}", SWARM, seed, size, horizons)
            for i, schedule in enumerate(schedules)
        ]

    def train(self, optimum: Mixture, launching: Launching) -> RunTable:
        """Train the staged runs that are missing, and write the table.

        Raises: TrainError: runs still have no result, after the table is written; it names them.
        """
        specs = self.design(optimum)
        missing = launching.train(self.own.swarm, specs)
        runs = self._write_table(specs, self._verified_specs())
        refuse_missing(missing, specs)
        return runs

    def table(self) -> RunTable:
        """As last written. Raises: StudyError: there is none yet."""
        path = self.own.folder / STAGED_TABLE
        if not path.exists():
            raise StudyError(f"no staged runs in {self.own.folder}; first: mixlaw schedule")
        return RunTable.read(path)

    def verify(
        self, decision: ScheduleDecision, launching: Launching, *, online: bool = False
    ) -> ScheduleVerification:
        """Train the target size on the staged schedule, the best static mixture and the one of the
        same dose; compare.

        Args: online: also runs that adapt their own mixture.
        Raises: StudyError: the target cannot be trained here, or there is no schedule to verify.
            TrainError: as `train`.
        """
        specs = self._verify_specs(decision, online=online)
        missing = launching.train(self.own.swarm, specs)
        runs = self._write_table(self.design(decision.static.schedule.dose), specs)
        refuse_missing(missing, specs)
        found = verify_schedule(decision, runs.select(runs.role == VERIFY))
        basis = self._verification_basis(decision, specs)
        self.own.artefacts.write(SCHEDULE_VERIFICATION, basis, found.to_dict())
        return found

    def verification(self, decision: ScheduleDecision) -> ScheduleVerification | None:
        """The stored verification, if it is of this decision and of present settings."""
        online = any(spec.online is not None for spec in self._verified_specs())
        if self.own.artefacts.read(SCHEDULE_VERIFICATION) is None:
            return None
        specs = self._verify_specs(decision, online=online)
        basis = self._verification_basis(decision, specs)
        stored = self.own.artefacts.current(SCHEDULE_VERIFICATION, basis)
        return None if stored is None else ScheduleVerification.from_dict(stored)

    def _verify_specs(self, decision: ScheduleDecision, *, online: bool) -> list[RunSpec]:
        if decision.staged.schedule.is_static:
            raise StudyError(
                f"{self.own.file}: the best schedule found is a static mixture, so there is no "
                "order to verify; mixlaw verify trains the static one"
            )
        schedules = {name: one.schedule for name, one in compared(decision).items()}
        try:
            specs = self.own.training.verify_specs(schedules)
            steps = specs[0].horizon_tokens[-1] // self.config.recipe(specs[0].size).tokens_per_step
            shares = decision.staged.schedule.shares.tolist()
            refuse_empty_stages(shares, steps, "the target run")
            return [*specs, *(self._online_specs(decision, specs) if online else ())]
        except (StudyError, ValueError) as error:
            raise StudyError(f"{self.own.file}: {error}") from error

    def _online_specs(self, decision: ScheduleDecision, specs: Sequence[RunSpec]) -> list[RunSpec]:
        """One for each seed of the others."""
        cap, tokens = self.config.constraints.max_epochs, specs[0].horizon_tokens[-1]
        online = online_settings(decision, cap)
        pools = specs[0].pools or {}
        domains = [
            Domain(d.name, pools.get(d.name, d.available_tokens)) for d in self.own.corpus.domains
        ]
        start = online_start(decision.static.schedule.dose, domains, tokens, online.max_epochs)
        first = {spec.seed: spec for spec in reversed(specs)}
        return [
            replace(spec, label=ONLINE, mixture=start, schedule=None, online=online)
            for _, spec in sorted(first.items())
        ]

    def _verification_basis(
        self, decision: ScheduleDecision, specs: Sequence[RunSpec]
    ) -> dict[str, Any]:
        basis = {"decision": digest(decision.to_dict()), "format": VERIFICATION_FORMAT}
        return basis | {"runs": [spec.to_dict() for spec in specs]}

    def _verified_specs(self) -> list[RunSpec]:
        """Specs of the last verification, whatever has been decided since."""
        data = self.own.artefacts.read(SCHEDULE_VERIFICATION)
        return [RunSpec.from_dict(spec) for spec in data["basis"]["runs"]] if data else []

    def _write_table(self, specs: Sequence[RunSpec], verify_specs: Sequence[RunSpec]) -> RunTable:
        """Write staged.csv from the store: the staged runs, those without a result as missing, and
        the finished verification runs.

        Raises: RunTableError: no run has values.
        """
        unique = {d.name: d.available_tokens for d in self.own.corpus.domains if d.available_tokens}
        finished = self.own.store.finished()
        found = [*specs, *(spec for spec in verify_specs if spec.run_id in finished)]
        table = self.own.store.table(
            found, list(self.config.domains), available_tokens=unique, missing=True
        )
        table.write(self.own.folder / STAGED_TABLE)
        return table
